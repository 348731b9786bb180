"""The trainer's own loop against a plain PyTorch one, written here from the definitions.

The loops share the batches of `Batches` and the model's forward pass; learning rate, loss and update are written
anew, and torch's plain, unfused optimizers are the oracle.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.tiny import CONTRASTIVE, FINE_TUNING, SUPERVISED, tiny
from training.images.loader import Batch, Batches
from training.member.step import learning_rate
from training.member.train import train_member
from training.recipes.plan import plan_members
from training.recipes.recipe import Parent, Recipe
from training.recipes.training import Mixing, Optimizer, Schedule, Training
from training.workspace import Workspace
from vitzoo.images import load_images
from vitzoo.models.vit import VitZooModel

SGD = Optimizer(name="sgd", learning_rate=0.01, weight_decay=5e-4, momentum=0.9)
SLOW_SGD = replace(SGD, learning_rate=0.003)  # at .03, ten contrastive steps make 1e-5 of the loss's last bit
PLAIN_SGD = Optimizer(name="sgd", learning_rate=0.03, momentum=0.0)
ADAMW = Optimizer(name="adamw", learning_rate=2e-3, weight_decay=0.05)
COSINE = Schedule(name="cosine", warmup_steps=3)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (Schedule(), {0: 0.1, 7: 0.1, 19: 0.1}),
        (Schedule(warmup_steps=4), {0: 0.025, 1: 0.05, 2: 0.075, 3: 0.1, 4: 0.1, 19: 0.1}),
        (Schedule(name="cosine"), {0: 0.1, 5: 0.0853553390593, 10: 0.05, 15: 0.0146446609407, 19: 0.000615582970243}),
        (
            Schedule(name="cosine", warmup_steps=4),
            {0: 0.025, 3: 0.1, 4: 0.1, 8: 0.0853553390593, 12: 0.05, 16: 0.0146446609407, 19: 0.000960735979838},
        ),
    ],
)
def test_the_learning_rate_of_a_step(schedule: Schedule, rates: dict[int, float]) -> None:
    training = replace(SUPERVISED, optimizer=replace(PLAIN_SGD, learning_rate=0.1), schedule=schedule)
    assert training.steps == 20
    for step, rate in rates.items():
        assert learning_rate(training, step) == pytest.approx(rate, rel=1e-10)


def cross_entropy(logits: Tensor, batch: Batch, training: Training) -> Tensor:
    assert batch.targets is not None
    log_shares = logits - logits.exp().sum(1, keepdim=True).log()
    return -(batch.targets * log_shares).sum() / len(logits)


def contrast(embeddings: Tensor, batch: Batch, training: Training) -> Tensor:
    units = embeddings / embeddings.square().sum(1, keepdim=True).sqrt()
    views, losses = len(units), []
    for i, unit in enumerate(units):
        scaled = (units @ unit / (training.temperature or math.nan)).exp()
        losses.append(-(scaled[(i + views // 2) % views] / (scaled.sum() - scaled[i])).log())
    return torch.stack(losses).mean()


def rate_of(training: Training, step: int) -> float:
    peak, warmup = training.optimizer.learning_rate, training.schedule.warmup_steps
    if step < warmup:
        return peak * (step + 1) / warmup
    if training.schedule.name == "constant":
        return peak
    return peak * math.cos(math.pi / 2 * (step - warmup) / (training.steps - warmup)) ** 2


def one_epoch(training: Training, *, parent: int) -> Recipe:
    """A parent alone, trained for an epoch."""
    recipe = tiny()
    chosen = replace(recipe.parents[parent], training=training, replicates=0)
    return replace(recipe, parents=(chosen,))


def one_child(training: Training, head: int) -> Recipe:
    recipe = tiny()
    first: Parent = replace(recipe.parents[0], training=replace(SUPERVISED, epochs=1), replicates=1)
    children = replace(
        recipe.children,
        training=training,
        heads=recipe.children.heads[head : head + 1],
        optimizers=(training.optimizer,),
    )
    return replace(recipe, parents=(first,), children=children)


def plain_loop(folder: Path, recipe: Recipe, loss_of: Callable[[Tensor, Batch, Training], Tensor]) -> VitZooModel:
    """From the epoch 0 that was written, an epoch of plain PyTorch."""
    planned = plan_members(recipe)[-1]
    training, architecture = planned.training, planned.architecture
    model = VitZooModel.from_pretrained(folder / str(planned.id), epoch=0)
    weights = list(model.parameters())
    recipe_of = training.optimizer
    if recipe_of.name == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            weights, betas=(0.9, 0.999), eps=1e-8, weight_decay=recipe_of.weight_decay, foreach=False, fused=False
        )
    else:
        optimizer = torch.optim.SGD(
            weights,
            lr=1.0,
            momentum=recipe_of.momentum or 0.0,
            weight_decay=recipe_of.weight_decay,
            foreach=False,
            fused=False,
        )
    batches = Batches(
        load_images(training.dataset.name).train,
        training,
        classes=planned.head.outputs,
        mean=architecture.mean,
        std=architecture.std,
        seeds=planned.seeds,
        image_size=architecture.image_size,
        device=torch.device("cpu"),
    )
    model.train()
    for step, batch in enumerate(batches.epoch(0)):
        optimizer.param_groups[0]["lr"] = rate_of(training, step)
        optimizer.zero_grad()
        loss_of(model(pixel_values=batch.pixel_values).logits, batch, training).backward()
        optimizer.step()
    return model


def largest_difference(model: VitZooModel, other: VitZooModel, *, skip: str = "nothing") -> float:
    pairs = zip(model.state_dict().items(), other.state_dict().values(), strict=True)
    return max(float((one - two).abs().max()) for (name, one), two in pairs if skip not in name)


# Steps an epoch: 1 or 10, of 649 training images for parents and 429 for children.
CASES = [
    pytest.param(
        one_epoch(replace(SUPERVISED, optimizer=SGD, schedule=COSINE, epochs=1), parent=0), id="supervised-10"
    ),
    pytest.param(
        one_epoch(replace(SUPERVISED, optimizer=PLAIN_SGD, epochs=1, batch_size=649), parent=0), id="supervised-1"
    ),
    pytest.param(
        one_epoch(replace(CONTRASTIVE, optimizer=SLOW_SGD, schedule=COSINE, epochs=1), parent=2), id="contrastive-10"
    ),
    pytest.param(
        one_epoch(replace(CONTRASTIVE, optimizer=SLOW_SGD, schedule=Schedule(), epochs=1, batch_size=512), parent=2),
        id="contrastive-1",
    ),
    pytest.param(one_child(replace(FINE_TUNING, optimizer=SGD, epochs=1, batch_size=42), head=1), id="fine-tuning-10"),
    pytest.param(one_child(replace(FINE_TUNING, optimizer=SGD, epochs=1, batch_size=429), head=0), id="fine-tuning-1"),
]


def with_adamw(recipe: Recipe) -> Recipe:
    *before, last = recipe.parents
    training = replace(last.training, optimizer=ADAMW)
    children = replace(recipe.children, optimizers=(ADAMW,))
    return replace(recipe, parents=(*before, replace(last, training=training)), children=children)


@pytest.mark.parametrize("recipe", CASES)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_our_loop_is_the_plain_one(recipe: Recipe, optimizer: str, tmp_path: Path) -> None:
    recipe = with_adamw(recipe) if optimizer == "adamw" else recipe
    planned = plan_members(recipe)
    workspace = Workspace(tmp_path / "zoo", recipe)
    for member in planned:
        train_member(workspace, member)
    ours = VitZooModel.from_pretrained(tmp_path / "zoo" / str(planned[-1].id))
    loss_of = contrast if planned[-1].training.objective == "contrastive" else cross_entropy
    plain = plain_loop(tmp_path / "zoo", recipe, loss_of)
    # Attention takes no notice of a bias of the keys: its gradient is rounding, of which AdamW makes whole steps.
    skip = "k_proj.bias" if optimizer == "adamw" else "nothing"
    assert largest_difference(ours, plain, skip=skip) <= 1e-6
    start = VitZooModel.from_pretrained(tmp_path / "zoo" / str(planned[-1].id), epoch=0)
    assert largest_difference(ours, start, skip=skip) > 1e-3  # a difference that could be seen


def test_momentum_and_decay_would_be_seen(tmp_path: Path) -> None:
    recipe = one_epoch(replace(SUPERVISED, optimizer=SGD, epochs=1, mixing=Mixing()), parent=0)
    train_member(Workspace(tmp_path / "zoo", recipe), plan_members(recipe)[0])
    ours = VitZooModel.from_pretrained(tmp_path / "zoo" / "pt-0")
    for other in (replace(SGD, weight_decay=0.0), replace(SGD, momentum=0.89)):
        changed = replace(
            recipe, parents=(replace(recipe.parents[0], training=replace(recipe.parents[0].training, optimizer=other)),)
        )
        assert largest_difference(ours, plain_loop(tmp_path / "zoo", changed, cross_entropy)) > 1e-5
