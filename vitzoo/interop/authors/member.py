"""Make a member of one model of the authors' release: weights, metrics, factors and provenance. See `convert`."""

import shutil
from dataclasses import asdict
from math import prod

from msgspec import structs

from vitzoo import records
from vitzoo.errors import ReleaseError
from vitzoo.images.processor import image_processor, processor_arguments
from vitzoo.interop.authors import facts
from vitzoo.interop.authors.config import Settings
from vitzoo.interop.authors.convert import ByteCount, Conversion, Converted
from vitzoo.interop.authors.facts import deviation
from vitzoo.interop.authors.job import Import
from vitzoo.interop.authors.plan import PlannedImport
from vitzoo.interop.authors.release import CONFIG, RESULT
from vitzoo.models.vit import VitZooConfig
from vitzoo.records import layout
from vitzoo.records.files import file_sha256
from vitzoo.records.writer import MemberWriter


def import_member(
    planned: PlannedImport, job: Import, count: ByteCount, *, parent: records.MemberRecord | None
) -> None:
    """Make a member of a model.

    Args:
        planned: The model.
        job: The import.
        count: Counts the bytes of all models.
        parent: Record of its parent; None for a parent.

    Raises:
        ReleaseError: It cannot become a member.
        StoppedError: The import is to end.
        OSError: The zoo folder cannot be written.
    """
    if parent is not None:
        if parent.status != "completed":
            raise ReleaseError(f"its parent {parent.id} {parent.status}")
        _parent_sha256(parent, planned.parent_epoch)
    conversion = Conversion(planned, job, count)
    try:
        last, diverged = _convert_last(conversion)
        for epoch in [epoch for epoch in planned.keep if epoch < last]:
            done = conversion.convert(epoch, layout.weights_name(epoch))
            if done is not None and not done.is_finite:
                conversion.forget(epoch)
                conversion.note(f"epoch {epoch} is not taken: a weight is not finite")
        _finish(conversion, last, parent, diverged=diverged)
    finally:
        shutil.rmtree(conversion.folder, ignore_errors=True)  # a finished member was renamed


def _convert_last(conversion: Conversion) -> tuple[int, bool]:
    """Convert checkpoints backwards until one is whole and finite, and return its epoch and if it diverged then."""
    planned, diverged = conversion.planned, False
    for epoch in reversed(planned.checkpoints):
        row = planned.model.results.rows.get(epoch)
        is_variant = epoch in planned.keep or diverged  # a diverged member has no final weights
        done = conversion.convert(epoch, layout.weights_name(epoch if is_variant else None))
        if done is not None and done.is_finite and (row is None or row.finite):
            return epoch, diverged
        if done is not None:
            diverged = True
            conversion.forget(epoch)
            cause = "its loss" if done.is_finite else "a weight"
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


def _finish(conversion: Conversion, last: int, parent: records.MemberRecord | None, *, diverged: bool) -> None:
    """Write everything but the weights, member.json last, and make the member appear."""
    planned, settings = conversion.planned, conversion.planned.model.settings
    writer = MemberWriter(conversion.folder, planned.id)
    kept = {epoch: done for epoch, done in sorted(conversion.done.items()) if epoch <= last}
    weights = [
        records.WeightsRecord(epoch=epoch, size=done.size, sha256=done.sha256)
        for epoch, done in kept.items()
        if done.file != layout.weights_name()
    ]
    if not diverged:
        final = records.WeightsRecord(epoch=last, size=kept[last].size, sha256=kept[last].sha256)
        is_linked = kept[last].file != layout.weights_name()
        weights.append(writer.link_final_weights(final) if is_linked else structs.replace(final, epoch=None))
    config = _config(planned, conversion.job)
    side = config.shape.image_size
    preprocessing = (settings.dataset or facts.IMAGENET).preprocessing(side)
    arguments = processor_arguments(preprocessing, image_size=side, mean=facts.MEAN, std=facts.STD)
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
        configs=[config, image_processor(arguments)],
    )
    writer.publish(conversion.job.root)


def _config(planned: PlannedImport, job: Import) -> VitZooConfig:
    model, settings = planned.model, planned.model.settings
    is_embedding = settings.objective == "contrastive"
    names = _classes(planned) if not is_embedding else tuple(map(str, range(model.outputs)))
    labels = dict(enumerate(names))
    return VitZooConfig(
        **asdict(job.model_types[settings.model_type]),
        num_channels=3,
        id2label=labels,
        label2id={name: label for label, name in labels.items()},
        head_type="linear" if model.head_width is None else "mlp",
        head_width=model.head_width,
        head_role="embedding" if is_embedding else "classifier",
        architectures=["VitZooModel"],
        dtype="float32",
    )


def _classes(planned: PlannedImport) -> tuple[str, ...]:
    """Return the names of the classes: numbers if the data set, or its use, is unknown."""
    settings, outputs = planned.model.settings, planned.model.outputs
    if settings.dataset is None or (settings.objective is None and outputs != len(settings.dataset.classes)):
        return tuple(map(str, range(outputs)))
    return settings.dataset.classes


def _epoch_record(planned: PlannedImport, epoch: int, done: Converted | None) -> records.EpochRecord:
    settings, row = planned.model.settings, planned.model.results.rows.get(epoch)
    values = {} if row is None else row.values
    accuracies = {} if settings.objective == "contrastive" else values
    step = _times(epoch, settings.steps_per_epoch)
    return records.EpochRecord(
        epoch=epoch,
        step=step,
        samples_seen=_times(step, settings.batch_size),
        learning_rate=settings.learning_rate,
        train_loss_running=values.get("train_loss") if epoch else None,
        train_loss=None,
        train_accuracy=None,
        val_loss=values.get("val_loss"),
        val_accuracy=accuracies.get("val_acc"),
        val_knn_accuracy=None,
        test_loss=values.get("test_loss"),
        test_accuracy=accuracies.get("test_acc"),
        test_knn_accuracy=None,
        weight_norm=done and done.weight_norm,
        distance_from_start=done and done.distance_from_start,
        weights_id=done and done.weights_id,
        backbone_id=done and done.backbone_id,
    )


def _times(count: int | None, size: int | None) -> int | None:
    return None if count is None or size is None else count * size


def _note_missing_metrics(conversion: Conversion, last: int, *, diverged: bool) -> None:
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
    conversion: Conversion,
    last: int,
    kept: dict[int, Converted],
    weights: tuple[records.WeightsRecord, ...],
    config: VitZooConfig,
    parent: records.MemberRecord | None,
    *,
    diverged: bool,
) -> records.MemberRecord:
    planned, model, settings = conversion.planned, conversion.planned.model, conversion.planned.model.settings
    deviations = _deviations(settings)
    dataset, batch_size = settings.dataset, settings.batch_size
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
        diverged_step=None,
        last_good_epoch=last if diverged else None,
        objective=settings.objective,
        dataset=dataset and dataset.spec.name,
        dataset_spec=dataset and dataset.spec,
        dataset_revision=None,
        dataset_fingerprint=None,
        classes=_classes(planned),
        n_train=dataset and dataset.n_train,
        n_train_evaluated=None,
        n_val=None if validated else 0,
        n_test=dataset.n_test // batch_size * batch_size if dataset and batch_size else None,
        head_type=config.head_type,
        head_width=config.head_width,
        head_role=config.head_role,
        optimizer=settings.optimizer,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
        schedule="constant",
        batch_size=settings.batch_size,
        epochs=epochs,
        steps=_times(epochs, settings.steps_per_epoch),
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
        origin=records.Origin(release=facts.RELEASE, folder=planned.folder, files=texts | sources),
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
