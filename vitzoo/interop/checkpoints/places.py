"""Find the files of a checkpoint: a folder, a file, or ``org/name[@revision][/subfolder]`` on the Hub.

A relative path is relative to the table's folder. A text that begins with ``/``, ``./``, ``../`` or ``~`` is a path,
and so is one that exists. Nothing is downloaded before `Place.fetch`.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vitzoo.errors import CheckpointError, RecordError, did_you_mean, printable, shown
from vitzoo.interop.checkpoints.layouts import BESIDE
from vitzoo.records.json_files import read_bytes

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".tar")
INDEX = ".index.json"
# Weights of transformers, in the order in which it looks for them.
NAMES = ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
OTHERS = re.compile(r"(optimizer|scheduler|scaler|rng_state\w*|training_args|trainer_state)\.\w+|tf_model.*|flax_.*")
_ADAPTER = ("adapter_model.safetensors", "adapter_model.bin")
_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w.-]+))?(?:/(?P<folder>[^@]+))?", re.ASCII)
_SHARD = re.compile(r"[\w.-]{1,200}", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A folder with a checkpoint, or a file.

    Args:
        name: Its name in records and messages, without a private path.
        files: Names of the folder's files to their bytes.
        fetch: Returns the local path of a file of it, downloaded if needed.
        only: Name of the file that was named itself; None for a folder.
    """

    name: str
    files: Mapping[str, int]
    fetch: Callable[[str], Path]
    only: str | None = None

    def weights(self) -> list[str]:
        """Return the names of the weights files: one, or shards, which an index names.

        Raises:
            CheckpointError: There are none, several that no index names, or a missing shard.
        """
        names = [self.only] if self.only else [name for name in NAMES if name in self.files][:1] or self._others()
        if not names[0].endswith(INDEX):
            return names
        try:
            found = json.loads(read_bytes(self.fetch(names[0])))["weight_map"].values()
            shards = sorted({str(name) for name in found if _SHARD.fullmatch(str(name))})
        except (ValueError, KeyError, AttributeError, RecursionError):
            raise self.refuse(f"has a damaged {names[0]}") from None
        missing = [name for name in shards if name not in self.files]
        if missing or not shards:
            few = ", ".join(missing[:3]) or "no shard"
            raise self.refuse(
                f"lacks {few}, {len(missing)} of {len(shards)} shards that {names[0]} names", fix="Get it again."
            )
        return shards

    def _others(self) -> list[str]:
        found = [name for name in self.files if name.endswith(WEIGHTS) and not OTHERS.fullmatch(name)]
        if any(name in self.files for name in _ADAPTER):
            raise self.refuse("holds a PEFT adapter", fix="Merge it first: model.merge_and_unload().")
        if len(found) == 1:
            return found
        few = ", ".join(map(printable, sorted(found)[:4]))
        raise self.refuse(
            f"holds several weights files: {few}" if found else "holds no weights file",
            expected=f"one of {', '.join(NAMES)}, or one file of {', '.join(WEIGHTS)}",
            fix="Name the file itself in the table." if found else None,
        )

    def small_files(self) -> dict[str, Path]:
        """Return the config and preprocessing files beside the weights."""
        return {name: self.fetch(name) for name in BESIDE if name in self.files}

    @property
    def bytes(self) -> int:
        """Size of the weights files."""
        return sum(self.files[name] for name in self.weights())

    def refuse(self, what: str, *, expected: str | None = None, fix: str | None = None) -> CheckpointError:
        """Make the error for a place without a usable checkpoint."""
        return CheckpointError(f"{printable(self.name)} {what}", expected=expected, fix=fix)


def find_place(location: str, *, base: Path) -> Place:
    """Find a checkpoint.

    Args:
        location: A path or a folder on the Hub.
        base: Folder that relative paths begin at.

    Raises:
        CheckpointError: There is no such path, or a file of another type.
        ZooNotFoundError: The Hub has no such repo or revision that the user may read.
        HubError: The Hub does not answer.
    """
    path = base / Path(location).expanduser()
    is_path = location.startswith(("/", "./", "../", "~", ".\\")) or os.path.isabs(location)
    if path.exists() or is_path:
        return _local_place(location, path, base)
    match = _HUB.fullmatch(location)
    if match is None or ".." in location:
        near = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise CheckpointError(
            f"{shown(location)} does not exist",
            expected="a folder, a file or org/name[@revision][/subfolder]",
            fix=did_you_mean(path.name, near),
        )
    from vitzoo.sources.published import list_published  # huggingface_hub

    folder = match["folder"] or ""
    name = PurePosixPath(folder).name
    if name.endswith(WEIGHTS):
        found = list_published(match["repo"], revision=match["revision"], folder=folder.removesuffix(name).strip("/"))
        if name not in found.files:
            raise RecordError(f"{match['repo']} has no {printable(folder)}", path=Path(folder))
        return Place(name=_pinned(location, found.commit), files=found.files, fetch=found.fetch, only=name)
    found = list_published(match["repo"], revision=match["revision"], folder=folder.strip("/"))
    return Place(name=_pinned(location, found.commit), files=found.files, fetch=found.fetch)


def _pinned(location: str, commit: str) -> str:
    """Return a location on the Hub with its commit."""
    match = _HUB.fullmatch(location)
    repo, folder = (match["repo"], match["folder"]) if match else (location, None)
    return f"{repo}@{commit}" + (f"/{folder}" if folder else "")


def _local_place(location: str, path: Path, base: Path) -> Place:
    name = public_name(location, base)
    if path.is_file():
        if not path.name.endswith(WEIGHTS):
            raise CheckpointError(
                f"{printable(name)} is a file of another type", expected=f"one of {', '.join(WEIGHTS)}"
            )
        folder, only = path.parent, path.name
    elif path.is_dir():
        folder, only = path, None
    else:
        near = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise CheckpointError(f"{printable(name)} does not exist", fix=did_you_mean(path.name, near))
    files = {entry.name: entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()}
    return Place(name=name, files=files, fetch=lambda name: folder / name, only=only)


def public_name(location: str, base: Path) -> str:
    """Return a location without the private part of a path: relative to the table's folder, or its last two names."""
    path = Path(location).expanduser()
    if not path.is_absolute():
        parts = [part for part in path.parts if part not in ("..", ".")]
    elif path.is_relative_to(base):
        parts = list(path.relative_to(base).parts)
    else:
        parts = list(path.parts[-2:])
    return "/".join(parts) or path.name or "."
