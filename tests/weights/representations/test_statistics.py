"""The seven numbers of a tensor by hand, and against numpy's and torch's own."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.vectors import vit_shapes
from vitzoo.architectures.vit import ViTShape
from vitzoo.errors import WeightsError
from vitzoo.weights.index import WeightsIndex
from vitzoo.weights.representations.statistics import STATISTICS, LayerStatistics

ONE = {"classifier.bias": (4,)}


def encode(numbers: list[float], dtype: str = "f8") -> list[float]:
    return LayerStatistics(WeightsIndex({"classifier.bias": (len(numbers),)})).encode(np.array(numbers, dtype)).tolist()


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([7.0], [7.0, 0.0, 7.0, 7.0, 7.0, 7.0, 7.0]),
        ([1.0, 0.0], [0.5, 0.25, 0.0, 0.25, 0.5, 0.75, 1.0]),
        ([4.0, 1.0, 2.0, 9.0], [4.0, 9.5, 1.0, 1.75, 3.0, 5.25, 9.0]),
        ([-3.0, -3.0, -3.0], [-3.0, 0.0, -3.0, -3.0, -3.0, -3.0, -3.0]),
    ],
)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_by_hand(numbers: list[float], expected: list[float], dtype: str) -> None:
    assert encode(numbers, dtype) == expected


def test_names_are_tensor_and_statistic_in_the_order_of_the_network() -> None:
    statistics = LayerStatistics(WeightsIndex({"classifier.bias": (2,), "vit.layernorm.weight": (1,)}))
    assert statistics.names == [
        *(f"vit.layernorm.weight/{name}" for name in ("mean", "variance", "q0", "q25", "q50", "q75", "q100")),
        *(f"classifier.bias/{name}" for name in ("mean", "variance", "q0", "q25", "q50", "q75", "q100")),
    ]
    assert statistics.encode(np.array([5.0, 1.0, 3.0])).tolist() == [
        *(5.0, 0.0, 5.0, 5.0, 5.0, 5.0, 5.0),
        *(2.0, 1.0, 1.0, 1.5, 2.0, 2.5, 3.0),
    ]
    assert statistics.structure() == {}


@given(vit_shapes(), st.integers(0, 2**32 - 1), st.sampled_from(["f2", "f4", "f8"]))
def test_against_numpy_and_torch(shape: ViTShape, seed: int, dtype: str) -> None:
    index = WeightsIndex(shape.tensor_shapes())
    vector = np.random.default_rng(seed).standard_cauchy(index.size).clip(-1e4, 1e4).astype(dtype)
    found = LayerStatistics(index).encode(vector)
    assert found.dtype == np.float64
    assert found.shape == (len(STATISTICS) * len(index),)
    for tensor, row in zip(index.unflatten(vector).values(), found.reshape(len(index), -1), strict=True):
        wide = tensor.astype(np.float64)
        expected = [wide.mean(), wide.var(), *np.quantile(wide, [0, 0.25, 0.5, 0.75, 1])]
        np.testing.assert_allclose(row, expected, rtol=1e-12, atol=1e-12)
        there = torch.from_numpy(wide.ravel())
        oracle = [there.mean(), there.var(correction=0), *torch.quantile(there, torch.linspace(0, 1, 5).double())]
        np.testing.assert_allclose(row, [float(number) for number in oracle], rtol=1e-12, atol=1e-9)


def test_sums_are_made_in_float64() -> None:
    """In float32 ones do not count next to 2 ** 24, and in float16 sixty-six thousand ones have no sum."""
    assert encode([2.0**24, *[1.0] * 1024], "f4")[0] == (2**24 + 1024) / 1025
    assert encode([1.0] * 66_000, "f2")[:2] == [1.0, 0.0]
    mean, variance, *_ = encode([1000.0, 1000.25] * 500, "f2")
    assert (mean, variance) == (1000.0, 0.0)  # 1000.25 is none of float16's numbers
    assert encode([1e8, 1e8 + 8] * 500, "f4")[:2] == [1e8 + 4, 16.0]


def test_not_a_number_makes_all_seven_so_and_spares_the_other_tensors() -> None:
    assert np.isnan(encode([1.0, np.nan, 3.0])).all()
    index = WeightsIndex({"classifier.bias": (2,), "classifier.weight": (2, 1)})
    found = LayerStatistics(index).encode(np.array([1.0, np.nan, 2.0, 4.0]))
    assert np.isnan(found[:7]).all()
    assert found[7:].tolist() == [3.0, 1.0, 2.0, 2.5, 3.0, 3.5, 4.0]


def test_infinity_shows_and_warns_of_nothing() -> None:
    mean, variance, *quantiles = encode([1.0, 2.0, 3.0, 4.0, np.inf])
    assert mean == np.inf
    assert np.isnan(variance)
    assert quantiles == [1.0, 2.0, 3.0, 4.0, np.inf]
    assert np.isnan(encode([-np.inf, np.inf])[0])


def test_the_order_within_a_tensor_does_not_matter() -> None:
    numbers = np.random.default_rng(0).normal(size=4096)  # a power of two: the mean of either order is exact enough
    assert encode(numbers.tolist())[2:] == encode(numbers[::-1].tolist())[2:]


def test_a_vector_of_another_size_is_refused_and_left_as_it_is() -> None:
    with pytest.raises(WeightsError, match=r"\[3\] is none of WeightsIndex"):
        LayerStatistics(WeightsIndex(ONE)).encode(np.zeros(3))
    vector = np.array([3.0, 1.0, 2.0, 0.0])
    LayerStatistics(WeightsIndex(ONE)).encode(vector)
    assert vector.tolist() == [3.0, 1.0, 2.0, 0.0]


def test_nothing_at_all() -> None:
    assert LayerStatistics(WeightsIndex({})).encode(np.empty(0)).shape == (0,)
