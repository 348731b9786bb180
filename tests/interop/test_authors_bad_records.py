"""result.json and config.json that are missing, cut, damaged or at odds: told, and nothing else is lost."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.interop import damage
from tests.interop.imported import (
    MODEL_TYPES,
    contents,
    import_tiny,
    many_children,
    place,
    problems,
    short_release,
)
from tests.interop.release import Release
from vitzoo.interop.authors.report import ImportReport
from vitzoo.interop.authors.run import plan_release
from vitzoo.records import EpochRecord, load_epoch_records, load_member_record

ALL = ["pt-0", "pt-0/ft-0", "pt-0/ft-1", "pt-1", "pt-1/ft-0"]


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return short_release(tmp_path)


def figures(zoo: Path, member: str = "pt-0/ft-0") -> list[EpochRecord]:
    return load_epoch_records(zoo / member / "metrics.jsonl")


def assert_all_but(report: ImportReport, release: Release, *without: str) -> None:
    assert set(report.taken.values()) == {place(model) for model in release.models} - {*without}


def change_row(path: Path, iteration: int, **values: object) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[iteration] |= values
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


# Of a child with epochs 0 to 2: what is done to its result.json, the notes, the epochs with figures.
RESULTS: list[tuple[str, Callable[[Path], object], list[str], list[int]]] = [
    ("missing", Path.unlink, ["result.json cannot be read: No such file or directory. Its figures are null"], []),
    ("empty", lambda path: path.write_text(""), ["result.json holds no line: figures are null"], []),
    (
        "cut last line",
        damage.cut_last_line,
        ["result.json, line 3 is cut: left out", "result.json has no figures of epochs 2: null"],
        [0, 1],
    ),
    ("fewer rows", lambda path: damage.drop_rows(path, 1), ["result.json has no figures of epochs 1, 2: null"], [0]),
    (
        "garbage in it",
        lambda path: path.write_bytes(b"\xff\xfe{]\n" + path.read_bytes() + b"[1]\n{}\n"),
        [
            "result.json, line 1 is no JSON: left out",
            "result.json, line 5 names no training_iteration: left out",
            "result.json, line 6 names no training_iteration: left out",
        ],
        [0, 1, 2],
    ),
    ("deep", lambda path: path.write_text("[" * 10**5 + "\n" + path.read_text()), ["line 1 is no JSON"], [0, 1, 2]),
    ("blank lines", lambda path: path.write_text(path.read_text().replace("\n", "\n\n")), [], [0, 1, 2]),
    (
        "a text for a figure",
        lambda path: change_row(path, 1, test_acc="0.5"),
        ["result.json: test_acc of iteration 1 is no number: null"],
        [0, 1, 2],
    ),
    (
        "percent",
        lambda path: change_row(path, 1, test_acc=51.5),
        ["result.json: test_acc of iteration 1 is 51.5; expected 0 to 1: null"],
        [0, 1, 2],
    ),
    (
        "NaN in an accuracy",
        lambda path: damage.nan_in(path, 2, "test_acc"),
        ["result.json: test_acc of iteration 2 is nan: null"],
        [0, 1, 2],
    ),
    (
        "more rows than checkpoints",
        lambda path: path.write_text(path.read_text() + json.dumps({"training_iteration": 3, "test_loss": 1.0}) + "\n"),
        ["result.json has figures of epochs 3, beyond the last weights: left out"],
        [0, 1, 2],
    ),
]


@pytest.fixture(scope="module")
def one_of_each(tmp_path_factory: pytest.TempPathFactory) -> tuple[Release, Path, ImportReport]:
    """A release with a child for each row of the table; the zoo; the report."""
    folder = tmp_path_factory.mktemp("harmed")
    release = many_children(folder, len(RESULTS))
    for child, (_, harm, _, _) in zip(release.children, RESULTS, strict=True):
        harm(child.result_json)
    return release, folder / "zoo", import_tiny(release, folder / "zoo")


@pytest.mark.parametrize("row", [pytest.param(row, id=case[0]) for row, case in enumerate(RESULTS)])
def test_result_json(one_of_each: tuple[Release, Path, ImportReport], row: int) -> None:
    """Figures that cannot be read are null; the weights are taken all the same."""
    release, zoo, report = one_of_each
    _, _, notes, there = RESULTS[row]
    told = report.notes.get(place(release.children[row]), ())
    assert len(told) == len(notes)
    assert all(any(note in line for line in told) for note in notes)
    found = figures(zoo, f"pt-0/ft-{row}")
    assert [figure.epoch for figure in found] == [0, 1, 2]
    assert [figure.epoch for figure in found if {figure.test_loss, figure.test_accuracy} != {None}] == there
    assert all(figure.weights_id for figure in found)
    assert load_member_record(zoo / f"pt-0/ft-{row}/member.json").status == "completed"


def test_nothing_else_is_lost(one_of_each: tuple[Release, Path, ImportReport]) -> None:
    release, zoo, report = one_of_each
    assert report.skipped == {}
    assert list(report.taken.values()) == [place(model) for model in release.models]
    assert problems(zoo) == []


@pytest.mark.parametrize("key", ["test_loss", "test_acc", "time_this_iter_s"])
def test_a_number_that_is_too_long(release: Release, tmp_path: Path, key: str) -> None:
    """JSON has integers that no float holds."""
    child, zoo = release.children[0], tmp_path / "zoo"
    change_row(child.result_json, 1, **{key: 10**400})
    report = import_tiny(release, zoo)
    assert (list(report.taken), report.skipped) == (ALL, {})
    assert len(report.notes.get(place(child), ())) == (key != "time_this_iter_s")
    assert problems(zoo) == []


def test_repeated_rows(release: Release, tmp_path: Path) -> None:
    """A trial that was restored wrote some epochs twice: the later ones count."""
    child, zoo = release.children[0], tmp_path / "zoo"
    damage.repeat_rows(child.result_json, 1)
    report = import_tiny(release, zoo)
    assert report.notes[place(child)] == (
        "result.json, line 4 is of iteration 1 again: the later one counts",
        "result.json, line 5 is of iteration 2 again: the later one counts",
    )
    losses = [figure.train_loss_running for figure in figures(zoo)]
    assert losses == [None, child.rows[1]["train_loss"] + 1, child.rows[2]["train_loss"] + 1]
    assert problems(zoo) == []


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_loss_that_is_no_number_in_the_middle(release: Release, tmp_path: Path, value: str) -> None:
    """What came after shows that it went on: the figure is null, and said."""
    child, zoo = release.children[0], tmp_path / "zoo"
    change_row(child.result_json, 1, test_loss=float(value))
    report = import_tiny(release, zoo)
    assert (report.notes, report.skipped) == (
        {place(child): (f"result.json: test_loss of iteration 1 is {value}: null",)},
        {},
    )
    assert [figure.test_loss is None for figure in figures(zoo)] == [False, True, False]
    assert load_member_record(zoo / "pt-0/ft-0/member.json").status == "completed"
    assert problems(zoo) == []


@pytest.mark.parametrize("epochs", ["all", "last"])
def test_a_loss_that_is_no_number_at_the_end(release: Release, tmp_path: Path, epochs: str) -> None:
    """The model diverged: its last good weights stay, there are no final ones, and its children are not taken."""
    parent, zoo = release.parents[0], tmp_path / "zoo"
    damage.nan_in(parent.result_json, 2)
    report = import_tiny(release, zoo, epochs=epochs)
    record = load_member_record(zoo / "pt-0/member.json")
    assert (record.status, record.last_good_epoch, record.epochs) == ("diverged", 1, 2)
    assert [weights.epoch for weights in record.weights] == ([0, 1] if epochs == "all" else [1])
    assert not (zoo / "pt-0/model.safetensors").exists()
    assert [figure.epoch for figure in figures(zoo, "pt-0")] == [0, 1]
    assert report.skipped == {place(child): "its parent pt-0 diverged" for child in release.children_of(parent)}
    assert "epoch 2: its loss is not finite, so the model diverged: not taken" in report.notes[place(parent)]
    assert list(report.taken) == ["pt-0", "pt-1", "pt-1/ft-0"]
    assert problems(zoo) == []


def test_a_loss_that_was_never_a_number(release: Release, tmp_path: Path) -> None:
    child, zoo = release.children[0], tmp_path / "zoo"
    for iteration in range(3):
        damage.nan_in(child.result_json, iteration)
    report = import_tiny(release, zoo)
    assert report.skipped == {place(child): "none of its checkpoints can be used"}
    assert problems(zoo) == []


HARMS = ("missing", "cut", "no object", "not UTF-8", "too long")


def test_the_config_of_result_json_stands_in(tmp_path: Path) -> None:
    release, zoo = many_children(tmp_path, len(HARMS), epochs=1), tmp_path / "zoo"
    import_tiny(release, tmp_path / "before")
    for child, harm in zip(release.children, HARMS, strict=True):
        _harm(child.config_json, harm)
    report = import_tiny(release, zoo)
    assert report.skipped == {}
    for child in release.children:
        (note,) = report.notes[place(child)]
        assert note.startswith("config.json ")
        assert note.endswith(": the config in result.json is read instead")
    before, after = contents(tmp_path / "before"), contents(zoo)
    changed = {name for name, text in after.items() if before[name] != text}
    of_members = {f"pt-0/ft-{number}/member.json" for number in range(len(HARMS))}  # the digest of that file
    assert changed - of_members <= {"metadata/members.parquet", "metadata/README.md", ".training/import/report.json"}
    assert problems(zoo) == []


def _harm(path: Path, harm: str) -> None:
    if harm == "missing":
        path.unlink()
    elif harm == "cut":
        damage.truncate(path)
    elif harm == "no object":
        path.write_text("[1]")
    elif harm == "not UTF-8":
        path.write_bytes(b'{"a": "\xff\xfe"}')
    else:
        path.write_text('{"a": "' + "x" * 2**22 + '"}')


def test_neither_config_nor_results(release: Release, tmp_path: Path) -> None:
    child, zoo = release.children[0], tmp_path / "zoo"
    child.config_json.unlink()
    child.result_json.unlink()
    report = import_tiny(release, zoo)
    assert report.skipped == {
        place(child): "config.json cannot be read (No such file or directory), and result.json carries no config"
    }
    assert_all_but(report, release, place(child))
    assert problems(zoo) == []


# A value in config.json, and what of it is said.
REFUSED: list[tuple[str, Any, str]] = [
    ("model::type", "vit_b_16", 'model::type is "vit_b_16". There are: vit_test'),
    ("model::type", "vit_tset", 'model::type is "vit_tset". Nearest: vit_test'),
    ("dataset::name", "SVHN", 'dataset::name is "SVHN"; expected "ImageNet1K" or "CIFAR100"'),
    ("model::o_dim", 10, "model::o_dim is 10; expected 100, the classes of its images"),
    ("model::o_dim", "100", 'model::o_dim is "100"; expected a whole number from 1'),
    ("optim::scheduler", "cosine", 'optim::scheduler is "cosine"; expected null, as in all of the zoo'),
    ("optim::optimizer", "lion", 'optim::optimizer is "lion"; expected adamw or sgd'),
    ("optim::lr", "1e-3", 'optim::lr is "1e-3"; expected a number from 0'),
    ("optim::lr", -0.1, "optim::lr is -0.1; expected a number from 0"),
    ("optim::lr", float("nan"), "optim::lr is NaN; expected a number from 0"),
    ("optim::lr", {"grid_search": [1]}, "optim::lr is an object; expected a number from 0"),
    ("training::batchsize", 0, "training::batchsize is 0; expected a whole number from 1"),
    ("training::batchsize", True, "training::batchsize is true; expected a whole number from 1"),
    ("training::epochs_train", 2.5, "training::epochs_train is 2.5; expected a whole number from 1"),
    ("training::loss", "info_nce", 'training::loss is "info_nce" of a fine-tuned model; expected "stce" or "ce"'),
    ("training::loss", "mse", 'training::loss is "mse"; expected stce or ce or info_nce'),
    ("model::dropout", 0.1, "model::dropout is 0.1; expected 0, as in all of the zoo"),
    ("seed", -1, "seed is -1; expected a whole number from 0"),
    ("seed", 2**32, "seed is 4294967296; expected a whole number from 0"),
]


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> tuple[Release, dict[str, str]]:
    """A release with a child for each row of the table; what is said of those that are not taken."""
    release = many_children(tmp_path_factory.mktemp("refused"), len(REFUSED), epochs=1)
    for child, (key, value, _) in zip(release.children, REFUSED, strict=True):
        damage.change_keys(child.config_json, **{key: value})
    planned, report = plan_release(release.root, release.root.parent / "zoo", model_types=MODEL_TYPES)
    assert [str(one.id) for one in planned] == ["pt-0"]
    return release, report.skipped


@pytest.mark.parametrize("row", [pytest.param(n, id=f"{key} {value}") for n, (key, value, _) in enumerate(REFUSED)])
def test_a_setting_that_the_zoo_does_not_have(refused: tuple[Release, dict[str, str]], row: int) -> None:
    """The model is not taken: key and value are named, and what was expected."""
    release, skipped = refused
    assert REFUSED[row][2] in skipped[place(release.children[row])]


def test_settings_that_are_told_and_taken(release: Release, tmp_path: Path) -> None:
    """A frozen encoder that was not, a contradiction with the name, a seed that stands nowhere."""
    child, zoo = release.children[0], tmp_path / "zoo"
    damage.change_keys(child.config_json, **{"model::freeze_encoder": True, "optim::lr": 0.5, "optim::wd": 1e-4})
    report = import_tiny(release, zoo)
    assert (list(report.taken), report.skipped) == (ALL, {})
    notes = report.notes[place(child)]
    assert "model::freeze_encoder is true, which the released code does not read" in notes
    assert any(note.startswith("optim::lr is 0.5 in config.json, 0.001 in ") for note in notes)
    assert any(note.startswith("optim::wd is 0.0001 in config.json, 0") for note in notes)
    found = [load_member_record(zoo / member / "member.json") for member in report.taken]
    (record,) = [record for record in found if record.origin is not None and record.origin.folder == place(child)]
    assert (record.learning_rate, record.weight_decay) == (0.5, 1e-4)
    assert problems(zoo) == []


def test_a_seed_that_stands_nowhere(release: Release, tmp_path: Path) -> None:
    parent, zoo = release.parents[1], tmp_path / "zoo"
    other = parent.folder.with_name("cl_without_a_seed")
    os.rename(parent.folder, other)
    os.rename(release.children[2].folder.parent, release.root / "finetuning/cl_without_a_seed")
    damage.remove_keys(other / "config.json", "seed")
    (other / "result.json").unlink()
    report = import_tiny(release, zoo)
    assert "seed stands nowhere: 42, the released code's default" in report.notes["pretraining/cl_without_a_seed"]
    assert load_member_record(zoo / "pt-1/member.json").init_seed == 42


def test_older_spellings(release: Release, tmp_path: Path) -> None:
    """The README's of weight decay and of the parent's path."""
    child, zoo = release.children[0], tmp_path / "zoo"
    config = json.loads(child.config_json.read_text())
    config["optim::weight_decay"] = config.pop("optim::wd") + 0.01
    config["pretrained::model::path"] = config.pop("pretraining::model::path")
    child.config_json.write_text(json.dumps(config))
    report = import_tiny(release, zoo)
    assert report.skipped == {}
    found = [load_member_record(zoo / member / "member.json") for member in report.taken]
    (record,) = [record for record in found if record.origin is not None and record.origin.folder == place(child)]
    assert record.weight_decay == 0.01
