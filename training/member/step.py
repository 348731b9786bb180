"""Take one optimizer step: optimizer, learning rate, accumulation, clipping.

Nothing here waits for the device. See `training.objectives` for the loss of a batch.
"""

import contextlib
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn, optim
from torch.nn.parallel import DistributedDataParallel

from training.batch import Batch
from training.objectives import training_loss
from training.pretext import Pretext
from training.random import Stream, philox
from training.ranks import Ranks
from training.recipes.training import Optimizer, Training
from vitzoo.errors import TrainingError


def make_optimizer(recipe: Optimizer, model: nn.Module) -> optim.Optimizer:
    """Make a recipe's optimizer of all weights of a model that are trained.

    Source: Loshchilov and Hutter 2019 (AdamW); Sutskever et al. 2013 (momentum) as PyTorch defines it.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if recipe.name == "adamw":
        betas = (0.9, recipe.beta2)
        return optim.AdamW(trained, lr=recipe.learning_rate, betas=betas, weight_decay=recipe.weight_decay, fused=True)
    return optim.SGD(
        trained,
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum or 0.0,
        fused=True,
    )


def learning_rate(training: Training, step: int) -> float:
    """Return the learning rate of a step.

    Args:
        training: Peak and schedule.
        step: Finished steps, from 0.

    Returns:
        A linear rise to the peak over the warm-up, then the peak, or a line or half a cosine from it towards 0. One
        cycle rises from peak / 25 in 30% of the steps, and falls to peak / 250,000, by cosines.

    Source: Smith and Topin 2018 (one cycle), as torch's `OneCycleLR` without its cycle of momentum.
    """
    peak, schedule = training.optimizer.learning_rate, training.schedule
    if schedule.name == "one_cycle":
        first, last, top = peak / 25, peak / 25e4, 0.3 * training.steps - 1
        low, share = (first, step / top) if step <= top else (last, 1 - (step - top) / (training.steps - 1 - top))
        return low + (peak - low) * 0.5 * (1 - math.cos(math.pi * share))
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    if schedule.name == "constant":
        return peak
    share = (step - schedule.warmup_steps) / max(1, training.steps - schedule.warmup_steps)
    if schedule.name == "linear":
        return peak * (1 - share)
    return peak * 0.5 * (1 + math.cos(math.pi * share))


def dropout_seed(seed: int, *, step: int, part: int, rank: int) -> int:
    """Return the seed of torch's generators for a step, so that a resumed training drops the same values.

    Every rank and part of a batch has values of its own.
    """
    place = torch.tensor([step, part, rank, 0])
    high, low = philox((seed, int(Stream.DROPOUT)), place).tolist()[:2]
    return high << 32 | low


class Stepper:
    """Takes optimizer steps: forward, backward, clip, update.

    Args:
        model: Model or pretext to train, in DistributedDataParallel with several ranks.
        optimizer: Optimizer of its weights.
        training: Objective, schedule, clipping and precision.
        ranks: Processes that train together.
        accumulation: Parts of each batch that run one after another, and whose gradients are summed.
        seed: Seed of dropout.

    Raises:
        TrainingError: Accumulation does not divide this rank's batch, or changes the objective.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: optim.Optimizer,
        training: Training,
        *,
        ranks: Ranks | None = None,
        accumulation: int = 1,
        seed: int = 0,
    ):
        self.model, self.optimizer, self.training = model, optimizer, training
        self.ranks, self.accumulation, self.seed = ranks or Ranks(), accumulation, seed
        if accumulation > 1 and training.objective == "distillation":
            raise TrainingError(
                f"accumulation is {accumulation} for distillation",
                expected="1. Parts of a batch would separate the two views of an image",
                fix="Train on several GPUs instead (accelerate launch --num_processes 2).",
            )
        if accumulation > 1 and training.objective == "contrastive":
            raise TrainingError(
                f"accumulation is {accumulation} for InfoNCE",
                expected="1. Every image of a batch is a negative of every other, so the loss of a batch is not a "
                "mean over its parts: each would have fewer negatives",
                fix="Train on several GPUs instead (accelerate launch --num_processes 2): they share their negatives.",
            )
        rows = training.batch_size // self.ranks.count
        if rows * self.ranks.count != training.batch_size or rows % accumulation:
            raise TrainingError(
                f"batch_size is {training.batch_size}, which {self.ranks.count} ranks x {accumulation} parts "
                "do not divide",
                fix="Choose numbers that divide it; the recipe's batch stays.",
            )

    def __call__(self, batch: Batch, step: int) -> Float[Tensor, ""]:
        """Take a step.

        Args:
            batch: This rank's rows of the global batch.
            step: Finished steps, from 0.

        Returns:
            The loss before the step, detached, on the device. A supervised loss is of this rank's rows.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.training, step)
        total = torch.zeros((), device=next(iter(batch.inputs.values())).device)
        parts = batch.split(self.accumulation)
        for number, part in enumerate(parts, start=1):
            if self.training.dropout:
                torch.manual_seed(dropout_seed(self.seed, step=step, part=number, rank=self.ranks.index))
            with contextlib.nullcontext() if number == len(parts) else self._alone():
                loss = training_loss(self.model, part, self.training, ranks=self.ranks) / len(parts)
                loss.backward()
            total += loss.detach()
        if self.training.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.training.clip_norm, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad()
        trained = self.model.module if isinstance(self.model, DistributedDataParallel) else self.model
        if isinstance(trained, Pretext):
            trained.finish_step(step, self.ranks)
        return total

    def _alone(self) -> contextlib.AbstractContextManager:
        """Keep gradients on this rank. The last part's backward pass averages their sum over the ranks."""
        if isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return contextlib.nullcontext()
