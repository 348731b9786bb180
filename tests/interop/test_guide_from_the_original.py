"""The guide from the authors' code: what is ours runs as it stands, and its table of keys is what becomes of them."""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from tests.commands import run_command
from tests.conftest import ROOT
from tests.images.pictures import CIFAR_FINE, write_cifar
from tests.interop.authors_vit import TINY, VIT_S_16, AuthorsViT
from tests.interop.release_records import (
    CONTRASTIVE,
    FINE_TUNING,
    MASKED,
    PUBLISHED_PARENT,
    SENTIMENT,
    SUPERVISED,
    parent_config,
)
from training.member.record import planned_fields
from training.recipes import load_recipe
from training.recipes.augmentation import Augmentation
from training.recipes.authors_json import ALIASES, FIXED, IGNORED, KNOWN, READ, authors_recipe
from training.recipes.plan import PlannedMember, plan_members
from training.recipes.recipe import Children, Head, Parent, Recipe, Seeds
from training.recipes.training import Mixing, Optimizer, Schedule, Training
from vitzoo import VitZooConfig, VitZooModel
from vitzoo.errors import TrainingError
from vitzoo.tables.columns import MEMBERS

GUIDE = "docs/guides/from-the-original.md"
TEXT = (ROOT / GUIDE).read_text(encoding="utf-8")

EXAMPLES = {"sl_pretraining": SUPERVISED, "cl_pretraining": CONTRASTIVE, "vit_finetuning": FINE_TUNING}


def blocks() -> list[tuple[str, str]]:
    """What is run or read of the guide, in its order."""
    return re.findall(r"^```(python|bash|json)\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def in_a_users_folder(digits_zoo: Path, tmp_path: Path) -> None:
    """The digits zoo, the authors' example configs and a CIFAR-100 in parquet files."""
    (tmp_path / "zoo").symlink_to(digits_zoo)
    (tmp_path / "example_configs").mkdir()
    for name, config in EXAMPLES.items():
        (tmp_path / f"example_configs/config_{name}.json").write_text(json.dumps(config), encoding="utf-8")
    write_cifar(tmp_path / "cifar100", train=range(6), test=range(4))


@pytest.mark.usefixtures("in_a_users_folder")
def test_the_guide_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    said: list[str] = []
    for language, block in blocks():
        if language == "python":
            if "def recipe()" in block:
                Path("their_grid.py").write_text(block, encoding="utf-8")
            exec(compile(block, GUIDE, "exec"), names)
        elif language == "bash":
            for command in block.splitlines():
                done = run_command(command)
                assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
                said.append(done.stdout)
    printed = capsys.readouterr().out
    assert "Member('pt-12') sgd 0.005\n" in printed
    assert f"\n6 4 {CIFAR_FINE[:3]}\n" in printed
    assert "Augmentation(resize=256, " in printed
    assert names["model"].classifier.out_features == 7
    counts = [found[0] for text in said if (found := re.findall(r"^\d+ members? \(.*?\)", text, flags=re.MULTILINE))]
    assert counts == [
        "1 member (1 parent, 0 children)",
        "1 member (1 parent, 0 children)",
        "2 members (1 parent, 1 child)",
        "250 members (10 parents, 240 children)",
    ]


@pytest.mark.usefixtures("in_a_users_folder")
def test_the_grid_of_theirs_has_the_members_of_paper() -> None:
    made = next(block for _, block in blocks() if "def recipe()" in block)
    names: dict[str, Any] = {}
    exec(compile(made, GUIDE, "exec"), names)

    def members(planned: list[PlannedMember], **changes: Any) -> set[str]:
        return {
            repr((one.id.parent, one.id.is_parent, one.head, replace(one.training, **changes), one.seeds))
            for one in planned
        }

    theirs, ours = plan_members(names["recipe"]()), plan_members(load_recipe("paper"))
    assert members(theirs) == members(ours, precision="fp32")
    assert [one.training.optimizer.name for one in theirs[1:4]] == ["adamw", "sgd", "adamw"]
    assert [one.training.optimizer.name for one in ours[1:4]] == ["adamw", "adamw", "adamw"]


def test_what_the_guide_says_of_their_configs() -> None:
    with pytest.raises(TrainingError, match=r"pretraining::model is .*_seed_42_.*expected .*_seed_6312_"):
        authors_recipe([SUPERVISED, FINE_TUNING], name="as published")
    parent = parent_config(PUBLISHED_PARENT, VIT_S_16)
    searched = json.loads(next(block for language, block in blocks() if language == "json"))
    assert len(authors_recipe([parent, FINE_TUNING | searched], name="grid").recipe.children.optimizers) == 6
    with pytest.raises(TrainingError, match="optim::wd has two values in two spellings"):
        authors_recipe([parent, FINE_TUNING | {"optim::weight_decay": [1e-3, 0]}], name="two spellings")


def _elements(cell: str, state: Mapping[str, torch.Tensor]) -> tuple[int, set[str]]:
    """How many weights the modules and parameters of a cell have, and which they are."""
    found: set[str] = set()
    last = ""
    for name in re.findall(r"`(.*?)`", cell):
        last = f"{last.rpartition('.')[0]}{name}" if name.startswith(".") else name
        path = re.sub(r"\[(\d+)\]", r".\1", last)
        inside = {key for key in state if key == path or key.startswith(f"{path}.")}
        assert inside, name
        found |= inside
    return sum(state[key].numel() for key in found), found


@pytest.mark.parametrize("head_width", [None, 8])
def test_the_names_of_weights_are_those_of_both_models(head_width: int | None) -> None:
    theirs = AuthorsViT(TINY, outputs=5, head_width=head_width).state_dict()
    config = VitZooConfig(
        hidden_size=TINY.hidden,
        num_hidden_layers=TINY.depth,
        num_attention_heads=1,
        intermediate_size=4 * TINY.hidden,
        image_size=TINY.image,
        patch_size=TINY.patch,
        num_labels=5,  # pyright: ignore[reportCallIssue]
        head_type="linear" if head_width is None else "mlp",
        head_width=head_width,
    )
    ours = VitZooModel(config).state_dict()
    rows = re.findall(r"^\| (`vit\..*) \| (.*) \|$", TEXT, flags=re.MULTILINE)
    assert len(rows) == 9
    named: tuple[set[str], set[str]] = (set(), set())
    for one, other in rows:
        if ("MLP" in one, "linear" in one) not in ((False, False), (head_width is not None, head_width is None)):
            continue
        (count, their_names), (expected, our_names) = _elements(one, theirs), _elements(other, ours)
        assert count == expected, (one, other)
        named[0].update(their_names)
        named[1].update(our_names)
    assert named[0] == {name for name in theirs if not name.startswith("vit.blocks.1.")}
    assert named[1] == {name for name in ours if not name.startswith("vit.layers.1.")}


class Row(NamedTuple):
    """What the guide says of a key."""

    required: bool
    here: str
    fields: str
    columns: str


def _rows() -> dict[str, Row]:
    table = TEXT.split("## Every configuration key")[1].split("\n## ")[0]
    rows = {}
    for line in table.splitlines():
        if line.startswith(("| `", "| **`")):
            name, _, here, fields, columns = (cell.strip() for cell in line[1:-1].split("|"))
            key = re.findall(r"`(.*?)`", name)[0]
            assert key not in rows, key
            rows[key] = Row("**" in name, here, fields, columns)
    return rows


ROWS = _rows()


def test_the_table_names_every_key_and_what_becomes_of_it() -> None:
    assert sorted(ROWS) == sorted(KNOWN)
    kinds = {"read": READ, "only": tuple(FIXED), "ignored": tuple(IGNORED), "as": tuple(ALIASES)}
    for kind, keys in kinds.items():
        assert {key for key, row in ROWS.items() if re.match(r"\w+", row.here)[0] == kind} == set(keys), kind  # pyright: ignore[reportOptionalSubscript]
    for key, (allowed, _) in FIXED.items():
        assert ROWS[key].here == "only " + ", ".join(f"`{json.dumps(one)}`" for one in allowed)
    for key, name in ALIASES.items():
        assert ROWS[key].here == f"as `{name}`"
    assert all(row.fields == row.columns == "" for row in ROWS.values() if row.here != "read")


_TWO = (SUPERVISED, CONTRASTIVE | {"seed": 8})
_CHILD = {key: value for key, value in FINE_TUNING.items() if not key.startswith("pretraining::")}
_OF_ONE, _OF_ALL = _CHILD | {"pretraining::mode": "sl"}, _CHILD | {"pretraining::mode": ["sl", "cl"]}
_SGD = SUPERVISED | {"optim::optimizer": "sgd", "optim::momentum": 0.0}
_SUPERVISED_NAME = SUPERVISED["model::name"]
_SENTIMENT = {key: value for key, value in SENTIMENT.items() if not key.startswith("pretrain")}
_Configs = tuple[Mapping[str, Any], ...]


def _changed(configs: _Configs, change: Mapping[str, Any]) -> tuple[_Configs, _Configs]:
    """Configs, and the same with a change of the last one."""
    return configs, (*configs[:-1], {**configs[-1], **change})


# For each key that is read: configs, and the same where it says something else.
CHANGES: dict[str, tuple[_Configs, _Configs]] = {
    "model::type": ((SUPERVISED,), (MASKED,)),
    "model::dropout": _changed((SUPERVISED,), {"model::dropout": 0.1, "model::attn_dropout": 0.1}),
    "model::attn_dropout": _changed((SUPERVISED,), {"model::attn_dropout": None}),
    "model::freeze_encoder": _changed((SUPERVISED, _OF_ONE), {"model::freeze_encoder": True}),
    "optim::scheduler": _changed((SUPERVISED,), {"optim::scheduler": "OneCycleLR"}),
    "training::warmup_ratio": _changed((SUPERVISED,), {"training::warmup_ratio": 0.1}),
    "pretraining::case": _changed((MASKED,), {"pretraininig::case": "scratch"}),
    "pretraining::optim::optimizer": _changed(
        (MASKED | {"optim::optimizer": ["adam", "sgd"], "optim::momentum": 0}, _SENTIMENT),
        {"pretraining::optim::optimizer": "sgd"},
    ),
    "pretraining::optim::lr": _changed(
        (MASKED | {"optim::lr": [5e-5, 3e-5]}, _SENTIMENT), {"pretraining::optim::lr": 3e-5}
    ),
    "pretraining::optim::wd": _changed(
        (MASKED | {"optim::wd": [1e-2, 1e-4]}, _SENTIMENT), {"pretraining::optim::wd": 1e-4}
    ),
    "seed": ((SUPERVISED, _OF_ONE), (SUPERVISED | {"seed": 7}, _OF_ONE | {"seed": 7, "model::head::seed": None})),
    "dataset::name": _changed((SUPERVISED,), {"dataset::name": "CIFAR100", "model::o_dim": 100}),
    "model::o_dim": _changed((CONTRASTIVE,), {"model::o_dim": 128}),
    "model::head::mlp": _changed((SUPERVISED, _OF_ONE | {"model::head::hidden_dim": 256}), {"model::head::mlp": True}),
    "model::head::hidden_dim": _changed(
        (SUPERVISED, _OF_ONE | {"model::head::mlp": True, "model::head::hidden_dim": 256}),
        {"model::head::hidden_dim": 64},
    ),
    "model::head::seed": _changed((SUPERVISED,), {"model::head::seed": 5}),
    "optim::optimizer": _changed((_SGD,), {"optim::optimizer": "adamw"}),
    "optim::lr": _changed((SUPERVISED,), {"optim::lr": 0.003}),
    "optim::wd": _changed((SUPERVISED,), {"optim::wd": 0}),
    "optim::momentum": _changed((_SGD,), {"optim::momentum": 0.9}),
    "training::mode": ((SUPERVISED,), (CONTRASTIVE,)),
    "training::loss": ((SUPERVISED,), (CONTRASTIVE,)),
    "validation::loss": _changed((SUPERVISED,), {"validation::loss": None}),
    "training::temperature": _changed((CONTRASTIVE,), {"training::temperature": 0.5}),
    "training::batchsize": _changed((SUPERVISED,), {"training::batchsize": 64}),
    "training::epochs_train": _changed((SUPERVISED,), {"training::epochs_train": 3}),
    "training::label_smoothing": _changed((SUPERVISED,), {"training::label_smoothing": None}),
    "training::mixup": _changed((SUPERVISED,), {"training::mixup": None}),
    "training::cutmix": _changed((SUPERVISED,), {"training::cutmix": None}),
    "training::randerase": _changed((SUPERVISED,), {"training::randerase": None}),
    "pretraining::model": _changed(
        (*_TWO, _OF_ALL), {"pretraining::mode": None, "pretraining::model": _SUPERVISED_NAME}
    ),
    "pretraining::model::path": _changed(
        (*_TWO, _OF_ALL),
        {"pretraining::mode": None, "pretraining::model::path": f"zoos/{_SUPERVISED_NAME}/checkpoint_89/checkpoints"},
    ),
    "pretraining::seed": _changed((*_TWO, _OF_ALL), {"pretraining::mode": None, "pretraining::seed": 8}),
    "pretraining::mode": _changed((*_TWO, _OF_ALL), {"pretraining::mode": "cl"}),
    "pretraining::loss": _changed((*_TWO, _OF_ALL), {"pretraining::loss": "stce"}),
}
_CLASSES = {
    cls.__name__: cls
    for cls in (Augmentation, Children, Head, Mixing, Optimizer, Parent, Recipe, Schedule, Seeds, Training)
}


def _read(configs: _Configs) -> Recipe:
    return authors_recipe(configs, name="theirs").recipe


def _field_values(value: Any, found: dict[str, list[str]]) -> dict[str, list[str]]:
    """Every field of every dataclass in a recipe, as ``Class.field``, to its values."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            inner = getattr(value, field.name)
            found.setdefault(f"{type(value).__name__}.{field.name}", []).append(repr(inner))
            _field_values(inner, found)
    elif isinstance(value, tuple):
        for inner in value:
            _field_values(inner, found)
    return found


@pytest.mark.parametrize("key", READ)
def test_a_key_that_is_read_changes_what_the_table_says(key: str) -> None:
    before, after = map(_read, CHANGES[key])
    one, other = _field_values(before, {}), _field_values(after, {})
    changed = {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}
    fields = re.findall(r"`(\w+\.\w+)`", ROWS[key].fields)
    assert {name.split(".")[0] for name in fields} <= set(_CLASSES)
    assert set(fields) <= changed, (fields, changed)

    def columns(planned: list[PlannedMember]) -> dict[str, list[str]]:
        rows = [planned_fields(one) | {"parent": one.id.parent} for one in planned]
        return {name: [repr(row[name]) for row in rows] for name in rows[0].keys() & MEMBERS.keys()}

    was, became = columns(plan_members(before)), columns(plan_members(after))
    named = re.findall(r"`(\w+)`", ROWS[key].columns)
    differing = {name for name in was if was[name] != became[name]}
    assert set(named) <= differing, (named, differing)
    assert named or not differing


@pytest.mark.parametrize("key", READ)
def test_the_table_says_without_which_keys_no_config_does(key: str) -> None:
    config = {name: value for name, value in SUPERVISED.items() if name != key}
    if ROWS[key].required:
        with pytest.raises(TrainingError, match=f"{key} is missing"):
            authors_recipe([config], name="theirs")
    else:
        authors_recipe([config], name="theirs")


@pytest.mark.parametrize("key", [*IGNORED, *FIXED, *ALIASES])
def test_a_key_that_is_not_read_does_what_the_table_says(key: str) -> None:
    config = {name: value for name, value in SUPERVISED.items() if name not in (key, ALIASES.get(key))}
    if key in IGNORED:
        loaded = authors_recipe([config | {key: 5}], name="theirs")
        assert loaded.recipe == authors_recipe([config], name="theirs").recipe
        assert any(note.startswith(f"{key} is ignored: ") for note in loaded.notes)
    elif key in FIXED:
        with pytest.raises(TrainingError, match=f'{key} is "other"; expected'):
            authors_recipe([config | {key: "other"}], name="theirs")
        for value in FIXED[key][0]:
            authors_recipe([config | {key: value}], name="theirs")
    elif key == "pretraininig::case":
        plain = {name: value for name, value in MASKED.items() if name != key}
        assert _read((plain | {ALIASES[key]: "scratch"},)) == _read((MASKED | {key: "scratch"},))
    elif ALIASES[key].startswith("pretraining::"):
        value = CHANGES[ALIASES[key]][1][-1][ALIASES[key]]
        recipes = [_read((*_TWO, _CHILD | {name: value})) for name in (key, ALIASES[key])]
        assert recipes[0] == recipes[1]
    else:
        one, other = (authors_recipe([config | {name: 0.5}], name="theirs") for name in (key, ALIASES[key]))
        assert one == other


def test_nothing_of_theirs_is_run_as_ours() -> None:
    """Their calls stand in fences of another language, and none of ours would need what they import."""
    theirs = re.findall(r"^```py\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert len(theirs) == 6
    assert not re.search(
        r"^(import|from) (ray|torchvision|timm)", "".join(block for _, block in blocks()), re.MULTILINE
    )
