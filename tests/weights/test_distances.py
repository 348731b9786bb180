"""Distances between weights, compared with scipy and with differences in more than float64."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.spatial import distance

from tests.weights.checkpoints import map_tensors, rewrite, weights_of
from vitzoo.weights import distances as distances_module

METRICS: list[Any] = ["l2", "cosine"]


def by_scipy(metric: str, rows: np.ndarray) -> np.ndarray:
    names: dict[str, Literal["euclidean", "cosine"]] = {"l2": "euclidean", "cosine": "cosine"}
    with np.errstate(invalid="ignore"):
        expected = distance.cdist(rows, rows, names[metric])
    np.fill_diagonal(expected, 0)
    return expected


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("width", [1, 7, 10**6])
def test_by_model(tiny_zoo: Path, metric: Any, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = weights_of(tiny_zoo, epoch="last" if width == 1 else "all")
    for name in ("_SLICE_BYTES", "_MAX_SLICE_BYTES"):
        monkeypatch.setattr(distances_module, name, width * 8 * len(weights) if width > 1 else 10**4)
    found = weights.distances(metric)
    assert (found.names, found.refs) == (None, weights.refs)
    assert np.allclose(found.values, by_scipy(metric, weights.matrix(dtype="float64").values), rtol=1e-9, atol=1e-12)
    assert np.array_equal(found.values, found.values.T)
    assert not found.values.diagonal().any()


@pytest.mark.parametrize("by", ["layer", "tensor"])
@pytest.mark.parametrize("metric", METRICS)
def test_by_layer_and_by_tensor(tiny_zoo: Path, by: Any, metric: Any) -> None:
    weights = weights_of(tiny_zoo, head_type="mlp")
    found = weights.distances(metric, by=by, part="all")
    matrix = weights.matrix(dtype="float64", part="all")
    groups = matrix.index.layers if by == "layer" else {name: [entry] for name, entry in matrix.index.items()}
    assert found.names == tuple(groups)
    for values, entries in zip(found.values, groups.values(), strict=True):
        rows = np.concatenate([matrix.values[:, entry.span] for entry in entries], axis=1)
        assert np.allclose(values, by_scipy(metric, rows), rtol=1e-9, atol=1e-9, equal_nan=True)


def exact(metric: str, rows: np.ndarray) -> np.ndarray:
    """Distances computed in more digits than float64 has."""
    wide = rows.astype(np.longdouble)
    values = np.zeros((len(rows), len(rows)))
    for i, left in enumerate(wide):
        for j, right in enumerate(wide):
            difference = np.sqrt(((left - right) ** 2).sum())
            norms = np.sqrt((left**2).sum()), np.sqrt((right**2).sum())
            cosine = (difference**2 - (norms[0] - norms[1]) ** 2) / (2 * norms[0] * norms[1])
            values[i, j] = difference if metric == "l2" else cosine
    return values


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("step", "scale"), [(1e-3, 1.0), (1e-6, 1e6), (1e-8, 1.0), (1e-8, 1e6), (0.0, 1e6)])
def test_near_duplicates_keep_six_digits(tiny_copy: Path, step: float, metric: Any, scale: float) -> None:
    """Groups of near members, far from the first member: a Gram matrix in float32 loses their distances."""
    rewrite(tiny_copy / "pt-0", map_tensors(lambda tensor: scale * tensor.double()))
    rewrite(tiny_copy / "pt-0/ft-1", map_tensors(torch.Tensor.double))
    base = load_file(tiny_copy / "pt-0/ft-1/model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for member, far in (("pt-0/ft-3", 1e-6), ("pt-1", 1.0), ("pt-1/ft-0", 1.0), ("pt-2", 0.0)):
        moved = {
            name: tensor + far * step * torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            for name, tensor in base.items()
        }
        rewrite(tiny_copy / member, lambda _, moved=moved: moved)
    weights = weights_of(tiny_copy, id=["pt-0", "pt-0/ft-1", "pt-0/ft-3", "pt-1", "pt-1/ft-0", "pt-2"])
    found = weights.distances(metric).values
    tolerance = 1e-9 * step if metric == "l2" else 1e-9 * step**2
    expected = exact(metric, weights.matrix(dtype="float64").values)
    assert np.allclose(found, expected, rtol=1e-6, atol=tolerance)
    assert np.allclose(found, weights[::-1].distances(metric).values[::-1, ::-1], rtol=1e-6, atol=tolerance)
    if step == 0:
        assert not found[1:, 1:].any()


def test_cosine_of_a_tensor_of_zeros_is_nan(tiny_zoo: Path) -> None:
    weights = weights_of(tiny_zoo, stage="pretraining", epoch=[0, 2])
    found = weights.distances("cosine", by="tensor")
    assert found.names is not None
    biases = found.values[found.names.index("vit.layernorm.bias")]  # zero at epoch 0
    assert np.isnan(biases[0, 1:]).all()
    assert np.isfinite(biases[1, 3])
    reverse = weights[::-1].distances("cosine", by="tensor").values[:, ::-1, ::-1]
    assert np.allclose(found.values, reverse, rtol=1e-9, atol=1e-15, equal_nan=True)


def test_mixed_dtypes(tiny_copy: Path) -> None:
    for member, dtype in (("pt-1", torch.float16), ("pt-2", torch.bfloat16)):
        rewrite(tiny_copy / member, map_tensors(lambda tensor, dtype=dtype: tensor.to(dtype)))
    weights = weights_of(tiny_copy)
    assert np.allclose(weights.distances().values, exact("l2", weights.matrix(dtype="float64").values), rtol=1e-9)


def test_more_files_than_may_be_open(tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = weights_of(tiny_zoo, epoch="all")
    expected = weights.distances().values
    monkeypatch.setattr("vitzoo.weights.files._MAX_OPEN", 5)
    assert np.array_equal(weights.distances().values, expected)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("member", "value"), [("pt-0", torch.nan), ("pt-1", torch.inf), ("pt-2/ft-1", torch.nan)])
def test_a_diverged_member_has_no_distances(tiny_copy: Path, member: str, value: float, metric: Any) -> None:
    expected = weights_of(tiny_copy).distances(metric).values

    def spoil(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensors["vit.layernorm.bias"][3] = value
        return tensors

    rewrite(tiny_copy / member, spoil)
    weights = weights_of(tiny_copy)
    row = [str(ref.member) for ref in weights.refs].index(member)
    found = weights.distances(metric).values
    assert np.isnan(np.delete(found[row], row)).all()
    others = [np.delete(np.delete(values, row, 0), row, 1) for values in (found, expected)]
    assert np.allclose(*others, rtol=1e-9)


def test_one_member(tiny_zoo: Path) -> None:
    assert weights_of(tiny_zoo, id="pt-1").distances().values.tolist() == [[0.0]]
