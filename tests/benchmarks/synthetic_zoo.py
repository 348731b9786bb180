"""Write a zoo folder of ViT-S/16 members, or of masked BERTs of as many bytes, with untrained weights, for benchmarks.

``python -m tests.benchmarks.synthetic_zoo FOLDER --members 40`` writes 40 parents of 87 MB. Weights and records are
complete, without a tokenizer; the metrics in metrics.jsonl are zeros.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from msgspec import structs
from safetensors.torch import save_file

from training.member.initialisation import initialise
from training.member.start import saved_tensors
from vitzoo import records
from vitzoo.architectures import disk_name
from vitzoo.architectures.bert import BertSizes
from vitzoo.ids import MemberId
from vitzoo.images import Preprocessing
from vitzoo.images.processor import image_processor, processor_arguments
from vitzoo.models.bert import BertZooForMaskedLM
from vitzoo.models.loading import MemberModel
from vitzoo.models.vit import VitZooConfig, VitZooModel
from vitzoo.records import json_files, layout
from vitzoo.records.dataset_spec import DatasetSpec
from vitzoo.records.files import file_sha256
from vitzoo.sources.folder import FolderSource
from vitzoo.tables.catalogue import write_tables

Kind = Literal["vit", "bert"]
BERT = BertSizes(  # of MiniLM-L6-H384 but for the vocabulary, which makes the file as large as ViT-S/16's
    vocab_size=27_819,
    max_position_embeddings=512,
    hidden_size=384,
    num_hidden_layers=6,
    num_attention_heads=12,
    intermediate_size=1536,
)


def write_synthetic_zoo(root: Path, *, members: int, kind: Kind = "vit") -> None:
    """Write a zoo of parents into a new folder: ViT-S/16 with a linear head of 100 classes, or masked BERTs."""
    recipe = {"name": "synthetic", "members": members}
    zoo = records.ZooRecord(recipe=recipe, recipe_sha256=json_files.json_sha256(recipe))
    root.mkdir(parents=True)
    for number in range(members):
        _write_member(root, MemberId(number), _make_vit() if kind == "vit" else _make_bert())
    json_files.write_json(root / layout.ZOO_JSON, zoo)  # last: a model is never saved in a member's folder
    write_tables(FolderSource(root))


def _make_vit() -> MemberModel:
    labels = {label: str(label) for label in range(100)}
    return VitZooModel(
        VitZooConfig(
            id2label=labels,
            label2id={name: i for i, name in labels.items()},
            architectures=["VitZooModel"],
            dtype="float32",
        )
    )


def _make_bert() -> MemberModel:
    return BertZooForMaskedLM(BertZooForMaskedLM.config_for(BERT, outputs=BERT.vocab_size, role="masked"))


def _write_member(root: Path, member: MemberId, model: MemberModel) -> None:
    initialise(model, init_seed=member.parent, head_seed=member.parent)
    folder = root / layout.member_folder(member)
    folder.mkdir()
    model.config.save_pretrained(folder)
    if isinstance(model, VitZooModel):
        arguments = processor_arguments(Preprocessing(), image_size=224, mean=(0.5,) * 3, std=(0.5,) * 3)
        image_processor(arguments).save_pretrained(folder)
    weights = root / layout.weights_file(member)
    tensors = {disk_name(name): tensor for name, tensor in saved_tensors(model).items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    final = records.WeightsRecord(epoch=None, size=weights.stat().st_size, sha256=file_sha256(weights))
    (root / layout.weights_file(member, 0)).hardlink_to(weights)
    record = records.MemberRecord(
        **_member_values(member),
        objective="supervised" if isinstance(model, VitZooModel) else "masked",
        classes=tuple(map(str, range(100))) if isinstance(model, VitZooModel) else (),
        head_role=model.config.head_role,
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
        "dataset": "none",
        "dataset_spec": DatasetSpec(name="none"),
        "dataset_revision": "none",
        "dataset_fingerprint": "none",
        "head_type": "linear",
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
    kind: Annotated[Kind, typer.Option(help="Architecture of the members.")] = "vit",
) -> None:
    """Write a zoo of untrained members."""
    write_synthetic_zoo(folder, members=members, kind=kind)


if __name__ == "__main__":
    typer.run(main)
