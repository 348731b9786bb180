"""What can be wrong with a data set in the authors' layout, one thing a function.

`tests.interop.release` makes a whole one, and a folder taken away is the tests' own.
"""

import json
import os
import pickle
import shlex
import shutil
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tests.interop.release import save_from_gpu


class _Bomb:
    """Unpickled without care, it makes ``marker``."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f": > {shlex.quote(str(self.marker))}",)


def truncate(path: Path, *, keep: float = 0.5) -> None:
    """Keep the first part of a file."""
    os.truncate(path, int(path.stat().st_size * keep))


def make_malicious(path: Path, marker: Path, *, form: Literal["zip", "pickle"] = "zip") -> None:
    """Make a checkpoint that runs a command, which makes ``marker``, when it is loaded as any pickle.

    As torch's zip it is a whole state dict besides; as a plain pickle, the bomb alone.
    """
    if form == "zip":
        torch.save({**_load(path), "vit.bomb": _Bomb(marker)}, path)
    else:
        path.write_bytes(pickle.dumps(_Bomb(marker), protocol=2))  # torch's own; at others it also warns


def legacy_pickle(path: Path) -> None:
    """Save a checkpoint again in the format before torch 1.6: no zip."""
    torch.save(_load(path), path, _use_new_zipfile_serialization=False)


def change_shape(path: Path, name: str, shape: tuple[int, ...]) -> None:
    """Give one tensor another shape (of zeros)."""
    _change(path, lambda state: state | {name: torch.zeros(shape)})


def change_dtype(path: Path, dtype: torch.dtype) -> None:
    """Save every tensor in another dtype."""
    _change(path, lambda state: {name: tensor.to(dtype) for name, tensor in state.items()})


def as_bf16(path: Path) -> None:
    """Save every tensor in bfloat16."""
    change_dtype(path, torch.bfloat16)


def add_tensor(path: Path, name: str, tensor: Tensor) -> None:
    """Put a tensor into a checkpoint that has no such name, or another in its place."""
    _change(path, lambda state: state | {name: tensor})


def remove_tensor(path: Path, name: str) -> None:
    """Take a tensor out of a checkpoint."""
    _change(path, lambda state: {other: tensor for other, tensor in state.items() if other != name})


def cut_last_line(result_json: Path) -> None:
    """Cut the last line of a file in its middle, as a full disk or a killed writer leaves it."""
    text = result_json.read_text()
    last = text.rstrip("\n").rfind("\n") + 1
    result_json.write_text(text[: (last + len(text)) // 2])


def drop_rows(result_json: Path, keep: int) -> None:
    """Keep the first ``keep`` lines."""
    _rewrite(result_json, lambda rows: rows[:keep])


def nan_in(result_json: Path, iteration: int, *names: str) -> None:
    """Make figures of one line NaN (bare, as Python's json writes it): the train and test losses, or those named."""
    nan = dict.fromkeys(names or ("train_loss", "test_loss"), float("nan"))
    _rewrite(result_json, lambda rows: [row | nan if row["training_iteration"] == iteration else row for row in rows])


def repeat_rows(result_json: Path, iteration: int) -> None:
    """Write the lines from ``iteration`` on a second time, with other figures, as a trial that was restored does."""
    _rewrite(
        result_json,
        lambda rows: (
            rows
            + [
                row | {"train_loss": row["train_loss"] + 1, "iterations_since_restore": number}
                for number, row in enumerate(rows[iteration:], start=1)
            ]
        ),
    )


def remove_keys(config_json: Path, *keys: str) -> None:
    """Take keys out of a config.json."""
    config = json.loads(config_json.read_text())
    config_json.write_text(json.dumps({key: value for key, value in config.items() if key not in keys}, indent=4))


def change_keys(config_json: Path, **values: Any) -> None:
    """Give keys of a config.json other values: ``**{"optim::lr": .1}``."""
    config_json.write_text(json.dumps(json.loads(config_json.read_text()) | values, indent=4))


def copy_model(source: Path, target: Path) -> None:
    """A duplicate of a whole model under another name."""
    shutil.copytree(source, target)


def _load(path: Path) -> dict[str, Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)


def _change(path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_from_gpu(OrderedDict(change(dict(_load(path)))), path)


def _rewrite(result_json: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    rows = [json.loads(line) for line in result_json.read_text().splitlines()]
    result_json.write_text("".join(json.dumps(row) + "\n" for row in change(rows)))
