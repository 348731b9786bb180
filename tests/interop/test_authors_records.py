"""Records of imported models: factors, metrics, provenance and saved epochs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.interop.imported import SHORT, contents, digest, import_tiny, on_disk, place, problems
from tests.interop.release import Release, ReleasedModel, write_release
from tests.interop.release_records import Child, Parent
from vitzoo.ids import MemberId
from vitzoo.interop.engine import ImportReport
from vitzoo.records import EpochRecord, MemberRecord, layout, load_epoch_records, load_member_record


def members(release: Release, zoo: Path, report: ImportReport) -> list[tuple[ReleasedModel, MemberRecord]]:
    """Every member's model and record."""
    models = {place(model): model for model in release.models}
    return [
        (models[folder], load_member_record(zoo / layout.member_file(MemberId.parse(member))))
        for member, folder in report.taken.items()
    ]


def metrics_of(zoo: Path, member: str) -> list[EpochRecord]:
    return load_epoch_records(zoo / layout.metrics_file(MemberId.parse(member)))


def kept(zoo: Path, member: str) -> list[int | None]:
    """The epochs whose weights a member's record and folder have."""
    record = load_member_record(zoo / member / "member.json")
    names = {layout.weights_name(weights.epoch) for weights in record.weights}
    assert names == {path.name for path in (zoo / member).glob("*.safetensors")}
    return [weights.epoch for weights in record.weights]


def test_factors_are_those_of_config_result_and_name(
    authors_release: Release, authors_import: tuple[Path, ImportReport]
) -> None:
    zoo, report = authors_import
    for model, record in members(authors_release, zoo, report):
        spec, contrastive = model.spec, record.objective == "contrastive"
        expected: dict[str, Any] = {
            "optimizer": spec.optimizer,
            "learning_rate": spec.learning_rate,
            "weight_decay": spec.weight_decay,
            "momentum": None if spec.optimizer == "adamw" else spec.momentum,
            "batch_size": spec.batch_size,
            "epochs": spec.epochs,
            **dict.fromkeys(("head_seed", "order_seed", "augmentation_seed"), spec.seed),
            "status": "completed",
            "schedule": "constant",
            "precision": "fp32",
            "ranks": 1,
            "mixup": 0.0 if contrastive else 0.8,
            "cutmix": 0.0 if contrastive else 1.0,
            "label_smoothing": 0.0 if contrastive else 0.1,
            "random_erasing": 0.0 if contrastive else 0.25,
            "num_parameters": sum(tensor.numel() for tensor in model.states[1].values()),
        }
        if isinstance(spec, Child):
            expected |= {"stage": "finetuning", "objective": "supervised", "dataset": "uoft-cs/cifar100"}
            expected |= {"head_type": "mlp" if spec.head_width else "linear", "head_width": spec.head_width}
            expected |= {"head_role": "classifier", "n_train": 50_000, "n_test": 9_984, "steps": spec.epochs * 195}
            assert (len(record.classes), record.classes[0], record.classes[99]) == (100, "apple", "worm")
        else:
            expected |= {"stage": "pretraining", "dataset": "ILSVRC/imagenet-1k", "n_train": 1_281_167}
            expected |= {"objective": {"sl": "supervised", "cl": "contrastive"}[spec.mode], "head_width": None}
            expected |= {"head_role": {"sl": "classifier", "cl": "embedding"}[spec.mode], "init_seed": spec.seed}
            expected |= {"steps": spec.epochs * (1_281_167 // spec.batch_size), "parent": None, "parent_epoch": None}
        assert {name: getattr(record, name) for name in expected} == expected


def test_children_name_what_they_started_from(authors_import: tuple[Path, ImportReport]) -> None:
    zoo, _ = authors_import
    for child, epoch, seed in (("pt-0/ft-0", 4, 42), ("pt-0/ft-3", 4, 42), ("pt-2/ft-0", 2, 42), ("pt-2/ft-3", 2, 42)):
        record = load_member_record(zoo / child / "member.json")
        parent = zoo / child.partition("/")[0]
        assert (record.parent, record.parent_epoch, record.init_seed) == (parent.name, epoch, seed)
        assert record.parent_sha256 == digest(parent / "model.safetensors")
        assert record.parent_sha256 == digest(parent / f"model.epoch-{epoch:02}.safetensors")
        assert record.init_group == load_member_record(parent / "member.json").init_group == "init-42"
        first, last = metrics_of(zoo, child)[0], metrics_of(zoo, parent.name)[-1]
        assert first.backbone_id == last.backbone_id
        assert first.weights_id != last.weights_id


def test_setting_in_the_name_alone_is_noted(
    authors_release: Release, authors_import: tuple[Path, ImportReport]
) -> None:
    zoo, report = authors_import
    model = authors_release.children[1]
    record = load_member_record(zoo / "pt-0/ft-1/member.json")
    assert report.taken["pt-0/ft-1"] == place(model)
    assert (record.learning_rate, record.weight_decay, record.head_seed) == (3e-3, 0.0, 42)
    assert report.notes == {
        place(model): [
            "seed is in its name alone: 42",
            "optim::lr is in its name alone: 0.003",
            "optim::wd is in its name alone: 0.0",
        ]
    }


def test_metrics_are_those_of_result_json(authors_release: Release, authors_import: tuple[Path, ImportReport]) -> None:
    zoo, report = authors_import
    for model, record in members(authors_release, zoo, report):
        found = metrics_of(zoo, record.id)
        assert [metrics.epoch for metrics in found] == list(range(model.spec.epochs + 1))
        contrastive = record.objective == "contrastive"
        for metrics in found:
            row = model.metrics(metrics.epoch)
            assert metrics.train_loss_running == (row["train_loss"] if metrics.epoch else None)
            assert (metrics.test_loss, metrics.val_loss) == (row["test_loss"], row.get("val_loss"))
            assert metrics.test_accuracy == (None if contrastive else row["test_acc"])
            assert metrics.val_accuracy == row.get("val_acc")
            assert (metrics.train_loss, metrics.train_accuracy, metrics.test_knn_accuracy) == (None, None, None)
            assert metrics.learning_rate == model.spec.learning_rate
            assert record.steps is not None
            assert metrics.step == metrics.epoch * record.steps // model.spec.epochs
            assert metrics.step is not None
            assert metrics.samples_seen == metrics.step * model.spec.batch_size
        assert record.n_val == (None if model.spec.validated else 0)
        timings = [json.loads(line) for line in (zoo / record.id / "timing.jsonl").read_text().splitlines()]
        assert [list(row.values()) for row in timings] == [
            [row["training_iteration"], row["time_this_iter_s"]] for row in model.rows
        ]
    assert sum(record.n_val is None for _, record in members(authors_release, zoo, report)) == 1


def test_norms_and_distances_are_those_of_the_weights(
    authors_release: Release, authors_import: tuple[Path, ImportReport]
) -> None:
    zoo, report = authors_import
    for model, record in members(authors_release, zoo, report):
        start = on_disk(model.states[0]) if 0 in model.states else None
        for metrics in metrics_of(zoo, record.id):
            if metrics.epoch not in model.states:
                assert (metrics.weights_id, metrics.backbone_id, metrics.weight_norm) == (None, None, None)
                continue
            weights = on_disk(model.states[metrics.epoch])
            norm = torch.cat([tensor.double().flatten() for tensor in weights.values()]).norm().item()
            assert metrics.weight_norm == pytest.approx(norm, rel=1e-12)
            if start is None:
                assert metrics.distance_from_start is None
                continue
            moved = [(tensor.double() - start[name].double()).flatten() for name, tensor in weights.items()]
            assert metrics.distance_from_start == pytest.approx(torch.cat(moved).norm().item(), rel=1e-12)


def test_sources_are_named_by_digest(authors_release: Release, authors_import: tuple[Path, ImportReport]) -> None:
    zoo, report = authors_import
    for model, record in members(authors_release, zoo, report):
        assert record.origin is not None
        assert (record.origin.release, record.origin.folder) == ("github.com/ModelZoos/ViTModelZoo", place(model))
        read = [model.config_json, model.result_json, *model.checkpoints.values()]
        assert record.origin.files == {path.relative_to(model.folder).as_posix(): digest(path) for path in read}


def test_deviations_say_what_the_released_code_did(authors_import: tuple[Path, ImportReport]) -> None:
    zoo, _ = authors_import
    fields = {
        member: [entry.partition(":")[0] for entry in load_member_record(zoo / member / "member.json").deviations]
        for member in ("pt-0", "pt-0/ft-0", "pt-2", "pt-2/ft-0")
    }
    of_all = ["code", "validation", "test metrics", "seeds"]
    mixed = ["mixup, cutmix, label_smoothing, random_erasing", "train_accuracy"]
    assert fields["pt-0"] == fields["pt-0/ft-0"] == fields["pt-2/ft-0"] == of_all + mixed
    assert fields["pt-2"] == [*of_all, "positives", "test_loss, test_accuracy"]
    shifted = load_member_record(zoo / "pt-0/member.json").deviations[4]
    assert "label smoothing is 0.8, mixup 1, cutmix 0, erasing .25" in shifted


def test_replicates_are_counted_by_cell(tmp_path: Path) -> None:
    children = tuple(Child(optimizer="sgd", learning_rate=1e-3, epochs=1, seed=seed) for seed in (9, 3, 5))
    other = Child(optimizer="sgd", learning_rate=1e-4, epochs=1, seed=5)
    families = (Parent(mode="sl", seed=1, epochs=1, digits=6, children=(*children, other)),)
    release = write_release(tmp_path / "dataset", families=families, optimizers=False)
    report = import_tiny(release, tmp_path / "zoo")
    found = [
        (record.head_seed, record.learning_rate, record.replicate)
        for model, record in members(release, tmp_path / "zoo", report)[1:]
    ]
    assert found == [(3, 1e-3, 0), (5, 1e-3, 1), (5, 1e-4, 0), (9, 1e-3, 2)]


ALL = {"pt-0": [1, 2, 3, 4, None], "pt-0/ft-0": [0, 1, 2, None], "pt-1": [0, 1, 2, 3, None]}
EVERY_2 = {"pt-0": [2, 4, None], "pt-0/ft-0": [0, 2, None], "pt-1": [0, 2, None]}


def test_import_keeps_the_chosen_epochs(authors_release: Release, authors_zoo: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    report = import_tiny(authors_release, zoo, epochs="every-2")
    assert problems(zoo) == []
    assert {member: kept(authors_zoo, member) for member in ALL} == ALL
    assert {member: kept(zoo, member) for member in EVERY_2} == EVERY_2
    whole = contents(authors_zoo)
    for name, content in contents(zoo).items():
        if name.endswith((".safetensors", "config.json", "timing.jsonl")):
            assert content == whole[name]
    sizes = [path.stat().st_size for model in authors_release.models for path in model.checkpoints.values()]
    assert report.read < sum(sizes)
    assert report.checkpoints == sum(len(list((zoo / member).glob("model*"))) for member in report.taken) - sum(
        (zoo / member / layout.weights_name(record.epochs)).exists()
        for member in report.taken
        for record in [load_member_record(zoo / member / "member.json")]
    )


def test_start_of_a_child_is_kept(tmp_path: Path) -> None:
    child = Child(optimizer="sgd", learning_rate=1e-3, epochs=1, from_epoch=1)
    last = Child(optimizer="sgd", learning_rate=1e-4, epochs=1)
    families = (Parent(mode="sl", seed=1, epochs=3, digits=6, children=(child, last)),)
    release = write_release(tmp_path / "dataset", families=families, optimizers=False)
    zoo = tmp_path / "zoo"
    report = import_tiny(release, zoo, epochs="last")
    assert report.skipped == {}
    assert kept(zoo, "pt-0") == [1, None]
    record = load_member_record(zoo / "pt-0/ft-0/member.json")
    assert (record.parent_epoch, record.parent_sha256) == (1, digest(zoo / "pt-0/model.epoch-01.safetensors"))
    assert load_member_record(zoo / "pt-0/ft-1/member.json").parent_epoch == 3
    assert problems(zoo) == []


def test_later_child_of_an_epoch_that_was_not_kept(tmp_path: Path) -> None:
    """Its parent was imported before, without those weights: it is reported, and nothing else is lost."""
    child = Child(optimizer="sgd", learning_rate=1e-3, epochs=1, from_epoch=1)
    other = Child(optimizer="adamw", learning_rate=1e-4, epochs=1)
    families = (Parent(mode="sl", seed=1, epochs=2, digits=6, children=(child, other)), SHORT[1])
    release = write_release(tmp_path / "dataset", families=families, optimizers=False)
    zoo, away = tmp_path / "zoo", tmp_path / "away"
    shutil.move(release.root / "finetuning", away)
    assert import_tiny(release, zoo, epochs="last").skipped == {}
    shutil.move(away, release.root / "finetuning")
    report = import_tiny(release, zoo, epochs="last")
    assert list(report.skipped) in ([], [place(release.children[0])])
    assert {"pt-0/ft-0", "pt-1/ft-0"} <= report.taken.keys()
    assert problems(zoo) == []
