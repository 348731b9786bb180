"""One optimizer step: the optimizer, the learning rate of a step, the loss of a batch, and the step itself.

Nothing here waits for the device: losses stay on it until somebody reads them (`watch.py`).
"""

import contextlib
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn, optim
from torch.nn.parallel import DistributedDataParallel

from training.images.loader import Batch
from training.member.objectives import info_nce, soft_cross_entropy
from training.ranks import Ranks
from training.recipes.training import Optimizer, Training
from vitzoo.errors import TrainingError


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


def training_loss(model: nn.Module, batch: Batch, training: Training, *, ranks: Ranks | None = None) -> Tensor:
    """The objective on a batch: a scalar in float32, with a gradient.

    The forward pass alone runs in the recipe's precision. Supervised, the loss is the mean over this rank's rows;
    contrastive, that over the global batch, since every image is every other's negative.

    Args:
        model: What is trained.
        batch: This rank's rows of the global batch.
        training: The objective and the precision.
        ranks: Those that hold the other rows.
    """
    pixels = batch.pixel_values
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=training.precision == "bf16"):
        outputs = model(pixel_values=pixels).logits
    if batch.targets is not None:
        return soft_cross_entropy(outputs, batch.targets)
    return info_nce(_global_views(outputs.float(), training, ranks or Ranks()), temperature=training.temperature or 0.0)


class Stepper:
    """Takes optimizer steps: forward, backward, clip, update.

    Args:
        model: What is trained, in DistributedDataParallel where there are several ranks.
        optimizer: Over its weights.
        training: The objective, the schedule and the rest.
        ranks: The processes that train together.
        accumulation: Parts that each batch is cut into, one after another, whose gradients are added up.

    Raises:
        TrainingError: Accumulation does not divide this rank's batch, or cannot give what the objective means.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: optim.Optimizer,
        training: Training,
        *,
        ranks: Ranks | None = None,
        accumulation: int = 1,
    ):
        self.model, self.optimizer, self.training = model, optimizer, training
        self.ranks, self.accumulation = ranks or Ranks(), accumulation
        if accumulation > 1 and training.objective == "contrastive":
            raise TrainingError(
                f"accumulation is {accumulation} for InfoNCE; expected 1. Every image of a batch is a negative of "
                "every other, so the loss of a batch is no mean over its parts: each would have fewer negatives. "
                "Train on several GPUs instead (accelerate launch --num_processes 2): they share their negatives."
            )
        rows = training.batch_size // self.ranks.count
        if rows * self.ranks.count != training.batch_size or rows % accumulation:
            raise TrainingError(
                f"batch_size is {training.batch_size}, which {self.ranks.count} ranks x {accumulation} parts do not "
                "divide. Choose their number so that they do; the recipe's batch stays."
            )

    def __call__(self, batch: Batch, step: int) -> Float[Tensor, ""]:
        """Take a step.

        Args:
            batch: This rank's rows of the global batch.
            step: Finished steps, from 0.

        Returns:
            The loss before the step, detached, on the device; of this rank's rows where supervised.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.training, step)
        total = torch.zeros((), device=batch.pixel_values.device)
        parts = batch.split(self.accumulation)
        for number, part in enumerate(parts, start=1):
            with contextlib.nullcontext() if number == len(parts) else self._alone():
                loss = training_loss(self.model, part, self.training, ranks=self.ranks) / len(parts)
                loss.backward()
            total += loss.detach()
        if self.training.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.training.clip_norm, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total

    def _alone(self) -> contextlib.AbstractContextManager:
        """Gradients stay on this rank: the last part's backward pass averages their sum."""
        if isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return contextlib.nullcontext()


def _global_views(
    outputs: Float[Tensor, "views dim"], training: Training, ranks: Ranks
) -> Float[Tensor, "all_views dim"]:
    """The embeddings of the global batch: all first views, then all second ones."""
    gathered = ranks.gather_with_gradient(outputs)
    if ranks.count == 1 or training.views == 1:
        return gathered
    return gathered.unflatten(0, (ranks.count, training.views, -1)).transpose(0, 1).flatten(0, 2)
