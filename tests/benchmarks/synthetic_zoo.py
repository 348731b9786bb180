"""Write a zoo folder of ViT-S/16 members with untrained weights, for benchmarks.

``python -m tests.benchmarks.synthetic_zoo FOLDER --members 40`` writes 40 parents of 87 MB. The files are complete; the
metrics in metrics.jsonl are zeros.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import structs
from safetensors.torch import save_file

from training.member.initialisation import initialise
from vitzoo import records
from vitzoo.architectures import disk_name
from vitzoo.ids import MemberId
from vitzoo.models.vit import VitZooConfig, VitZooModel
from vitzoo.records import json_files, layout
from vitzoo.records.dataset_spec import DatasetSpec
from vitzoo.records.files import file_sha256
from vitzoo.sources.folder import FolderSource
from vitzoo.tables.catalogue import write_tables


def write_synthetic_zoo(root: Path, *, members: int) -> None:
    """Write a zoo of ViT-S/16 parents with a linear head of 100 classes into a new folder."""
    recipe = {"name": "synthetic", "members": members}
    zoo = records.ZooRecord(recipe=recipe, recipe_sha256=json_files.json_sha256(recipe))
    root.mkdir(parents=True)
    json_files.write_json(root / layout.ZOO_JSON, zoo)
    for number in range(members):
        _write_member(root, MemberId(number))
    write_tables(FolderSource(root))


def _write_member(root: Path, member: MemberId) -> None:
    labels = {label: str(label) for label in range(100)}
    model = VitZooModel(
        VitZooConfig(
            id2label=labels,
            label2id={name: i for i, name in labels.items()},
            architectures=["VitZooModel"],
            dtype="float32",
        )
    )
    initialise(model, init_seed=member.parent, head_seed=member.parent)
    folder = root / layout.member_folder(member)
    folder.mkdir()
    model.config.save_pretrained(folder)
    weights = root / layout.weights_file(member)
    tensors = {disk_name(name): tensor for name, tensor in model.state_dict().items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    final = records.WeightsRecord(epoch=None, size=weights.stat().st_size, sha256=file_sha256(weights))
    (root / layout.weights_file(member, 0)).hardlink_to(weights)
    record = records.MemberRecord(
        **_member_values(member),
        num_parameters=model.num_parameters(),
        weights=(structs.replace(final, epoch=0), final),
    )
    json_files.write_json(root / layout.member_file(member), record)
    json_files.write_lines(root / layout.metrics_file(member), [_epoch_record(final.sha256)])


def _member_values(member: MemberId) -> dict[str, Any]:
    nothing = dict.fromkeys(
        (
            *("parent", "parent_epoch", "parent_sha256", "diverged_step", "last_good_epoch"),
            *("head_width", "momentum", "commit"),
        )
    )
    zeros = dict.fromkeys(
        ("n_train", "n_train_evaluated", "n_val", "n_test", "epochs", "steps", "replicate", "batch_size"), 0
    )
    seeds = dict.fromkeys(("init_seed", "head_seed", "order_seed", "augmentation_seed"), member.parent)
    rates = dict.fromkeys(
        ("learning_rate", "weight_decay", "mixup", "cutmix", "label_smoothing", "random_erasing"), 0.0
    )
    return {
        "id": str(member),
        "init_group": f"init-{member.parent}",
        "stage": "pretraining",
        "status": "completed",
        "objective": "supervised",
        "dataset": "none",
        "dataset_spec": DatasetSpec(name="none"),
        "dataset_revision": "none",
        "dataset_fingerprint": "none",
        "classes": tuple(map(str, range(100))),
        "head_type": "linear",
        "head_role": "classifier",
        "optimizer": "adamw",
        "schedule": "constant",
        "precision": "fp32",
        "compile": "none",
        "ranks": 1,
        "versions": {},
        "deviations": ("never trained",),
        **nothing,
        **zeros,
        **seeds,
        **rates,
    }


def _epoch_record(content: str) -> records.EpochRecord:
    names = dict.fromkeys(set(records.EpochRecord.__struct_fields__) - {"extra"}, 0.0)
    ids = {"weights_id": content, "backbone_id": hashlib.sha256(content.encode()).hexdigest()}
    return records.EpochRecord(**names | {"epoch": 0, "step": 0, "samples_seen": 0} | ids)  # pyright: ignore[reportArgumentType]


def main(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    members: Annotated[int, typer.Option(min=1, help="Number of parents, of 87 MB each.")] = 40,
) -> None:
    """Write a zoo of untrained ViT-S/16 members."""
    write_synthetic_zoo(folder, members=members)


if __name__ == "__main__":
    typer.run(main)
