"""Find the models of the authors' release and read their settings and metrics. No checkpoint is opened.

    <release>/pretraining/<model>/checkpoint_<number>/checkpoints    a torch pickle of a state dict
                                                     /optimizer      not taken
                                 /config.json, result.json
    <release>/finetuning/<parent's model>/<model>/...                the same

A result.json is Ray Tune's, a JSON object a line:

    {"training_iteration": 3, "train_loss": 2.9, "train_acc": .31, "test_loss": 1.8, "test_acc": .55,
     "time_this_iter_s": 310.2, "config": {...}, "hostname": ..., "node_ip": ..., "pid": ..., ...}

An iteration is a finished epoch. Iteration 0 is the untrained model, whose train metrics are its test metrics. Names
of machines, addresses, process ids and paths are not read.

See `config` for settings, and `lineage` for the meaning of a checkpoint's number.

Language models have the same layout. A zoo has one architecture, so a tree of both kinds is refused.

Source: github.com/ModelZoos/ViTModelZoo at 2eb7441, README.md, ``experiment_runner/def_nn_experiment.py``; Ray 2.5.1.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitzoo.architectures import Sizes
from vitzoo.architectures.architecture import HeadWidth
from vitzoo.errors import ReleaseError, did_you_mean, printable, shown
from vitzoo.interop.authors.config import Settings, SettingsError, check_regular, read_released
from vitzoo.interop.authors.facts import CHECKPOINT_FOLDER, MAX_EPOCHS
from vitzoo.interop.authors.job import Import

PRETRAINING, FINETUNING = "pretraining", "finetuning"
CONFIG, RESULT, CHECKPOINT = "config.json", "result.json", "checkpoints"
_LOSSES = ("train_loss", "test_loss", "val_loss")
_ACCURACIES = ("test_acc", "val_acc")  # not train_acc: see `facts.TRAIN_METRICS`
_MAX_RESULTS = 64 * 2**20  # bytes; 90 epochs have under 1 MB
_MAX_PROBLEMS = 1000
_LONGEST_LINE = 4 * 2**20  # bytes; a line holds a config and some metrics
_EXPECTED = (
    f"a folder with {PRETRAINING}/<model>/checkpoint_<number>/{CHECKPOINT} and "
    f"{FINETUNING}/<parent>/<model>/checkpoint_<number>/{CHECKPOINT}"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Metrics of a model after some epochs.

    Args:
        values: ``train_loss``, ``test_loss``, ``val_loss`` in nats, ``test_acc``, ``val_acc`` from 0 to 1, where they
            are finite.
        finite: Whether no loss is NaN or infinite.
        seconds: Time that the epoch took.
    """

    values: dict[str, float]
    finite: bool
    seconds: float | None


@dataclass(kw_only=True, slots=True)
class Results:
    """Content of a result.json.

    Args:
        rows: Finished epochs to metrics.
        config: Settings of the last line that has any; empty where none has.
        problems: A line for each part that cannot be read.
    """

    rows: dict[int, Row] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass(kw_only=True, slots=True, eq=False)
class Model:
    """A model of the release. `lineage` fills the last fields from its weights.

    Args:
        path: Its folder.
        place: The folder's place in the release, with forward slashes.
        files: Checkpoint numbers to files of weights, ascending.
        settings: Its training, as configs and name say it.
        results: Its metrics.
        named_parent: Name of its parent in its config; None where the config names none.
        named_checkpoint: Number of the parent's checkpoint in its config, or None.
        outputs: Width of the head's output.
        head_width: Hidden width of an MLP head, or its widths; None for a linear head.
        sizes: Sizes of its backbone; a BERT's with its own vocabulary.
        role: Role of its head.
        next_sentence: Whether a masked model also has a head for next sentences.
        first_epoch: Finished epochs at checkpoint 0: 0 or 1.
        start: The parent of a child; None for a parent.
        start_number: Number of the parent's checkpoint that a child starts from.
    """

    path: Path
    place: str
    files: dict[int, Path]
    settings: Settings
    results: Results
    named_parent: str | None
    named_checkpoint: int | None
    outputs: int = 0
    head_width: HeadWidth = None
    sizes: Sizes | None = None
    role: str = "classifier"
    next_sentence: bool = False
    first_epoch: int = 0
    start: "Model | None" = None
    start_number: int = 0

    @property
    def name(self) -> str:
        """Name of its folder, which carries its factors."""
        return self.path.name

    @property
    def family(self) -> str | None:
        """Name of the model whose folder it is under; None for a pre-trained model."""
        parts = self.place.split("/")
        return parts[1] if parts[0] == FINETUNING else None

    @property
    def last_number(self) -> int:
        """Largest checkpoint number."""
        return max(self.files)

    @property
    def checkpoints(self) -> dict[int, Path]:
        """Finished epochs to files of weights, ascending."""
        return {number + self.first_epoch: path for number, path in self.files.items()}


def find_models(job: Import) -> list[Model]:
    """Find every model of a release whose settings can be read, parents first, by name.

    Args:
        job: The import; its report gets the folders that are not taken, and notes on the others.

    Raises:
        ReleaseError: The release's folder has another shape.
    """
    root = job.source
    shown_root = printable(str(root))
    fix = f"Name the folder that holds {PRETRAINING}/ and {FINETUNING}/."
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise ReleaseError(f"{shown_root} {what}", expected=_EXPECTED, fix=fix, path=root)
    if not any((root / name).is_dir() for name in (PRETRAINING, FINETUNING)):
        names = [path.name for path in _folders(root)]
        kinds = [name for name in ("vision", "language") if name in names]
        nearest = f" Import {' and '.join(kinds)} apart." if kinds else did_you_mean(PRETRAINING, names)
        raise ReleaseError(
            f"{shown_root} is not a release of the zoo", expected=_EXPECTED, fix=f"{fix}{nearest}", path=root
        )
    folders = list(_folders(root / PRETRAINING))
    for family in _folders(root / FINETUNING):
        if _numbered(family):
            place = family.relative_to(root).as_posix()
            job.report.skip(place, f"is where a parent's folder is expected: {FINETUNING}/<parent>/<model>")
        else:
            folders += _folders(family)
    found = [(folder, files) for folder in folders if (files := _find_files(folder, job))]
    if not found:
        raise ReleaseError(f"{shown_root} holds no model", expected=_EXPECTED, fix=fix, path=root)
    models = [model for folder, files in found if (model := _read_model(folder, files, job)) is not None]
    kinds = {model.settings.is_language: model for model in reversed(models)}
    if len(kinds) > 1:
        raise ReleaseError(
            f"{shown_root} holds vision and language models: {printable(kinds[False].place)} is a "
            f"{printable(kinds[False].settings.model_type)}, {printable(kinds[True].place)} a "
            f"{printable(kinds[True].settings.model_type)}",
            expected="models of one architecture, as a zoo has one",
            fix="Move them to two folders, and import each into a zoo of its own.",
            path=root,
        )
    return models


def _find_files(folder: Path, job: Import) -> dict[int, Path]:
    """Return checkpoint numbers to files, or report the reason and return nothing."""
    place = folder.relative_to(job.source).as_posix()
    if any("\ud800" <= char <= "\udfff" for char in place):  # bytes that are not UTF-8, as Python shows them
        job.report.skip(place, "its name is not UTF-8. Rename it")
        return {}
    files: dict[int, Path] = {}
    for number, checkpoint in _numbered(folder):
        path = checkpoint / CHECKPOINT
        if not path.is_file():
            job.report.note(place, f"{checkpoint.name} holds no file {CHECKPOINT}: not taken")
        elif number not in files:
            files[number] = path
        else:
            names = f"{files[number].parent.name} and {checkpoint.name}"
            job.report.skip(place, f"{names} have the same number. Delete one")
            return {}
    if not files:
        job.report.skip(place, f"holds no checkpoint_<number>/{CHECKPOINT}")
    return dict(sorted(files.items()))


def _read_model(folder: Path, files: dict[int, Path], job: Import) -> Model | None:
    """Read a model's config and metrics, or report why the zoo has no such model and return None."""
    place, results = folder.relative_to(job.source).as_posix(), read_results(folder / RESULT)
    is_child, notes = place.startswith(FINETUNING), []
    try:
        settings, (parent, number), notes = read_released(folder.name, folder / CONFIG, results.config)
        if settings.model_type not in job.model_types:
            raise settings.refuse("model_type", " or ".join(map(shown, job.model_types)))
        if is_child and settings.objective == "contrastive":
            raise settings.refuse("loss", '"stce" or "ce" of a fine-tuned model')
        if settings.objective == ("masked" if is_child else "supervised") and settings.is_language:
            raise settings.refuse(
                "dataset_name", '"sst" of a fine-tuned model' if is_child else '"openweb" of a parent'
            )
        most = settings.epochs or MAX_EPOCHS
        for beyond in [number for number in files if number > most]:  # each epoch up to the last has a line of metrics
            name = files.pop(beyond).parent.name
            notes.append(f"{name} is beyond the {most} epochs of its config: not taken")
        if not files:
            raise SettingsError(f"holds no checkpoint of the {most} epochs of its config")
    except SettingsError as error:
        job.report.skip(place, str(error))
        return None
    finally:
        for note in (*results.problems, *notes):
            job.report.note(place, note)
    return Model(
        path=folder,
        place=place,
        files=files,
        settings=settings,
        results=results,
        named_parent=parent if is_child else None,
        named_checkpoint=number if is_child else None,
    )


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """Return the checkpoint folders of a model with their numbers, by name."""
    return [(int(match[1]), path) for path in _folders(folder) if (match := CHECKPOINT_FOLDER.fullmatch(path.name))]


def _folders(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def read_results(path: Path) -> Results:
    """Read a result.json line by line and collect its problems instead of raising them."""
    results = Results()
    try:
        check_regular(path, most=_MAX_RESULTS)
        with open(path, "rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), start=1):
                if line.strip():
                    _read_line(results, line, number)
                if len(results.problems) > _MAX_PROBLEMS:
                    results.problems.append(f"{path.name} has over {_MAX_PROBLEMS} problems: read up to line {number}")
                    break
    except OSError as error:
        results.problems.append(f"{path.name} cannot be read: {error.strerror}. Its metrics are null")
    if not results.rows and not results.problems:
        results.problems.append(f"{path.name} holds no line: metrics are null")
    return results


def _read_line(results: Results, line: bytes, number: int) -> None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        problem = "is cut" if not line.endswith(b"\n") else "is not JSON"
        results.problems.append(f"{RESULT}, line {number} {problem}: left out")
        return
    epoch = value.get("training_iteration") if isinstance(value, dict) else None
    if type(epoch) is not int or not 0 <= epoch <= MAX_EPOCHS:
        results.problems.append(f"{RESULT}, line {number} names no training_iteration: left out")
        return
    if epoch in results.rows:
        results.problems.append(f"{RESULT}, line {number} is of iteration {epoch} again: the later one counts")
    if isinstance(value.get("config"), dict):
        results.config = value["config"]
    values, finite = {}, True
    for name in (*_LOSSES, *_ACCURACIES):
        if value.get(name) is None:
            continue
        metric, problem = _number(value[name]), None
        if metric is None:
            problem = "is not a number"
        elif not math.isfinite(metric):
            finite, problem = finite and name not in _LOSSES, f"is {metric}"
        elif name in _ACCURACIES and not 0 <= metric <= 1:
            problem = f"is {metric:g}; expected 0 to 1"
        else:
            values[name] = metric
        if problem is not None:
            results.problems.append(f"{RESULT}: {name} of iteration {epoch} {problem}: null")
    seconds = _number(value.get("time_this_iter_s"))
    results.rows[epoch] = Row(
        values=values, finite=finite, seconds=seconds if seconds is not None and math.isfinite(seconds) else None
    )


def _number(value: object) -> float | None:
    """Return a JSON number as a float; None for another value."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:  # JSON has integers beyond every float
        return math.inf
