"""Make a member of one model of the authors' release: weights, metrics, factors and provenance.

The member is made in a folder below ``.training/import``, and appears by one rename. See `checkpoints` for the files.
"""

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any, cast

from msgspec import structs
from torch import Tensor

from vitzoo import records
from vitzoo.architectures import describe_mismatch
from vitzoo.architectures.bert import BERT, BertSizes
from vitzoo.architectures.vit import ViTSizes
from vitzoo.errors import ReleaseError, WeightsError
from vitzoo.images.processor import image_processor, processor_arguments
from vitzoo.interop.authors import facts
from vitzoo.interop.authors.checkpoints import check_sums, load_checkpoint
from vitzoo.interop.authors.config import Settings
from vitzoo.interop.authors.facts import deviation
from vitzoo.interop.authors.job import Import
from vitzoo.interop.authors.plan import PlannedImport
from vitzoo.interop.authors.release import CONFIG, RESULT
from vitzoo.interop.engine import MEASURED, WORK, Converted, write_weights
from vitzoo.models.registry import model_class
from vitzoo.models.vit import VitZooConfig
from vitzoo.records import layout
from vitzoo.records.files import file_sha256
from vitzoo.records.writer import MemberWriter

_SAME = (  # fields of a record that a config has by the same names
    *("objective", "optimizer", "learning_rate", "weight_decay", "momentum", "batch_size"),
    *("mixup", "cutmix", "label_smoothing", "random_erasing", "dropout"),
)

_UNKNOWN = ("diverged_step", "dataset_revision", "dataset_fingerprint", "n_train_evaluated", "commit")


def import_member(
    planned: PlannedImport, job: Import, *, parent: records.MemberRecord | None, count_file: Callable[[int], None]
) -> None:
    """Make a member of a model.

    Args:
        planned: The model.
        job: The import.
        parent: Record of its parent; None for a parent.
        count_file: Called with the bytes of each checkpoint that was read. Its error ends the import.

    Raises:
        ReleaseError: It cannot become a member.
        OSError: The zoo folder cannot be written.
    """
    if parent is not None:
        if parent.status != "completed":
            raise ReleaseError(f"its parent {parent.id} {parent.status}")
        _parent_sha256(parent, planned.parent_epoch)
    prefix = f"{str(planned.id).replace('/', '.')}."
    with tempfile.TemporaryDirectory(prefix=prefix, dir=job.root / WORK) as work:
        conversion = _Conversion(planned, job, Path(work), count_file)
        last, diverged = _convert_last(conversion)
        for epoch in [epoch for epoch in planned.keep if epoch < last]:
            done = conversion.convert(epoch, layout.weights_name(epoch))
            if done is not None and done.content.not_finite:
                conversion.forget(epoch)
                conversion.note(f"epoch {epoch} is not taken: a weight is not finite")
        _finish(conversion, last, parent, diverged=diverged)


class _Conversion:
    """Converts the checkpoints of one model. ``done`` has its weights files by epoch."""

    def __init__(self, planned: PlannedImport, job: Import, work: Path, count_file: Callable[[int], None]):
        self.planned, self.job, self._count_file = planned, job, count_file
        self.folder = work / "member"  # with the usual permissions, unlike a temporary folder
        self.folder.mkdir()
        self.done: dict[int, Converted] = {}
        self._shapes = _config(planned).shape.tensor_shapes()
        self._start = self._write_start(work / "start")

    def convert(self, epoch: int, name: str) -> Converted | None:
        """Write an epoch's weights, or note that its checkpoint is damaged and return None."""
        if epoch in self.done:
            return self.done[epoch]
        source, path = self.planned.checkpoints[epoch], self.folder / name
        try:
            weights = self._load(source)  # names, shapes and size before any value
            check_sums(source)
            content = write_weights(path, weights, start=self._start)
            self.done[epoch] = Converted(path=path, content=content, source_sha256=file_sha256(source))
        except (WeightsError, ValueError) as error:
            self.note(f"epoch {epoch} is not taken: {str(error).rstrip('.')}")
        self._count_file(source.stat().st_size)
        return self.done.get(epoch)

    def forget(self, epoch: int) -> None:
        """Delete an epoch's weights."""
        self.done.pop(epoch).path.unlink()

    def note(self, text: str) -> None:
        """Add a note on the model to the report."""
        self.job.report.note(self.planned.name, text)

    def _load(self, path: Path) -> dict[str, Tensor]:
        model = self.planned.model
        weights = load_checkpoint(path, self.job.model_types[model.settings.model_type], outputs=model.outputs)
        misfit = describe_mismatch(
            self._shapes,
            {name: tuple(tensor.shape) for name, tensor in weights.items()},
            says="its last checkpoint has",
        )
        if misfit is not None:
            raise WeightsError(f"it has other tensors than the last checkpoint: {misfit}", path=path)
        return weights

    def _write_start(self, path: Path) -> Path | None:
        """Write the weights before the first step; return None where they are missing, NaN or infinite."""
        if 0 in self.planned.checkpoints:
            with contextlib.suppress(WeightsError):
                weights = self._load(self.planned.checkpoints[0])
                if not write_weights(path, weights).not_finite:
                    return path
        return None


def _convert_last(conversion: _Conversion) -> tuple[int, bool]:
    """Convert checkpoints backwards until one is whole and finite, and return its epoch and if it diverged then."""
    planned, diverged = conversion.planned, False
    for epoch in reversed(planned.checkpoints):
        row = planned.model.results.rows.get(epoch)
        is_variant = epoch in planned.keep or diverged  # a diverged member has no final weights
        done = conversion.convert(epoch, layout.weights_name(epoch if is_variant else None))
        if done is None:
            continue
        if not done.content.not_finite and (row is None or row.finite):
            return epoch, diverged
        diverged = True
        conversion.forget(epoch)
        cause = "a weight" if done.content.not_finite else "its loss"
        conversion.note(f"epoch {epoch}: {cause} is not finite, so the model diverged: not taken")
    raise ReleaseError("none of its checkpoints can be used")


def _parent_sha256(parent: records.MemberRecord, epoch: int | None) -> str:
    try:
        weights = parent.final_weights if epoch == parent.epochs else parent.weights_at(epoch)
    except LookupError:
        raise ReleaseError(
            f"starts from epoch {epoch} of {parent.id}, whose weights were not kept when that was imported",
            fix="Import both into a new folder.",
        ) from None
    return weights.sha256


def _finish(conversion: _Conversion, last: int, parent: records.MemberRecord | None, *, diverged: bool) -> None:
    """Write everything but the weights, member.json last, and make the member appear."""
    planned, settings = conversion.planned, conversion.planned.model.settings
    writer = MemberWriter(conversion.folder, planned.id)
    kept = {epoch: done for epoch, done in sorted(conversion.done.items()) if epoch <= last}
    final_name = layout.weights_name()
    weights = [done.record(epoch) for epoch, done in kept.items() if done.path.name != final_name]
    if not diverged:
        final = kept[last].record(last)
        is_linked = kept[last].path.name != final_name
        weights.append(writer.link_final_weights(final) if is_linked else structs.replace(final, epoch=None))
    config = _config(planned)
    configs: list[Any] = [config]
    if settings.is_language:
        conversion.job.load_tokenizer().write(conversion.folder, max_length=_max_length(planned))
    else:
        configs.append(_image_processor(settings, config.shape.image_size))
    rows = sorted((epoch, row) for epoch, row in planned.model.results.rows.items() if epoch <= last)
    _note_missing_metrics(conversion, last, diverged=diverged)
    writer.write_records(
        _member_record(conversion, last, kept, tuple(weights), config, parent, diverged=diverged),
        metrics=[_epoch_record(planned, epoch, kept.get(epoch)) for epoch in range(last + 1)],
        timings=[
            records.TimingRecord(epoch=epoch, training_seconds=row.seconds)
            for epoch, row in rows
            if row.seconds is not None
        ],
        configs=configs,
    )
    writer.publish(conversion.job.root)


def _image_processor(settings: Settings, side: int) -> Any:
    preprocessing = (settings.images or facts.IMAGENET).preprocessing(side)
    return image_processor(processor_arguments(preprocessing, image_size=side, mean=facts.MEAN, std=facts.STD))


def _max_length(planned: PlannedImport) -> int:
    """Return the tokens of the longest row: the data set's, as far as the model has positions."""
    positions, dataset = getattr(planned.model.sizes, "max_position_embeddings", 0), planned.model.settings.dataset
    return min(dataset.max_length, positions) if isinstance(dataset, facts.AuthorsTexts) else positions


def _config(planned: PlannedImport) -> Any:
    model, settings = planned.model, planned.model.settings
    if isinstance(model.sizes, BertSizes):
        config = model_class(BERT, model.role).config_for(
            model.sizes,
            outputs=model.outputs,
            head_width=model.head_width,
            role=model.role,
            classes=_classes(planned),
            dropout=facts.SENTIMENT_DROPOUT,
        )
        config.next_sentence = model.next_sentence
        return config
    is_embedding = settings.objective == "contrastive"
    labels: dict[str, Any] = {"num_labels": model.outputs}
    if not is_embedding:
        names = dict(enumerate(_classes(planned)))
        labels = {"id2label": names, "label2id": {name: label for label, name in names.items()}}
    return VitZooConfig(
        **asdict(cast(ViTSizes, model.sizes)),
        num_channels=3,
        **labels,
        head_type="linear" if model.head_width is None else "mlp",
        head_width=cast("int | None", model.head_width),
        head_role="embedding" if is_embedding else "classifier",
        architectures=["VitZooModel"],
        dtype="float32",
    )


def _classes(planned: PlannedImport) -> tuple[str, ...]:
    """Return the names of the classes: numbers if the data set, or its use, is unknown."""
    settings, outputs = planned.model.settings, planned.model.outputs
    if planned.model.role == "masked":
        return ()
    if settings.dataset is None or (settings.objective is None and outputs != len(settings.dataset.classes)):
        return tuple(map(str, range(outputs)))
    return settings.dataset.classes


def _epoch_record(planned: PlannedImport, epoch: int, done: Converted | None) -> records.EpochRecord:
    settings, row = planned.model.settings, planned.model.results.rows.get(epoch)
    values = {} if row is None else row.values
    accuracies = {} if settings.objective == "contrastive" or planned.model.role == "masked" else values
    step = _times(epoch, settings.steps_per_epoch)
    measured: dict[str, Any] = {name: done and getattr(done.content, name) for name in MEASURED}
    return records.EpochRecord(
        epoch=epoch,
        step=step,
        samples_seen=_times(step, settings.batch_size),
        learning_rate=None if settings.scheduler else settings.learning_rate,
        train_loss_running=values.get("train_loss") if epoch else None,
        train_loss=None,
        train_accuracy=None,
        val_loss=values.get("val_loss"),
        val_accuracy=accuracies.get("val_acc"),
        val_knn_accuracy=None,
        test_loss=values.get("test_loss"),
        test_accuracy=accuracies.get("test_acc"),
        test_knn_accuracy=None,
        **measured,
    )


def _times(count: int | None, size: int | None) -> int | None:
    return None if count is None or size is None else count * size


def _note_missing_metrics(conversion: _Conversion, last: int, *, diverged: bool) -> None:
    """Note where metrics and checkpoints are not of the same epochs."""
    rows = conversion.planned.model.results.rows
    without = [epoch for epoch in range(last + 1) if epoch not in rows]
    if without and rows:
        conversion.note(f"{RESULT} has no metrics of epochs {_some(without)}: null")
    beyond = sorted(epoch for epoch in rows if epoch > last)
    if beyond and not diverged:
        conversion.note(f"{RESULT} has metrics of epochs {_some(beyond)}, beyond the last weights: left out")


def _some(epochs: list[int]) -> str:
    return ", ".join(map(str, epochs[:8])) + (", ..." if len(epochs) > 8 else "")


def _member_record(
    conversion: _Conversion,
    last: int,
    kept: dict[int, Converted],
    weights: tuple[records.WeightsRecord, ...],
    config: Any,
    parent: records.MemberRecord | None,
    *,
    diverged: bool,
) -> records.MemberRecord:
    planned, model, settings = conversion.planned, conversion.planned.model, conversion.planned.model.settings
    deviations = _text_deviations(planned) if settings.is_language else _deviations(settings)
    dataset, images, batch_size = settings.dataset, settings.images, settings.batch_size
    epochs = (settings.epochs or max(planned.checkpoints)) if diverged else last
    validated = any({"val_loss", "val_acc"} & row.values.keys() for row in model.results.rows.values())
    if settings.epochs not in (None, epochs):
        conversion.note(f"its last weights are of epoch {last}; its config says {settings.epochs} epochs")
        deviations += (
            deviation("epochs", ours=f"{last}, the last weights there are", source=str(settings.epochs), why="release"),
        )
    texts = {name: file_sha256(model.path / name) for name in (CONFIG, RESULT) if (model.path / name).is_file()}
    sources = {
        f"{(path := planned.checkpoints[epoch]).parent.name}/{path.name}": done.source_sha256
        for epoch, done in kept.items()
    }
    return records.MemberRecord(
        id=str(planned.id),
        parent=None if parent is None else parent.id,
        parent_epoch=planned.parent_epoch,
        parent_sha256=None if parent is None else _parent_sha256(parent, planned.parent_epoch),
        init_group=f"init-{planned.init_seed}",
        stage="pretraining" if planned.id.is_parent else "finetuning",
        status="diverged" if diverged else "completed",
        last_good_epoch=last if diverged else None,
        dataset=dataset and dataset.name,
        dataset_spec=images and images.spec,
        classes=_classes(planned),
        n_train=dataset and dataset.n_train,
        n_val=None if validated else 0,
        n_test=images.n_test // batch_size * batch_size if images and batch_size else None,
        schedule="one_cycle" if settings.scheduler else "constant",
        masking=facts.MASKED_SHARE if model.role == "masked" else 0.0,
        max_length=_max_length(planned) if settings.is_language else None,
        tokenizer_sha256=conversion.job.load_tokenizer().sha256 if settings.is_language else None,
        epochs=epochs,
        steps=_times(epochs, settings.steps_per_epoch),
        init_seed=planned.init_seed,
        **{name: getattr(settings, name) for name in _SAME},
        **{name: getattr(config, name) for name in ("head_type", "head_width", "head_role")},
        **dict.fromkeys(("head_seed", "order_seed", "augmentation_seed"), settings.seed),
        **dict.fromkeys(_UNKNOWN),
        replicate=planned.replicate,
        precision="fp32",
        compile="none",
        ranks=1,
        versions={},
        deviations=deviations,
        num_parameters=sum(map(prod, config.shape.tensor_shapes().values())),
        weights=weights,
        origin=records.Origin(
            release=facts.LANGUAGE_RELEASE if settings.is_language else facts.RELEASE,
            folder=planned.name,
            files=texts | sources,
        ),
    )


def _deviations(settings: Settings) -> tuple[str, ...]:
    """Return the facts of the released code that bear on a model, whose columns hold its config's values."""
    code = "experiment_runner/def_nn_experiment.py"
    entries = [
        deviation(
            "code",
            ours="as published, if it trained this model, and parts of it cannot run",
            source="silent",
            why=code,
        ),
        deviation("validation", ours="none, choices are made on the test images as well", source="silent", why=code),
        deviation("test metrics", ours=facts.TEST_METRICS, source="test images", why=code),
        deviation("seeds", ours=facts.GLOBAL_SEED, source="one seed", why=code),
    ]
    if settings.mixup:
        does = facts.shifted_mixing(mixup=settings.mixup, cutmix=settings.cutmix)
        entries += [
            deviation(
                "mixup, cutmix, label_smoothing, random_erasing",
                ours=f"arguments are shifted by one, so that label smoothing is {does['label_smoothing']:g}, mixup "
                f"{does['mixup']:g}, cutmix {does['cutmix']:g}, erasing .25",
                source=f"label smoothing {settings.label_smoothing:g}, mixup {settings.mixup:g}, cutmix "
                f"{settings.cutmix:g}, erasing {settings.random_erasing:g}",
                why="experiment_runner/def_net.py and utils/vision_augmentations.py",
            ),
            deviation("train_accuracy", ours=f"{facts.TRAIN_METRICS}, so not taken", source="train_acc", why=code),
        ]
    if settings.objective == "contrastive":
        entries += [
            deviation("positives", ours=facts.POSITIVES, source="two views of an image", why="data_preparation"),
            deviation("test_loss, test_accuracy", ours=f"{facts.CONTRASTIVE_METRICS}, so accuracies are not taken",
                      source="test_loss and test_acc", why=code),
        ]  # fmt: skip
    return tuple(entries)


def _text_deviations(planned: PlannedImport) -> tuple[str, ...]:
    """Return the facts of the released language code that bear on a model."""
    model, settings = planned.model, planned.model.settings
    code, runner = f"models/{'bert_mlm' if model.role == 'masked' else 'bert_sst'}.py", "experiment_runner"
    entries = [
        deviation("code", ours="as published, if it trained this model", source="silent", why=code),
        deviation("validation", ours="none, choices are made on the test texts", source="silent", why=runner),
        deviation("test metrics", ours="drops the last smaller batch", source="test texts", why=runner),
        deviation("seeds", ours=facts.GLOBAL_SEED, source="one seed", why=runner),
        deviation("dropout", ours=".1, as transformers' BERT has it", source=f"{settings.dropout:g}", why=code),
    ]
    if settings.warmup_ratio:
        entries.append(
            deviation("schedule", ours="without a warm-up", source=f"warm-up of {settings.warmup_ratio:g}", why=runner)
        )
    if model.role == "masked":
        entries.append(deviation("test_loss", ours=facts.NEW_MASKS, source="test_loss", why=runner))
        if settings.case == "scratch":
            entries.append(
                deviation(
                    "init_seed",
                    ours="linear layers alone are drawn, embeddings and norms are those of bert-base-uncased",
                    source="scratch",
                    why=code,
                )
            )
    return tuple(entries)
