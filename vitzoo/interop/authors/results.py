"""The figures of a model of the authors' release: Ray Tune's result.json, a JSON object a line.

    {"training_iteration": 3, "train_loss": 2.9, "train_acc": .31, "test_loss": 1.8, "test_acc": .55,
     "time_this_iter_s": 310.2, "config": {...}, "hostname": ..., "node_ip": ..., "pid": ..., ...}

An iteration is a finished epoch; iteration 0 is the untrained model, whose train figures are its test figures again.
Of a line only what `Row` has is read: names of machines, addresses, process ids and paths go no further.

Source: github.com/ModelZoos/ViTModelZoo at 2eb7441, ``experiment_runner/def_nn_experiment.py``; Ray Tune 2.5.1.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_LONGEST_LINE = 4 * 2**20  # bytes; a line holds a config and some figures
_LOSSES = ("train_loss", "test_loss", "val_loss")
_ACCURACIES = ("test_acc", "val_acc")  # not train_acc: see `deviations.py`


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A model after some epochs.

    Args:
        losses: ``train_loss``, ``test_loss`` and ``val_loss`` in nats, where they are there and finite.
        accuracies: ``test_acc`` and ``val_acc``, 0 to 1, likewise.
        finite: Whether no loss was infinite or no number.
        seconds: That the epoch took.
    """

    losses: dict[str, float]
    accuracies: dict[str, float]
    finite: bool
    seconds: float | None


@dataclass(kw_only=True, slots=True)
class Results:
    """A result.json.

    Args:
        rows: Finished epochs to figures.
        config: The settings that the last line which has any carries; empty where none does.
        problems: What could not be read, a line each.
    """

    rows: dict[int, Row] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_results(path: Path) -> Results:
    """Read a result.json line by line; what cannot be read is a problem in what is returned, never an error.

    Args:
        path: The file.
    """
    results = Results()
    try:
        with open(path, "rb") as file:
            number = 0
            while line := file.readline(_LONGEST_LINE):
                number += 1
                if line.strip():
                    _read_line(results, line, number)
    except OSError as error:
        results.problems.append(f"{path.name} cannot be read: {error.strerror}. Its figures are null")
    if not results.rows and not results.problems:
        results.problems.append(f"{path.name} holds no line: figures are null")
    return results


def _read_line(results: Results, line: bytes, number: int) -> None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        what = "is cut" if not line.endswith(b"\n") else "is no JSON"
        results.problems.append(f"result.json, line {number} {what}: left out")
        return
    epoch = value.get("training_iteration") if isinstance(value, dict) else None
    if type(epoch) is not int or not 0 <= epoch < 10**6:
        results.problems.append(f"result.json, line {number} names no training_iteration: left out")
        return
    if epoch in results.rows:
        results.problems.append(f"result.json, line {number} is of iteration {epoch} again: the later one counts")
    if isinstance(value.get("config"), dict):
        results.config = value["config"]
    results.rows[epoch] = _row(results, value, epoch)


def _row(results: Results, value: dict[str, Any], epoch: int) -> Row:
    losses, accuracies, finite = {}, {}, True
    for name in (*_LOSSES, *_ACCURACIES):
        figure = value.get(name)
        if figure is None:
            continue
        figure = _number(figure)
        if figure is None:
            results.problems.append(f"result.json: {name} of iteration {epoch} is no number: null")
        elif not math.isfinite(figure):
            finite = finite and name not in _LOSSES
            results.problems.append(f"result.json: {name} of iteration {epoch} is {figure}: null")
        elif name in _LOSSES:
            losses[name] = figure
        elif 0 <= figure <= 1:
            accuracies[name] = figure
        else:
            results.problems.append(f"result.json: {name} of iteration {epoch} is {figure:g}; expected 0 to 1: null")
    seconds = _number(value.get("time_this_iter_s"))
    if seconds is not None and not math.isfinite(seconds):
        seconds = None
    return Row(losses=losses, accuracies=accuracies, finite=finite, seconds=seconds)


def _number(value: object) -> float | None:
    """A JSON number; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:  # of a whole number
        return math.inf
