"""Distances of weights, held against scipy and against differences in float64."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.spatial import distance

from vitzoo import Zoo
from vitzoo.weights import distances as distances_module
from vitzoo.weights.population import PopulationWeights


def weights_of(zoo: Path, **conditions: object) -> PopulationWeights:
    opened = Zoo(zoo)
    return opened.weights(opened.select(**conditions))  # pyright: ignore[reportArgumentType]


def oracle_of(metric: str, rows: np.ndarray) -> np.ndarray:
    names: dict[str, Literal["euclidean", "cosine"]] = {"l2": "euclidean", "cosine": "cosine"}
    with np.errstate(invalid="ignore"):
        found = distance.cdist(rows, rows, names[metric])
    np.fill_diagonal(found, 0)
    return found


def overwrite(root: Path, member: str, tensors: dict[str, torch.Tensor]) -> None:
    file = root / member / "model.safetensors"
    file.unlink()
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("epoch", ["last", "all"])
@pytest.mark.parametrize("width", [1, 7, 10**6])
def test_by_model(tiny_zoo: Path, metric: str, epoch: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = weights_of(tiny_zoo, epoch=epoch)
    for name in ("_SLICE_BYTES", "_MAX_SLICE_BYTES"):
        monkeypatch.setattr(distances_module, name, width * 8 * len(weights) if width > 1 else 10**4)
    found = weights.distances(metric)  # pyright: ignore[reportArgumentType]
    matrix = weights.matrix(dtype="float64").values
    assert found.names is None
    assert found.refs == weights.refs
    assert np.allclose(found.values, oracle_of(metric, matrix), rtol=1e-9, atol=1e-12)
    assert np.array_equal(found.values, found.values.T)
    assert not found.values.diagonal().any()


@pytest.mark.parametrize("by", ["layer", "tensor"])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_by_part(tiny_zoo: Path, by: str, metric: str) -> None:
    weights = weights_of(tiny_zoo, head_type="mlp")
    found = weights.distances(metric, by=by, part="all")  # pyright: ignore[reportArgumentType]
    matrix = weights.matrix(dtype="float64", part="all")
    groups = matrix.index.layers if by == "layer" else {name: [entry] for name, entry in matrix.index.items()}
    assert found.names == tuple(groups)
    assert by == "tensor" or found.names == ("embeddings", "layer.0", "layernorm", "classifier")
    for values, entries in zip(found.values, groups.values(), strict=True):
        rows = np.concatenate([matrix.values[:, entry.span] for entry in entries], axis=1)
        assert np.allclose(values, oracle_of(metric, rows), rtol=1e-9, atol=1e-9, equal_nan=True)


def exact(metric: str, rows: np.ndarray) -> np.ndarray:
    """In more digits than float64 has."""
    wide = rows.astype(np.longdouble)
    found = np.zeros((len(rows), len(rows)))
    for i, one in enumerate(wide):
        for j, other in enumerate(wide):
            difference = np.sqrt(((one - other) ** 2).sum())
            norms = np.sqrt((one**2).sum()), np.sqrt((other**2).sum())
            cosine = (difference**2 - (norms[0] - norms[1]) ** 2) / (2 * norms[0] * norms[1])
            found[i, j] = difference if metric == "l2" else cosine
    return found


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("step", [1e-3, 1e-6, 1e-8, 0.0])
@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_of_members_that_are_nearly_the_same(tiny_copy: Path, step: float, metric: str, scale: float) -> None:
    """Twins, and twins of twins, far from the first member: a Gram matrix in float32 has nothing left of it."""
    for member in ("pt-0", "pt-0/ft-1"):
        tensors = load_file(tiny_copy / member / "model.safetensors")
        overwrite(tiny_copy, member, {name: tensor.double() for name, tensor in tensors.items()})
    first = load_file(tiny_copy / "pt-0/model.safetensors")
    overwrite(tiny_copy, "pt-0", {name: scale * tensor for name, tensor in first.items()})
    base = load_file(tiny_copy / "pt-0/ft-1/model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for member, far in (("pt-0/ft-3", 1e-6), ("pt-1", 1.0), ("pt-1/ft-0", 1.0), ("pt-2", 0.0)):
        moved = {
            name: tensor + far * step * torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            for name, tensor in base.items()
        }
        overwrite(tiny_copy, member, moved)
    weights = weights_of(tiny_copy, id=["pt-0", "pt-0/ft-1", "pt-0/ft-3", "pt-1", "pt-1/ft-0", "pt-2"])
    matrix = weights.matrix(dtype="float64").values
    found = weights.distances(metric).values  # pyright: ignore[reportArgumentType]
    expected = exact(metric, matrix)
    assert np.allclose(found, expected, rtol=1e-6, atol=1e-9 * step if metric == "l2" else 1e-9 * step**2)
    reverse = weights[::-1].distances(metric).values[::-1, ::-1]  # pyright: ignore[reportArgumentType]
    assert np.allclose(found, reverse, rtol=1e-6, atol=1e-9 * step if metric == "l2" else 1e-9 * step**2)
    if step == 0:
        assert not found[1:, 1:].any()


def test_tensors_that_are_all_zeros_have_no_direction(tiny_zoo: Path) -> None:
    weights = weights_of(tiny_zoo, stage="pretraining", epoch=[0, 2])
    found = weights.distances("cosine", by="tensor")
    assert found.names is not None
    biases = found.values[found.names.index("vit.layernorm.bias")]  # zero at epoch 0
    assert np.isnan(biases[0, 1:]).all()
    assert np.isfinite(biases[1, 3])
    reverse = weights[::-1].distances("cosine", by="tensor").values[:, ::-1, ::-1]
    assert np.allclose(found.values, reverse, rtol=1e-9, atol=1e-15, equal_nan=True)


def test_of_mixed_dtypes(tiny_copy: Path) -> None:
    for member, dtype in (("pt-1", torch.float16), ("pt-2", torch.bfloat16)):
        tensors = load_file(tiny_copy / member / "model.safetensors")
        overwrite(tiny_copy, member, {name: tensor.to(dtype) for name, tensor in tensors.items()})
    weights = weights_of(tiny_copy)
    matrix = weights.matrix(dtype="float64").values
    assert np.allclose(weights.distances().values, exact("l2", matrix), rtol=1e-9)


def test_files_opened_one_at_a_time(tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = weights_of(tiny_zoo, epoch="all")
    expected = weights.distances().values
    monkeypatch.setattr(distances_module, "_MAX_OPEN", 5)
    assert np.array_equal(weights.distances().values, expected)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("member", ["pt-0", "pt-1", "pt-2/ft-1"])
def test_weights_that_are_no_numbers(tiny_copy: Path, member: str, value: float, metric: str) -> None:
    """A diverged member, the first one too, has no distance from others; the others keep theirs."""
    expected = weights_of(tiny_copy).distances(metric).values  # pyright: ignore[reportArgumentType]
    tensors = load_file(tiny_copy / member / "model.safetensors")
    tensors["vit.layernorm.bias"][3] = value
    overwrite(tiny_copy, member, tensors)
    weights = weights_of(tiny_copy)
    row = [str(ref.member) for ref in weights.refs].index(member)
    found = weights.distances(metric).values  # pyright: ignore[reportArgumentType]
    assert np.isnan(np.delete(found[row], row)).all()
    others = [np.delete(np.delete(values, row, 0), row, 1) for values in (found, expected)]
    assert np.allclose(*others, rtol=1e-9)


def test_one_member(tiny_zoo: Path) -> None:
    assert weights_of(tiny_zoo, id="pt-1").distances().values.tolist() == [[0.0]]
