"""Write a table of the checkpoints in a folder of runs. No pickle is opened: names, JSON, YAML and CSV say everything.

    <run>/checkpoint-<step>/               transformers' Trainer; trainer_state.json has the metrics, the card README.md
                                           the hyper-parameters and the base model
    <folder>/model.safetensors, ...        made by save_pretrained, or a model of timm's on the Hub
    <run>/checkpoint-<epoch>.pth.tar       timm's training script; args.yaml and summary.csv
    <run>/checkpoints/epoch=3-step=400.ckpt    Lightning; hparams.yaml and metrics.csv
    <folder>/epoch_3.pt, step-400.pth, ...     state dicts

timm and Lightning count epochs from 0 in names, so that the table has one more. Metrics on the evaluation data become
``val_*``. ``training_args.bin`` is a pickle, and is not read.
"""

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitzoo.errors import CheckpointError, printable
from vitzoo.interop.checkpoints.places import INDEX, NAMES, OTHERS, WEIGHTS
from vitzoo.records.files import write_atomically
from vitzoo.records.layout import ZOO_JSON

_TRAINER = re.compile(r"checkpoint-(\d{1,9})", re.ASCII)
_TIMM = re.compile(r"checkpoint-(\d{1,9})\.pth\.tar", re.ASCII)
_LIGHTNING = re.compile(r".*epoch=(\d{1,9})-step=(\d{1,9}).*\.ckpt", re.ASCII)
_EPOCH = re.compile(r".*?(?:epoch|ep|checkpoint)[-_=]?(\d{1,9})\b.*", re.ASCII)
_STEP = re.compile(r".*?(?:step|iter)[-_=]?(\d{1,9})\b.*", re.ASCII)
_COPIES = ("last.ckpt", "last.pth.tar", "model_best.pth.tar", "best.ckpt")
_CARD = re.compile(r"^- (\w+): (.+)$", re.MULTILINE)
_BASE = re.compile(r"^base_model: ([\w.-]+/[\w.-]+)$", re.MULTILINE)
_REPO = re.compile(r"[\w-][\w.-]*/[\w.-]+", re.ASCII)
_MAX_BYTES = 2**26
_MAX_FILES = 10**6
# Hyper-parameters by their names in cards, args.yaml and hparams.yaml.
_SETTINGS = {
    **dict.fromkeys(("learning_rate", "lr"), "learning_rate"),
    **dict.fromkeys(("train_batch_size", "batch_size", "total_train_batch_size"), "batch_size"),
    **dict.fromkeys(("weight_decay", "wd"), "weight_decay"),
    **dict.fromkeys(("lr_scheduler_type", "sched", "schedule"), "schedule"),
    **dict.fromkeys(("label_smoothing", "smoothing", "label_smoothing_factor"), "label_smoothing"),
    **dict.fromkeys(("optimizer", "opt"), "optimizer"),
    **dict.fromkeys(("random_erasing", "reprob"), "random_erasing"),
    **{name: name for name in ("momentum", "mixup", "cutmix", "seed", "dataset")},
}
_METRICS = {
    "eval_loss": "val_loss",
    "val_loss": "val_loss",
    "test_loss": "test_loss",
    **dict.fromkeys(("eval_accuracy", "eval_acc", "val_acc", "val_accuracy", "eval_top1"), "val_accuracy"),
    **dict.fromkeys(("test_acc", "test_accuracy"), "test_accuracy"),
    **dict.fromkeys(("loss", "train_loss", "train_loss_epoch"), "train_loss_running"),
}
_OF_LOGS = ("epoch", "step", "learning_rate", "lr", "grad_norm", "train_loss_step")

Cells = dict[str, Any]


@dataclass(kw_only=True, slots=True)
class Scan:
    """Checkpoints that were found.

    Args:
        cells: Rows of the table; locations are absolute.
        notes: What was left out.
    """

    cells: list[Cells] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenTable:
    """Result of `write_table`.

    Args:
        rows: Checkpoints.
        members: Members.
        notes: What was left out.
    """

    rows: int
    members: int
    notes: list[str]


def write_table(folder: Path, path: Path) -> WrittenTable:
    """Write a table of the checkpoints in a folder as CSV. Its places are relative to the table's own folder.

    Raises:
        CheckpointError: The folder is missing or has no checkpoint, or the table exists or is not a .csv.
    """
    if path.suffix.lower() != ".csv":
        raise CheckpointError(f"{printable(str(path))} is not a CSV", expected="a name that ends in .csv")
    if path.exists():
        raise CheckpointError(f"{printable(str(path))} exists", fix="Delete it, or name another file.", path=path)
    found = scan_folder(folder)
    if not found.cells:
        raise CheckpointError(
            f"{printable(str(folder))} holds no checkpoint",
            expected=f"folders of models, or files of {', '.join(WEIGHTS)}",
        )
    base = path.absolute().parent
    for row in found.cells:
        if os.path.isabs(row["location"]):
            row["location"] = Path(os.path.relpath(row["location"], base)).as_posix()
    columns = list(dict.fromkeys(name for row in found.cells for name in row))
    lines = [columns, *([row.get(name, "") for name in columns] for row in found.cells)]
    text = "".join(",".join(_quoted(value) for value in line) + "\n" for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())
    return WrittenTable(rows=len(found.cells), members=len({row["member"] for row in found.cells}), notes=found.notes)


def _quoted(value: object) -> str:
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n\r') else text


def scan_folder(root: Path) -> Scan:
    """Find the checkpoints in a folder, sorted by path.

    Raises:
        CheckpointError: It is not a folder.
    """
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise CheckpointError(f"{printable(str(root))} {what}", expected="a folder of runs", path=root)
    scan, root = Scan(), root.absolute()
    bases: dict[str, None] = {}
    count = 0
    for place, folders, files in os.walk(root):
        folder, count = Path(place), count + len(files)
        folders.sort(key=_natural)
        name = folder.relative_to(root).as_posix() if folder != root else root.name
        if ZOO_JSON.name in files:
            scan.notes.append(f"{name} is a zoo: left out")
            folders.clear()
            continue
        if count > _MAX_FILES:
            raise CheckpointError(f"{printable(str(root))} has over {_MAX_FILES} files", path=root)
        folders[:] = [each for each in folders if not each.startswith(".")]
        runs = [each for each in folders if _TRAINER.fullmatch(each) and _is_model(folder / each)]
        if runs:
            rows = list(_trainer_rows(folder, name, runs, scan))
            folders[:] = [each for each in folders if each not in runs]
        elif _is_model(folder):
            rows = [{"location": str(folder), "member": name} | _of_card(folder)]
        else:
            rows = list(_file_rows(folder, name, sorted(files, key=_natural), scan))
        for row in rows:
            bases |= {row["parent"]: None} if row.get("parent") else {}
        scan.cells += rows
    members = {row["member"] for row in scan.cells}
    for base in bases:
        if base not in members:
            scan.notes.append(f"{base} is a base model that cards name: added as a parent")
    scan.cells[:0] = [{"location": base, "member": base} for base in bases if base not in members]
    return scan


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in NAMES)


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Return a key that sorts checkpoint-500 before checkpoint-1000."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name) if part]


def _trainer_rows(folder: Path, name: str, runs: list[str], scan: Scan) -> Iterator[Cells]:
    """Return the rows of a run of transformers' Trainer."""
    steps = {int(run.removeprefix("checkpoint-")): run for run in sorted(runs, key=_natural)}
    states = {step: _read_json(folder / run / "trainer_state.json") for step, run in steps.items()}
    if _is_model(folder):
        final = _read_json(folder / "trainer_state.json")
        step = final.get("global_step")
        if isinstance(step, int) and step not in steps:
            steps[step], states[step] = "", final
        else:
            scan.notes.append(f"{name}: the model beside the checkpoint folders is left out, as a copy of one of them")
    common = _of_card(folder)
    for step, run in sorted(steps.items()):
        state = states[step]
        row: Cells = {"location": str(folder / run) if run else str(folder), "member": name, "step": step}
        if isinstance(state.get("epoch"), int | float):
            row["epoch"] = round(state["epoch"], 6)
        log = state.get("log_history")
        for entry in log if isinstance(log, list) else ():
            if isinstance(entry, dict) and entry.get("step") == step:
                row |= _metrics(entry)
        yield row | common


def _file_rows(folder: Path, name: str, files: list[str], scan: Scan) -> Iterator[Cells]:
    """Return the rows of files of state dicts in one folder."""
    weights = [file for file in files if file.endswith(WEIGHTS) and not OTHERS.fullmatch(file) and INDEX not in file]
    numbered = [file for file in weights if file not in _COPIES]
    if len(numbered) < len(weights) and numbered:
        copies = ", ".join(sorted(set(weights) - set(numbered)))
        scan.notes.append(f"{name}: {copies} left out, as copies of other checkpoints")
        weights = numbered
    run = folder.parent if folder.name == "checkpoints" else folder
    run_name = name.removesuffix("/checkpoints") if run != folder else name
    settings = _of_yaml(run)
    logs = {"summary.csv": _read_logs(run / "summary.csv"), "metrics.csv": _read_logs(run / "metrics.csv")}
    for file in weights:
        row: Cells = {"location": str(folder / file), "member": run_name}
        if (match := _TIMM.fullmatch(file)) is not None:
            row["epoch"] = int(match[1]) + 1
            row |= logs["summary.csv"].get(int(match[1]), {})
        elif (match := _LIGHTNING.fullmatch(file)) is not None:
            row |= {"epoch": int(match[1]) + 1, "step": int(match[2])}
            row |= logs["metrics.csv"].get(int(match[1]), {})
        elif (match := _STEP.fullmatch(file)) is not None:
            row["step"] = int(match[1])
        elif (match := _EPOCH.fullmatch(file)) is not None:
            row["epoch"] = int(match[1])
        elif len(weights) > 1:
            row["member"] = f"{run_name}/{file}"
        yield row | settings


def _metrics(entry: Mapping[str, Any]) -> Cells:
    """Return the metrics of an entry of a log, by vitzoo's names where it has one."""
    found: Cells = {}
    for key, value in entry.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or key in _OF_LOGS:
            continue
        if key in ("eval_runtime", "total_flos") or key.endswith(("_per_second", "_runtime")):
            continue  # clock times are not a member's
        name = _METRICS.get(key, key)
        found[name] = value / 100 if key == "eval_top1" else value
    return found


def _read_logs(path: Path) -> dict[int, Cells]:
    """Return the last value of each metric by epoch, from 0, of a log in CSV."""
    found: dict[int, Cells] = {}
    text = _read_text(path)
    for row in csv.DictReader(text.splitlines()):
        numbers = {key: number for key, value in row.items() if key and (number := _number(value)) is not None}
        epoch = numbers.get("epoch")
        if epoch is not None and epoch >= 0:
            found.setdefault(int(epoch), {}).update(_metrics(numbers))
    return found


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None


def _of_card(folder: Path) -> Cells:
    """Return the hyper-parameters and the base model that a card of Trainer has, or config.json names."""
    card = _read_text(folder / "README.md")
    found = _settings(dict(_CARD.findall(card)))
    base = _BASE.search(card)
    if base is not None:
        return found | {"parent": base[1]}
    named = _read_json(folder / "config.json").get("_name_or_path")
    if isinstance(named, str) and _REPO.fullmatch(named) and not (folder.parent / named).exists():
        return found | {"parent": named}
    return found


def _of_yaml(run: Path) -> Cells:
    """Return the hyper-parameters of timm's args.yaml or Lightning's hparams.yaml."""
    import yaml

    for name in ("args.yaml", "hparams.yaml"):
        try:
            values = yaml.safe_load(_read_text(run / name))
        except yaml.YAMLError:
            continue
        if isinstance(values, dict):
            return _settings(values)
    return {}


def _settings(values: Mapping[Any, Any]) -> Cells:
    found: Cells = {}
    for key, value in values.items():
        name = _SETTINGS.get(str(key))
        if name is None or not isinstance(value, str | int | float) or name in found:
            continue
        text = value.strip().lower() if isinstance(value, str) else value
        if name == "optimizer" and isinstance(text, str):  # "Use adamw_torch with betas=(0.9,0.999) ..."
            text = next((word for word in ("adamw", "adam", "sgd") if word in text), text[:40])
        found["order_seed" if name == "seed" else name] = text
    return found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read_text(path) or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _read_text(path: Path) -> str:
    """Return a small text file; empty where it is missing or not a text."""
    try:
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            return ""
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
