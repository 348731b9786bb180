"""Build the record of a finished member for member.json: identity, lineage, factors and provenance."""

from typing import Any

from training.environment import git_commit, versions
from training.member.report import Diverged
from training.recipes.plan import PlannedMember
from vitzoo import records
from vitzoo.images import ImageDataset


def member_record(
    planned: PlannedMember,
    *,
    dataset: ImageDataset,
    parent: records.MemberRecord | None,
    weights: tuple[records.WeightsRecord, ...],
    ranks: int,
    compiled: str,
    deviations: tuple[str, ...],
    diverged: Diverged | None,
    last_epoch: int,
) -> records.MemberRecord:
    """Return the record of a member that completed or diverged.

    Args:
        planned: Planned member.
        dataset: Its images.
        parent: Record of the member that it started from; None for a parent.
        weights: Record of every weights file, the final one included.
        ranks: Processes that trained it together.
        compiled: Mode of `torch.compile`; ``none`` for eager.
        deviations: Departures of the recipe from its source.
        diverged: Error of the loss or metric that was NaN or infinite; None for a completed member.
        last_epoch: Last epoch with metrics and weights.
    """
    return records.MemberRecord(
        **planned_fields(planned),
        parent=None if parent is None else parent.id,
        parent_epoch=None if parent is None else parent.epochs,
        parent_sha256=None if parent is None else parent.final_weights.sha256,
        status="completed" if diverged is None else "diverged",
        diverged_step=None if diverged is None else diverged.step,
        last_good_epoch=None if diverged is None else last_epoch,
        dataset_revision=dataset.revision,
        dataset_fingerprint=dataset.fingerprint,
        classes=dataset.classes,
        n_train=len(dataset.train),
        n_val=len(dataset.val),
        n_test=len(dataset.test),
        compile=compiled,
        ranks=ranks,
        versions=versions(),
        commit=git_commit(),
        deviations=deviations,
        weights=weights,
    )


def planned_fields(planned: PlannedMember) -> dict[str, Any]:
    """Return the fields of a member's record that its recipe decides."""
    training, seeds, optimizer = planned.training, planned.seeds, planned.training.optimizer
    return {
        "id": str(planned.id),
        "init_group": planned.init_group,
        "stage": "pretraining" if planned.id.is_parent else "finetuning",
        "objective": training.objective,
        "dataset": training.dataset.name,
        "dataset_spec": training.dataset.images,
        "n_train_evaluated": training.dataset.evaluated_train_images,
        "head_type": planned.head.type,
        "head_width": planned.head.width,
        "head_role": planned.head.role,
        "optimizer": optimizer.name,
        "learning_rate": optimizer.learning_rate,
        "weight_decay": optimizer.weight_decay,
        "momentum": optimizer.momentum,
        "schedule": training.schedule.name,
        "batch_size": training.batch_size,
        "epochs": training.epochs,
        "steps": training.steps,
        "mixup": training.mixing.mixup,
        "cutmix": training.mixing.cutmix,
        "label_smoothing": training.mixing.label_smoothing,
        "random_erasing": training.augmentation.erasing,
        "init_seed": seeds.init,
        "head_seed": seeds.head,
        "order_seed": seeds.order,
        "augmentation_seed": seeds.augmentation,
        "replicate": planned.replicate,
        "precision": training.precision,
        "num_parameters": planned.num_parameters,
    }


def describe_divergence(record: records.MemberRecord) -> str:
    """Describe where a member diverged, and under which factors."""
    return (
        f"its loss was not finite after step {record.diverged_step} of {record.steps}, at a "
        f"peak learning rate of {record.learning_rate:g} and batch size {record.batch_size}. Its last good epoch is "
        f"{record.last_good_epoch}; it is not trained again."
    )
