"""A table of checkpoints in the layouts of other libraries becomes a zoo with the same logits."""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.interop.imported import problems
from tests.interop.populations import (
    import_rows,
    make_bert,
    make_child,
    make_vit,
    move,
    save_pickle,
    write_csv,
)
from vitzoo.errors import CheckpointError, ReleaseError
from vitzoo.interop.authors.check import forward
from vitzoo.interop.checkpoints.job import Import
from vitzoo.interop.checkpoints.run import import_checkpoints, plan_checkpoints
from vitzoo.interop.checkpoints.table import load_table
from vitzoo.interop.timm import to_timm
from vitzoo.models.registry import ZooModel
from vitzoo.models.vit import VitZooModel
from vitzoo.records import load_epoch_records, load_member_record, load_zoo_record
from vitzoo.zoo.zoo import Zoo

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(0))


def wrap(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def save_lightning(model: Any, folder: Path) -> None:
    folder.mkdir()
    state = wrap("model.", model.state_dict()) | {"criterion.weight": torch.ones(4)}
    content = {"epoch": 2, "global_step": 30, "state_dict": state, "optimizer_states": [{"state": {}}]}
    torch.save(content | {"pytorch-lightning_version": "2.0"}, folder / "epoch=2-step=30.ckpt")
    model.config.save_pretrained(folder)


def save_compiled(model: Any, folder: Path) -> None:
    folder.mkdir()
    torch.save(wrap("module._orig_mod.", model.state_dict()), folder / "weights.pth")
    model.config.save_pretrained(folder)


def save_timm_training(model: Any, folder: Path) -> None:
    """As timm's training script: an argparse.Namespace beside the weights."""
    folder.mkdir()
    content = {"epoch": 3, "arch": "vit", "state_dict": to_timm_state(model), "args": argparse.Namespace(lr=0.1)}
    torch.save(content, folder / "checkpoint-3.pth.tar")
    (folder / "config.json").write_text('{"architecture": "vit_any", "model_args": {"num_heads": 2}}')


def to_timm_state(model: Any) -> dict[str, torch.Tensor]:
    model.save_pretrained("made")
    return to_timm(VitZooModel.from_pretrained("made"))


SAVERS: dict[str, Callable[[Any, Path], object]] = {
    "safetensors": lambda model, folder: model.save_pretrained(folder),
    "shards": lambda model, folder: model.save_pretrained(folder, max_shard_size="5KB"),
    "names in memory": lambda model, folder: model.save_pretrained(folder, save_original_format=False),
    "pickle": save_pickle,
    "lightning": save_lightning,
    "compiled": save_compiled,
}


@pytest.mark.parametrize("saver", SAVERS)
def test_logits_of_a_vit_are_those_of_transformers(saver: str, tmp_path: Path) -> None:
    model = make_vit()
    SAVERS[saver](model, tmp_path / "m")
    assert import_rows(tmp_path, [{"location": "m"}]).taken == {"pt-0": "m"}
    with torch.no_grad():
        ours = VitZooModel.from_pretrained(tmp_path / "zoo" / "pt-0")(IMAGES).logits
        assert torch.allclose(ours, model(IMAGES).logits, atol=1e-6)
    assert problems(tmp_path / "zoo") == []


@pytest.mark.parametrize("kind", ["classifier", "masked", "pretraining"])
@pytest.mark.parametrize("pickled", [False, True])
def test_logits_of_a_bert_are_those_of_transformers(kind: str, pickled: bool, tmp_path: Path) -> None:
    model = make_bert(kind)
    if pickled:
        save_pickle(model, tmp_path / "m")
    else:
        model.save_pretrained(tmp_path / "m")
    report = import_rows(tmp_path, [{"location": "m"}])
    assert report.skipped == {}
    with torch.no_grad():
        ours = ZooModel.from_pretrained(tmp_path / "zoo" / "pt-0")(TOKENS).logits
        theirs = model(TOKENS)
        theirs = theirs.prediction_logits if kind == "pretraining" else theirs.logits
        assert torch.allclose(ours, theirs, atol=1e-6)
    assert problems(tmp_path / "zoo") == []


def test_logits_of_a_timm_checkpoint_are_those_of_its_network(tmp_path: Path) -> None:
    model = make_vit(layer_norm_eps=1e-6)
    save_timm_training(model, tmp_path / "m")
    report = import_rows(tmp_path, [{"location": "m/checkpoint-3.pth.tar", "epoch": 4}])
    assert report.skipped == {}
    with torch.no_grad():
        ours = VitZooModel.from_pretrained(tmp_path / "zoo" / "pt-0")(IMAGES).logits
        assert torch.allclose(ours, forward(to_timm_state(model), IMAGES, num_heads=2), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dtype_is_kept(dtype: torch.dtype, tmp_path: Path) -> None:
    model: Any = make_vit()
    model.to(dtype).save_pretrained(tmp_path / "m")
    import_rows(tmp_path, [{"location": "m"}])
    weights, source = (load_file(tmp_path / folder / "model.safetensors") for folder in ("zoo/pt-0", "m"))
    assert all(torch.equal(weights[name], tensor) and tensor.dtype == dtype for name, tensor in source.items())
    assert problems(tmp_path / "zoo") == []


@pytest.fixture
def family(tmp_path: Path) -> list[dict[str, Any]]:
    """A parent, and a child with the steps 0, 100 and 200."""
    parent = make_vit(labels=5)
    parent.save_pretrained(tmp_path / "parent")
    child = make_child(parent, 1)
    rows: list[dict[str, Any]] = [{"location": "parent", "member": "base", "step": 900}]
    for step in (0, 100, 200):
        if step:
            move(child, step)
        child.save_pretrained(tmp_path / f"child/checkpoint-{step}")
        rows.append(
            {
                "location": f"child/checkpoint-{step}",
                "member": "tuned",
                "parent": "base",
                "step": step,
                "learning_rate": 0.01,
                "val_accuracy": step / 1000,
                "lab": "ours",
                "f1": step / 1000,
            }
        )
    return rows


def test_table_becomes_a_family_with_factors_metrics_and_steps(family: list[dict[str, Any]], tmp_path: Path) -> None:
    report = import_rows(tmp_path, family)
    assert (report.taken, report.skipped) == ({"pt-0": "base", "pt-0/ft-0": "tuned"}, {})
    root = tmp_path / "zoo"
    assert load_zoo_record(root / "zoo.json").unit == "step"
    record = load_member_record(root / "pt-0/ft-0/member.json")
    assert (record.parent, record.parent_epoch, record.epochs, record.steps) == ("pt-0", 900, 200, 200)
    assert record.parent_sha256 == load_member_record(root / "pt-0/member.json").final_weights.sha256
    assert (record.learning_rate, record.optimizer, record.extra) == (0.01, None, {"lab": "ours"})
    metrics = load_epoch_records(root / "pt-0/ft-0/metrics.jsonl")
    assert [(line.epoch, line.val_accuracy, line.extra) for line in metrics] == [
        (0, 0.0, {"f1": 0.0}),
        (100, 0.1, {"f1": 0.1}),
        (200, 0.2, {"f1": 0.2}),
    ]
    assert any("unknown, so null: objective, dataset" in note for note in report.notes["tuned"])
    zoo = Zoo(root)
    assert [ref.epoch for ref in zoo.select(lab="ours", epoch="all")] == [0, 100, 200]
    assert [ref.epoch for ref in zoo.select(lab="ours", min_f1=0.15, epoch="all")] == [200]
    assert len(zoo.weights(zoo.select(stage="finetuning", epoch=[0, 200]))) == 2
    assert problems(root) == []


def test_interrupted_import_resumes_and_new_rows_are_appended(family: list[dict[str, Any]], tmp_path: Path) -> None:
    def stop(work: str, done: int, total: int) -> None:
        if work == "importing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_rows(tmp_path, family, progress=stop, jobs=1)
    assert not list((tmp_path / "zoo").glob("pt-*"))
    assert import_rows(tmp_path, family).taken == {"pt-0": "base", "pt-0/ft-0": "tuned"}
    before = (tmp_path / "zoo/pt-0/ft-0/member.json").stat().st_mtime_ns
    make_vit(9, labels=5).save_pretrained(tmp_path / "new")
    report = import_rows(tmp_path, [{"location": "new", "step": 5}, *family])
    assert report.taken == {"pt-0": "base", "pt-0/ft-0": "tuned", "pt-1": "new"}
    assert (tmp_path / "zoo/pt-0/ft-0/member.json").stat().st_mtime_ns == before


def test_dry_run_counts_bytes_and_writes_nothing(family: list[dict[str, Any]], tmp_path: Path) -> None:
    job = Import(table=write_csv(tmp_path / "t.csv", family), root=tmp_path / "zoo")
    planned = plan_checkpoints(job)
    assert [(str(one.id), one.numbers) for one in planned] == [("pt-0", [900]), ("pt-0/ft-0", [0, 100, 200])]
    assert planned[0].bytes == (tmp_path / "parent/model.safetensors").stat().st_size
    assert not (tmp_path / "zoo").exists()


def test_link_shares_files_that_are_as_a_zoo_has_them(family: list[dict[str, Any]], tmp_path: Path) -> None:
    import_rows(tmp_path, family, link=True)
    assert os.path.samefile(tmp_path / "parent/model.safetensors", tmp_path / "zoo/pt-0/model.safetensors")
    assert problems(tmp_path / "zoo") == []


def test_parents_are_found_by_the_weights_and_said_to_be_found(family: list[dict[str, Any]], tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "parent"} for row in family]
    report = import_rows(tmp_path, rows, find_parents=1)
    assert report.taken == {"pt-0": "base", "pt-0/ft-0": "tuned"}
    extra = load_member_record(tmp_path / "zoo/pt-0/ft-0/member.json").extra
    assert extra["found_by"] == "vitzoo.lineage, cluster-root-star"
    assert any("was found by vitzoo.lineage" in note for note in report.notes["tuned"])
    assert not (tmp_path / "zoo/.training/found").exists()


def test_child_that_starts_elsewhere_is_refused(family: list[dict[str, Any]], tmp_path: Path) -> None:
    make_vit(7, labels=5).save_pretrained(tmp_path / "other")
    rows = [{"location": "other", "member": "wrong", "step": 1}, *family]
    for row in rows:
        row |= {"parent": "wrong"} if row.get("parent") else {}
    report = import_rows(tmp_path, rows)
    assert "before the first step is not the one of its parent wrong" in report.skipped["tuned"]
    assert report.taken == {"pt-0": "wrong", "pt-1": "base"}


def test_child_without_a_start_that_is_nearer_to_another_parent_is_noted(
    family: list[dict[str, Any]], tmp_path: Path
) -> None:
    make_vit(7, labels=5).save_pretrained(tmp_path / "other")
    rows = [{"location": "other", "member": "wrong", "step": 1}, family[0], family[3] | {"parent": "wrong"}]
    report = import_rows(tmp_path, rows)
    assert "its weights are nearer to pt-1 than to its parent pt-0: check the column parent" in report.notes["tuned"]


def test_grandchild_stays_in_its_family(family: list[dict[str, Any]], tmp_path: Path) -> None:
    grandchild = make_vit(3, labels=4)
    grandchild.save_pretrained(tmp_path / "third")
    report = import_rows(tmp_path, [*family, {"location": "third", "step": 7, "parent": "tuned"}])
    assert report.taken["pt-0/ft-1"] == "third"
    record = load_member_record(tmp_path / "zoo/pt-0/ft-1/member.json")
    assert (record.parent, record.parent_epoch, record.extra["fine_tuned_from"]) == ("pt-0", None, "tuned")
    assert problems(tmp_path / "zoo") == []


def test_private_fields_are_dropped(tmp_path: Path) -> None:
    make_vit().save_pretrained(tmp_path / "m")
    config = json.loads((tmp_path / "m/config.json").read_text())
    config |= {"_name_or_path": "/home/" + "somebody/secret", "wandb_run": "secret", "auto_map": {"AutoModel": "x.Y"}}
    (tmp_path / "m/config.json").write_text(json.dumps(config))
    report = import_rows(tmp_path, [{"location": str(tmp_path / "m")}])
    assert "keys of config.json that are not taken: auto_map, wandb_run" in report.notes["m"]
    for path in (tmp_path / "zoo").rglob("*.json*"):
        assert "secret" not in path.read_text()
        assert str(tmp_path) not in path.read_text()


def _break_shard(folder: Path) -> None:
    make_vit().save_pretrained(folder, max_shard_size="5KB")
    next(iter(sorted(folder.glob("model-00002*")))).unlink()


def _write_code(folder: Path) -> None:
    save_pickle(make_vit(), folder)
    torch.save({"state_dict": make_vit().state_dict(), "callback": os.system}, folder / "pytorch_model.bin")


def _set_nan(folder: Path) -> None:
    model = make_vit()
    model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    weights["vit.layernorm.bias"] = torch.full_like(weights["vit.layernorm.bias"], torch.nan)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _headless(folder: Path) -> None:
    make_vit().vit.save_pretrained(folder)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing shard": (_break_shard, "lacks model-00002-of-"),
    "pickle that wants code": (_write_code, "wants posix.system, and nothing in it was run"),
    "NaN": (_set_nan, "has NaN or infinite values"),
    "no head": (_headless, "holds a backbone without a head"),
    "empty": (lambda folder: folder.mkdir(), "holds no weights file"),
    "another network": (lambda folder: make_vit(hidden_size=32).save_pretrained(folder), "It is another network than"),
    "another kind": (lambda folder: make_bert("masked").save_pretrained(folder), "It is another network than"),
    "file of another type": (lambda folder: folder.write_text("x"), "is a file of another type"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_checkpoint_is_skipped_and_the_others_go_on(case: str, tmp_path: Path) -> None:
    make_vit().save_pretrained(tmp_path / "good")
    BROKEN[case][0](tmp_path / "bad")
    report = import_rows(tmp_path, [{"location": "good"}, {"location": "bad"}])
    assert report.taken == {"pt-0": "good"}
    assert BROKEN[case][1] in report.skipped["bad"]


ROWS: dict[str, tuple[list[dict[str, Any]], str, str]] = {
    "one place twice": ([{"location": "good", "member": "x"}], "row 2", "good is in row 1 already"),
    "unknown parent": ([{"location": "twin", "member": "x", "parent": "y"}], "x", "its parent y is not a member"),
    "own parent": ([{"location": "twin", "member": "x", "parent": "x"}], "x", "it is its own parent"),
    "line break": ([{"location": "twin", "member": "x\ny"}], "t.csv, row 2", "line break"),
    "negative epoch": ([{"location": "twin", "member": "x", "epoch": -1}], "x", "expected a whole number from 0"),
    "missing": ([{"location": "./../twins", "member": "x"}], "x", "does not exist"),
    "two of an epoch": (
        [{"location": "twin", "member": "x", "epoch": 1}, {"location": "third", "member": "x", "epoch": 1}],
        "x",
        "rows 2 and 3 are both of epoch 1",
    ),
}


@pytest.mark.parametrize("case", ROWS)
def test_bad_row_is_skipped_and_the_others_go_on(case: str, tmp_path: Path) -> None:
    for number, name in enumerate(("good", "twin", "third")):
        make_vit(number).save_pretrained(tmp_path / name)
    rows, name, reason = ROWS[case]
    report = import_rows(tmp_path, [{"location": "good", "member": "good"}, *rows])
    assert list(report.taken.values()) == ["good"]
    assert reason in report.skipped[name]


def test_circle_of_parents_is_skipped(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        make_vit(ord(name)).save_pretrained(tmp_path / name)
    rows = [{"location": name, "parent": parent} for name, parent in (("a", ""), ("b", "c"), ("c", "b"))]
    report = import_rows(tmp_path, rows)
    assert report.taken == {"pt-0": "a"}
    assert report.skipped == dict.fromkeys(("b", "c"), "its parents form a circle")


def test_tokenizer_that_differs_from_the_parents_is_refused(bert_zoo: Path, tmp_path: Path) -> None:
    model = make_bert("masked", vocab_size=60)
    for name in ("parent", "child"):
        model.save_pretrained(tmp_path / name)
        move(model, 1)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            content = (bert_zoo / "pt-0" / file).read_text(encoding="utf-8")
            (tmp_path / name / file).write_text(content, encoding="utf-8")
    path = tmp_path / "child/tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    rows = [{"location": "parent", "epoch": 1}, {"location": "child", "epoch": 1, "parent": "parent"}]
    report = import_rows(tmp_path, rows)
    assert report.taken == {"pt-0": "parent"}
    assert "the tokenizer of parent" in report.skipped["child"]
    assert (tmp_path / "zoo/pt-0/tokenizer.json").exists()


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("t.csv", "place,epoch\na,1\n", "has no column location"),
        ("t.csv", "location\n", "has no column location"),
        ("t.xlsx", "x", "is a file of another type"),
        ("t.jsonl", '{"location": "a"}\n[1]\n', "line 2 is not an object"),
        ("t.parquet", "x", "is not parquet"),
        ("t.csv", 'location\n"a', "is not csv"),
    ],
)
def test_unreadable_table_is_refused(name: str, content: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError, match=problem):
        load_table(tmp_path / name)


def test_table_formats_say_the_same(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    cells = [
        {"location": "a", "member": "007", "step": 5, "learning_rate": 0.1, "Note!": "x", "val_loss": 1.5},
        {"location": "b", "member": "008", "step": 6, "learning_rate": 0.2, "Note!": "y", "val_loss": float("nan")},
    ]
    write_csv(tmp_path / "t.csv", cells)
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in cells))
    pq.write_table(pa.Table.from_pylist(cells), tmp_path / "t.parquet")
    tables = [load_table(tmp_path / f"t.{kind}") for kind in ("csv", "jsonl", "parquet")]
    assert tables[0] == tables[1] == tables[2]
    first, second = tables[0].rows
    assert (first.member, first.step, first.settings, first.metrics) == (
        "007",
        5,
        {"learning_rate": 0.1},
        {"val_loss": 1.5},
    )
    assert (second.metrics, second.member_extra) == ({}, {"note": "y"})
    assert "val_loss has NaN or infinite values: null" in tables[0].notes


def test_many_rows_are_read(tmp_path: Path) -> None:
    lines = "".join(f"runs/{number},m{number // 10},{number % 10},{number}\n" for number in range(20_000))
    (tmp_path / "t.csv").write_text("location,member,epoch,score\n" + lines)
    assert len(load_table(tmp_path / "t.csv").rows) == 20_000


def test_folder_of_something_else_is_refused(family: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo/mine.txt").touch()
    with pytest.raises(ReleaseError, match="is not empty"):
        import_rows(tmp_path, family)


def test_zoo_keeps_its_unit(family: list[dict[str, Any]], tmp_path: Path) -> None:
    import_rows(tmp_path, family)
    rows = [{key: value for key, value in row.items() if key != "step"} | {"epoch": row["step"]} for row in family]
    with pytest.raises(CheckpointError, match="counts steps, the table epochs"):
        import_rows(tmp_path, rows)


def test_no_usable_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint of it can be taken"):
        import_checkpoints(Import(table=write_csv(tmp_path / "t.csv", [{"location": "a"}]), root=tmp_path / "zoo"))
