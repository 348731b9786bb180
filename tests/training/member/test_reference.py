"""The trainer's steps against plain loops that are written here, from the definitions alone.

Ours are `Stepper` over `ImageBatches`, and the weights that `train_member` writes. Theirs are the model's forward pass,
autograd, and losses, learning rates, clipping and updates in elementary operations, without torch's optimizers. See
`tests/training/images` for the comparison of `ImageBatches` with PIL.
"""

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.tiny import CONTRASTIVE, FINE_TUNING, SUPERVISED, tiny
from training.batch import Batch
from training.images.loader import ImageBatches
from training.member.execution import Execution
from training.member.start import build_model, load_backbone
from training.member.step import Stepper, make_optimizer
from training.member.train import train_member
from training.objectives import training_loss
from training.recipes.plan import PlannedMember, plan_member, plan_members
from training.recipes.training import Mixing, Optimizer, Schedule, Training
from training.workspace import Workspace
from vitzoo import records
from vitzoo.architectures import memory_name
from vitzoo.ids import MemberId
from vitzoo.images import load_images
from vitzoo.models.vit import VitZooModel

MIXED = Mixing(mixup=0.8, cutmix=1.0, label_smoothing=0.1)
SGD = Optimizer(name="sgd", learning_rate=0.003, weight_decay=5e-4, momentum=0.9)
ADAMW = Optimizer(name="adamw", learning_rate=2e-3, weight_decay=0.05)
STEPS = 10  # of an epoch in these tests
Weights = dict[str, Tensor]
Pair = Callable[[PlannedMember], tuple[VitZooModel, VitZooModel]]


def planned_of(member: str, training: Training) -> PlannedMember:
    return replace(plan_member(tiny(), MemberId.parse(member)), training=training)


def with_steps(training: Training, optimizer: Optimizer) -> Training:
    """Return a training of ten steps an epoch, whose rate rises and falls."""
    batch = training.dataset.train_images // STEPS // 4 * 4
    schedule = Schedule(name="cosine", warmup_steps=3)
    return replace(training, optimizer=optimizer, schedule=schedule, batch_size=batch, epochs=1)


# Member and training by kind: pt-2 is contrastive; the first children of pt-0 have linear and MLP heads.
KINDS = {
    "supervised": ("pt-0", replace(SUPERVISED, mixing=MIXED)),
    "contrastive, two views": ("pt-2", CONTRASTIVE),
    "contrastive, halves": ("pt-2", replace(CONTRASTIVE, positives="halves")),
    "fine-tuning, linear head": ("pt-0/ft-0", FINE_TUNING),
    "fine-tuning, MLP head": ("pt-0/ft-1", FINE_TUNING),
}


def batches_of(planned: PlannedMember) -> Iterator[Batch]:
    split = load_images(planned.training.dataset.images).train
    return islice(ImageBatches(planned, split, device=torch.device("cpu")).epoch(0), STEPS)


def our_steps(planned: PlannedMember, model: VitZooModel, *, accumulation: int = 1) -> Iterator[tuple[Weights, float]]:
    """Yield the weights after each step, and its loss."""
    optimizer = make_optimizer(planned.training.optimizer, model.train())
    stepper = Stepper(model, optimizer, planned.training, accumulation=accumulation)
    for step, batch in enumerate(batches_of(planned)):
        loss = stepper(batch, step).item()
        yield weights_of(model), loss


def weights_of(model: nn.Module) -> Weights:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


# The definitions.


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    shares = logits.exp() / logits.exp().sum(1, keepdim=True)
    return -(targets * shares.log()).sum() / len(logits)


def contrast(embeddings: Tensor, temperature: float) -> Tensor:
    """Compute InfoNCE: row i pulls row i + half and pushes all others."""
    units = embeddings / embeddings.square().sum(1, keepdim=True).sqrt()
    likeness = (units @ units.T / temperature).exp()
    rows = torch.arange(len(units))
    others = likeness.sum(1) - likeness.diagonal()
    return -(likeness[rows, (rows + len(units) // 2) % len(units)] / others).log().mean()


def loss_of(model: VitZooModel, batch: Batch, training: Training) -> Tensor:
    outputs = model(pixel_values=batch.inputs["pixel_values"]).logits
    if training.objective == "contrastive":
        return contrast(outputs, training.temperature or math.nan)
    assert batch.targets is not None
    return cross_entropy(outputs, batch.targets)


def rate_of(training: Training, step: int) -> float:
    peak, warmup = training.optimizer.learning_rate, training.schedule.warmup_steps
    if step < warmup:
        return peak * (step + 1) / warmup
    if training.schedule.name == "constant":
        return peak
    return peak * (1 + math.cos(math.pi * (step - warmup) / (training.steps - warmup))) / 2


def clipped(gradients: list[Tensor], largest: float | None) -> list[Tensor]:
    norm = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))
    if largest is None or norm <= largest:
        return gradients
    return [gradient * (largest / norm) for gradient in gradients]


def sgd(recipe: Optimizer) -> Callable[[int, Tensor, Tensor, float], Tensor]:
    """Update with L2 decay, which is part of the gradient and so of the momentum."""
    buffers: dict[int, Tensor] = {}

    def update(key: int, weight: Tensor, gradient: Tensor, rate: float) -> Tensor:
        gradient = gradient + recipe.weight_decay * weight
        buffers[key] = gradient if key not in buffers else (recipe.momentum or 0.0) * buffers[key] + gradient
        return weight - rate * buffers[key]

    return update


def adamw(recipe: Optimizer) -> Callable[[int, Tensor, Tensor, float], Tensor]:
    """Update with decoupled decay, which shrinks the weight and enters no moment."""
    first, second, steps = {}, {}, {}

    def update(key: int, weight: Tensor, gradient: Tensor, rate: float) -> Tensor:
        steps[key] = steps.get(key, 0) + 1
        first[key] = 0.9 * first.get(key, 0) + 0.1 * gradient
        second[key] = recipe.beta2 * second.get(key, 0) + (1 - recipe.beta2) * gradient.square()
        mean, square = first[key] / (1 - 0.9 ** steps[key]), second[key] / (1 - recipe.beta2 ** steps[key])
        return weight - rate * recipe.weight_decay * weight - rate * mean / (square.sqrt() + 1e-8)

    return update


def plain_steps(planned: PlannedMember, model: VitZooModel) -> Iterator[tuple[Weights, float]]:
    training = planned.training
    update = (adamw if training.optimizer.name == "adamw" else sgd)(training.optimizer)
    weights = list(model.train().parameters())
    for step, batch in enumerate(batches_of(planned)):
        loss = loss_of(model, batch, training)
        gradients = clipped(list(torch.autograd.grad(loss, weights)), training.clip_norm)
        with torch.no_grad():
            for key, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
                weight.copy_(update(key, weight, gradient, rate_of(training, step)))
        yield weights_of(model), loss.item()


@pytest.fixture
def pair_of(tiny_copy: Path) -> Pair:
    """Return a function that makes two models of one member; of a child, the second reads the parent's file here."""

    def make(planned: PlannedMember) -> tuple[Any, Any]:
        classes = tuple(map(str, range(planned.head.outputs)))
        ours, theirs = build_model(planned, classes), build_model(planned, classes)
        parent = planned.id.parent_id
        if parent is not None:
            workspace = Workspace(tiny_copy, tiny())
            started = load_backbone(workspace, workspace.catalogue.member_record(parent))
            ours = build_model(planned, classes, first=started)
            backbone = load_file(tiny_copy / str(parent) / "model.safetensors")
            own = {memory_name(name): tensor for name, tensor in backbone.items() if name.startswith("vit.")}
            assert not theirs.load_state_dict(own, strict=False).unexpected_keys
        return ours, theirs

    return make


def differences(ours: Weights, theirs: Weights) -> dict[str, float]:
    return {name: float((weight - theirs[name]).abs().max()) for name, weight in ours.items()}


@pytest.mark.parametrize(
    ("kind", "optimizer"),
    [
        *((kind, SGD) for kind in KINDS),
        ("supervised", ADAMW),
        ("contrastive, two views", ADAMW),
        ("supervised", replace(ADAMW, beta2=0.98)),
    ],
)
def test_steps_are_the_plain_loops(kind: str, optimizer: Optimizer, pair_of: Pair) -> None:
    member, training = KINDS[kind]
    planned = planned_of(member, with_steps(training, optimizer))
    ours, theirs = pair_of(planned)
    start = weights_of(ours)
    assert differences(start, weights_of(theirs)) == dict.fromkeys(start, 0.0)
    steps = list(zip(our_steps(planned, ours), plain_steps(planned, theirs), strict=True))
    assert len(steps) == STEPS
    for (weights, loss), (expected, expected_loss) in steps:
        changes = differences(weights, expected)
        if optimizer.name == "adamw":
            changes = without_key_biases(changes)
        # Measured: 1.2e-7 after one step, 2.2e-7 (sgd) and 3.6e-7 (adamw) after ten.
        assert max(changes.values()) <= 1e-6
        assert loss == pytest.approx(expected_loss, rel=1e-6)
    moved = differences(weights_of(ours), start)
    assert max(moved.values()) > 5e-3  # a difference that could be seen
    batch = next(batches_of(planned))
    with torch.no_grad():
        outputs = [model.eval()(pixel_values=batch.inputs["pixel_values"]).logits for model in (ours, theirs)]
    # Relative to the largest output (.4 to 4.5), as an import's check is: 1.9e-5 of 3.6 was measured on one processor.
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-5 * max(1.0, float(outputs[1].abs().max())))


@pytest.mark.parametrize("member", ["pt-0", "pt-2", "pt-0/ft-1"])
def test_train_member_writes_the_weights_of_the_plain_loop(member: str, tiny_zoo: Path) -> None:
    planned = plan_member(tiny(), MemberId.parse(member))
    start, trained = (VitZooModel.from_pretrained(tiny_zoo / member, epoch=epoch) for epoch in (0, 1))
    plain = VitZooModel.from_pretrained(tiny_zoo / member, epoch=0)
    *_, (weights, _) = plain_steps(planned, plain)
    assert max(without_key_biases(differences(weights_of(trained), weights)).values()) <= 2e-6
    assert max(without_key_biases(differences(weights_of(trained), weights_of(start))).values()) > 5e-3


def without_key_biases(changes: dict[str, float]) -> dict[str, float]:
    """Drop the biases of the keys, which add the same to every score of a query and do not change softmax.

    Their gradient is rounding alone. AdamW divides it by itself and makes whole steps of it. The outputs, which are
    compared too, show that it does not matter.
    """
    return {name: difference for name, difference in changes.items() if "k_proj.bias" not in name}


@pytest.mark.parametrize(
    ("optimizer", "other"),
    [
        (SGD, replace(SGD, weight_decay=0.0)),
        (SGD, replace(SGD, momentum=0.89)),
        (SGD, replace(SGD, learning_rate=0.00297)),
        (ADAMW, replace(ADAMW, weight_decay=0.0)),
        (ADAMW, replace(ADAMW, learning_rate=0.00198)),
        (ADAMW, replace(ADAMW, beta2=0.98)),
    ],
)
def test_weights_of_another_optimizer_differ(optimizer: Optimizer, other: Optimizer, pair_of: Pair) -> None:
    planned = planned_of("pt-0", with_steps(KINDS["supervised"][1], optimizer))
    ours, theirs = pair_of(planned)
    changed_plan = replace(planned, training=replace(planned.training, optimizer=other))
    *_, (weights, _) = our_steps(planned, ours)
    *_, (changed, _) = plain_steps(changed_plan, theirs)
    assert max(without_key_biases(differences(weights, changed)).values()) > 5e-6


@pytest.mark.parametrize(("largest", "clips"), [(0.5, "all"), (5.0, "some"), (1e6, "none")])
def test_gradients_are_clipped_to_their_norm(largest: float, clips: str, pair_of: Pair) -> None:
    training = replace(with_steps(KINDS["supervised"][1], replace(SGD, momentum=0.0)), clip_norm=largest)
    planned = planned_of("pt-0", training)
    ours, theirs = pair_of(planned)
    steps = list(zip(our_steps(planned, ours), plain_steps(planned, theirs), strict=True))
    for (weights, _), (expected, _) in steps:
        assert max(differences(weights, expected).values()) <= 1e-6
    unclipped = replace(planned, training=replace(training, clip_norm=None))
    *_, (weights, _) = our_steps(unclipped, pair_of(planned)[0])
    difference = max(differences(weights, steps[-1][0][0]).values())
    assert (difference == 0.0) if clips == "none" else (difference > 1e-4)


@pytest.mark.parametrize(("kind", "optimizer", "parts"), [("supervised", SGD, 4), ("fine-tuning, MLP head", ADAMW, 2)])
def test_parts_of_a_batch_give_the_steps_of_the_batch(
    kind: str, optimizer: Optimizer, parts: int, pair_of: Pair
) -> None:
    member, training = KINDS[kind]
    planned = planned_of(member, replace(with_steps(training, optimizer), clip_norm=1.0))
    whole, cut = pair_of(planned)
    steps = zip(our_steps(planned, whole), our_steps(planned, cut, accumulation=parts), strict=True)
    for (weights, loss), (expected, expected_loss) in steps:
        assert max(without_key_biases(differences(weights, expected)).values()) <= 1e-6  # measured: 1.8e-7
        assert loss == pytest.approx(expected_loss, rel=1e-6)


class Fixed(nn.Module):
    """A model whose outputs are its weights for any images."""

    def __init__(self, embeddings: list[list[float]]):
        super().__init__()
        self.embeddings = nn.Parameter(torch.tensor(embeddings))

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.embeddings)


def test_contrastive_loss_of_views_and_halves_by_hand() -> None:
    # Right, up, 45 degrees and down, of any length. Positives are 45 degrees apart for images 0 and 2, 180 for 1 and 3.
    model = Fixed([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [0.0, -0.5]])
    near, opposite = math.exp(math.sqrt(0.5) / 0.2), math.exp(-1 / 0.2)  # exp(cosine / temperature)
    far = math.exp(-math.sqrt(0.5) / 0.2)
    expected = -(
        math.log(near / (1 + near + 1))  # 0: 90 degrees to 1, 45 to 2, 90 to 3
        + math.log(opposite / (1 + near + opposite))  # 1: 90 to 0, 45 to 2, 180 to 3
        + math.log(near / (near + near + far))  # 2: 45 to 0 and 1, 135 to 3
        + math.log(opposite / (1 + opposite + far))  # 3: 90 to 0, 180 to 1, 135 to 2
    )
    batch = Batch(inputs={"pixel_values": torch.zeros(4, 3, 8, 8)}, targets=None)
    views = replace(CONTRASTIVE, batch_size=2)  # two images, first views, then second views
    halves = replace(CONTRASTIVE, batch_size=4, positives="halves")  # four images in one view
    for training in (views, halves):
        loss = training_loss(model, batch, training)
        assert loss.item() == pytest.approx(expected / 4, rel=1e-6)
        model.zero_grad()
        loss.backward()
        gradient = model.embeddings.grad
        assert gradient is not None
        # Images 0 and 2 pull each other: up, to the left; down, to the right. None is pulled to where it points.
        assert gradient[0, 1] < 0 < gradient[2, 1]
        assert torch.allclose((gradient * model.embeddings).sum(1), torch.zeros(4), atol=1e-6)


def test_bf16_is_autocast_in_the_forward_pass_alone(
    pair_of: Pair,
) -> None:
    planned = planned_of("pt-0", replace(with_steps(KINDS["supervised"][1], ADAMW), precision="bf16"))
    ours, _ = pair_of(planned)
    seen: list[tuple[str, bool, torch.dtype]] = []

    def forward(_module: nn.Module, _inputs: object, outputs: Tensor) -> None:
        seen.append(("forward", torch.is_autocast_enabled("cpu"), outputs.dtype))
        outputs.register_hook(lambda g: seen.append(("backward", torch.is_autocast_enabled("cpu"), g.dtype)))

    handle = ours.classifier.register_forward_hook(forward)
    optimizer = make_optimizer(planned.training.optimizer, ours.train())
    loss = Stepper(ours, optimizer, planned.training)(next(batches_of(planned)), 0)
    handle.remove()
    assert seen == [("forward", True, torch.bfloat16), ("backward", False, torch.bfloat16)]
    assert loss.dtype == torch.float32
    assert {weight.dtype for weight in ours.parameters()} == {torch.float32}
    moments = [value for state in optimizer.state.values() for value in state.values()]
    assert {value.dtype for value in moments} == {torch.float32}


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")  # torch's own, at its import
def test_compiled_training_is_the_eager_one_to_rounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    recipe = tiny()
    recipe = replace(recipe, parents=(replace(recipe.parents[0], replicates=0),))
    planned = plan_members(recipe)[0]
    metrics: dict[str, list[records.EpochRecord]] = {}
    for mode in ("none", "default"):
        record = train_member(Workspace(tmp_path / mode, recipe), planned, execution=Execution(compile=mode))
        assert (record.compile, record.status) == (mode, "completed")
        metrics[mode] = records.load_epoch_records(tmp_path / mode / "pt-0" / "metrics.jsonl")
    eager, compiled = metrics["none"], metrics["default"]
    assert len(eager) == len(compiled) == 3
    for ours, theirs in zip(compiled, eager, strict=True):
        for name in ("train_loss", "test_loss", "weight_norm", "distance_from_start"):
            assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=1e-4), name  # measured: 1.4e-5
    assert [one.weights_id for one in compiled] != [one.weights_id for one in eager]  # other kernels, other last bits
    torch.compiler.reset()
