"""What a finished member says of itself: identity, lineage, factors and provenance, for member.json."""

from training.environment import git_commit, versions
from training.recipes.plan import PlannedMember
from vitzoo import records
from vitzoo.images import ImageDataset

_PRECISION = "fp32"
_COMPILE = "none"


def member_record(
    planned: PlannedMember,
    *,
    dataset: ImageDataset,
    parent: records.MemberRecord | None,
    weights: tuple[records.WeightsRecord, ...],
    ranks: int,
    deviations: tuple[str, ...],
) -> records.MemberRecord:
    """The record of a member that was trained to its end.

    Args:
        planned: The member.
        dataset: The images that it was trained on.
        parent: The record of the member that it started from; None for a parent.
        weights: Every weights file, the final one included.
        ranks: Processes that trained it together.
        deviations: The recipe's departures from its source.
    """
    training, seeds, optimizer = planned.training, planned.seeds, planned.training.optimizer
    return records.MemberRecord(
        id=str(planned.id),
        parent=None if parent is None else parent.id,
        parent_epoch=None if parent is None else parent.epochs,
        parent_sha256=None if parent is None else parent.final_weights.sha256,
        init_group=planned.init_group,
        stage="pretraining" if parent is None else "finetuning",
        status="completed",
        objective=training.objective,
        dataset=dataset.name,
        dataset_revision=dataset.revision,
        dataset_fingerprint=dataset.fingerprint,
        classes=dataset.classes,
        n_train=len(dataset.train),
        n_train_evaluated=training.dataset.evaluated_train_images,
        n_val=len(dataset.val),
        n_test=len(dataset.test),
        head_type=planned.head.type,
        head_width=planned.head.width,
        head_role=planned.head.role,
        optimizer=optimizer.name,
        learning_rate=optimizer.learning_rate,
        weight_decay=optimizer.weight_decay,
        momentum=optimizer.momentum,
        schedule=training.schedule.name,
        batch_size=training.batch_size,
        epochs=training.epochs,
        steps=training.steps,
        mixup=training.mixing.mixup,
        cutmix=training.mixing.cutmix,
        label_smoothing=training.mixing.label_smoothing,
        random_erasing=training.augmentation.erasing,
        init_seed=seeds.init,
        head_seed=seeds.head,
        order_seed=seeds.order,
        augmentation_seed=seeds.augmentation,
        replicate=planned.replicate,
        precision=_PRECISION,
        compile=_COMPILE,
        ranks=ranks,
        versions=versions(),
        commit=git_commit(),
        deviations=deviations,
        num_parameters=planned.num_parameters,
        weights=weights,
    )
