"""LayerStatistics by hand, and compared with numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vectors import vit_shapes
from vitzoo.architectures.vit import ViTShape
from vitzoo.errors import WeightsError
from vitzoo.weights.index import WeightsIndex
from vitzoo.weights.representations.statistics import STATISTICS, LayerStatistics


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


@settings(max_examples=30)
@given(vit_shapes(), st.integers(0, 2**32 - 1), st.sampled_from(["f2", "f4", "f8"]))
def test_equal_to_numpy(shape: ViTShape, seed: int, dtype: str) -> None:
    index = WeightsIndex(shape.tensor_shapes())
    vector = np.random.default_rng(seed).standard_cauchy(index.size).clip(-1e4, 1e4).astype(dtype)
    found = LayerStatistics(index).encode(vector)
    assert found.dtype == np.float64
    assert found.shape == (len(STATISTICS) * len(index),)
    for tensor, row in zip(index.unflatten(vector).values(), found.reshape(len(index), -1), strict=True):
        wide = tensor.astype(np.float64)
        expected = [wide.mean(), wide.var(), *np.quantile(wide, [0, 0.25, 0.5, 0.75, 1])]
        np.testing.assert_allclose(row, expected, rtol=1e-12, atol=1e-12)


def test_sums_are_made_in_float64() -> None:
    """float32 loses ones next to 2 ** 24, and float16 cannot hold the sum of 66,000 ones."""
    assert encode([2.0**24, *[1.0] * 1024], "f4")[0] == (2**24 + 1024) / 1025
    assert encode([1.0] * 66_000, "f2")[:2] == [1.0, 0.0]
    mean, variance, *_ = encode([1000.0, 1000.25] * 500, "f2")
    assert (mean, variance) == (1000.0, 0.0)  # float16 rounds 1000.25
    assert encode([1e8, 1e8 + 8] * 500, "f4")[:2] == [1e8 + 4, 16.0]


def test_nan_spoils_the_statistics_of_its_tensor_alone() -> None:
    assert np.isnan(encode([1.0, np.nan, 3.0])).all()
    index = WeightsIndex({"classifier.bias": (2,), "classifier.weight": (2, 1)})
    found = LayerStatistics(index).encode(np.array([1.0, np.nan, 2.0, 4.0]))
    assert np.isnan(found[:7]).all()
    assert found[7:].tolist() == [3.0, 1.0, 2.0, 2.5, 3.0, 3.5, 4.0]


def test_infinity_gives_no_warning() -> None:
    mean, variance, *quantiles = encode([1.0, 2.0, 3.0, 4.0, np.inf])
    assert mean == np.inf
    assert np.isnan(variance)
    assert quantiles == [1.0, 2.0, 3.0, 4.0, np.inf]
    assert np.isnan(encode([-np.inf, np.inf])[0])


def test_a_vector_of_another_size_is_refused() -> None:
    statistics = LayerStatistics(WeightsIndex({"classifier.bias": (4,)}))
    with pytest.raises(WeightsError):
        statistics.encode(np.zeros(3))
    vector = np.array([3.0, 1.0, 2.0, 0.0])
    statistics.encode(vector)
    assert vector.tolist() == [3.0, 1.0, 2.0, 0.0]


def test_an_empty_index() -> None:
    assert LayerStatistics(WeightsIndex({})).encode(np.empty(0)).shape == (0,)
