"""One optimizer step: the optimizer, the learning rate of a step, and the loss of a batch."""

import math

from torch import Tensor, nn, optim

from training.images.loader import Batch
from training.member.objectives import info_nce, soft_cross_entropy
from training.recipes.training import Optimizer, Training


def make_optimizer(recipe: Optimizer, model: nn.Module) -> optim.Optimizer:
    """The optimizer of a recipe, over all of a model's weights.

    Source: Loshchilov and Hutter 2019 (AdamW); Sutskever et al. 2013 (momentum) as PyTorch defines it.
    """
    if recipe.name == "adamw":
        return optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)
    return optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum or 0.0,
        fused=True,
    )


def learning_rate(training: Training, step: int) -> float:
    """The learning rate of a step.

    Args:
        training: The peak and the schedule.
        step: Finished steps, from 0.

    Returns:
        Rising to the peak by equal parts over the warm-up; then the peak, or half a cosine from it towards 0.
    """
    peak, schedule = training.optimizer.learning_rate, training.schedule
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    if schedule.name == "constant":
        return peak
    share = (step - schedule.warmup_steps) / max(1, training.steps - schedule.warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * share))


def training_loss(model: nn.Module, batch: Batch, training: Training) -> Tensor:
    """The objective on a batch: a scalar with a gradient."""
    outputs = model(pixel_values=batch.pixel_values).logits
    if batch.targets is None:
        return info_nce(outputs, temperature=training.temperature or 0.0)
    return soft_cross_entropy(outputs, batch.targets)
