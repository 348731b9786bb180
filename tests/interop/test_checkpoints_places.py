"""Real populations by name, on the loopback Hub and as folders of runs."""

import csv
import json
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import torch

from tests.hub.server import Hub
from tests.interop.imported import problems
from tests.interop.populations import import_rows, make_bert, make_child, make_vit, move, write_trainer_run
from tests.published import plant
from training.publish.plan import plan_publication
from vitzoo.errors import CheckpointError, DatasetError
from vitzoo.interop.checkpoints import ready
from vitzoo.interop.checkpoints.job import Import
from vitzoo.interop.checkpoints.run import import_checkpoints
from vitzoo.interop.checkpoints.scan import write_table
from vitzoo.records import load_epoch_records, load_member_record, load_zoo_record
from vitzoo.sources.folder import FolderSource
from vitzoo.verification.verify import verify_zoo
from vitzoo.zoo.zoo import Zoo


def put(hub: Hub, repo: str, folder: Path, *, under: str = "") -> None:
    """Put the files of a folder into a new repo."""
    files = {f"{under}{path.name}": path.read_bytes() for path in folder.iterdir() if path.is_file()}
    hub.create_repo(repo).commit(files)


def test_multiberts_have_25_seeds_and_28_steps_of_five() -> None:
    rows = ready.multiberts()
    places = [row["location"] for row in rows]
    assert (len(places), len(set(places)), len({row["member"] for row in rows})) == (5 * 28 + 20, 160, 25)
    assert [row["step"] for row in rows if row["member"] == "seed_4"] == [
        *range(20_000, 200_001, 20_000),
        *range(300_000, 2_000_001, 100_000),
    ]
    assert {"google/multiberts-seed_0-step_20k", "google/multiberts-seed_24"} <= set(places)


def test_multiberts_become_a_zoo_of_steps(hub: Hub, tmp_path: Path) -> None:
    rows = [row for row in ready.multiberts() if row["member"] in ("seed_0", "seed_5")]
    rows = [row for row in rows if row["step"] in (20_000, 1_000_000, 2_000_000)]
    for row in rows:
        model = make_bert("pretraining", row["init_seed"])
        move(model, row["step"])
        folder = tmp_path / "made" / row["location"]
        folder.mkdir(parents=True)
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        put(hub, row["location"], folder)
    report = import_rows(tmp_path, rows)
    assert (report.taken, report.skipped) == ({"pt-0": "seed_0", "pt-1": "seed_5"}, {})
    root = tmp_path / "zoo"
    assert load_zoo_record(root / "zoo.json").unit == "step"
    first = load_member_record(root / "pt-0/member.json")
    assert (first.saved_epochs, first.epochs, first.init_seed) == ([20_000, 1_000_000, 2_000_000], 2_000_000, 0)
    assert (first.objective, first.head_role) == ("masked", "masked")
    assert first.origin is not None
    commit = hub.repo("google/multiberts-seed_0-step_20k").head
    assert f"google/multiberts-seed_0-step_20k@{commit}/pytorch_model.bin" in first.origin.files
    assert [line.step for line in load_epoch_records(root / "pt-0/metrics.jsonl")] == first.saved_epochs
    assert problems(root) == []


def test_model_j_is_one_family_and_a_repo_that_is_gone_is_skipped(hub: Hub, tmp_path: Path) -> None:
    rows = ready.model_j()
    assert (len(rows), rows[0]["location"]) == (1001, "google/vit-base-patch16-224")
    parent = make_vit(labels=5)
    parent.save_pretrained(tmp_path / "base")
    put(hub, rows[0]["location"], tmp_path / "base")
    for row in (rows[1], rows[3]):
        child = make_child(parent, len(row["member"]))
        move(child, 2 + rows.index(row))
        child.save_pretrained(tmp_path / row["member"])
        put(hub, row["location"], tmp_path / row["member"])
    report = import_rows(tmp_path, rows[:4])
    assert list(report.taken) == ["pt-0", "pt-0/ft-0", "pt-0/ft-1"]
    assert "The Hub has no repo" in report.skipped["Model-J__SupViT__model_idx_0001"]
    record = load_member_record(tmp_path / "zoo/pt-0/ft-1/member.json")
    assert record.parent_sha256 == load_member_record(tmp_path / "zoo/pt-0/member.json").final_weights.sha256
    assert any("by the table alone" in note for note in report.notes["Model-J__SupViT__model_idx_0002"])
    assert problems(tmp_path / "zoo") == []


def test_revision_and_subfolder_are_read(hub: Hub, tmp_path: Path) -> None:
    make_vit(1).save_pretrained(tmp_path / "m")
    put(hub, "org/many", tmp_path / "m", under="runs/one/")
    hub.repo("org/many").tag("v1")
    hub.repo("org/many").commit({"runs/one/model.safetensors": b"broken"})
    report = import_rows(tmp_path, [{"location": "org/many@v1/runs/one"}])
    assert (report.taken, report.skipped) == ({"pt-0": "org/many@v1/runs/one"}, {})
    with pytest.raises(CheckpointError, match="no checkpoint of it can be taken"):
        import_rows(tmp_path / "m", [{"location": "org/many@v2/runs/one"}])


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_folder_of_trainer_runs_becomes_a_table_and_a_zoo(hub: Hub, tmp_path: Path) -> None:
    parent = make_vit(labels=5)
    parent.save_pretrained(tmp_path / "base")
    put(hub, "org/base", tmp_path / "base")
    for seed in (1, 2):
        write_trainer_run(tmp_path / f"runs/seed-{seed}", parent, seed=seed, steps=(500, 1000))
    written = write_table(tmp_path / "runs", tmp_path / "t.csv")
    assert (written.rows, written.members) == (5, 3)
    rows = rows_of(tmp_path / "t.csv")
    assert [row["location"] for row in rows] == [
        "org/base",
        *(f"runs/seed-{seed}/checkpoint-{step}" for seed in (1, 2) for step in (500, 1000)),
    ]
    assert {name: rows[2][name] for name in ("member", "parent", "step", "epoch", "val_accuracy", "optimizer")} == {
        "member": "seed-1",
        "parent": "org/base",
        "step": "1000",
        "epoch": "10.0",
        "val_accuracy": "0.5",
        "optimizer": "adamw",
    }
    assert "eval_runtime" not in rows[0]
    report = import_checkpoints(Import(table=tmp_path / "t.csv", root=tmp_path / "zoo"))
    assert report.skipped == {}
    assert list(report.taken) == ["pt-0", "pt-0/ft-0", "pt-0/ft-1"]
    record = load_member_record(tmp_path / "zoo/pt-0/ft-1/member.json")
    assert (record.optimizer, record.learning_rate, record.batch_size, record.schedule) == ("adamw", 1e-4, 32, "linear")
    assert (record.saved_epochs, record.steps) == ([5, 10], 1000)
    assert load_epoch_records(tmp_path / "zoo/pt-0/ft-1/metrics.jsonl")[-1].val_loss == 1.5
    assert problems(tmp_path / "zoo") == []


def _touch(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_runs_of_timm_and_lightning_and_state_dicts_are_found(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name in ("checkpoint-0.pth.tar", "checkpoint-1.pth.tar", "last.pth.tar", "model_best.pth.tar"):
        _touch(runs / "timm" / name)
    _touch(runs / "timm/args.yaml", "lr: 0.001\nopt: adamw\nsmoothing: 0.1\nbatch_size: 64\n")
    _touch(runs / "timm/summary.csv", "epoch,train_loss,eval_loss,eval_top1\n0,2.0,1.9,50.0\n1,1.0,0.9,75.0\n")
    _touch(runs / "lightning/version_0/checkpoints/epoch=0-step=10.ckpt")
    _touch(runs / "lightning/version_0/checkpoints/last.ckpt")
    _touch(runs / "lightning/version_0/metrics.csv", "epoch,step,val_acc,train_loss\n0,9,,1.5\n0,9,0.5,\n")
    _touch(runs / "plain/epoch_3.pt")
    _touch(runs / "plain/optimizer.pt")
    _touch(runs / "zoo/zoo.json", json.dumps({}))
    written = write_table(runs, tmp_path / "t.csv")
    found: dict[str, dict[str, Any]] = {
        row["location"].removeprefix("runs/"): row for row in rows_of(tmp_path / "t.csv")
    }
    assert list(found) == [
        "lightning/version_0/checkpoints/epoch=0-step=10.ckpt",
        "plain/epoch_3.pt",
        "timm/checkpoint-0.pth.tar",
        "timm/checkpoint-1.pth.tar",
    ]
    lightning, plain, _, timm = found.values()
    assert [lightning[name] for name in ("member", "epoch", "step", "val_accuracy", "train_loss_running")] == [
        "lightning/version_0",
        "1",
        "10",
        "0.5",
        "1.5",
    ]
    assert (plain["member"], plain["epoch"]) == ("plain", "3")
    assert [timm[name] for name in ("epoch", "val_accuracy", "label_smoothing", "learning_rate", "optimizer")] == [
        "2",
        "0.75",
        "0.1",
        "0.001",
        "adamw",
    ]
    assert any("zoo is a zoo" in note for note in written.notes)
    assert any("last.pth.tar, model_best.pth.tar left out" in note for note in written.notes)


def test_table_is_not_overwritten_and_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        write_table(tmp_path, tmp_path / "t.csv")
    (tmp_path / "t.csv").touch()
    with pytest.raises(CheckpointError, match="exists"):
        write_table(tmp_path, tmp_path / "t.csv")


def test_imported_zoo_without_processors_is_published_and_read_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    parent = make_vit(labels=5)
    parent.save_pretrained(tmp_path / "base")
    child = make_child(parent, 1)
    child.save_pretrained(tmp_path / "child")
    rows = [{"location": "base", "step": 1}, {"location": "child", "step": 0, "parent": "base"}]
    import_rows(tmp_path, rows)
    plant(hub, tmp_path / "zoo", repo="org/imported")
    zoo = Zoo("org/imported")
    assert zoo.source.record.unit == "step"
    assert len(zoo.select()) == 2
    with pytest.raises(DatasetError, match="has no image processor: it was imported without one"):
        zoo["pt-0/ft-0"].load_image_processor()
    assert verify_zoo(zoo).problems == ()
    published = plan_publication(FolderSource(tmp_path / "zoo"), to="org/imported")
    assert {PurePosixPath(file.path).name for file in published.files if "ft-0/" in file.path} == {
        "config.json",
        "member.json",
        "metrics.jsonl",
        "timing.jsonl",
        "model.safetensors",
    }
