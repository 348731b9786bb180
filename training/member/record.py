"""Build the fields of a member's record that its recipe decides, check its parent, and describe divergence.

See `training.member.train` for the fields that the training decides.
"""

import time
from typing import Any

from training.recipes.data import TextData
from training.recipes.plan import PlannedMember, plan_member
from training.workspace import Workspace
from vitzoo import records
from vitzoo.errors import TrainingError

_PATIENCE = 120.0  # seconds to wait for a file of another machine; NFS shows it within a minute


def planned_fields(planned: PlannedMember) -> dict[str, Any]:
    """Return the fields of a member's record that its recipe decides."""
    training, seeds, optimizer = planned.training, planned.seeds, planned.training.optimizer
    texts = isinstance(training.dataset, TextData)
    return {
        "id": str(planned.id),
        "init_group": planned.init_group,
        "stage": "pretraining" if planned.id.is_parent else "finetuning",
        "objective": training.objective,
        "dataset": training.dataset.name,
        "dataset_spec": None if texts else training.dataset.spec,
        "text_spec": training.dataset.spec if texts else None,
        "n_train_evaluated": training.dataset.n_evaluated,
        "head_type": planned.head.type,
        "head_width": planned.head.widths[0] if planned.head.widths else None,
        "head_role": planned.head.role,
        "optimizer": optimizer.name,
        "learning_rate": optimizer.learning_rate,
        "weight_decay": optimizer.weight_decay,
        "momentum": optimizer.momentum,
        "beta2": optimizer.beta2,
        "schedule": training.schedule.name,
        "batch_size": training.batch_size,
        "epochs": training.epochs,
        "steps": training.steps,
        "mixup": training.mixing.mixup,
        "cutmix": training.mixing.cutmix,
        "label_smoothing": training.mixing.label_smoothing,
        "random_erasing": training.augmentation.erasing,
        "masking": 0.0 if training.masking is None else training.masking.share,
        "dropout": training.dropout,
        "frozen_backbone": training.frozen_backbone,
        "max_length": training.dataset.texts.max_length if isinstance(training.dataset, TextData) else None,
        "init_seed": seeds.init,
        "start_sha256": planned.start and planned.start.sha256,
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


def parent_record(
    workspace: Workspace, planned: PlannedMember, *, sha256: str | None = None
) -> records.MemberRecord | None:
    """Return the record of a member's parent; None for a parent itself.

    Args:
        workspace: Zoo folder.
        planned: Member to train.
        sha256: Hash of its parent's final weights. They are waited for, since another machine may have written them a
            moment ago. None for the weights in the folder.

    Raises:
        TrainingError: The parent is not finished, diverged, or belongs to another recipe or training.
    """
    parent = planned.id.parent_id
    if parent is None:
        return None
    give_up = time.monotonic() + _PATIENCE
    while sha256 is not None and not workspace.is_done(parent) and time.monotonic() < give_up:
        time.sleep(0.1)
    problem = f"{planned.id} starts from {parent}, "
    if not workspace.is_done(parent):
        holder = workspace.holder(parent)
        raise TrainingError(
            f"{problem}which is not finished in {workspace.root}",
            fix=f"Train {parent} first." if holder is None else f"Wait for {holder}, which trains it.",
        )
    record = workspace.catalogue.member_record(parent)
    if record.status != "completed":
        raise TrainingError(
            f"{problem}which is {record.status} in {workspace.root} and has no final weights",
            fix="Its children are not trained. A recipe with a lower learning rate may finish it.",
        )
    if sha256 is not None and record.final_weights.sha256 != sha256:
        raise TrainingError(
            f"{problem}which has weights of sha256 {record.final_weights.sha256} in {workspace.root}",
            expected=f"{sha256}: it was trained again, or this folder is another zoo's",
            fix="Restart the run.",
        )
    for name, expected in planned_fields(plan_member(workspace.recipe, parent)).items():
        if getattr(record, name) != expected:
            raise TrainingError(
                f"{problem}which is another recipe's in {workspace.root}: its {name} is {getattr(record, name)}",
                expected=str(expected),
                fix=f"Move it away and train {parent} again.",
            )
    return record
