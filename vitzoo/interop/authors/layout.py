"""Where everything lies in the authors' release: what is looked for, and what of it is there. No file is opened.

    <release>/pretraining/<model>/checkpoint_<number>/checkpoints    a torch pickle of a state dict
                                                     /optimizer      not taken
                                 /config.json, result.json
    <release>/finetuning/<parent's model>/<model>/...                the same

Numbers are written in three ways: ``checkpoint_89``, ``checkpoint_0049``, ``checkpoint_000000``. What a number counts
is `lineage.py`'s business.

Source: github.com/ModelZoos/ViTModelZoo at 2eb7441, README.md and ``experiment_runner/def_nn_experiment.py``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from vitzoo.errors import ReleaseError, printable
from vitzoo.interop.authors.report import Findings

PRETRAINING, FINETUNING = "pretraining", "finetuning"
CONFIG, RESULT, CHECKPOINT = "config.json", "result.json", "checkpoints"
OPTIMIZER = "optimizer"
_NUMBERED = re.compile(r"checkpoint_(\d{1,9})", re.ASCII)
_EXPECTED = (
    f"expected a folder with {PRETRAINING}/<model>/checkpoint_<number>/{CHECKPOINT} and "
    f"{FINETUNING}/<parent>/<model>/checkpoint_<number>/{CHECKPOINT}"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundModel:
    """A model's folder in the release.

    Args:
        root: The release.
        folder: The model's, inside the release, with forward slashes.
        checkpoints: Numbers to the files of weights, ascending.
    """

    root: Path
    folder: str
    checkpoints: dict[int, Path]

    @property
    def name(self) -> str:
        """The model's own name, which carries its factors."""
        return self.folder.rpartition("/")[2]

    @property
    def parent_name(self) -> str | None:
        """The name of the model whose folder it lies under; None for one that was pre-trained."""
        parts = self.folder.split("/")
        return parts[1] if parts[0] == FINETUNING else None

    def relative(self, path: Path) -> str:
        """A file's place in the release, with forward slashes."""
        return path.relative_to(self.root).as_posix()

    def file(self, name: str) -> Path:
        """A file of the model's folder."""
        return self.root / self.folder / name


def find_models(root: Path, findings: Findings) -> list[FoundModel]:
    """Every model of a release, parents first, by name.

    Args:
        root: The release's folder.
        findings: Told what is no model, and which checkpoints are none.

    Raises:
        ReleaseError: The folder has another shape; the message shows the nearest that there is.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "is not there"
        raise ReleaseError(f"{printable(str(root))} {what}; {_EXPECTED}. Name the release's folder.", path=root)
    if not any((root / name).is_dir() for name in (PRETRAINING, FINETUNING)):
        raise ReleaseError(f"{printable(str(root))} is no release of the zoo: {_EXPECTED}.{_nearest(root)}", path=root)
    models = [model for folder in _folders(root / PRETRAINING) if (model := _model(root, folder, findings)) is not None]
    for family in _folders(root / FINETUNING):
        if _numbers(family):
            place = family.relative_to(root).as_posix()
            findings.skip(place, f"lies where a parent's folder is expected: {FINETUNING}/<parent>/<model>")
            continue
        models += [model for folder in _folders(family) if (model := _model(root, folder, findings)) is not None]
    if not models:
        raise ReleaseError(f"{printable(str(root))} holds no model: {_EXPECTED}.", path=root)
    return models


def _model(root: Path, folder: Path, findings: Findings) -> FoundModel | None:
    """A model's folder; None, and said so, where it holds no checkpoint."""
    place = folder.relative_to(root).as_posix()
    if any("\ud800" <= char <= "\udfff" for char in place):  # bytes that are no UTF-8, as Python shows them
        findings.skip(place, "has a name that is no text. Rename it")
        return None
    checkpoints: dict[int, Path] = {}
    for number, checkpoint in _numbers(folder):
        path = checkpoint / CHECKPOINT
        if not path.is_file():
            findings.note(place, f"{checkpoint.name} holds no file {CHECKPOINT}: not taken")
        elif number not in checkpoints:
            checkpoints[number] = path
        elif path.read_bytes() == checkpoints[number].read_bytes():
            findings.note(place, f"{checkpoint.name} is {checkpoints[number].parent.name} once more: taken once")
        else:
            findings.skip(
                place,
                f"{checkpoints[number].parent.name} and {checkpoint.name} have one number and other weights. Take the "
                "wrong one away",
            )
            return None
    if not checkpoints:
        findings.skip(place, f"holds no checkpoint_<number>/{CHECKPOINT}")
        return None
    return FoundModel(root=root, folder=place, checkpoints=dict(sorted(checkpoints.items())))


def _numbers(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoint folders of a model with their numbers, in the order of their names."""
    return [(int(match[1]), path) for path in _folders(folder) if (match := _NUMBERED.fullmatch(path.name))]


def _folders(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _nearest(root: Path) -> str:
    """The end of a message: where a release seems to lie, or what its folders may have been meant by."""
    for place in (*_folders(root), *[inner for folder in _folders(root) for inner in _folders(folder)], *root.parents):
        if (place / PRETRAINING).is_dir() or (place / FINETUNING).is_dir():
            return f" One lies at {printable(str(place))}: name that."
    if _numbers(root):
        return " It is a single model; put it into pretraining/ of a folder, and name that folder."
    names = [path.name for path in _folders(root)]
    for wanted in (PRETRAINING, FINETUNING):
        for name in get_close_matches(wanted, names, n=1):
            return f' Nearest: "{printable(name)}"; is it {wanted}?'
    return f" It holds: {', '.join(map(printable, names[:8])) or 'no folder'}."
