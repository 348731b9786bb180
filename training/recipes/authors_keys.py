"""The ``section::key`` files of the zoo's authors: which keys there are, what each may say, and grids over them.

    {"seed": [42, 6312], "optim::lr": "tune.grid_search([3e-3, 1e-3])", "training::mixup": 0.8, ...}

Nothing in a file is executed. What the settings amount to, a recipe, is `authors_json.py`'s.

Source: github.com/ModelZoos/ViTModelZoo at 2eb7441: its README, ``example_configs`` and ``experiment_runner``.
"""

import ast
import itertools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitzoo.errors import TrainingError, did_you_mean, printable, shown
from vitzoo.interop.authors.keys import ALIASES

_DEVICES = "which devices are used is for the machine that trains, not for a recipe"
_WORKERS = "how many processes read images is for the machine that trains, not for a recipe"
_DUMP = "images come by dataset::name from the Hub, or from a folder named by --data"
IGNORED = {
    "cuda": _DEVICES,
    "device": _DEVICES,
    "training::device": _DEVICES,
    "training::ddp": _DEVICES,
    "training::num_devices": _DEVICES,
    "trainloader::num_workers": _WORKERS,
    "testloader::num_workers": _WORKERS,
    "dataset::dump": _DUMP,
    "dataset::ref": _DUMP,
    "scheduler::steps_per_epoch": "it follows from data set and batch size",
    "model::name": "it serves only to say which parent children start from",
    "training::output_epoch": "which epochs are kept is for the command that trains: --keep every-5",
    "training::val_epochs": "every epoch is measured",
}

# Where one thing alone is done here: what may stand there, and why nothing else.
FIXED: dict[str, tuple[tuple[object, ...], str]] = {
    "model::type": (("vit_s_16",), "language models are not trained here"),
    "model::channels_in": ((3,), "images have three channels"),
    "model::patch_size": ((16,), "vit_s_16 has patches of 16 pixels"),
    "model::init_type": (("kaiming_normal",), "it is the only initialisation here"),
    "model::nlin": (("gelu", None), "vit_s_16 has GELU"),
    "model::head::nlin": (("relu", None), "an MLP head has ReLU, as in the authors' code"),
    "model::dropout": ((0, None), "there is no dropout here"),
    "model::attn_dropout": ((0, None), "there is no dropout here"),
    "model::freeze_encoder": ((False, None), "all weights are trained"),
    "optim::scheduler": ((None,), "the learning rate is constant, as in all of the zoo"),
    "optim::nesterov": ((False, None), "momentum is plain here"),
    "training::task": (("classification", None), "it is the only task here"),
    "training::start_epoch": ((0, None), "a training starts at its beginning"),
}

READ = (
    "seed",
    "dataset::name",
    "model::o_dim",
    "model::head::mlp",
    "model::head::hidden_dim",
    "model::head::seed",
    "optim::optimizer",
    "optim::lr",
    "optim::wd",
    "optim::momentum",
    "training::mode",
    "training::loss",
    "validation::loss",
    "training::temperature",
    "training::batchsize",
    "training::epochs_train",
    "training::label_smoothing",
    "training::mixup",
    "training::cutmix",
    "training::randerase",
    "pretraining::model",
    "pretraining::model::path",
    "pretraining::seed",
    "pretraining::mode",
    "pretraining::loss",
)
KNOWN = (*READ, *FIXED, *IGNORED, *ALIASES)

_NAME = "model::name"
_WIDTH = "model::head::hidden_dim"
# What has no meaning beside another key's words: that key, its words, and why. 0 and null say nothing either way.
_WITHOUT = {
    "optim::momentum": ("optim::optimizer", ("adamw",), "it has none"),
    "training::temperature": ("training::loss", ("stce", "ce"), "InfoNCE alone has one"),
}
_SEARCH = re.compile(r"\s*(?:ray\.)?tune\.grid_search\((?P<values>.*)\)\s*", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """One file of the authors, its keys checked and spelled one way.

    Args:
        where: What messages call it.
        values: What each key may be: one value, or those of a grid.
    """

    where: str
    values: Mapping[str, tuple[Any, ...]]

    @property
    def is_fine_tuning(self) -> bool:
        """Whether it names what to start from."""
        return any(self.given(key) for key in READ if key.startswith("pretraining::"))

    def given(self, key: str) -> tuple[Any, ...]:
        """The values of a key but for nulls."""
        return tuple(value for value in self.values.get(key, ()) if value is not None)

    def cells(self) -> "list[Cell]":
        """Every combination of the grids' values; the last grid of the file changes fastest."""
        own = {
            key: values
            for key, values in self.values.items()
            if key == _NAME or (key in READ and not key.startswith("pretraining::"))
        }
        return [
            Cell(where=self.where, values=dict(zip(own, cell, strict=True)))
            for cell in itertools.product(*own.values())
        ]

    def notes(self) -> list[str]:
        """What is ignored of it, and why."""
        silent = {"training::output_epoch": (1,), "training::val_epochs": (1,)}  # what is done anyway
        notes = [f"{key} is ignored: {IGNORED[key]}" for key in IGNORED if self.given(key) not in ((), silent.get(key))]
        notes += [
            f"{key} is ignored with {', '.join(met)}: {why}"
            for key, (other, without, why) in _WITHOUT.items()
            if any(self.given(key)) and (met := [word for word in without if word in self.given(other)])
        ]
        if any(self.given(_WIDTH)) and True not in self.given("model::head::mlp"):
            notes.append(f"{_WIDTH} is ignored: a linear head has none")
        return notes


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """The settings of one model.

    Args:
        where: What messages call the file.
        values: One value a key.
    """

    where: str
    values: Mapping[str, Any]

    def refuse(self, key: str, expected: str) -> TrainingError:
        """The error that a key's value is not what is expected."""
        if key not in self.values:
            return TrainingError(f"{self.where}: {key} is missing; expected {expected}.")
        return TrainingError(f"{self.where}: {key} is {shown(self.values[key])}; expected {expected}.")

    def text(self, key: str, known: tuple[str, ...], *, default: str | None = None) -> str:
        """One of the known words; the default for null, or for no value."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if value not in known:
            raise self.refuse(key, " or ".join(f'"{word}"' for word in known))
        return value

    def number(self, key: str, *, default: float | None = None) -> float:
        """A finite number; the default for null, or for no value."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.refuse(key, "a number" if default is None else "a number or null")
        return float(value)

    def whole(self, key: str, *, default: int | None = None) -> int:
        """A whole number; the default for null, or for no value."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if type(value) is not int:
            raise self.refuse(key, "a whole number")
        return value


def parse_config(values: Mapping[str, Any], *, where: str) -> Config:
    """Check keys, unite spellings, read grids.

    Args:
        values: The file's content.
        where: What messages call it.

    Raises:
        TrainingError: A key is unknown, stands in two spellings, or says what is not done here.
    """
    parsed: dict[str, tuple[Any, ...]] = {}
    for key, value in values.items():
        if key not in KNOWN:
            raise TrainingError(f'{where}: unknown key "{printable(key)}".{did_you_mean(key, KNOWN)}')
        name = ALIASES.get(key, key)
        choices = _choices(value, key, where)
        if parsed.get(name, choices) != choices:
            raise TrainingError(f"{where}: {name} stands in two spellings with two values. Take one away.")
        parsed[name] = choices
    for key, (allowed, why) in FIXED.items():
        for value in parsed.get(key, ()):
            if not any(_same(value, one) for one in allowed):
                expected = " or ".join(json.dumps(one) for one in allowed)
                raise TrainingError(f"{where}: {key} is {shown(value)}; expected {expected}: {why}.")
    if len(parsed.get(_NAME, ())) > 1:
        raise TrainingError(f"{where}: {_NAME} is a grid; expected one name for all models of a config.")
    return Config(where=where, values=parsed)


def read_config(path: Path) -> Config:
    """A file of the authors.

    Raises:
        TrainingError: It cannot be read, is no JSON object, or `parse_config` refuses it.
    """
    try:
        values = json.loads(path.read_bytes(), object_pairs_hook=_unique)
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}. Name the authors' config.") from error
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"{path} is no JSON: {error}.") from error
    if not isinstance(values, dict):
        raise TrainingError(f"{path} holds {shown(values)}; expected an object of section::key names.")
    return parse_config(values, where=str(path))


def _choices(value: Any, key: str, where: str) -> tuple[Any, ...]:
    """The values of a grid, or the one value."""
    if isinstance(value, dict) and list(value) == ["grid_search"]:  # what tune.grid_search returns
        value = value["grid_search"]
    elif isinstance(value, str) and (search := _SEARCH.fullmatch(value)):
        try:
            value = ast.literal_eval(search["values"].strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            raise TrainingError(
                f"{where}: {key} is {shown(value)}; expected a list of plain Python values in grid_search: nothing in "
                "a config is executed."
            ) from error
        if not isinstance(value, (list, tuple)):
            raise TrainingError(f"{where}: {key} searches {search['values']:.60}; expected a list.")
    choices = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if value in ([], ()) and key not in IGNORED:
        raise TrainingError(f"{where}: {key} is an empty list; expected a value, or a list of one or more.")
    if not choices or not all(map(_is_plain, choices)):
        if key in IGNORED:  # such as their dataset::ref
            return (str(type(value).__name__),)
        if isinstance(value, (list, tuple)):
            place, wrong = next((n, one) for n, one in enumerate(choices) if not _is_plain(one))
            raise TrainingError(f"{where}: {key}[{place}] is a {type(wrong).__name__}; expected a plain value.")
        raise TrainingError(f"{where}: {key} is {shown(value)}; expected a value, or a list of one or more.")
    if len(set(map(repr, choices))) < len(choices):
        raise TrainingError(f"{where}: {key} has a value twice in its grid. Take one away.")
    return choices


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _same(value: object, allowed: object) -> bool:
    """Equal, where false is not 0."""
    return value == allowed and isinstance(value, bool) == isinstance(allowed, bool)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f'"{printable(name)}" stands twice')
    return dict(pairs)
