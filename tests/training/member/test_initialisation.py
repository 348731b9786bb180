"""Initial weights: their statistics, and the inputs that decide them."""

import math

import pytest
import torch
from scipy import stats
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from training.member.initialisation import initialise, initialise_head
from training.random import Stream, normals, tensor_id, tensor_uniforms
from vitzoo.architectures import disk_name


class MLPHead(nn.Module):
    def __init__(self, hidden: int, width: int, classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden, width)
        self.fc2 = nn.Linear(width, classes)


def build(*, mlp: bool = False, classes: int = 10) -> ViTForImageClassification:
    config = ViTConfig(
        image_size=8,
        patch_size=2,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=256,
        num_labels=classes,  # pyright: ignore[reportCallIssue]
    )
    model = ViTForImageClassification(config)
    if mlp:
        model.classifier = MLPHead(64, 128, classes)  # pyright: ignore[reportAttributeAccessIssue]
    return model


def started(*, mlp: bool = False, classes: int = 10, init_seed: int = 1, head_seed: int = 2) -> dict[str, torch.Tensor]:
    model = build(mlp=mlp, classes=classes)
    initialise(model, init_seed=init_seed, head_seed=head_seed)
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_every_parameter_follows_its_rule() -> None:
    for name, values in started().items():
        if "layernorm" in name:
            assert torch.equal(values, torch.full_like(values, 1.0 if name.endswith("weight") else 0.0)), name
        elif name.endswith("bias"):
            assert torch.equal(values, torch.full_like(values, 0.01)), name
        elif name.endswith("cls_token"):
            assert stats.kstest(values.flatten().numpy() / 1e-6, "norm").pvalue > 0.001
        elif name.endswith("position_embeddings"):
            assert stats.kstest(values.flatten().numpy() / 0.02, "norm").pvalue > 0.001
        else:
            fan_in = values[0].numel()
            assert fan_in == {"projection": 12, "fc2": 256}.get(name.split(".")[-2], 64)
            assert stats.kstest(values.flatten().numpy() / math.sqrt(2 / fan_in), "norm").pvalue > 0.001, name


def test_weights_are_drawn_by_their_names_on_disk() -> None:
    name = "vit.layers.1.mlp.fc2.weight"
    word = tensor_id("vit.encoder.layer.1.output.dense.weight")  # the name on disk
    expected = normals(1, Stream.INITIALISATION, tensor=word, count=64 * 256) * math.sqrt(2 / 256)
    assert torch.equal(started()[name], expected.reshape(64, 256))
    head = normals(2, Stream.HEAD, tensor=tensor_id("classifier.weight"), count=640) * math.sqrt(2 / 64)
    assert torch.equal(started()["classifier.weight"], head.reshape(10, 64))


@pytest.mark.parametrize(
    ("name", "fan_in"),
    [
        ("classifier.fc1.weight", 64),
        ("classifier.fc1.bias", 64),
        ("classifier.fc2.weight", 128),
        ("classifier.fc2.bias", 128),
    ],
)
def test_mlp_head_has_pytorchs_default(name: str, fan_in: int) -> None:
    values = started(mlp=True)[name]
    bound = 1 / math.sqrt(fan_in)
    assert stats.kstest(values.flatten().numpy(), stats.uniform(-bound, 2 * bound).cdf).pvalue > 0.001
    numbers = tensor_uniforms(2, Stream.HEAD, tensor=tensor_id(name), count=values.numel())
    assert torch.equal(values.flatten(), (2 * numbers - 1) * bound)


@pytest.mark.parametrize("mlp", [False, True])
def test_every_value_is_the_number_of_its_place(mlp: bool) -> None:
    """The arithmetic is frozen: other last bits are other weights of every published recipe."""
    for name, values in started(mlp=mlp).items():
        stream, seed = (Stream.HEAD, 2) if name.startswith("classifier") else (Stream.INITIALISATION, 1)
        tensor, count = tensor_id(disk_name(name)), values.numel()
        if "layernorm" in name:
            expected = torch.full_like(values, 1.0 if name.endswith("weight") else 0.0).flatten()
        elif name.startswith("classifier.fc"):
            bound = 1 / math.sqrt(64 if "fc1" in name else 128)
            expected = (2 * tensor_uniforms(seed, stream, tensor=tensor, count=count) - 1) * bound
        elif name.endswith("bias"):
            expected = torch.full_like(values, 0.01).flatten()
        else:
            std = {"cls_token": 1e-6, "position_embeddings": 0.02}.get(name.split(".")[-1])
            std = math.sqrt(2 / values[0].numel()) if std is None else std
            expected = normals(seed, stream, tensor=tensor, count=count) * std
        assert torch.equal(values.flatten(), expected), name


def test_torchs_generator_is_neither_used_nor_changed() -> None:
    torch.manual_seed(0)
    first = started(mlp=True)
    model = build(mlp=True)
    before = torch.get_rng_state()
    initialise(model, init_seed=1, head_seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(parameter, first[name]) for name, parameter in model.named_parameters())


def test_each_seed_changes_its_own_weights() -> None:
    base, other_init, other_head = started(), started(init_seed=9), started(head_seed=9)
    for name, values in base.items():
        drawn = not name.endswith("bias") and "layernorm" not in name
        in_head = name.startswith("classifier")
        assert torch.equal(values, other_init[name]) == (in_head or not drawn), name
        assert torch.equal(values, other_head[name]) == (not in_head or not drawn), name


def test_backbone_does_not_depend_on_the_head() -> None:
    linear, mlp = started(), started(mlp=True, classes=4)
    assert all(torch.equal(linear[name], mlp[name]) for name in linear if name.startswith("vit."))


def test_different_names_have_different_numbers() -> None:
    values = started()
    projections = [values[f"vit.layers.{i}.attention.{p}_proj.weight"] for i in range(2) for p in "qkvo"]
    assert len({tuple(projection.flatten().tolist()) for projection in projections}) == 8


def test_order_of_modules_does_not_matter() -> None:
    model = build()
    reversed_model = build()
    reversed_model._modules = dict(reversed(reversed_model._modules.items()))
    for each in (model, reversed_model):
        initialise(each, init_seed=3, head_seed=4)
    reversed_parameters = dict(reversed_model.named_parameters())
    assert list(reversed_parameters) != [name for name, _ in model.named_parameters()]
    assert all(torch.equal(parameter, reversed_parameters[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("mlp", [False, True])
def test_fresh_head_does_not_change_the_backbone(mlp: bool) -> None:
    model = build(mlp=mlp)
    initialise(model, init_seed=1, head_seed=2)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    initialise_head(model, 5)
    expected = started(mlp=mlp, head_seed=5)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name] if name.startswith("vit.") else expected[name])


def test_gradients_and_types_are_kept() -> None:
    model = build()
    nn.Module.to(model, torch.bfloat16)
    initialise(model, init_seed=1, head_seed=2)
    assert all(parameter.requires_grad and parameter.grad_fn is None for parameter in model.parameters())
    expected = started()["classifier.weight"].bfloat16()
    assert torch.equal(dict(model.named_parameters())["classifier.weight"], expected)


def test_parameter_without_a_rule_is_refused() -> None:
    model = build()
    model.vit.embeddings.mask_token = nn.Parameter(torch.zeros(1, 1, 64))
    with pytest.raises(ValueError, match=r"no rule initialises vit\.embeddings\.mask_token"):
        initialise(model, init_seed=1, head_seed=2)


def test_model_without_a_head_is_refused() -> None:
    model = build(classes=0)
    with pytest.raises(ValueError, match="ViTForImageClassification has no head with weights"):
        initialise_head(model, 1)


def test_names_of_one_crc32_are_refused() -> None:
    assert tensor_id("plumless") == tensor_id("buckeroo")  # a well-known collision
    model = nn.Module()
    model.plumless, model.buckeroo = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    model.classifier = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="plumless and buckeroo have the same crc32"):
        initialise(model, init_seed=1, head_seed=2)
