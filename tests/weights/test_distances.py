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


@pytest.mark.parametrize("step", [1e-3, 1e-6, 1e-9, 0.0])
def test_of_members_that_are_nearly_the_same(tiny_copy: Path, step: float) -> None:
    """Twins far from the first member: a Gram matrix in float32 has nothing left of their distance."""
    base = {name: tensor.double() for name, tensor in load_file(tiny_copy / "pt-0/ft-1/model.safetensors").items()}
    generator = torch.Generator().manual_seed(0)
    for number in (3, 5, 7):
        moved = {
            name: tensor + step * torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            for name, tensor in base.items()
        }
        overwrite(tiny_copy, f"pt-0/ft-{number}" if number < 4 else "pt-1" if number == 5 else "pt-2", moved)
    weights = weights_of(tiny_copy, id=["pt-0", "pt-0/ft-3", "pt-1", "pt-2"])
    matrix = weights.matrix(dtype="float64").values
    found = weights.distances().values
    exact = np.array([[np.linalg.norm(one - other) for other in matrix] for one in matrix])
    assert np.allclose(found, exact, rtol=1e-6, atol=0)
    if step == 0:
        assert not found[1:, 1:].any()


def test_files_opened_one_at_a_time(tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = weights_of(tiny_zoo, epoch="all")
    expected = weights.distances().values
    monkeypatch.setattr(distances_module, "_MAX_OPEN", 5)
    assert np.array_equal(weights.distances().values, expected)


def test_weights_that_are_no_numbers(tiny_copy: Path) -> None:
    """A diverged member has no distance from others; the others keep theirs."""
    expected = weights_of(tiny_copy).distances().values
    tensors = load_file(tiny_copy / "pt-1/model.safetensors")
    tensors["vit.layernorm.bias"][3] = torch.nan
    overwrite(tiny_copy, "pt-1", tensors)
    weights = weights_of(tiny_copy)
    row = [str(ref.member) for ref in weights.refs].index("pt-1")
    found = weights.distances().values
    assert np.isnan(np.delete(found[row], row)).all()
    assert np.allclose(np.delete(np.delete(found, row, 0), row, 1), np.delete(np.delete(expected, row, 0), row, 1))


def test_one_member(tiny_zoo: Path) -> None:
    assert weights_of(tiny_zoo, id="pt-1").distances().values.tolist() == [[0.0]]
