"""Objectives with parts that only the training has, against loops that are written here, from the definitions alone.

The loops use torch's functions on a state dict. transformers' `ViTMAEForPreTraining` is a second oracle.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers import ViTMAEConfig, ViTMAEForPreTraining, ViTModel

from tests.tiny import AUTOENCODING, DISTILLATION, tiny
from training.batch import Batch
from training.bench.steps import random_batch
from training.images.autoencoder import masked_patches_loss
from training.images.loader import ImageBatches
from training.member.report import Report
from training.member.start import add_pretext, build_model
from training.member.step import Stepper, make_optimizer
from training.member.train import train_member
from training.pretext import Pretext
from training.random import Stream, permutation, philox
from training.recipes.augmentation import Augmentation
from training.recipes.data import Dataset
from training.recipes.plan import PlannedMember, plan_member, plan_members
from training.recipes.recipe import Architecture, Head, Parent, Recipe, Seeds
from training.recipes.training import Decoder, Optimizer
from training.workspace import Workspace
from vitzoo import records
from vitzoo.ids import MemberId
from vitzoo.images import load_images
from vitzoo.records.dataset_spec import DatasetSpec
from vitzoo.tables.catalogue import write_tables
from vitzoo.verification.verify import verify_zoo
from vitzoo.zoo.zoo import Zoo

SGD = Optimizer(name="sgd", learning_rate=0.02, momentum=0.0)
OBJECTIVES = {"autoencoding": AUTOENCODING, "distillation": DISTILLATION}
HEADS = {
    "autoencoding": Head(outputs=12, role="embedding"),
    "distillation": Head(outputs=8, width=12, role="embedding"),
}
# The backbone of about 5 million parameters on 32-pixel images.
FIVE_MILLION = Architecture(
    image_size=32,
    patch_size=4,
    hidden_size=256,
    num_hidden_layers=6,
    num_attention_heads=4,
    intermediate_size=1024,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)


def recipe(objective: str, **changes: Any) -> Recipe:
    """Return the tiny recipe with one parent of an objective and one child."""
    small = tiny()
    training = replace(OBJECTIVES[objective], **changes)
    parent = Parent(training=training, head=HEADS[objective], seeds=Seeds.same(3), replicates=1)
    children = replace(small.children, heads=small.children.heads[:1])
    return replace(small, name=objective, parents=(parent,), children=children)


def plan(objective: str, **changes: Any) -> PlannedMember:
    return plan_member(recipe(objective, **changes), MemberId(0))


def pretext_of(planned: PlannedMember) -> Pretext:
    pretext = add_pretext(planned, build_model(planned, ()))
    assert isinstance(pretext, Pretext)
    return pretext


def batches_of(planned: PlannedMember, count: int) -> Iterator[Batch]:
    split = load_images(planned.training.dataset.images).train
    return islice(ImageBatches(planned, split, device=torch.device("cpu")).epoch(0), count)


def our_steps(planned: PlannedMember, pretext: Pretext, count: int) -> Iterator[float]:
    """Take steps, and yield the loss of each."""
    stepper = Stepper(pretext.train(), make_optimizer(planned.training.optimizer, pretext), planned.training)
    for step, batch in enumerate(batches_of(planned, count)):
        yield stepper(batch, step).item()


def weights_of(pretext: Pretext) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in pretext.state_dict().items()}


# The definitions.


def linear(weights: dict[str, Tensor], name: str, inputs: Tensor) -> Tensor:
    return inputs @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(weights: dict[str, Tensor], name: str, inputs: Tensor) -> Tensor:
    centred = inputs - inputs.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def block(weights: dict[str, Tensor], name: str, tokens: Tensor, *, heads: int) -> Tensor:
    normed = norm(weights, f"{name}.layernorm_before", tokens)
    query, key, value = (
        linear(weights, f"{name}.attention.{part}_proj", normed).unflatten(2, (heads, -1)).transpose(1, 2)
        for part in "qkv"
    )
    scores = (query @ key.transpose(2, 3) / query.shape[3] ** 0.5).softmax(3)
    tokens = tokens + linear(weights, f"{name}.attention.o_proj", (scores @ value).transpose(1, 2).flatten(2))
    hidden = functional.gelu(linear(weights, f"{name}.mlp.fc1", norm(weights, f"{name}.layernorm_after", tokens)))
    return tokens + linear(weights, f"{name}.mlp.fc2", hidden)


def patches_of(images: Tensor, side: int) -> Tensor:
    """Return each image's patches, row by row, whose pixels are rows, then columns, then channels."""
    return torch.stack(
        [
            images[:, :, top : top + side, left : left + side].permute(0, 2, 3, 1).flatten(1)
            for top in range(0, images.shape[2], side)
            for left in range(0, images.shape[3], side)
        ],
        dim=1,
    )


def embed(weights: dict[str, Tensor], prefix: str, images: Tensor, side: int) -> Tensor:
    """Return the tokens of whole images: CLS, then patches, with positions."""
    kernel = weights[f"{prefix}.patch_embeddings.projection.weight"].permute(0, 2, 3, 1).flatten(1)
    patches = patches_of(images, side) @ kernel.T + weights[f"{prefix}.patch_embeddings.projection.bias"]
    tokens = torch.cat([weights[f"{prefix}.cls_token"].expand(len(images), 1, -1), patches], dim=1)
    return tokens + weights[f"{prefix}.position_embeddings"]


def autoencoder_loss(weights: dict[str, Tensor], images: Tensor, visible: Tensor, *, side: int) -> Tensor:
    """Compute the loss of each image by itself, without its hidden patches."""
    losses = []
    whole = embed(weights, "member.vit.embeddings", images, side)
    for row, seen in enumerate(visible.tolist()):
        tokens = whole[row : row + 1, [0, *(place + 1 for place in seen)]]
        tokens = block(weights, "member.vit.layers.0", tokens, heads=2)
        tokens = linear(weights, "member.classifier", norm(weights, "member.vit.layernorm", tokens))
        places = dict(zip([-1, *seen], range(len(seen) + 1), strict=True))
        count = whole.shape[1] - 1
        everywhere = [
            tokens[0, places[place]] if place in places else weights["mask_token"][0, 0] for place in range(-1, count)
        ]
        decoded = block(weights, "layers.0", torch.stack(everywhere)[None] + weights["positions"], heads=2)
        predicted = linear(weights, "pixels", norm(weights, "layernorm", decoded))[0, 1:]
        for place in set(range(count)) - set(seen):
            pixels = patches_of(images[row : row + 1], side)[0, place]
            target = (pixels - pixels.mean()) / (pixels.var() + 1e-6).sqrt()
            losses.append((predicted[place] - target).square().mean())
    return torch.stack(losses).mean()


class Interrupted(Exception):
    """A report of this test interrupted the training."""


def train_until(epoch: int, workspace: Workspace, planned: PlannedMember) -> None:
    """Train a member and interrupt it after an epoch."""

    def report(report: Report) -> None:
        if (report.epoch, report.step) == (epoch, 0):
            raise Interrupted

    with pytest.raises(Interrupted):
        train_member(workspace, planned, report=report)


def content(folder: Path) -> dict[str, bytes]:
    """Return the bytes of a member's files, without timing.jsonl."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "timing.jsonl"}


def test_autoencoder_steps_are_the_plain_loop() -> None:
    planned = plan("autoencoding", optimizer=SGD, batch_size=16)
    ours, weights = pretext_of(planned), weights_of(pretext_of(planned))
    start = {name: tensor.clone() for name, tensor in weights.items()}
    losses = list(our_steps(planned, ours, 4))
    for batch, loss in zip(batches_of(planned, 4), losses, strict=True):
        trained = {name: tensor.requires_grad_() for name, tensor in weights.items()}
        expected = autoencoder_loss(trained, batch.inputs["pixel_values"], batch.inputs["visible"], side=4)
        gradients = torch.autograd.grad(expected, list(trained.values()))
        weights = {
            name: (tensor - 0.02 * gradient).detach()
            for (name, tensor), gradient in zip(trained.items(), gradients, strict=True)
        }
        assert loss == pytest.approx(expected.item(), rel=1e-5)
    for name, tensor in weights_of(ours).items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=2e-6)
        if "k_proj.bias" not in name:  # softmax does not see it
            assert float((tensor - start[name]).abs().max()) > 1e-5, name


def test_autoencoder_is_that_of_transformers() -> None:
    planned = plan("autoencoding")
    ours, small = pretext_of(planned), planned.architecture
    config = ViTMAEConfig(
        image_size=8,
        patch_size=4,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        decoder_hidden_size=12,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
        layer_norm_eps=1e-6,
        mask_ratio=0.5,
        norm_pix_loss=True,
    )
    theirs = ViTMAEForPreTraining(config)
    names = {
        "member.classifier.": "decoder.decoder_embed.",
        "member.vit.": "vit.",
        "mask_token": "decoder.mask_token",
        "positions": "decoder.decoder_pos_embed",
        "layers.": "decoder.decoder_layers.",
        "layernorm.": "decoder.decoder_norm.",
        "pixels.": "decoder.decoder_pred.",
    }
    renamed = {}
    for name, tensor in ours.state_dict().items():
        prefix = next(prefix for prefix in names if name.startswith(prefix))
        renamed[names[prefix] + name.removeprefix(prefix)] = tensor
    theirs.load_state_dict(renamed)
    batch = next(batches_of(planned, 1))
    images, visible = batch.inputs["pixel_values"], batch.inputs["visible"]
    noise = torch.ones(len(images), small.num_patches).scatter(1, visible, 0.0)
    noise = noise + torch.arange(small.num_patches) / 100  # keeps the order of the visible patches
    expected = theirs(pixel_values=images, noise=noise)
    outputs = ours(pixel_values=images, visible=visible).logits
    torch.testing.assert_close(outputs, expected.logits, rtol=0, atol=1e-5)
    assert masked_patches_loss(outputs, images, visible).item() == pytest.approx(expected.loss.item(), rel=1e-5)


def cosines(weights: dict[str, Tensor], network: str, prototypes: str, images: Tensor) -> Tensor:
    """Compute the cosine of each image's embedding with each prototype."""
    tokens = block(weights, f"{network}.vit.layers.0", embed(weights, f"{network}.vit.embeddings", images, 4), heads=2)
    hidden = linear(weights, f"{network}.classifier.fc1", norm(weights, f"{network}.vit.layernorm", tokens)[:, 0])
    embeddings = linear(weights, f"{network}.classifier.fc2", hidden.clamp(min=0))
    rows = weights[prototypes]
    return (embeddings @ rows.T) / embeddings.norm(dim=1, keepdim=True) / rows.norm(dim=1)


def test_distillation_steps_are_the_plain_loop() -> None:
    planned = plan("distillation", optimizer=SGD, batch_size=16)
    ours, weights = pretext_of(planned), weights_of(pretext_of(planned))
    start = {name: tensor.clone() for name, tensor in weights.items()}
    losses = list(our_steps(planned, ours, 4))
    for step, (batch, loss) in enumerate(zip(batches_of(planned, 4), losses, strict=True)):
        images = batch.inputs["pixel_values"]
        student = [name for name in weights if name.startswith("student.") or name == "prototypes"]
        trained = {name: weights[name].requires_grad_() for name in student}
        first, second = cosines(weights | trained, "student", "prototypes", images).chunk(2)
        taught = cosines(weights, "member", "teacher_prototypes", images)
        one, two = ((taught - weights["centre"]) / 0.04).softmax(1).chunk(2)
        agreement = one * (second / 0.1).log_softmax(1) + two * (first / 0.1).log_softmax(1)
        expected = -agreement.sum(1).mean() / 2
        gradients = torch.autograd.grad(expected, list(trained.values()))
        for (name, tensor), gradient in zip(trained.items(), gradients, strict=True):
            weights[name] = (tensor - 0.02 * gradient).detach()
        weights["centre"] = 0.9 * weights["centre"] + 0.1 * taught.mean(0)
        momentum = 1 - 0.1 * (1 + math.cos(math.pi * step / planned.training.steps)) / 2
        for name in student:
            teacher = "teacher_prototypes" if name == "prototypes" else name.replace("student.", "member.")
            weights[teacher] = momentum * weights[teacher] + (1 - momentum) * weights[name]
        assert loss == pytest.approx(expected.item(), rel=1e-5)
    for name, tensor in weights_of(ours).items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=2e-6)
        if "k_proj.bias" not in name:  # softmax does not see it
            assert float((tensor - start[name]).abs().max()) > 1e-7, name


def test_visible_patches_are_the_smallest_words_of_each_image() -> None:
    planned = plan("autoencoding", batch_size=16)
    order = permutation(3, epoch=0, count=planned.training.dataset.n_train).tolist()
    batch = next(batches_of(planned, 1))
    for row, sample in enumerate(order[:16]):
        words = philox((3, int(Stream.MASKING)), torch.tensor([0, sample, 1, 0])).tolist()
        smallest = sorted(range(4), key=lambda place: words[place])[:2]
        assert batch.inputs["visible"][row].tolist() == sorted(smallest)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_trained_member_is_a_plain_vit_and_an_interrupted_one_ends_with_its_bytes(
    objective: str, tmp_path: Path
) -> None:
    small = recipe(objective)
    root = tmp_path / "whole"
    workspace = Workspace(root, small)
    for planned in plan_members(small):
        record = train_member(workspace, planned)
        assert record.status == "completed"
    parent = records.load_member_record(root / "pt-0" / "member.json")
    assert (parent.objective, parent.head_role) == (objective, "embedding")
    assert {*load_file(root / "pt-0" / "model.safetensors")} == {*plan(objective).shape.tensor_shapes()}
    assert ViTModel.from_pretrained(root / "pt-0", add_pooling_layer=False).config.hidden_size == 16
    first, *_, last = records.load_epoch_records(root / "pt-0" / "metrics.jsonl")
    assert first.val_loss is not None
    assert last.val_loss is not None
    if objective == "autoencoding":  # a teacher that sharpens may raise the loss of its student
        assert last.val_loss < first.val_loss
    assert last.val_accuracy is None
    assert last.val_knn_accuracy is not None
    write_tables(workspace.source)
    assert verify_zoo(Zoo(root)).problems == ()
    other = Workspace(tmp_path / "interrupted", small)
    train_until(1, other, plan(objective))
    train_member(other, plan(objective))
    assert content(other.root / "pt-0") == content(root / "pt-0")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objective_trains_five_million_parameters_on_32_pixels(objective: str) -> None:
    images = DatasetSpec(name="cifar10")
    dataset = Dataset(images=images, train_images=50_000, evaluated_train_images=100)
    decoder = Decoder(num_hidden_layers=2, num_attention_heads=4, intermediate_size=512)
    changes: dict[str, Any] = {"decoder": decoder} if objective == "autoencoding" else {}
    training = replace(OBJECTIVES[objective], dataset=dataset, batch_size=4, augmentation=Augmentation(), **changes)
    whole = recipe(objective)
    parent = replace(whole.parents[0], training=training, head=replace(HEADS[objective], outputs=128))
    large = replace(whole, architecture=FIVE_MILLION, parents=(replace(parent, replicates=0),))
    planned = plan_member(large, MemberId(0))
    assert 4.5e6 < planned.num_parameters < 5.5e6
    pretext = pretext_of(planned)
    optimizer = make_optimizer(training.optimizer, pretext)
    stepper = Stepper(pretext.train(), optimizer, training)
    batch = random_batch(planned, device=torch.device("cpu"))
    losses = [stepper(batch, step).item() for step in range(3)]
    assert losses[2] < losses[0]
