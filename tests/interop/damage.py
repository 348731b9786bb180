"""Damage a data set in the authors' layout (`tests.interop.release`), one thing a function."""

import json
import os
import pickle
import shlex
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.interop.release import save_from_gpu


class Bomb:
    """Unpickled without care, it makes ``marker``."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f": > {shlex.quote(str(self.marker))}",)


def plant_bomb(path: Path, marker: Path, form: str | int) -> None:
    """Make a checkpoint run a command when it is unpickled, in a state dict or alone in a plain pickle."""
    if form == "zip":
        torch.save({**load(path), "vit.bomb": Bomb(marker)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(marker), protocol=int(form)))


def truncate(path: Path, *, keep: float = 0.5) -> None:
    os.truncate(path, int(path.stat().st_size * keep))


def save_legacy(path: Path) -> None:
    """In the format before torch 1.6: no zip."""
    torch.save(load(path), path, _use_new_zipfile_serialization=False)


def save_script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripts are deprecated
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)


def doubled(*, as_key: bool) -> bytes:
    """Pickle a tuple that holds a tuple twice, 60 times: a little text that is large to hash, print or copy."""
    tuples = b")q\0" + b"".join(b"h%ch%c\x86q%c" % (number, number, number + 1) for number in range(60))
    return b"\x80\x02}" + (tuples + b"K\x01s." if as_key else b"X\5\0\0\0vit.a" + tuples + b"s.")


def repack(path: Path, pickled: bytes) -> None:
    """Give an archive of torch.save another pickle."""
    with zipfile.ZipFile(path) as archive:
        names = {part.filename: archive.read(part) for part in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in names.items():
            archive.writestr(name, pickled if name.endswith("/data.pkl") else content)


def repeat_value(path: Path) -> None:
    """Make a tensor of 2^62 elements of one value, with strides of 0."""
    set_tensor(path, "vit.norm.bias", torch.zeros(1).as_strided((2**31, 2**31), (0, 0)))


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def compress(path: Path) -> None:
    """As a zip program packs the same files again: torch's are stored as they are."""
    with zipfile.ZipFile(path) as archive:
        files = {part.filename: archive.read(part) for part in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def flip_bit(path: Path) -> None:
    """In the middle of a tensor: the archive's own checksum shows it."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def set_tensor(path: Path, name: str, tensor: Any) -> None:
    change(path, lambda state: state | {name: tensor})


def remove_tensor(path: Path, name: str) -> None:
    change(path, lambda state: {other: tensor for other, tensor in state.items() if other != name})


def change_dtype(path: Path, dtype: torch.dtype) -> None:
    change(path, lambda state: {name: tensor.to(dtype) for name, tensor in state.items()})


def change(path: Path, how: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_from_gpu(OrderedDict(how(load(path))), path)


def load(path: Path) -> dict[str, Tensor]:
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def cut_last_line(result_json: Path) -> None:
    text = result_json.read_text()
    last = text.rstrip("\n").rfind("\n") + 1
    result_json.write_text(text[: (last + len(text)) // 2])


def change_rows(result_json: Path, how: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    rows = [json.loads(line) for line in result_json.read_text().splitlines()]
    result_json.write_text("".join(json.dumps(row) + "\n" for row in how(rows)))


def change_row(result_json: Path, iteration: int, **values: object) -> None:
    change_rows(
        result_json, lambda rows: [row | values if row["training_iteration"] == iteration else row for row in rows]
    )


def repeat_rows(result_json: Path, iteration: int) -> None:
    """Write the lines from ``iteration`` on a second time, with other metrics, as a trial that was restored does."""
    change_rows(
        result_json, lambda rows: rows + [row | {"train_loss": row["train_loss"] + 1} for row in rows[iteration:]]
    )


def change_config(config_json: Path, *without: str, **values: Any) -> None:
    """Remove keys of a config.json, and give others other values: ``**{"optim::lr": .1}``."""
    config = json.loads(config_json.read_text()) | values
    config_json.write_text(json.dumps({key: value for key, value in config.items() if key not in without}, indent=4))
