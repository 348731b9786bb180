"""The flat vector and the way back, for every shape of member, type of number and order of tensors."""

import pickle
from math import prod
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.vectors import draw_vector, same_bits, vit_shapes
from vitzoo.architectures import memory_name
from vitzoo.architectures.vit import VIT, ViTShape
from vitzoo.errors import RepresentationError, WeightsError
from vitzoo.weights.index import IndexEntry, WeightsIndex, is_in_part

MLP = {"classifier.fc2.weight": (3, 2), "classifier.fc1.bias": (2,), "classifier.fc1.weight": (2, 4)}


def test_offsets_by_hand() -> None:
    index = WeightsIndex(MLP)
    assert list(index.items()) == [
        ("classifier.fc1.weight", IndexEntry("classifier.fc1.weight", (2, 4), 0)),
        ("classifier.fc1.bias", IndexEntry("classifier.fc1.bias", (2,), 8)),
        ("classifier.fc2.weight", IndexEntry("classifier.fc2.weight", (3, 2), 10)),
    ]
    assert (len(index), index.size) == (3, 16)
    assert index["classifier.fc1.bias"].span == slice(8, 10)
    tensors = index.unflatten(np.arange(16.0))
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {
        "classifier.fc1.weight": [[0, 1, 2, 3], [4, 5, 6, 7]],
        "classifier.fc1.bias": [8, 9],
        "classifier.fc2.weight": [[10, 11], [12, 13], [14, 15]],
    }
    tensors["classifier.fc1.bias"][1] = -1.0  # a view
    assert tensors["classifier.fc1.bias"].base is not None


@given(vit_shapes(), st.data(), st.randoms(use_true_random=False), st.booleans())
def test_round_trip_bit_for_bit(shape: ViTShape, data: st.DataObject, random: Random, in_memory: bool) -> None:
    index = WeightsIndex(shape.tensor_shapes())
    vector = draw_vector(data, index)
    tensors = list(index.unflatten(vector).items())
    assert {name: tensor.shape for name, tensor in tensors} == index.shapes
    random.shuffle(tensors)
    spelled = {memory_name(name) if in_memory else name: tensor for name, tensor in tensors}
    assert same_bits(index.flatten(spelled), vector)


def test_tensors_that_are_not_contiguous() -> None:
    index = WeightsIndex(MLP)
    tensors = index.unflatten(np.arange(16, dtype=np.float16))
    turned = {name: np.asfortranarray(tensor) for name, tensor in tensors.items()}
    assert index.flatten(turned).tolist() == list(range(16))


@given(vit_shapes(most_layers=13), st.randoms(use_true_random=False))
def test_the_order_is_that_of_the_shapes_whatever_the_mapping_s(shape: ViTShape, random: Random) -> None:
    shapes = shape.tensor_shapes()
    names = list(shapes)
    random.shuffle(names)
    assert VIT.network_order(names) == list(shapes)
    index = WeightsIndex({name: shapes[name] for name in names})
    assert list(index) == list(shapes)
    assert index == WeightsIndex(shapes)
    assert hash(index) == hash(WeightsIndex(shapes))
    assert index.size == sum(map(prod, shapes.values()))
    ends = [entry.span.stop for entry in index.values()]
    assert [entry.offset for entry in index.values()] == [0, *ends[:-1]]


def test_twelve_blocks_are_in_the_order_of_their_numbers() -> None:
    shape = ViTShape(
        image_size=2,
        patch_size=1,
        num_channels=1,
        hidden_size=2,
        num_hidden_layers=12,
        intermediate_size=2,
        qkv_bias=True,
        num_labels=2,
        head_width=None,
    )
    index = WeightsIndex(shape.tensor_shapes())
    assert list(index.layers) == ["embeddings", *(f"layer.{n}" for n in range(12)), "layernorm", "classifier"]
    assert [entry.name for entry in index.layers["layernorm"]] == ["vit.layernorm.weight", "vit.layernorm.bias"]
    assert [len(entries) for entries in index.layers.values()] == [4, *[16] * 12, 2, 2]
    assert list(index.modules)[:5] == [
        "vit.embeddings.cls_token",
        "vit.embeddings.position_embeddings",
        "vit.embeddings.patch_embeddings.projection",
        "vit.encoder.layer.0.attention.attention.query",
        "vit.encoder.layer.0.attention.attention.key",
    ]
    assert len(index.modules) == 3 + 8 * 12 + 2


def test_either_spelling_finds_a_tensor() -> None:
    index = WeightsIndex({"vit.encoder.layer.11.output.dense.bias": (2,), "classifier.bias": (3,)})
    assert index["vit.layers.11.mlp.fc2.bias"] is index["vit.encoder.layer.11.output.dense.bias"]
    assert "vit.layers.11.mlp.fc2.bias" in index
    assert "vit.layers.1.mlp.fc2.bias" not in index
    assert 3 not in index
    with pytest.raises(WeightsError, match=r'no tensor "classifier\.weight"\. Nearest: classifier\.bias'):
        index["classifier.weight"]


@given(vit_shapes())
def test_parts_are_disjoint_and_whole(shape: ViTShape) -> None:
    index = WeightsIndex(shape.tensor_shapes())
    backbone, head, everything = (
        WeightsIndex({name: size for name, size in index.shapes.items() if is_in_part(name, part)})
        for part in ("backbone", "head", "all")
    )
    assert everything == index
    assert [*backbone, *head] == list(index)
    assert backbone.size + head.size == index.size
    assert set(head.layers) == {"classifier"}
    vector = np.arange(float(index.size))  # the head comes last
    assert head.flatten({name: index.unflatten(vector)[name] for name in head}).tolist() == list(
        range(backbone.size, index.size)
    )


def test_a_part_that_is_none() -> None:
    with pytest.raises(WeightsError, match=r'part "backbones" is no part of a model\. Nearest: backbone'):
        is_in_part("classifier.bias", "backbones")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"classifier.fc1.bias": None}, "classifier.fc1.bias is missing"),
        ({"classifier.fc3.bias": np.zeros(2)}, "classifier.fc3.bias is not in the index"),
        ({"classifier.fc1.bias": np.zeros(3)}, r"classifier.fc1.bias is \[3\], the index says \[2\]"),
        ({"classifier.fc1.bias": np.zeros(2, np.float32)}, "they are float32, float64: convert them to one dtype"),
    ],
)
def test_other_tensors_are_refused(change: dict[str, np.ndarray | None], says: str) -> None:
    index = WeightsIndex(MLP)
    tensors = {name: np.zeros(shape) for name, shape in MLP.items()} | change
    with pytest.raises(WeightsError, match=says):
        index.flatten({name: tensor for name, tensor in tensors.items() if tensor is not None})


@pytest.mark.parametrize("shape", [(15,), (17,), (0,)])
def test_a_vector_of_another_size_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(WeightsError, match=r"\[\d+\] is none of WeightsIndex\(3 tensors, 16 parameters\)"):
        WeightsIndex(MLP).unflatten(np.zeros(shape))


def test_tensors_of_torch() -> None:
    index = WeightsIndex({"classifier.bias": (2,)})
    learnt = torch.tensor([1.0, 2.0], requires_grad=True)
    assert index.flatten({"classifier.bias": learnt}).tolist() == [1.0, 2.0]
    for wrong, says in [
        (learnt.int(), "Numbers of int32 are no weights"),
        (learnt.bfloat16(), r"bfloat16, which numpy does not have: call \.float\(\)"),
        (learnt.to("meta"), r"on meta is no array: call \.cpu\(\)"),
    ]:
        with pytest.raises(RepresentationError, match=says):
            index.flatten({"classifier.bias": wrong})


def test_nothing_at_all() -> None:
    index = WeightsIndex({})
    assert index.size == len(index) == 0
    assert index.flatten({}).shape == (0,)
    assert index.unflatten(np.empty(0)) == {}


def test_pickles() -> None:
    index = WeightsIndex(MLP)
    assert list(pickle.loads(pickle.dumps(index))) == list(index)
    assert pickle.loads(pickle.dumps(index)) == index
