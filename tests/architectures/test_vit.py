"""The frozen names on disk compared with transformers' files, and shapes and sizes with real models."""

from math import prod
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import ViTConfig, ViTForImageClassification

from tests.vectors import VIT_S
from vitzoo.architectures import describe_mismatch, disk_name, is_head, memory_name
from vitzoo.architectures.vit import VIT
from vitzoo.models.vit import VitZooConfig, VitZooModel
from vitzoo.tensors.header import load_header

SIZES = {
    "image_size": 8,
    "patch_size": 4,
    "hidden_size": 6,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 10,
}
# On disk, in memory, shape. Never change them: every published file has these names.
BACKBONE = [
    ("vit.embeddings.cls_token", "vit.embeddings.cls_token", (1, 1, 6)),
    ("vit.embeddings.position_embeddings", "vit.embeddings.position_embeddings", (1, 5, 6)),
    (
        "vit.embeddings.patch_embeddings.projection.weight",
        "vit.embeddings.patch_embeddings.projection.weight",
        (6, 3, 4, 4),
    ),
    ("vit.embeddings.patch_embeddings.projection.bias", "vit.embeddings.patch_embeddings.projection.bias", (6,)),
    ("vit.encoder.layer.0.attention.attention.query.weight", "vit.layers.0.attention.q_proj.weight", (6, 6)),
    ("vit.encoder.layer.0.attention.attention.query.bias", "vit.layers.0.attention.q_proj.bias", (6,)),
    ("vit.encoder.layer.0.attention.attention.key.weight", "vit.layers.0.attention.k_proj.weight", (6, 6)),
    ("vit.encoder.layer.0.attention.attention.key.bias", "vit.layers.0.attention.k_proj.bias", (6,)),
    ("vit.encoder.layer.0.attention.attention.value.weight", "vit.layers.0.attention.v_proj.weight", (6, 6)),
    ("vit.encoder.layer.0.attention.attention.value.bias", "vit.layers.0.attention.v_proj.bias", (6,)),
    ("vit.encoder.layer.0.attention.output.dense.weight", "vit.layers.0.attention.o_proj.weight", (6, 6)),
    ("vit.encoder.layer.0.attention.output.dense.bias", "vit.layers.0.attention.o_proj.bias", (6,)),
    ("vit.encoder.layer.0.layernorm_before.weight", "vit.layers.0.layernorm_before.weight", (6,)),
    ("vit.encoder.layer.0.layernorm_before.bias", "vit.layers.0.layernorm_before.bias", (6,)),
    ("vit.encoder.layer.0.layernorm_after.weight", "vit.layers.0.layernorm_after.weight", (6,)),
    ("vit.encoder.layer.0.layernorm_after.bias", "vit.layers.0.layernorm_after.bias", (6,)),
    ("vit.encoder.layer.0.intermediate.dense.weight", "vit.layers.0.mlp.fc1.weight", (10, 6)),
    ("vit.encoder.layer.0.intermediate.dense.bias", "vit.layers.0.mlp.fc1.bias", (10,)),
    ("vit.encoder.layer.0.output.dense.weight", "vit.layers.0.mlp.fc2.weight", (6, 10)),
    ("vit.encoder.layer.0.output.dense.bias", "vit.layers.0.mlp.fc2.bias", (6,)),
    ("vit.layernorm.weight", "vit.layernorm.weight", (6,)),
    ("vit.layernorm.bias", "vit.layernorm.bias", (6,)),
]
LINEAR = [
    ("classifier.weight", "classifier.weight", (3, 6)),
    ("classifier.bias", "classifier.bias", (3,)),
]
MLP = [
    ("classifier.fc1.weight", "classifier.fc1.weight", (4, 6)),
    ("classifier.fc1.bias", "classifier.fc1.bias", (4,)),
    ("classifier.fc2.weight", "classifier.fc2.weight", (3, 4)),
    ("classifier.fc2.bias", "classifier.fc2.bias", (3,)),
]


def written(model: ViTForImageClassification, folder: Path) -> dict[str, tuple[int, ...]]:
    """Write a model by `save_pretrained` and read names and shapes by safetensors."""
    model.save_pretrained(folder)
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def plain_vit(**kwargs: object) -> ViTForImageClassification:
    return ViTForImageClassification(ViTConfig(**SIZES, num_labels=3, **kwargs))  # pyright: ignore[reportCallIssue]


def member(**kwargs: object) -> VitZooModel:
    return VitZooModel(VitZooConfig(**({**SIZES, "num_labels": 3} | kwargs)))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("model", "table"),
    [
        (lambda: plain_vit(), BACKBONE + LINEAR),
        (lambda: member(), BACKBONE + LINEAR),
        (lambda: member(head_type="mlp", head_width=4), BACKBONE + MLP),
    ],
    ids=["transformers", "linear", "mlp"],
)
def test_names_are_those_of_save_pretrained(model, table: list, tmp_path: Path) -> None:
    built = model()
    assert written(built, tmp_path) == {disk: shape for disk, _, shape in table}
    assert {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()} == {
        memory: shape for _, memory, shape in table
    }
    for disk, memory, _ in table:
        assert disk_name(memory) == disk_name(disk) == disk
        assert memory_name(disk) == memory_name(memory) == memory
        assert is_head(disk) == is_head(memory) == ((disk, memory) in [row[:2] for row in LINEAR + MLP])


@pytest.mark.parametrize(
    "name",
    [
        *("vit.layers.0.attention.qkv.weight", "vit.layers.x.mlp.fc1.weight", "vit.layers.0.mlp.fc1.scale"),
        *("layers.0.mlp.fc1.weight", "vit.encoder.layer.0.mlp.fc1.weight", "vit.pooler.dense.weight", "classifier", ""),
        *("vit.encoder.layer.0.attention.attention.qkv.weight", "my.vit.layers.0.mlp.fc1.weight"),
    ],
)
def test_other_names_are_left_as_they_are(name: str) -> None:
    assert disk_name(name) == memory_name(name) == name


CONFIGS: list[dict[str, object]] = [
    {},
    {"num_hidden_layers": 12, "hidden_size": 8, "num_attention_heads": 4},
    {"qkv_bias": False},
    {"qkv_bias": False, "num_hidden_layers": 2, "head_type": "mlp", "head_width": 5},
    {"head_type": "mlp", "head_width": 7, "num_labels": 2},
    {"num_channels": 1, "image_size": 9, "patch_size": 2},
    {"num_labels": 5, "head_role": "embedding"},
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_shapes_are_those_of_the_model(config: dict[str, object], tmp_path: Path) -> None:
    model = member(**config)
    shape = model.config.shape
    shapes = shape.tensor_shapes()
    assert shapes == {disk_name(name): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes == written(model, tmp_path)
    assert shapes == {name: entry.shape for name, entry in load_header(tmp_path / "model.safetensors").items()}
    assert shape.num_tensors == len(shapes)
    assert {memory_name(name) for name in shapes} == set(model.state_dict())
    assert sum(prod(size) for size in shapes.values()) == model.num_parameters()
    pixels = torch.zeros(1, shape.num_channels, shape.image_size, shape.image_size)
    assert model.vit(pixels).last_hidden_state.shape[1] == shape.num_tokens


@pytest.mark.parametrize(
    ("num_labels", "head_width", "expected"),
    [
        (100, None, 21_704_164),  # a child with a linear head
        (100, 256, 21_789_924),  # a child with an MLP head
        (1000, None, 22_050_664),  # a parent
    ],
)
def test_parameters_of_the_models_of_the_paper(num_labels: int, head_width: int | None, expected: int) -> None:
    kind = "linear" if head_width is None else "mlp"
    config = VitZooConfig(num_labels=num_labels, head_type=kind, head_width=head_width)  # pyright: ignore[reportCallIssue]
    shapes = config.shape.tensor_shapes()
    assert sum(prod(size) for size in shapes.values()) == expected
    assert sum(prod(size) for name, size in shapes.items() if not is_head(name)) == 21_665_664
    with torch.device("meta"):
        assert VitZooModel(config).num_parameters() == expected


def test_vit_s_is_the_default() -> None:
    config = VitZooConfig(num_labels=100)  # pyright: ignore[reportCallIssue]
    assert config.shape == VIT_S
    assert VIT_S.num_tokens == 197
    assert VIT_S.num_tensors == len(VIT_S.tensor_shapes()) == 200


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"a": (1,), "b": (2, 3)}, None),
        ({"a": (1,)}, "b is missing"),
        ({"a": (1,), "b": (2, 3), "c": ()}, "c is not in the model"),
        ({"a": (1, 1), "b": (6,)}, "a is [1, 1], the config says [1]; b is [6], the config says [2, 3]"),
        ({"a": (), "c": ()}, "b is missing; c is not in the model; a is [], the config says [1]"),
        ({"c": (), "d": ()}, "a is missing; b is missing; c is not in the model; and 1 more"),
    ],
)
def test_describe_mismatch(found: dict[str, tuple[int, ...]], expected: str | None) -> None:
    assert describe_mismatch({"a": (1,), "b": (2, 3)}, found) == expected


@pytest.mark.parametrize(
    ("name", "layer", "module"),
    [
        ("vit.embeddings.cls_token", "embeddings", "vit.embeddings.cls_token"),
        (
            "vit.embeddings.patch_embeddings.projection.bias",
            "embeddings",
            "vit.embeddings.patch_embeddings.projection",
        ),
        ("vit.layers.11.mlp.fc2.bias", "layer.11", "vit.encoder.layer.11.output.dense"),
        ("vit.layernorm.weight", "layernorm", "vit.layernorm"),
        ("classifier.weight", "classifier", "classifier"),
        ("classifier.fc1.bias", "classifier", "classifier.fc1"),
    ],
)
def test_layers_and_modules(name: str, layer: str, module: str) -> None:
    assert VIT.layer_name(name) == layer
    assert VIT.module_name(name) == module


def test_unknown_names_come_last() -> None:
    known = [
        "vit.embeddings.cls_token",
        "vit.encoder.layer.2.output.dense.bias",
        "vit.layernorm.bias",
        "classifier.bias",
    ]
    strange = ["a.weight", "vit.pooler.dense.weight", "a.bias"]
    assert VIT.network_order([*strange[::-1], *known[::-1]]) == [*known, *strange]
