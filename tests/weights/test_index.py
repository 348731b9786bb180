"""WeightsIndex: the flat vector and its tensors, for every shape of member, type of number and order of tensors."""

import pickle
from math import prod
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.vectors import VIT_S, draw_vector, same_bits, vit_shapes
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
    vector = np.arange(16.0)
    tensors = index.unflatten(vector)
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {
        "classifier.fc1.weight": [[0, 1, 2, 3], [4, 5, 6, 7]],
        "classifier.fc1.bias": [8, 9],
        "classifier.fc2.weight": [[10, 11], [12, 13], [14, 15]],
    }
    columns_first = {name: np.asfortranarray(tensor) for name, tensor in tensors.items()}
    assert index.flatten(columns_first).tolist() == list(range(16))
    tensors["classifier.fc1.bias"][1] = -1.0  # a view
    assert vector[9] == -1.0


@given(vit_shapes(), st.data(), st.randoms(use_true_random=False), st.booleans())
def test_round_trip_bit_for_bit(shape: ViTShape, data: st.DataObject, random: Random, in_memory: bool) -> None:
    index = WeightsIndex(shape.tensor_shapes())
    vector = draw_vector(data, index)
    tensors = list(index.unflatten(vector).items())
    random.shuffle(tensors)
    renamed = {memory_name(name) if in_memory else name: tensor for name, tensor in tensors}
    assert same_bits(index.flatten(renamed), vector)


@given(vit_shapes(most_layers=13), st.randoms(use_true_random=False))
def test_order_does_not_depend_on_the_mapping(shape: ViTShape, random: Random) -> None:
    shapes = shape.tensor_shapes()
    names = list(shapes)
    random.shuffle(names)
    assert VIT.network_order(names) == list(shapes)
    index = WeightsIndex({name: shapes[name] for name in names})
    assert list(index) == list(shapes)
    assert (index, hash(index)) == (WeightsIndex(shapes), hash(WeightsIndex(shapes)))
    assert index.size == sum(map(prod, shapes.values()))
    ends = [entry.span.stop for entry in index.values()]
    assert [entry.offset for entry in index.values()] == [0, *ends[:-1]]


def test_layers_and_modules_of_vit_s() -> None:
    index = WeightsIndex(VIT_S.tensor_shapes())
    assert list(index.layers) == ["embeddings", *(f"layer.{n}" for n in range(12)), "layernorm", "classifier"]
    assert [entry.name for entry in index.layers["layernorm"]] == ["vit.layernorm.weight", "vit.layernorm.bias"]
    assert [len(entries) for entries in index.layers.values()] == [4, *[16] * 12, 2, 2]
    assert list(index.modules)[2:4] == [
        "vit.embeddings.patch_embeddings.projection",
        "vit.encoder.layer.0.attention.attention.query",
    ]
    assert len(index.modules) == 3 + 8 * 12 + 2


def test_a_name_on_disk_or_in_memory_finds_a_tensor() -> None:
    index = WeightsIndex({"vit.encoder.layer.11.output.dense.bias": (2,), "classifier.bias": (3,)})
    assert index["vit.layers.11.mlp.fc2.bias"] is index["vit.encoder.layer.11.output.dense.bias"]
    assert "vit.layers.11.mlp.fc2.bias" in index
    assert "vit.layers.1.mlp.fc2.bias" not in index
    assert 3 not in index
    with pytest.raises(WeightsError, match=r"classifier\.weight.*Nearest: classifier\.bias"):
        index["classifier.weight"]


@given(vit_shapes())
def test_parts_are_disjoint_and_complete(shape: ViTShape) -> None:
    index = WeightsIndex(shape.tensor_shapes())
    backbone, head, everything = (
        WeightsIndex({name: size for name, size in index.shapes.items() if is_in_part(name, part)})
        for part in ("backbone", "head", "all")
    )
    assert everything == index
    assert [*backbone, *head] == list(index)
    assert backbone.size + head.size == index.size
    assert set(head.layers) == {"classifier"}


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"backbones.*Nearest: backbone"):
        is_in_part("classifier.bias", "backbones")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"classifier.fc1.bias": None}, "classifier.fc1.bias is missing"),
        ({"classifier.fc3.bias": np.zeros(2)}, "classifier.fc3.bias is not in the index"),
        ({"classifier.fc1.bias": np.zeros(3)}, "classifier.fc1.bias is [3], the index says [2]"),
        ({"classifier.fc1.bias": np.zeros(2, np.float32)}, "several dtypes, float32, float64"),
    ],
)
def test_flatten_refuses_other_tensors(change: dict[str, np.ndarray | None], says: str) -> None:
    tensors = {name: np.zeros(shape) for name, shape in MLP.items()} | change
    with pytest.raises(WeightsError) as error:
        WeightsIndex(MLP).flatten({name: tensor for name, tensor in tensors.items() if tensor is not None})
    assert says in error.value.problem


@pytest.mark.parametrize("shape", [(15,), (17,), (0,)])
def test_unflatten_refuses_another_size(shape: tuple[int, ...]) -> None:
    with pytest.raises(WeightsError) as error:
        WeightsIndex(MLP).unflatten(np.zeros(shape))
    assert str(list(shape)) in error.value.problem
    assert "WeightsIndex(3 tensors, 16 parameters)" in error.value.problem


def test_flatten_takes_floats_of_torch_on_the_cpu() -> None:
    index = WeightsIndex({"classifier.bias": (2,)})
    learnt = torch.tensor([1.0, 2.0], requires_grad=True)
    assert index.flatten({"classifier.bias": learnt}).tolist() == [1.0, 2.0]
    for wrong, value in [(learnt.int(), "int32"), (learnt.bfloat16(), "torch.bfloat16"), (learnt.to("meta"), "meta")]:
        with pytest.raises(RepresentationError) as error:
            index.flatten({"classifier.bias": wrong})
        assert error.value.value == value


def test_an_empty_index() -> None:
    index = WeightsIndex({})
    assert index.size == len(index) == 0
    assert index.flatten({}).shape == (0,)
    assert index.unflatten(np.empty(0)) == {}


def test_pickled_index_is_equal() -> None:
    index = WeightsIndex(MLP)
    assert list(pickle.loads(pickle.dumps(index)).items()) == list(index.items())
