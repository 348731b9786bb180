"""One model of the authors' release becomes a member: its weights, figures, factors and provenance, or why not.

Its files lie in ``.training/import/<id>/`` until all are there and synced; one rename makes the member appear. A
checkpoint that was finished is noted in ``done.jsonl`` beside them and not read again, unless its file changed.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from torch import Tensor

from vitzoo import records
from vitzoo.errors import ReleaseError, WeightsError
from vitzoo.images.processor import image_processor, processor_arguments
from vitzoo.interop.authors.checkpoints import Backbone, check_sums, load_checkpoint
from vitzoo.interop.authors.convert import Converted, write_weights
from vitzoo.interop.authors.deviations import deviation, released_deviations
from vitzoo.interop.authors.images import MEAN, STD
from vitzoo.interop.authors.layout import CONFIG, RESULT
from vitzoo.interop.authors.plan import PlannedImport
from vitzoo.models.vit import VitZooConfig
from vitzoo.records import json_files, layout
from vitzoo.tensors.header import file_sha256

RELEASE = "github.com/ModelZoos/ViTModelZoo"


class NotTakenError(Exception):
    """Why a model becomes no member, in words."""


class StoppedError(Exception):
    """The import was told to end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What members are made with.

    Args:
        root: The zoo folder.
        model_types: Sizes by ``model::type``.
        note: Told what is to be known of a member.
        count: Called with the bytes of each checkpoint that is done with, and those of them that were read now.
        is_stopped: Whether to end before the next checkpoint.
    """

    root: Path
    model_types: dict[str, Backbone]
    note: Callable[[str, str], None]
    count: Callable[[int, int], None]
    is_stopped: Callable[[], bool]


@dataclass(kw_only=True, slots=True)
class _Done:
    """What was made of a checkpoint; ``start_mtime_ns`` is of that which distances were measured from."""

    epoch: int
    start_mtime_ns: int | None
    source_size: int
    source_mtime_ns: int
    source_sha256: str
    file: str
    converted: Converted


@dataclass(kw_only=True, slots=True, eq=False)
class _Making:
    """A member under way."""

    conversion: Conversion
    planned: PlannedImport
    work: Path
    start: dict[str, Tensor] | None = None
    done: dict[int, _Done] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.work / "member"

    def note(self, what: str) -> None:
        self.conversion.note(self.planned.folder, what)


def import_member(planned: PlannedImport, conversion: Conversion, *, parent: records.MemberRecord | None) -> None:
    """Make a member of a model.

    Args:
        planned: The model.
        conversion: The zoo, and who is told.
        parent: The record of the member that it starts from; None of a parent.

    Raises:
        NotTakenError: It becomes none, and why.
        StoppedError: The import is to end; what was finished is found again.
        ReleaseError: The zoo folder cannot be written.
    """
    work = conversion.root / layout.TRAINING / "import" / str(planned.id).replace("/", ".")
    making = _Making(conversion=conversion, planned=planned, work=work)
    if parent is not None and parent.status != "completed":
        raise NotTakenError(f"its parent {parent.id} {parent.status}")
    if parent is not None:
        _parent_sha256(parent, planned.parent_epoch)
    try:
        making.folder.mkdir(parents=True, exist_ok=True)
        _resume(making)
        making.start = _first_weights(making)
        last = _last_usable(making)
        for epoch in [epoch for epoch in planned.keep if epoch < last.epoch]:
            done = _convert(making, epoch, layout.weights_name(epoch))
            if done is not None and not done.converted.is_finite:
                _forget(making, epoch)
                making.note(f"epoch {epoch} is not taken: a weight is not finite")
        _finish(making, last, parent)
        _publish(making)
    except OSError as error:
        raise ReleaseError(
            f"{planned.id} ({planned.folder}) cannot be written in {conversion.root}: {error.strerror or error}. "
            "Mend that; the same command goes on from what is there.",
            path=conversion.root,
        ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class _Last:
    """The last epoch whose weights can be used, and why it is not the last there is."""

    epoch: int
    diverged: bool


def _last_usable(making: _Making) -> _Last:
    """Convert checkpoints from the end on until one can be used."""
    planned, diverged = making.planned, False
    rows = planned.results.rows
    for epoch in reversed(planned.checkpoints):
        row = rows.get(epoch)
        is_variant = epoch in planned.keep or diverged  # of a diverged member no weights are final
        done = _convert(making, epoch, layout.weights_name(epoch if is_variant else None))
        if done is not None and done.converted.is_finite and (row is None or row.finite):
            return _Last(epoch=epoch, diverged=diverged)
        if done is not None:
            diverged = True
            _forget(making, epoch)
            what = "its loss" if done.converted.is_finite else "a weight"
            making.note(f"epoch {epoch}: {what} is not finite, so the model diverged: not taken")
    raise NotTakenError("none of its checkpoints can be used")


def _convert(making: _Making, epoch: int, name: str) -> _Done | None:
    """Write an epoch's weights; None, and said so, where its checkpoint is damaged."""
    path = making.planned.checkpoints[epoch]
    if epoch in making.done:
        return making.done[epoch]
    if making.conversion.is_stopped():
        raise StoppedError
    before = path.stat()
    try:
        check_sums(path)
        digest = file_sha256(path)
        weights = _load(making, path)
    except (WeightsError, ValueError) as error:
        making.note(f"epoch {epoch} is not taken: {str(error).rstrip('.')}")
        making.conversion.count(before.st_size, before.st_size)
        return None
    converted = write_weights(making.folder / name, weights, start=making.start)
    done = _Done(
        epoch=epoch,
        start_mtime_ns=_start_mtime_ns(making.planned),
        source_size=before.st_size,
        source_mtime_ns=before.st_mtime_ns,
        source_sha256=digest,
        file=name,
        converted=converted,
    )
    making.done[epoch] = done
    _append(making.work / "done.jsonl", asdict(done))
    making.conversion.count(before.st_size, before.st_size)
    return done


def _load(making: _Making, path: Path) -> dict[str, Tensor]:
    settings = making.planned.model.settings
    return load_checkpoint(path, making.conversion.model_types[settings.model_type], outputs=settings.outputs)


def _first_weights(making: _Making) -> dict[str, Tensor] | None:
    """The weights before the first step, as pages of their file; None where they are not there, or no numbers."""
    path = making.planned.checkpoints.get(0)
    if path is not None:
        with contextlib.suppress(WeightsError):
            weights = _load(making, path)
            if all(bool(tensor.isfinite().all()) for tensor in weights.values()):
                return weights
    return None


def _start_mtime_ns(planned: PlannedImport) -> int | None:
    path = planned.checkpoints.get(0)
    return None if path is None else path.stat().st_mtime_ns


def _forget(making: _Making, epoch: int) -> None:
    (making.folder / making.done.pop(epoch).file).unlink(missing_ok=True)


def _resume(making: _Making) -> None:
    """What an import that ended had finished: files that are whole, of checkpoints that are still the same."""
    with contextlib.suppress(FileNotFoundError):
        for line in (making.work / "done.jsonl").read_text(encoding="utf-8").splitlines():
            try:
                values = json.loads(line)
                done = _Done(**values | {"converted": Converted(**values["converted"])})
                source, file = making.planned.checkpoints[done.epoch].stat(), making.folder / done.file
                is_same = (source.st_size, source.st_mtime_ns) == (done.source_size, done.source_mtime_ns)
                is_same = is_same and done.start_mtime_ns == _start_mtime_ns(making.planned)
                if is_same and file_sha256(file) == done.converted.sha256:  # it was not synced
                    making.done[done.epoch] = done
                    making.conversion.count(done.source_size, 0)
            except (ValueError, TypeError, KeyError, OSError):  # a line that was cut, a file that is gone
                continue
    named = {done.file for done in making.done.values()}
    for path in making.folder.iterdir():
        if path.name not in named:
            path.unlink()


def _finish(making: _Making, last: _Last, parent: records.MemberRecord | None) -> None:
    """Write everything but the weights; member.json last."""
    planned, folder, settings = making.planned, making.folder, making.planned.model.settings
    kept = {epoch: done for epoch, done in making.done.items() if epoch <= last.epoch}
    weights = [
        records.WeightsRecord(epoch=epoch, size=done.converted.size, sha256=done.converted.sha256)
        for epoch, done in sorted(kept.items())
        if done.file != layout.weights_name()
    ]
    if not last.diverged:
        its = kept[last.epoch]
        if its.file != layout.weights_name():
            _link(folder / its.file, folder / layout.weights_name())
        weights.append(records.WeightsRecord(epoch=None, size=its.converted.size, sha256=its.converted.sha256))
    config = _config(making)
    config.save_pretrained(folder)
    side = config.shape.image_size
    arguments = processor_arguments(settings.images.preprocessing(side), image_size=side, mean=MEAN, std=STD)
    image_processor(arguments).save_pretrained(folder)
    metrics = [_epoch_record(planned, epoch, kept.get(epoch)) for epoch in range(last.epoch + 1)]
    json_files.write_lines(folder / layout.metrics_file(planned.id).name, metrics)
    rows = sorted((epoch, row) for epoch, row in planned.results.rows.items() if epoch <= last.epoch)
    timing = [{"epoch": epoch, "seconds": row.seconds} for epoch, row in rows if row.seconds is not None]
    json_files.write_lines(folder / layout.timing_file(planned.id).name, timing)
    _note_figures(making, last)
    record = _member_record(making, last, tuple(weights), config, parent)
    json_files.write_json(folder / layout.MEMBER_JSON, record)


def _link(path: Path, link: Path) -> None:
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, link)


def _config(making: _Making) -> VitZooConfig:
    planned, settings = making.planned, making.planned.model.settings
    backbone = making.conversion.model_types[settings.model_type]
    is_embedding = settings.objective == "contrastive"
    names = tuple(map(str, range(settings.outputs))) if is_embedding else settings.images.classes
    labels = dict(enumerate(names))
    return VitZooConfig(
        **asdict(backbone),
        num_channels=3,
        id2label=labels,
        label2id={name: label for label, name in labels.items()},
        head_type="linear" if planned.head_width is None else "mlp",
        head_width=planned.head_width,
        head_role="embedding" if is_embedding else "classifier",
        architectures=["VitZooModel"],
        dtype="float32",
    )


def _epoch_record(planned: PlannedImport, epoch: int, done: _Done | None) -> records.EpochRecord:
    settings, row = planned.model.settings, planned.results.rows.get(epoch)
    losses = {} if row is None else row.losses
    accuracies = {} if row is None or settings.objective == "contrastive" else row.accuracies
    converted = None if done is None else done.converted
    steps = epoch * settings.steps_per_epoch
    return records.EpochRecord(
        epoch=epoch,
        step=steps,
        samples_seen=steps * settings.batch_size,
        learning_rate=settings.learning_rate,
        train_loss_running=losses.get("train_loss") if epoch else None,
        train_loss=None,
        train_accuracy=None,
        val_loss=losses.get("val_loss"),
        val_accuracy=accuracies.get("val_acc"),
        val_knn_accuracy=None,
        test_loss=losses.get("test_loss"),
        test_accuracy=accuracies.get("test_acc"),
        test_knn_accuracy=None,
        weight_norm=None if converted is None else converted.weight_norm,
        distance_from_start=None if converted is None else converted.distance_from_start,
        weights_id=None if converted is None else converted.weights_id,
        backbone_id=None if converted is None else converted.backbone_id,
    )


def _note_figures(making: _Making, last: _Last) -> None:
    """Say where figures and checkpoints are not of the same epochs."""
    planned = making.planned
    without = [epoch for epoch in range(last.epoch + 1) if epoch not in planned.results.rows]
    if without and planned.results.rows:
        making.note(f"{RESULT} has no figures of epochs {_some(without)}: null")
    beyond = sorted(epoch for epoch in planned.results.rows if epoch > last.epoch)
    if beyond and not last.diverged:
        making.note(f"{RESULT} has figures of epochs {_some(beyond)}, beyond the last weights: left out")


def _some(epochs: list[int]) -> str:
    return ", ".join(map(str, epochs[:8])) + (", ..." if len(epochs) > 8 else "")


def _member_record(
    making: _Making,
    last: _Last,
    weights: tuple[records.WeightsRecord, ...],
    config: VitZooConfig,
    parent: records.MemberRecord | None,
) -> records.MemberRecord:
    planned, settings = making.planned, making.planned.model.settings
    deviations = released_deviations(settings)
    validated = any({"val_loss", "val_acc"} & {*row.losses, *row.accuracies} for row in planned.results.rows.values())
    if last.epoch != settings.epochs and not last.diverged:
        making.note(f"its last weights are of epoch {last.epoch}; its config says {settings.epochs} epochs")
        deviations += (
            deviation("epochs", f"{last.epoch}, the last weights there are", str(settings.epochs), "its release"),
        )
    return records.MemberRecord(
        id=str(planned.id),
        parent=None if parent is None else parent.id,
        parent_epoch=planned.parent_epoch,
        parent_sha256=None if parent is None else _parent_sha256(parent, planned.parent_epoch),
        init_group=f"init-{planned.init_seed}",
        stage="pretraining" if planned.id.is_parent else "finetuning",
        status="diverged" if last.diverged else "completed",
        diverged_step=None,
        last_good_epoch=last.epoch if last.diverged else None,
        objective=settings.objective,
        dataset=settings.images.spec.name,
        dataset_spec=settings.images.spec,
        dataset_revision=None,
        dataset_fingerprint=None,
        classes=settings.images.classes,
        n_train=settings.images.n_train,
        n_train_evaluated=None,
        n_val=None if validated else 0,
        n_test=settings.n_test_seen,
        head_type=config.head_type,
        head_width=config.head_width,
        head_role=config.head_role,
        optimizer=settings.optimizer,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
        schedule="constant",
        batch_size=settings.batch_size,
        epochs=settings.epochs if last.diverged else last.epoch,
        steps=(settings.epochs if last.diverged else last.epoch) * settings.steps_per_epoch,
        mixup=settings.mixup,
        cutmix=settings.cutmix,
        label_smoothing=settings.label_smoothing,
        random_erasing=settings.random_erasing,
        init_seed=planned.init_seed,
        head_seed=settings.seed,
        order_seed=settings.seed,
        augmentation_seed=settings.seed,
        replicate=planned.replicate,
        precision="fp32",
        compile="none",
        ranks=1,
        versions={},
        commit=None,
        deviations=deviations,
        num_parameters=sum(map(prod, config.shape.tensor_shapes().values())),
        weights=weights,
        origin=records.Origin(release=RELEASE, folder=planned.folder, files=_sources(making)),
    )


def _parent_sha256(parent: records.MemberRecord, epoch: int | None) -> str:
    try:
        weights = parent.final_weights if epoch == parent.epochs else parent.weights_at(epoch)
    except LookupError:
        raise NotTakenError(
            f"starts from epoch {epoch} of {parent.id}, whose weights were not kept when that was imported. Import "
            "both into a new folder"
        ) from None
    return weights.sha256


def _sources(making: _Making) -> dict[str, str]:
    """The files that were read, by their place in the model's folder, to their digests."""
    found = making.planned.model.found
    files = {name: file_sha256(found.file(name)) for name in (CONFIG, RESULT) if found.file(name).is_file()}
    for epoch, done in sorted(making.done.items()):
        path = making.planned.checkpoints[epoch]
        files[f"{path.parent.name}/{path.name}"] = done.source_sha256
    return files


def _publish(making: _Making) -> None:
    """Make the member appear: sync, then one rename."""
    target = making.conversion.root / layout.member_folder(making.planned.id)
    for path in (*making.folder.iterdir(), making.folder):
        _sync(path)
    os.rename(making.folder, target)
    _sync(target.parent)
    shutil.rmtree(making.work, ignore_errors=True)


def _append(path: Path, value: dict[str, Any]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
