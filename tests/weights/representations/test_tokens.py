"""Tokens by hand, their round trip for every shape and token size, and the padding of ViT-S/16."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vectors import VIT_S, draw_vector, same_bits, vit_shapes
from vitzoo.architectures.vit import ViTShape
from vitzoo.errors import RepresentationError, WeightsError
from vitzoo.weights.index import WeightsIndex
from vitzoo.weights.representations.tokens import Tokens, TokenSize, module_rows, recommend_token_sizes

# One of each kind: a token, two positions, a convolution of 1x2 pixels, a norm, a matrix without and one with a bias.
ALL_KINDS = {
    "vit.embeddings.cls_token": (1, 1, 2),
    "vit.embeddings.position_embeddings": (1, 2, 2),
    "vit.embeddings.patch_embeddings.projection.weight": (2, 1, 1, 2),
    "vit.embeddings.patch_embeddings.projection.bias": (2,),
    "vit.encoder.layer.0.attention.attention.query.weight": (2, 2),
    "vit.layernorm.weight": (2,),
    "vit.layernorm.bias": (2,),
    "classifier.weight": (1, 2),
    "classifier.bias": (1,),
}


def test_by_hand() -> None:
    tokens = Tokens(WeightsIndex(ALL_KINDS), token_size=2)
    # cls 1 2, positions 3 4 | 5 6, patch 7 8 | 9 10 and 11 12, query 13 14 | 15 16, norm 17 18 19 20, head 21 22 and 23
    values = tokens.encode(np.arange(1.0, 24.0))
    assert values.tolist() == [
        *([1, 2], [3, 4], [5, 6]),
        *([7, 8], [11, 0], [9, 10], [12, 0]),
        *([13, 14], [15, 16]),
        *([17, 18], [19, 20]),
        *([21, 22], [23, 0]),
    ]
    full, half = [True, True], [True, False]
    assert tokens.mask.tolist() == [full, full, full, full, half, full, half, full, full, full, full, full, half]
    assert tokens.positions.tolist() == [
        *([0, 0, 0], [1, 1, 0], [2, 1, 1]),
        *([3, 2, 0], [4, 2, 0], [5, 2, 1], [6, 2, 1]),
        *([7, 3, 0], [8, 3, 1]),
        *([9, 4, 0], [10, 4, 0]),
        *([11, 5, 0], [12, 5, 0]),
    ]
    assert len(tokens) == 13
    assert tokens.padding == 26 / 23
    assert [module.module for module in tokens.modules] == list(tokens.index.modules)
    assert tokens.decode(values).tolist() == list(range(1, 24))


def widest(index: WeightsIndex) -> int:
    return max(module.width for module in module_rows(index))


@given(vit_shapes(), st.data())
def test_round_trip_bit_for_bit(shape: ViTShape, data: st.DataObject) -> None:
    index = WeightsIndex(shape.tensor_shapes())
    token_size = data.draw(st.integers(1, widest(index)))
    tokens, vector = Tokens(index, token_size), draw_vector(data, index)
    values = tokens.encode(vector)
    assert values.dtype == vector.dtype
    assert values.shape == tokens.mask.shape == (len(tokens), token_size)
    assert tokens.positions[:, 0].tolist() == list(range(len(tokens)))
    places = [(number, row) for number, module in enumerate(tokens.modules) for row in range(module.rows)]
    chunks = [-(-module.width // token_size) for module in tokens.modules]
    assert tokens.positions[:, 1:].tolist() == [list(place) for place in places for _ in range(chunks[place[0]])]
    assert tokens.mask.sum() == index.size
    assert not values[~tokens.mask].view(f"u{values.itemsize}").any()  # positive zeros
    assert same_bits(
        np.sort(values[tokens.mask].view(f"u{values.itemsize}")), np.sort(vector.view(f"u{values.itemsize}"))
    )
    assert same_bits(tokens.decode(values), vector)
    values[~tokens.mask] = 7.0  # output of a network
    assert same_bits(tokens.decode(values), vector)
    assert same_bits(tokens.decode(np.asfortranarray(values)), vector)
    assert tokens.padding >= 1


def test_padding_of_vit_s() -> None:
    """SANE's layout, with a row of two numbers for each channel of a norm, has 1.49, 1.17 and 3.65."""
    index = WeightsIndex(VIT_S.tensor_shapes())
    found = {size: (len(tokens), tokens.padding) for size in (288, 385, 1537) if (tokens := Tokens(index, size))}
    assert found == {
        288: (103_199, pytest.approx(1.3694, abs=1e-4)),
        385: (56_412, pytest.approx(1.0007, abs=1e-4)),
        1537: (42_179, pytest.approx(2.9869, abs=1e-4)),
    }


def test_recommended_for_vit_s() -> None:
    index = WeightsIndex(VIT_S.tensor_shapes())
    best, second, *_ = found = recommend_token_sizes(index)
    assert (best.token_size, best.tokens, second.token_size, second.tokens) == (385, 56_412, 77, 282_060)
    assert best.padding == second.padding == Tokens(index, 385).padding
    assert len(found) == 10
    assert [size.padding for size in found] == sorted(size.padding for size in found)


@given(vit_shapes(), st.integers(0, 30), st.data())
def test_recommendations_have_the_padding_of_tokens(shape: ViTShape, more: int, data: st.DataObject) -> None:
    index = WeightsIndex(shape.tensor_shapes())
    smallest = data.draw(st.integers(1, widest(index)))
    found = recommend_token_sizes(index, smallest=smallest, largest=smallest + more, count=100)
    everything = [Tokens(index, size) for size in range(smallest, min(smallest + more, widest(index)) + 1)]
    assert found[0].padding == min(tokens.padding for tokens in everything)
    assert len({size.tokens for size in found}) == len(found) == len({len(tokens) for tokens in everything})
    for size in found:
        tokens = Tokens(index, size.token_size)
        assert size == TokenSize(size.token_size, len(tokens), tokens.padding)


@pytest.mark.parametrize("token_size", [0, -3, True, 5])
def test_token_sizes_out_of_range_are_refused(token_size: int) -> None:
    with pytest.raises(RepresentationError, match=r"1 to 4, .*vit\.layernorm") as error:
        Tokens(WeightsIndex(ALL_KINDS), token_size)
    assert error.value.value is token_size


def test_an_empty_index_is_refused() -> None:
    for make in (lambda index: Tokens(index, 1), recommend_token_sizes):
        with pytest.raises(RepresentationError, match="no tensors"):
            make(WeightsIndex({}))


def test_structure_is_read_only() -> None:
    for array in Tokens(WeightsIndex(ALL_KINDS), token_size=2).structure().values():
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize(("smallest", "largest", "count"), [(0, 5, 10), (6, 5, 10), (64, 2048, 10), (1, 5, 0)])
def test_ranges_without_a_size_are_refused(smallest: int, largest: int, count: int) -> None:
    with pytest.raises(RepresentationError, match="smallest <= 4") as error:
        recommend_token_sizes(WeightsIndex(ALL_KINDS), smallest=smallest, largest=largest, count=count)
    assert error.value.value == (smallest, largest, count)
    assert max(size.token_size for size in recommend_token_sizes(WeightsIndex(ALL_KINDS), smallest=1)) <= 4


def test_arrays_of_another_shape_are_refused() -> None:
    tokens = Tokens(WeightsIndex(ALL_KINDS), token_size=2)
    with pytest.raises(WeightsError):
        tokens.encode(np.zeros(22))
    for shape in ((13, 3), (12, 2)):
        wrong: Any = np.zeros(shape)
        with pytest.raises(RepresentationError, match=r"\[13, 2\]") as error:
            tokens.decode(wrong)
        assert error.value.value == shape
