"""Make a member of the rows of a table: weights, config, what prepares its inputs, metrics, and records.

A checkpoint that cannot be read, or has NaN or infinite weights, costs its number, and the member only if it is the
only one. A member whose last checkpoint is not finite is ``diverged``. See `vitzoo.interop.engine` for the threads.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any

from msgspec import structs
from safetensors.torch import load_file

from vitzoo import records
from vitzoo.architectures import is_head
from vitzoo.errors import CheckpointError, ConfigError, VitZooError, printable, shown
from vitzoo.images.processor import image_processor
from vitzoo.interop.checkpoints.job import Import
from vitzoo.interop.checkpoints.layouts import (
    CONFIG,
    Model,
    as_model,
    check_member_tokenizer,
    find_tokenizer,
    load_processor,
    names_of,
)
from vitzoo.interop.checkpoints.places import Place, find_place
from vitzoo.interop.checkpoints.plan import PlannedMember, Source, Unit
from vitzoo.interop.checkpoints.states import load_state
from vitzoo.interop.checkpoints.table import UNKNOWN
from vitzoo.interop.engine import MEASURED, WORK, Converted, write_weights
from vitzoo.records import layout
from vitzoo.records.files import file_sha256, link_or_copy
from vitzoo.records.writer import MemberWriter
from vitzoo.sources.folder import FolderSource
from vitzoo.tables.catalogue import Catalogue
from vitzoo.tensors.content import load_content
from vitzoo.tensors.dtypes import SAFETENSORS
from vitzoo.tensors.header import make_header
from vitzoo.text.tokenizer import Tokenizer, load_tokenizer

_METRICS = (
    *("samples_seen", "learning_rate", "train_loss_running", "train_loss", "train_accuracy", "val_loss"),
    *("val_accuracy", "val_knn_accuracy", "test_loss", "test_accuracy", "test_knn_accuracy"),
)


@dataclass(kw_only=True, slots=True)
class Zoo:
    """The zoo that members are made for.

    Args:
        source: Its folder.
        unit: Unit of its numbers.
        sizes: Values of config.json that all members share.
        first: Name of the member whose sizes they are.
        release: Name of the import in records.
        seen: Digests of final weights to members. Threads share it.
    """

    source: FolderSource
    unit: Unit
    sizes: dict[str, Any]
    first: str
    release: str
    seen: dict[str, str] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)


def import_member(
    planned: PlannedMember,
    job: Import,
    zoo: Zoo,
    *,
    parent: records.MemberRecord | None,
    count_file: Callable[[int], None],
) -> None:
    """Make a member.

    Args:
        planned: The member.
        job: The import.
        zoo: The zoo.
        parent: Record of its parent; None for a parent.
        count_file: Called with the bytes of each checkpoint that was read. Its error ends the import.

    Raises:
        ReleaseError: It cannot become a member.
        OSError: The zoo folder cannot be written.
    """
    if parent is not None and parent.status != "completed":
        raise CheckpointError(f"its parent {parent.id} {parent.status}")
    prefix = f"{str(planned.id).replace('/', '.')}."
    with tempfile.TemporaryDirectory(prefix=prefix, dir=job.root / WORK) as work:
        folder = Path(work) / "member"  # with the usual permissions, unlike a temporary folder
        folder.mkdir()
        made = _Member(planned=planned, job=job, zoo=zoo, parent=parent, folder=folder)
        for number in planned.numbers:
            made.convert(number)
            count_file(planned.checkpoints[number].place.bytes)
        made.finish()


def open_checkpoint(source: Source, *, base: Path) -> tuple[Model, list[Path], Mapping[str, Path]]:
    """Load a checkpoint: its model, its weights files, and the small files beside them.

    Raises:
        VitZooError: It cannot be used.
    """
    place = source.place
    paths = [place.fetch(name) for name in place.weights()]
    small = place.small_files()
    config = small.get(CONFIG) if source.row.config is None else _named_config(source.row.config, base)
    return as_model(load_state(paths), config, name=place.name), paths, small


def _named_config(location: str, base: Path) -> Path:
    path = base / location
    if path.is_file():
        return path
    place: Place = find_place(location, base=base)
    if CONFIG not in place.files:
        raise CheckpointError(f"{shown(location)} has no {CONFIG}")
    return place.fetch(CONFIG)


@dataclass(kw_only=True, slots=True)
class _Member:
    """A member that is being made. ``done`` has its weights files by number."""

    planned: PlannedMember
    job: Import
    zoo: Zoo
    parent: records.MemberRecord | None
    folder: Path
    done: dict[int, Converted] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    infinite: int | None = None
    model: Model | None = None
    small: Mapping[str, Path] = field(default_factory=dict)
    problem: str = "none of its checkpoints can be used"

    def note(self, text: str) -> None:
        self.job.report.note(self.planned.name, text)

    def convert(self, number: int) -> None:
        """Write a checkpoint's weights, or note why it cannot be used."""
        source, path = self.planned.checkpoints[number], self.folder / layout.weights_name(number)
        try:
            model, paths, small = open_checkpoint(source, base=self.job.base)
            self._check_sizes(model)
            same = len(paths) == 1 and _has_header(paths[0], model)
            start = self.done[0].path if 0 in self.done else None if number else path
            if same and self.job.link:
                link_or_copy(Path(os.path.realpath(paths[0])), path)
                content = load_content(path, is_head=is_head, start=start)
            else:
                content = write_weights(path, model.weights, start=start if number else None)
                content = content if number else replace(content, distance_from_start=0.0)
        except VitZooError as error:
            path.unlink(missing_ok=True)
            self._lose(number, str(error).rstrip("."))
            return
        for text in model.notes:
            self.note(text)
        digests = [content.sha256] if same else [file_sha256(each) for each in paths]
        self.files |= {f"{source.place.name}/{each.name}": digest for each, digest in zip(paths, digests, strict=True)}
        if content.not_finite:
            self.infinite = number
            path.unlink()
            self._lose(number, f"{content.not_finite[0]} has NaN or infinite values")
            return
        self.done[number] = Converted(path=path, content=content, source_sha256=digests[0])
        shapes = {name: tensor.to("meta") for name, tensor in model.weights.items()}  # the file may be unmapped
        self.model, self.small = replace(model, weights=shapes), small

    def _lose(self, number: int, why: str) -> None:
        self.problem = why
        if len(self.planned.numbers) > 1:
            self.note(f"{self.zoo.unit} {number} is not taken: {why}")

    def _check_sizes(self, model: Model) -> None:
        different = {key: value for key, value in model.sizes.items() if self.zoo.sizes.get(key, value) != value}
        if different or model.sizes.keys() != self.zoo.sizes.keys():
            key = next(iter(different), "")
            what = f"{key} is {shown(different[key])}, {shown(self.zoo.sizes.get(key))}" if key else "of another kind"
            raise CheckpointError(
                f"It is another network than {printable(self.zoo.first)}: {what}",
                expected="one architecture, as a zoo has one",
                fix="Import it into a zoo of its own.",
            )
        if self.model is not None and model.config.to_dict() != self.model.config.to_dict():
            mine, other = model.config.to_dict(), self.model.config.to_dict()
            keys = [key for key in {**mine, **other} if mine.get(key) != other.get(key)]
            raise CheckpointError(f"Its config has another {', '.join(keys[:3])} than the member's first checkpoint")

    def finish(self) -> None:
        """Write everything but the weights, member.json last, and make the member appear."""
        planned, zoo, model = self.planned, self.zoo, self.model
        if not self.done or model is None:
            raise CheckpointError(self.problem)
        last, diverged = max(self.done), self.infinite is not None and self.infinite > max(self.done)
        start_number, start_sha256 = self._check_start(model)
        self._check_copy(self.done[last].content.weights_id)
        writer = MemberWriter(self.folder, planned.id)
        kept = {number: done for number, done in self.done.items() if number in planned.keep or diverged}
        weights = [done.record(number) for number, done in kept.items()]
        if not diverged:
            final = self.done[last].record(last)
            if last in kept:
                weights.append(writer.link_final_weights(final))
            else:
                os.rename(self.done[last].path, self.folder / layout.weights_name())
                weights.append(structs.replace(final, epoch=None))
        for number in self.done.keys() - kept.keys() - {last}:
            self.done[number].path.unlink()
        tokenizer, configs = self._processing(model)
        rows = {number: source.row for number, source in planned.checkpoints.items() if number <= last}
        settings: dict[str, Any] = {}
        extra: dict[str, Any] = {"fine_tuned_from": planned.parent} if planned.is_grandchild else {}
        for source in planned.checkpoints.values():
            settings = source.row.settings | settings
            extra = source.row.member_extra | extra
        parent = self.parent
        values = {**dict.fromkeys(UNKNOWN), "objective": _objective(model), **settings}
        config: Any = model.config
        record = records.MemberRecord(
            id=str(planned.id),
            parent=None if parent is None else parent.id,
            parent_epoch=start_number,
            parent_sha256=start_sha256,
            init_group=str(values.pop("init_group", None) or (parent.init_group if parent else planned.id)),
            stage="pretraining" if planned.id.is_parent else "finetuning",
            status="diverged" if diverged else "completed",
            diverged_step=None,
            last_good_epoch=last if diverged else None,
            dataset_revision=None,
            dataset_fingerprint=None,
            classes=tuple(names_of(model.config)),
            **{name: getattr(config, name) for name in ("head_type", "head_width", "head_role")},
            epochs=self.infinite or last if diverged else last,
            steps=rows[last].step if zoo.unit == "epoch" else last if planned.is_numbered else None,
            tokenizer_sha256=tokenizer and tokenizer.sha256,
            versions={},
            commit=None,
            deviations=(),
            num_parameters=sum(map(prod, config.shape.tensor_shapes().values())),
            weights=tuple(weights),
            origin=records.Origin(release=zoo.release, folder=planned.name, files=self.files),
            extra=extra,
            **{name: value for name, value in values.items() if name in UNKNOWN},
        )
        writer.write_records(
            record,
            metrics=[self._epoch_record(number, row) for number, row in rows.items()],
            timings=(),
            configs=configs,
        )
        writer.publish(self.job.root)

    def _epoch_record(self, number: int, row: Any) -> records.EpochRecord:
        done = self.done.get(number)
        step = row.step if self.zoo.unit == "epoch" else number if self.planned.is_numbered else None
        return records.EpochRecord(
            epoch=number,
            step=step,
            **{name: row.metrics.get(name) for name in _METRICS},
            **{name: done and getattr(done.content, name) for name in MEASURED},
            extra=row.extra,
        )

    def _processing(self, model: Model) -> tuple[Tokenizer | None, list[Any]]:
        """Write a tokenizer, and return it with the configs that are to be written."""
        notes: list[str] = []
        if model.architecture.modality == "images":
            processor = load_processor(self.small, model.config, notes)
            for text in notes:
                self.note(text)
            return None, [model.config, *([] if processor is None else [image_processor(processor)])]
        try:
            tokenizer = find_tokenizer(self.small)
            if tokenizer is None and self.job.tokenizer is not None:
                tokenizer = load_tokenizer(self.job.tokenizer)
        except ConfigError as error:
            self.note(f"its tokenizer is not taken: {str(error).rstrip('.')}")
            tokenizer = None
        if tokenizer is None:
            self.note("it has no tokenizer")
            return None, [model.config]
        sha256 = None if self.parent is None else self.parent.tokenizer_sha256
        try:
            check_member_tokenizer(
                tokenizer, model.config, sha256=sha256, name=self.planned.parent or self.planned.name
            )
        except ConfigError as error:
            raise CheckpointError(str(error).rstrip(".")) from None
        config: Any = model.config
        tokenizer.write(self.folder, max_length=config.max_position_embeddings)
        return tokenizer, [config]

    def _check_start(self, model: Model) -> tuple[int | None, str | None]:
        """Return the parent's number and digest that a child starts from, compared with its weights at number 0.

        Raises:
            CheckpointError: Its weights at 0 are not its parent's.
        """
        parent, planned, unit = self.parent, self.planned, self.zoo.unit
        if parent is None:
            return None, None
        if planned.is_grandchild:
            self.note(f"its parent {planned.parent} is a child: it is beside that, as a child of {parent.id}")
            return None, None
        catalogue = Catalogue(self.zoo.source)
        metrics = catalogue.epoch_records(parent.member)
        named = parent.epochs if planned.parent_number is None else planned.parent_number
        if 0 in self.done and _dtype(self.done[0]) == _dtype_of_parent(catalogue, parent):
            digest = self.done[0].content.backbone_id
            equal = [line.epoch for line in metrics if line.backbone_id == digest]
            name = printable(planned.parent or "")
            if (planned.parent_number is not None and named not in equal) or not equal:
                raise CheckpointError(
                    f"its backbone before the first step is not the one of its parent {name}",
                    expected=f"the weights of {parent.id}"
                    + (f" at {unit} {named}" if planned.parent_number is not None else ""),
                    fix="Fix the column parent.",
                )
            number = named if named in equal else max(equal)
        else:
            self.note(f"parent {planned.parent} by the table alone: it has no {unit} 0 to compare")
            self._compare_with_parents(catalogue, parent, model)
            number = named
        known = {weights.epoch: weights.sha256 for weights in parent.weights}
        known.setdefault(parent.epochs, known.get(None, ""))
        if number not in known:
            self.note(f"{unit} {number} of {parent.id} was not kept: parent_epoch is null")
            return None, None
        return number, known[number]

    def _compare_with_parents(self, catalogue: Catalogue, parent: records.MemberRecord, model: Model) -> None:
        """Note where another parent of the zoo is nearer by the weights of the middle block."""
        names = _middle_block(model)
        own = load_file(self.done[min(self.done)].path)
        distances = {}
        for member in (member for member in catalogue.member_ids if member.is_parent):
            path = self.zoo.source.path(layout.weights_file(member))
            if path.is_file():
                other = load_file(path)
                squares = (float((own[name].float() - other[name].float()).square().sum()) for name in names)
                distances[str(member)] = sum(squares)
        nearest = min(distances, key=lambda member: distances[member])
        if distances.get(parent.id, 0.0) > distances[nearest]:
            self.note(f"its weights are nearer to {nearest} than to its parent {parent.id}: check the column parent")

    def _check_copy(self, weights_id: str) -> None:
        """Raise CheckpointError if another member has the same final weights."""
        with self.zoo.lock:
            other = self.zoo.seen.setdefault(weights_id, self.planned.name)
        if other != self.planned.name:
            raise CheckpointError(f"is a copy: its last weights are those of {printable(other)}. Delete one")


def _middle_block(model: Model) -> list[str]:
    """Return the names of the matrices of the middle block."""
    layers = list(dict.fromkeys(model.architecture.layer_name(name) for name in model.weights))
    blocks = [layer for layer in layers if layer.startswith("layer.")]
    middle = blocks[len(blocks) // 2]
    return [
        name
        for name, tensor in model.weights.items()
        if tensor.dim() == 2 and model.architecture.layer_name(name) == middle
    ]


def _objective(model: Model) -> str | None:
    return "masked" if getattr(model.config, "head_role", None) == "masked" else None


def _dtype(done: Converted) -> set[str]:
    return {entry.dtype for entry in done.content.tensors.values()}


def _dtype_of_parent(catalogue: Catalogue, parent: records.MemberRecord) -> set[str]:
    from vitzoo.tensors.header import load_header

    header = load_header(catalogue.source.path(layout.weights_file(parent.member)))
    return {entry.dtype for entry in header.values()}


def _has_header(path: Path, model: Model) -> bool:
    """Tell whether a file is already as a zoo has it."""
    if path.suffix != ".safetensors":
        return False
    dtypes = {name: SAFETENSORS[str(tensor.dtype).removeprefix("torch.")] for name, tensor in model.weights.items()}
    expected, _ = make_header({name: (dtypes[name], tuple(tensor.shape)) for name, tensor in model.weights.items()})
    with open(path, "rb") as file:
        return file.read(len(expected)) == expected
