"""Damaged, hostile and doubtful models of a release: each is reported, and nothing else is lost."""

import json
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.interop import damage
from tests.interop.imported import contents, import_tiny, place, problems, short_release, tiny_job
from tests.interop.release import Release, ReleasedModel, write_release
from tests.interop.release_records import Child, Parent
from tests.test_cli import Here
from training.publish.plan import plan_publication
from vitzoo.errors import ReleaseError
from vitzoo.interop.authors.release import read_results
from vitzoo.interop.authors.run import plan_release
from vitzoo.interop.engine import ImportReport
from vitzoo.records import FACTORS, MemberRecord, load_epoch_records, load_member_record
from vitzoo.sources.folder import FolderSource

NAN = torch.full((64,), float("nan"))
# Torch's restricted unpickler hashes the key for ever.
HOSTILE = b"\x80\x02}" + b")q\0" + b"".join(b"h%c\x86q%c" % (i, i + 1) for i in range(60)) + b"K\x01s."
FORMS = ("zip", 0, 2, 4)  # of a pickle
OTHER = "sl_vit_s_16_224_seed_7_bs_256_lr_0.001_wd_0.0001_me_1"  # the second parent of the table's release
PATH_KEYS = ("pretraining::model", "pretraining::model::path")
EITHER_CONFIG = "the config in result.json is read instead"
BY_NAMES = "by folder and config alone: there are no weights before the first step"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A child of epochs 0 to 2 that is harmed, and its result: notes or the reason for not taking it, as patterns."""

    harm: Callable[[ReleasedModel], object]  # returns its folder where it was moved
    notes: tuple[str, ...] = ()
    skipped: str = ""
    epochs: tuple[int | None, ...] = (0, 1, 2, None)
    metrics: tuple[int, ...] = (0, 1, 2)
    record: tuple[tuple[str, object], ...] = (("status", "completed"), ("epochs", 2), ("parent_epoch", 1))


def results(harm: Callable[[Path], object], *notes: str, metrics: tuple[int, ...] = (0, 1, 2)) -> Case:
    return Case(harm=lambda child: harm(child.result_json), notes=notes, metrics=metrics)


def checkpoint(harm: Callable[[Path], object], note: str) -> Case:
    note = f"^epoch 1 is not taken: checkpoint_000001/checkpoints .*{note}"
    return Case(harm=lambda child: harm(child.checkpoints[1]), notes=(note,), epochs=(0, 2, None))


def config(key: str, value: object, expected: str) -> Case:
    told = re.escape(f"{key} is {json.dumps(value) if not isinstance(value, dict) else 'an object'}{expected}")
    return Case(harm=lambda child: damage.change_config(child.config_json, **{key: value}), skipped=told)


def unreadable(harm: Callable[[Path], object]) -> Case:
    return Case(harm=lambda child: harm(child.config_json), notes=(f"^config.json .*: {EITHER_CONFIG}",))


def every(harm: Callable[[Path], object]) -> Case:
    return Case(
        harm=lambda child: [harm(path) for path in child.checkpoints.values()],
        skipped="^none of its checkpoints can be read: checkpoint_000002/checkpoints",
    )


def hostile(form: str | int, epoch: int) -> Case:
    def harm(child: ReleasedModel) -> None:
        path, marker = child.checkpoints[epoch], child.folder / "ran"
        damage.plant_bomb(path, marker, form)
        for name in ("optimizer", ".tune_metadata"):
            path.with_name(name).write_bytes(pickle.dumps(damage.Bomb(marker)))

    notes = [f"^epoch {epoch} is not taken: .*(nothing in it was run|was not opened)"]
    if epoch == 0:
        notes.append(BY_NAMES)
    if epoch == 2:
        notes += ["its last weights are of epoch 1", "metrics of epochs 2"]
    left = tuple(other for other in (0, 1, 2) if other != epoch)
    return Case(
        harm=harm,
        notes=tuple(notes),
        epochs=(*left, None),
        metrics=(0, 1) if epoch == 2 else (0, 1, 2),
        record=(("epochs", max(left)),),
    )


def _remove_parent(child: ReleasedModel, keys: tuple[str, ...]) -> None:
    damage.change_config(child.config_json, *keys)

    def without(rows: list[dict]) -> list[dict]:
        return [row | {"config": {k: v for k, v in row["config"].items() if k not in keys}} for row in rows]

    damage.change_rows(child.result_json, without)


def _move(child: ReleasedModel, *, agree: bool = False, blind: bool = False) -> Path:
    """Put a child under the other parent; its config names that too, or its first weights are missing."""
    if agree:
        damage.change_config(child.config_json, **{"pretraining::model": OTHER})
    if blind:
        shutil.rmtree(child.checkpoints[0].parent)
    folder = child.folder.parent.with_name(OTHER)
    folder.mkdir(exist_ok=True)
    return Path(shutil.move(child.folder, folder / child.name))


def _reorder(child: ReleasedModel) -> None:
    """Transpose a tensor in memory, and save others as parameters: the values are the same."""
    name = "vit.blocks.0.attn.qkv.weight"
    torch.save({k: nn.Parameter(v) for k, v in damage.load(child.checkpoints[1]).items()}, child.checkpoints[1])
    state = damage.load(child.checkpoints[2])
    torch.save(state | {name: state[name].t().contiguous().t()}, child.checkpoints[2])


CASES: dict[str, Case] = {
    # result.json
    "no results": results(Path.unlink, "result.json cannot be read: No such file.* Its metrics are null", metrics=()),
    "empty results": results(lambda path: path.write_text(""), "result.json holds no line", metrics=()),
    "cut results": results(damage.cut_last_line, "line 3 is cut", "no metrics of epochs 2: null", metrics=(0, 1)),
    "fewer rows": results(
        lambda path: damage.change_rows(path, lambda rows: rows[:1]), "no metrics of epochs 1, 2: null", metrics=(0,)
    ),
    "garbage rows": results(
        lambda path: path.write_bytes(b"\xff\xfe{]\n" + path.read_bytes() + b"[1]\n{}\n"),
        "line 1 is not JSON: left out",
        "line 5 names no training_iteration: left out",
        "line 6 names no training_iteration: left out",
    ),
    "deep row": results(lambda path: path.write_text("[" * 10**5 + "\n" + path.read_text()), "line 1 is not JSON"),
    "blank rows": results(lambda path: path.write_text(path.read_text().replace("\n", "\n\n"))),
    "text metric": results(
        lambda path: damage.change_row(path, 1, test_acc="0.5"), "test_acc of iteration 1 is not a number: null"
    ),
    "percent": results(
        lambda path: damage.change_row(path, 1, test_acc=51.5), "test_acc of iteration 1 is 51.5; expected 0 to 1: null"
    ),
    "long loss": results(lambda path: damage.change_row(path, 1, test_loss=10**400), "test_loss of iteration 1 is inf"),
    "long time": results(lambda path: damage.change_row(path, 1, time_this_iter_s=10**400)),
    "more rows": results(
        lambda path: damage.change_rows(path, lambda rows: [*rows, {"training_iteration": 3, "test_loss": 1.0}]),
        "metrics of epochs 3, beyond the last weights: left out",
    ),
    "repeated rows": results(
        lambda path: damage.repeat_rows(path, 1),
        "line 4 is of iteration 1 again: the later one counts",
        "line 5 is of iteration 2 again: the later one counts",
    ),
    **{
        f"loss {value} in the middle": results(
            lambda path, value=value: damage.change_row(path, 1, test_loss=float(value)),
            f"test_loss of iteration 1 is {value}: null",
        )
        for value in ("nan", "inf", "-inf")
    },
    "loss NaN at the end": Case(
        harm=lambda child: damage.change_row(child.result_json, 2, train_loss=float("nan")),
        notes=("train_loss of iteration 2 is nan: null", "epoch 2: its loss is not finite, so the model diverged"),
        epochs=(0, 1),
        metrics=(0, 1),
        record=(("status", "diverged"), ("last_good_epoch", 1), ("epochs", 2)),
    ),
    "loss NaN always": Case(
        harm=lambda child: [damage.change_row(child.result_json, n, test_loss=float("nan")) for n in range(3)],
        skipped="none of its checkpoints can be used",
    ),
    # config.json
    "no config": unreadable(Path.unlink),
    "list config": unreadable(lambda path: path.write_text("[1]")),
    "binary config": unreadable(lambda path: path.write_bytes(b'{"a": "\xff\xfe"}')),
    "long config": unreadable(lambda path: path.write_text('{"a": "' + "x" * 2**22 + '"}')),
    "neither": Case(  # its name says no model::type, and the tests' is another than the default
        harm=lambda child: [(child.folder / name).unlink() for name in ("config.json", "result.json")],
        skipped=r'model::type is "vit_s_16"; expected "vit_test"',
        notes=("config.json cannot be read: No such file or directory: its name alone is read instead",),
    ),
    "contradiction": Case(
        harm=lambda child: damage.change_config(
            child.config_json, **{"model::freeze_encoder": True, "optim::lr": 0.5, "training::temperature": "x"}
        ),
        notes=(
            "^model::freeze_encoder is true, which the released code does not read",
            "^optim::lr is 0.5 in config.json, 0.001 in result.json: config.json counts",
        ),
        record=(("learning_rate", 0.5),),
    ),
    "no seed": Case(
        harm=lambda child: _rename_without_seed(child),
        notes=("result.json cannot be read", "^seed is missing: 42, the released code's default"),
        metrics=(),
        record=(("head_seed", 42), ("order_seed", 42), ("init_seed", 42)),
    ),
    "README's spellings": Case(
        harm=lambda child: damage.change_config(
            child.config_json,
            "optim::wd",
            "pretraining::model::path",
            **{"optim::weight_decay": 0.01, "pretrained::model::path": child.config["pretraining::model::path"]},
        ),
        notes=("^optim::wd is 0.01 in config.json, 0 in result.json",),
        record=(("weight_decay", 0.01),),
    ),
    "type": config("model::type", "vit_b_16", '; expected "vit_test"'),
    "data set": config("dataset::name", "SVHN", '; expected "ImageNet1K" or "CIFAR100"'),
    "outputs": config("model::o_dim", 10, "; expected 100, the classes of uoft-cs/cifar100"),
    "scheduler": config("optim::scheduler", "cosine", '; expected "OneCycleLR" or null'),
    "optimizer": config("optim::optimizer", "lion", '; expected "adamw" or "sgd"'),
    "text rate": config("optim::lr", "1e-3", "; expected a number above 0"),
    "NaN rate": config("optim::lr", float("nan"), "; expected a number above 0"),
    "batch true": config("training::batchsize", True, "; expected a whole number from 1"),
    "epochs 2.5": config("training::epochs_train", 2.5, "; expected a whole number from 1"),
    "InfoNCE": config("training::loss", "info_nce", '; expected "stce" or "ce" of a fine-tuned model'),
    "loss": config("training::loss", "mse", '; expected "stce" or "ce" or "info_nce"'),
    "dropout": config("model::dropout", 1.5, "; expected a number from 0 to below 1"),
    "seed 2^32": config("seed", 2**32, "; expected a seed from 0 to 2^32 - 1"),
    # checkpoints
    "truncated": checkpoint(damage.truncate, "(cannot be read|is not a file of torch.save)"),
    "text": checkpoint(lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "torch.save"),
    "no tensors": checkpoint(lambda path: torch.save([1, 2], path), "holds a list; expected a state dict"),
    "empty archive": checkpoint(lambda path: zipfile.ZipFile(path, "w").close(), "cannot be read"),
    "numbered": checkpoint(lambda path: torch.save({1: torch.ones(1)}, path), "expected a state dict"),
    "other names": checkpoint(
        lambda path: torch.save({"fc.weight": torch.ones(1)}, path), r'holds "fc\.weight"; expected .* "vit\.'
    ),
    "shape": checkpoint(lambda path: damage.set_tensor(path, "vit.norm.bias", torch.zeros(7)), r"norm\.bias.*7.*64"),
    "depth": checkpoint(lambda path: damage.remove_tensor(path, "vit.blocks.1.attn.qkv.bias"), r"blocks\.1\.attn\.qkv"),
    "missing": checkpoint(lambda path: damage.remove_tensor(path, "vit.norm.bias"), r"norm\.bias"),
    "more": checkpoint(lambda path: damage.set_tensor(path, "vit.more", torch.ones(1)), "more"),
    "head": checkpoint(lambda path: damage.set_tensor(path, "vit.head.bias", torch.zeros(10)), "10"),
    "bfloat16": checkpoint(
        lambda path: damage.change_dtype(path, torch.bfloat16), "as torch.bfloat16.*; expected float32"
    ),
    "a number": checkpoint(lambda path: damage.set_tensor(path, "vit.norm.bias", 3), "as int; expected float32"),
    "sparse": checkpoint(
        lambda path: damage.set_tensor(path, "vit.norm.bias", torch.zeros(64).to_sparse()), "expected float32"
    ),
    "meta": checkpoint(
        lambda path: torch.save({name: tensor.to("meta") for name, tensor in damage.load(path).items()}, path), ""
    ),
    "a script": checkpoint(damage.save_script, ""),
    "compressed": checkpoint(damage.compress, ""),
    "a bit that flipped": checkpoint(damage.flip_bit, ""),
    "NaN in the middle": Case(
        harm=lambda child: damage.set_tensor(child.checkpoints[1], "vit.norm.bias", NAN),
        notes=("epoch 1 is not taken: a weight is not finite",),
        epochs=(0, 2, None),
    ),
    "NaN at the end": Case(
        harm=lambda child: damage.set_tensor(child.checkpoints[2], "vit.norm.bias", NAN),
        notes=("epoch 2: a weight is not finite, so the model diverged: not taken",),
        epochs=(0, 1),
        metrics=(0, 1),
        record=(("status", "diverged"), ("last_good_epoch", 1)),
    ),
    "the last": Case(
        harm=lambda child: damage.truncate(child.checkpoints[2]),
        notes=("^epoch 2 is not taken", "last weights are of epoch 1; its config says 2 epochs", "metrics of epochs 2"),
        epochs=(0, 1, None),
        metrics=(0, 1),
        record=(("status", "completed"), ("epochs", 1), ("steps", 195)),
    ),
    "the first": Case(
        harm=lambda child: damage.truncate(child.checkpoints[0]),
        notes=("^epoch 0 is not taken", BY_NAMES),
        epochs=(1, 2, None),
    ),
    "all cut": every(damage.truncate),
    "of before torch 1.6": every(damage.save_legacy),
    "a key that is large to hash": checkpoint(lambda path: path.write_bytes(HOSTILE), "was not opened"),
    "such a key in an archive": every(lambda path: damage.repack(path, damage.doubled(as_key=True))),
    "such a value in an archive": every(lambda path: damage.repack(path, damage.doubled(as_key=False))),
    "stride 0": every(damage.repeat_value),
    "far number": Case(
        harm=lambda child: os.rename(child.folder / "checkpoint_000002", child.folder / "checkpoint_999999999"),
        notes=(
            "^checkpoint_999999999 is beyond the 2 epochs of its config: not taken",
            "last weights are of epoch 1; its config says 2 epochs",
            "metrics of epochs 2",
        ),
        epochs=(0, 1, None),
        metrics=(0, 1),
        record=(("status", "completed"), ("epochs", 1)),
    ),
    "far epochs": config("training::epochs_train", 10**9, "; expected a whole number from 1 to 10000"),
    "config as a pipe": unreadable(damage.replace_by_pipe),
    "results as a pipe": results(
        damage.replace_by_pipe, "result.json cannot be read: Not a regular file. Its metrics are null", metrics=()
    ),
    "checkpoint as a pipe": Case(
        harm=lambda child: damage.replace_by_pipe(child.checkpoints[1]),
        notes=("^checkpoint_000001 holds no file checkpoints: not taken",),
        epochs=(0, 2, None),
    ),
    "other order": Case(harm=_reorder),
    **{f"hostile {form} at 1": hostile(form, 1) for form in FORMS},
    "hostile zip at 0": hostile("zip", 0),
    "hostile zip at 2": hostile("zip", 2),
    # lineage
    "no parent named": Case(harm=lambda child: _remove_parent(child, PATH_KEYS)),
    "no path named": Case(harm=lambda child: _remove_parent(child, PATH_KEYS[1:])),
    "wrong folder": Case(
        harm=_move, notes=(f"^is under {OTHER}, its config names .*: it starts with the weights of ",)
    ),
    "wrong config": Case(
        harm=lambda child: damage.change_config(
            child.config_json, **dict(zip(PATH_KEYS, (OTHER, f"/x/{OTHER}/checkpoint_0001/checkpoints"), strict=True))
        ),
        notes=(f"^is under .*, its config names {OTHER}: it starts with the weights of ",),
    ),
    "both wrong": Case(
        harm=lambda child: _move(child, agree=True),
        skipped=f"its weights before the first step are those of .*_seed_42_.* expected {OTHER}, by its folder",
    ),
    "nobody's weights": Case(
        harm=lambda child: damage.set_tensor(child.checkpoints[0], "vit.norm.weight", torch.full((64,), 2.0)),
        skipped="its weights before the first step are those of no model that is taken; .*_seed_42_",
    ),
    "NaN before the first step": Case(
        harm=lambda child: damage.set_tensor(child.checkpoints[0], "vit.norm.bias", NAN), skipped="of no model"
    ),
    "no first weights": Case(
        harm=lambda child: shutil.rmtree(child.checkpoints[0].parent), notes=(BY_NAMES,), epochs=(1, 2, None)
    ),
    "no first weights, wrong folder": Case(
        harm=lambda child: _move(child, blind=True),
        skipped=f"is under {OTHER}, but its config names .*, and no weights before its first step show which",
    ),
    "one number twice": Case(
        harm=lambda child: [shutil.copytree(child.folder / "checkpoint_000001", child.folder / "checkpoint_1")],
        skipped="checkpoint_000001 and checkpoint_1 have the same number",
    ),
}


def _rename_without_seed(child: ReleasedModel) -> Path:
    damage.change_config(child.config_json, "seed", "model::head::seed")
    child.result_json.unlink()
    return child.folder.rename(child.folder.with_name(f"no_LR_0.001_WD_0_OM_sgd_{child.spec.seed}"))


def test_results_with_many_problems_are_read_up_to_one(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text('{"training_iteration": 1}\n' * 5000)
    results = read_results(path)
    assert (len(results.problems), list(results.rows)) == (1002, [1])


@dataclass(frozen=True)
class Harmed:
    zoo: Path
    release: Release
    report: ImportReport
    places: dict[str, str]

    def record(self, case: str) -> MemberRecord:
        (member,) = [member for member, folder in self.report.taken.items() if folder == self.places[case]]
        return load_member_record(self.zoo / member / "member.json")


@pytest.fixture(scope="module")
def harmed(tmp_path_factory: pytest.TempPathFactory) -> Harmed:
    """A release with a child for each case, and what its import made of it."""
    folder = tmp_path_factory.mktemp("harmed")
    children = tuple(Child(optimizer="sgd", learning_rate=1e-3, seed=100 + number) for number in range(len(CASES)))
    parents = (
        Parent(mode="sl", seed=42, epochs=1, digits=6, children=children),
        Parent(mode="sl", seed=7, epochs=1, digits=6),
    )
    release = write_release(folder / "dataset", families=parents, optimizers=False)
    places = {}
    for (name, case), child in zip(CASES.items(), release.children, strict=True):
        moved = case.harm(child)
        places[name] = (moved if isinstance(moved, Path) else child.folder).relative_to(release.root).as_posix()
    job = tiny_job(release, folder / "zoo")
    plan_release(job)
    assert not (folder / "zoo").exists()
    return Harmed(folder / "zoo", release, import_tiny(release, folder / "zoo"), places)


@pytest.mark.parametrize("name", CASES)
def test_harmed_model_is_reported(harmed: Harmed, name: str) -> None:
    case, folder = CASES[name], harmed.places[name]
    notes = harmed.report.notes.get(folder, [])
    assert not any(str(harmed.release.root) in note for note in notes)
    if case.skipped:
        assert re.search(case.skipped, harmed.report.skipped[folder])
        return
    assert folder not in harmed.report.skipped
    for pattern in case.notes:
        assert [note for note in notes if re.search(pattern, note)], (pattern, notes)
    assert len(notes) == len(case.notes), notes
    record = harmed.record(name)
    assert {key: getattr(record, key) for key, _ in case.record} == dict(case.record)
    assert tuple(weights.epoch for weights in record.weights) == case.epochs
    metrics = load_epoch_records(harmed.zoo / record.id / "metrics.jsonl")
    assert [row.epoch for row in metrics] == list(range(max(epoch or 0 for epoch in case.epochs) + 1))
    there = [row.epoch for row in metrics if {row.test_loss, row.test_accuracy} != {None}]
    assert tuple(there) == case.metrics
    assert [row.epoch for row in metrics if row.weights_id] == [epoch for epoch in case.epochs if epoch is not None]
    assert {row.distance_from_start is None for row in metrics if row.weights_id} == {0 not in case.epochs}


def test_nothing_else_is_lost_and_nothing_hostile_ran(harmed: Harmed, tmp_path: Path) -> None:
    skipped = {harmed.places[name] for name, case in CASES.items() if case.skipped}
    assert harmed.report.skipped.keys() == skipped
    assert len(harmed.report.taken) == len(CASES) + 2 - len(skipped)
    assert problems(harmed.zoo) == []
    assert list(harmed.release.root.rglob("ran")) == []
    assert [name for name, content in contents(harmed.zoo).items() if b"/ran" in content] == []
    live = harmed.release.root / harmed.places["hostile 4 at 1"]
    pickle.loads((live / "checkpoint_000001/checkpoints").read_bytes())
    assert (live / "ran").exists()  # it was live
    (live / "ran").unlink()


def test_harmed_models_have_the_values_of_later_rows_and_whole_checkpoints(harmed: Harmed) -> None:
    rows = load_epoch_records(harmed.zoo / harmed.record("repeated rows").id / "metrics.jsonl")
    number = list(CASES).index("repeated rows")
    expected = [row["train_loss"] + 1 for row in harmed.release.children[number].rows[1:]]
    assert [row.train_loss_running for row in rows] == [None, *expected]
    record = harmed.record("the last")
    assert record.deviations[-1] == "epochs: 1, the last weights there are; source: 2; release"
    assert record.origin is not None
    assert "checkpoint_000002/checkpoints" not in record.origin.files
    assert harmed.record("wrong folder").parent == harmed.record("wrong config").parent == "pt-1"


# Damage of a parent of two epochs; why it and its children are not taken; its status.
PARENTS: dict[str, tuple[Callable[[ReleasedModel], object], str, str, str]] = {
    "absent": (lambda parent: shutil.rmtree(parent.folder), "", "its parent .* is not taken; expected a model pre", ""),
    "all cut": (
        lambda parent: [damage.truncate(path) for path in parent.checkpoints.values()],
        "none of its checkpoints can be read",
        "its parent .* is not taken",
        "",
    ),
    **{
        f"hostile {form}": (
            lambda parent, form=form: [
                damage.plant_bomb(path, parent.folder / "ran", form) for path in parent.checkpoints.values()
            ],
            "nothing in it was run|was not opened",
            "its parent .* is not taken",
            "",
        )
        for form in ("zip", 2)
    },
    "the last cut": (lambda parent: damage.truncate(parent.checkpoints[2]), "", "expected .*_seed_42_", "completed"),
    "loss NaN": (
        lambda parent: damage.change_row(parent.result_json, 2, test_loss=float("nan")),
        "",
        "its parent pt-0 diverged",
        "diverged",
    ),
    "weights NaN": (
        lambda parent: damage.set_tensor(parent.checkpoints[2], "vit.blocks.0.norm1.bias", NAN),
        "",
        "its parent pt-0 diverged|expected .*_seed_42_",
        "diverged",
    ),
}


@pytest.mark.parametrize("name", PARENTS)
def test_harmed_parent_is_reported_with_its_children(tmp_path: Path, name: str) -> None:
    harm, why, why_children, status = PARENTS[name]
    release, zoo = short_release(tmp_path), tmp_path / "zoo"
    parent = release.parents[0]
    harm(parent)
    report = import_tiny(release, zoo, epochs="last" if name == "loss NaN" else "all")
    children = {place(child) for child in release.children_of(parent)}
    assert report.skipped.keys() == children | ({place(parent)} if why else set())
    assert all(re.search(why_children, report.skipped[child]) for child in children), report.skipped
    assert not why or re.search(why, report.skipped[place(parent)])
    assert not (parent.folder / "ran").exists()
    if status:
        record = load_member_record(zoo / "pt-0/member.json")
        assert (record.status, (zoo / "pt-0/model.safetensors").exists()) == (status, status == "completed")
        assert [weights.epoch for weights in record.weights if weights.epoch] == [1]
    assert {"pt-1/ft-0" if status else "pt-0/ft-0"} <= report.taken.keys()
    assert problems(zoo) == []


def test_release_without_a_whole_checkpoint_is_refused(tmp_path: Path) -> None:
    release = short_release(tmp_path)
    for model in release.models:
        for path in model.checkpoints.values():
            damage.truncate(path)
    with pytest.raises(ReleaseError) as refused:
        import_tiny(release, tmp_path / "zoo")
    assert refused.value.path == release.root
    assert "none of its checkpoints can be read" in refused.value.problem
    assert not (tmp_path / "zoo").exists()


def _copy(model: ReleasedModel, name: str, *, again: bool = False) -> None:
    copy = model.folder.with_name(name)
    shutil.copytree(model.folder, copy)
    if again:
        for path in copy.glob("*/checkpoints"):
            torch.save(damage.load(path), path)
            assert path.read_bytes() != (model.folder / path.parent.name / "checkpoints").read_bytes()


COPIES = [(0, "a_copy_of_{}", False), (2, "{}_copy", True)]


@pytest.mark.parametrize(("model", "name", "again"), COPIES)
def test_copy_under_another_name_is_skipped(tmp_path: Path, model: int, name: str, again: bool) -> None:
    """Wherever it sorts, and with equal weights in other bytes as well."""
    release = short_release(tmp_path)
    original = release.models[model]
    _copy(original, name.format(original.name), again=again)
    report = import_tiny(release, tmp_path / "zoo")
    folder = f"{place(original).rpartition('/')[0]}/{name.format(original.name)}"
    assert report.skipped == {folder: f"is a copy: its last weights are those of {place(original)}. Delete one"}
    assert list(report.taken) == ["pt-0", "pt-0/ft-0", "pt-0/ft-1", "pt-1", "pt-1/ft-0"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parent and a child whose folders' names have no settings."""
    child = Child(optimizer="sgd", learning_rate=1e-3, epochs=1, seed=7)
    families = (Parent(mode="sl", seed=7, epochs=1, digits=6, children=(child,)),)
    release = write_release(tmp_path_factory.mktemp("pair") / "dataset", families=families, optimizers=False)
    for folder in ("pretraining", "finetuning"):
        os.rename(release.root / folder / release.parents[0].name, release.root / folder / "parent")
    os.rename(release.root / "finetuning/parent" / release.children[0].name, release.root / "finetuning/parent/child")
    for config in release.root.rglob("config.json"):
        damage.change_config(config, *PATH_KEYS, "training::mode")
        damage.change_rows(config.with_name("result.json"), lambda rows: [row | {"config": None} for row in rows])
    return release.root


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(monkeypatch, capsys)


EPOCH_FIELDS = ("step", "samples_seen", "learning_rate")
MISSING: Mapping[str, Mapping[Any, Any]] = {
    "dataset::name": dict.fromkeys(("dataset", "dataset_spec", "n_train", "n_test", "steps", "step", "samples_seen")),
    "model::o_dim": {},
    "seed": dict.fromkeys(("init_seed", "head_seed", "order_seed", "augmentation_seed"), 42)
    | {"init_group": "init-42"},
    "training::loss": {"objective": None},
    "optim::optimizer": {"optimizer": None, "momentum": None},
    "optim::lr": {"learning_rate": None},
    "optim::wd": {"weight_decay": None},
    "optim::momentum": {"momentum": None},
    "training::batchsize": dict.fromkeys(("batch_size", "n_test", "steps", "step", "samples_seen")),
    "training::epochs_train": {},
    "training::mixup": {"mixup": 0.0},
    "training::cutmix": {"cutmix": 0.0},
    "training::label_smoothing": {"label_smoothing": 0.0},
    "training::randerase": {"random_erasing": 0.0},
}


@pytest.fixture(scope="module")
def whole_pair(pair: Path) -> Path:
    import_tiny(pair, pair.with_name("zoo"))
    return pair.with_name("zoo")


@pytest.mark.parametrize("key", MISSING)
def test_missing_setting_is_null_and_reported(
    pair: Path, whole_pair: Path, tmp_path: Path, key: str, here: Here
) -> None:
    root, zoo = shutil.copytree(pair, tmp_path / "dataset"), tmp_path / "zoo"
    for path in root.rglob("config.json"):
        damage.change_config(path, key)
    report = import_tiny(root, zoo)
    assert list(report.taken) == ["pt-0", "pt-0/ft-0"]
    assert problems(zoo) == []
    silent = key in ("training::mixup", "training::cutmix", "training::label_smoothing", "training::randerase")
    for member, folder in report.taken.items():
        is_noted = any(note.startswith(f"{key} is missing: ") for note in report.notes.get(folder, []))
        assert is_noted != (silent or (key, member) == ("optim::momentum", "pt-0"))  # the parent's optimizer is AdamW
        for path in (whole_pair / member).glob("*.safetensors"):
            assert path.read_bytes() == (zoo / member / path.name).read_bytes()
        record, whole = (load_member_record(root / member / "member.json") for root in (zoo, whole_pair))
        expected = {name: getattr(whole, name) for name in FACTORS} | dict(MISSING[key])
        assert {name: getattr(record, name) for name in expected.keys() & set(record.__struct_fields__)} == {
            name: value for name, value in expected.items() if name in record.__struct_fields__
        }
        last = load_epoch_records(zoo / member / "metrics.jsonl")[-1]
        assert {name for name in EPOCH_FIELDS if getattr(last, name) is None} == MISSING[key].keys() & set(EPOCH_FIELDS)
    assert here("tree", str(zoo)).returncode == 0
    plan_publication(FolderSource(zoo), to="org/zoo")  # writes the card


def test_member_without_clock_times_can_be_published(pair: Path, tmp_path: Path) -> None:
    root = shutil.copytree(pair, tmp_path / "dataset")
    (root / "pretraining/parent/result.json").unlink()
    import_tiny(root, tmp_path / "zoo")
    timing = "pt-0/timing.jsonl"
    assert (tmp_path / "zoo" / timing).read_bytes() == b""
    assert timing in {file.path for file in plan_publication(FolderSource(tmp_path / "zoo"), to="org/zoo").files}


def test_missing_loss_is_taken_from_the_mode(pair: Path, tmp_path: Path) -> None:
    root = shutil.copytree(pair, tmp_path / "dataset")
    damage.change_config(root / "pretraining/parent/config.json", "training::loss", **{"training::mode": "cl"})
    assert import_tiny(root, tmp_path / "zoo").skipped == {}
    record = load_member_record(tmp_path / "zoo/pt-0/member.json")
    assert (record.objective, record.head_role) == ("contrastive", "embedding")


def test_equal_settings_are_replicates_by_name(tmp_path: Path) -> None:
    child = Child(optimizer="sgd", learning_rate=1e-3, epochs=1)
    families = (Parent(mode="sl", seed=1, epochs=1, digits=6, children=(child,)),)
    release = write_release(tmp_path / "dataset", families=families, optimizers=False)
    (model,) = release.children
    for name in ("A", "zz"):
        _copy(model, f"{name}{model.name}")
        path = model.folder.with_name(f"{name}{model.name}") / "checkpoint_000001/checkpoints"
        damage.set_tensor(path, "vit.norm.bias", torch.full((64,), float(len(name))))
    report = import_tiny(release, tmp_path / "zoo")
    names = [os.path.basename(folder).partition("ft")[0] for folder in report.taken.values()]
    assert names[1:] == ["Asl_", "sl_", "zzsl_"]
    found = [load_member_record(tmp_path / f"zoo/pt-0/ft-{number}/member.json").replicate for number in range(3)]
    assert found == [0, 1, 2]


def test_missing_start_checkpoint(tmp_path: Path) -> None:
    """The one that its config names, shown by no weights. Where weights show another, these count."""
    child = Child(optimizer="sgd", learning_rate=1e-3, epochs=1, from_epoch=1)
    other = Child(optimizer="adamw", learning_rate=1e-3, epochs=1, from_epoch=2)
    families = (Parent(mode="sl", seed=1, epochs=3, digits=6, children=(child, other)),)
    release = write_release(tmp_path / "dataset", families=families, optimizers=False)
    blind, seen = release.children
    shutil.rmtree(release.parents[0].checkpoints[1].parent)
    shutil.rmtree(blind.checkpoints[0].parent)
    damage.change_config(seen.config_json, **{PATH_KEYS[1]: f"/x/{seen.parent}/checkpoint_000003/checkpoints"})
    report = import_tiny(release, tmp_path / "zoo")
    assert report.skipped == {place(blind): f"starts from checkpoint 1 of {blind.parent}, which is missing. Add it"}
    assert load_member_record(tmp_path / "zoo/pt-0/ft-0/member.json").parent_epoch == 2
