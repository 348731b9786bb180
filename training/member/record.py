"""Build the fields of a member's record that its recipe decides, and describe divergence.

See `training.member.train` for the fields that the training decides.
"""

from typing import Any

from training.recipes.plan import PlannedMember
from vitzoo import records


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
