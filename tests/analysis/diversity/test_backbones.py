"""Backbones: measures equal scipy's and numpy's on whole matrices, and equal weights are at a distance of exactly 0."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec import structs
from scipy.spatial.distance import cdist

from tests.weights.checkpoints import Tensors, map_tensors, rewrite
from vitzoo import Selection, Zoo
from vitzoo.analysis.diversity.backbones import Backbones, compare_backbones
from vitzoo.errors import WeightsError
from vitzoo.records import load_member_record
from vitzoo.records.json_files import write_json


def compared(selection: Selection) -> tuple[Backbones, dict[tuple[str, str], np.ndarray]]:
    found = compare_backbones(selection.catalogue, selection.refs)
    return found, {(measure, layer): values for measure, layer, values in found.iter_pairs()}


def matrices(selection: Selection) -> dict[str, np.ndarray]:
    """Read the backbones as one matrix for each layer, and one of the whole."""
    read = Zoo(selection.catalogue.source.root).weights(selection).matrix(dtype="float64")
    layers = {layer: np.concatenate([read.values[:, e.span] for e in es], 1) for layer, es in read.index.layers.items()}
    return {"": read.values, **layers}


def test_distances_equal_scipy_s(tiny_zoo: Path) -> None:
    zoo = Zoo(tiny_zoo)
    selection = zoo.select(stage="finetuning")
    found, pairs = compared(selection)
    ends = matrices(selection)
    starts = matrices(zoo.select(stage="finetuning", epoch=0))
    assert found.layers == tuple(ends)
    for place, (layer, rows) in enumerate(ends.items()):
        norms = np.linalg.norm(rows, axis=1)
        moves = rows - starts[layer]
        expected = {
            "l2": cdist(rows, rows),
            "relative_l2": cdist(rows, rows) / ((norms[:, None] + norms) / 2),
            "cosine": cdist(rows, rows, "cosine"),
            "move_l2": cdist(moves, moves),
            "move_cosine": 1 - cdist(moves, moves, "cosine"),
            "norm_gap": abs(norms[:, None] - norms),
            "move_gap": abs(np.subtract.outer(*[np.linalg.norm(moves, axis=1)] * 2)),
        }
        np.testing.assert_allclose(found.norms[place], norms, rtol=1e-12)
        np.testing.assert_allclose(found.moves[place], np.linalg.norm(moves, axis=1), rtol=1e-9)
        for measure, values in expected.items():
            np.testing.assert_allclose(pairs[measure, layer], values, rtol=1e-7, atol=1e-9, err_msg=measure)
    inside = np.array([[one.member.parent_id == two.member.parent_id for two in selection] for one in selection])
    assert np.array_equal(pairs["move_l2", ""][inside], pairs["l2", ""][inside])


def test_spectra_equal_the_singular_values(tiny_zoo: Path) -> None:
    zoo = Zoo(tiny_zoo)
    selection = zoo.select(stage="finetuning")
    found, pairs = compared(selection)
    weights = zoo.weights(selection)
    index = weights.index()
    whole = []
    for layer, entries in index.layers.items():
        singular = [
            np.linalg.svd(weights.vector(3, dtype="float64")[e.span].reshape(e.shape[0], -1), compute_uv=False)
            for e in entries
            if e.name.endswith("weight") and len(e.shape) > 1
        ]
        whole += singular
        place = found.layers.index(layer)
        if not singular:  # layernorm
            assert np.isnan(found.spectral_norms[place]).all()
            assert ("spectral_norm_gap", layer) not in pairs
            continue
        assert found.spectral_norms[place, 3] == pytest.approx(np.mean([s[0] for s in singular]), rel=1e-13)
        ranks = [(s**2).sum() / s[0] ** 2 for s in singular]
        assert found.stable_ranks[place, 3] == pytest.approx(np.mean(ranks), rel=1e-12)
    assert found.spectral_norms[0, 3] == pytest.approx(np.mean([s[0] for s in whole]), rel=1e-13)
    assert len(whole) == 7  # patches, four of attention, two of the MLP


def test_equal_weights_are_at_a_distance_of_zero(tiny_zoo: Path) -> None:
    selection = Zoo(tiny_zoo).select(stage="finetuning", epoch=0)
    found, pairs = compared(selection)
    siblings = np.array([[one.member.parent_id == two.member.parent_id for two in selection] for one in selection])
    for measure in ("l2", "relative_l2", "cosine", "move_l2", "norm_gap", "move_gap", "spectral_norm_gap"):
        assert (pairs[measure, ""][siblings] == 0).all()
    assert (pairs["l2", ""][~siblings] > 0).all()
    assert (found.moves == 0).all()
    assert np.isnan(pairs["move_cosine", ""]).all()  # a move of length 0 has no direction


def test_copied_member_has_no_distance_and_the_same_direction(tiny_copy: Path) -> None:
    shutil.copytree(tiny_copy / "pt-0/ft-0", tiny_copy / "pt-0/ft-4")
    path = tiny_copy / "pt-0/ft-4/member.json"
    write_json(path, structs.replace(load_member_record(path), id="pt-0/ft-4"))
    selection = Zoo(tiny_copy).select(stage="finetuning")
    _, pairs = compared(selection)
    one, two = (next(i for i, ref in enumerate(selection) if str(ref.member) == f"pt-0/ft-{n}") for n in (0, 4))
    for measure in ("l2", "cosine", "move_l2", "move_gap", "stable_rank_gap"):
        assert pairs[measure, ""][one, two] == 0
    assert pairs["move_cosine", ""][one, two] == pytest.approx(1, abs=1e-12)


def test_weights_that_are_nan_spoil_their_own_pairs_alone(tiny_copy: Path) -> None:
    before, expected = compared(Zoo(tiny_copy).select(stage="finetuning"))
    rewrite(tiny_copy / "pt-1/ft-0", map_tensors(lambda tensor: torch.full_like(tensor, torch.nan)))
    selection = Zoo(tiny_copy).select(stage="finetuning")
    found, pairs = compared(selection)
    row = next(place for place, ref in enumerate(selection) if str(ref.member) == "pt-1/ft-0")
    others = np.arange(len(selection)) != row
    for measure in ("l2", "cosine", "move_l2", "move_cosine", "norm_gap", "spectral_norm_gap"):
        assert np.isnan(pairs[measure, ""][row, others]).all()
        kept = np.ix_(others, others)
        np.testing.assert_allclose(pairs[measure, ""][kept], expected[measure, ""][kept], rtol=1e-9, atol=1e-12)
    assert np.isnan(found.moves[0, row])
    assert np.isfinite(before.moves[0]).all()


def test_weights_of_zeros_have_no_cosine_and_no_rank(tiny_copy: Path) -> None:
    rewrite(tiny_copy / "pt-1/ft-0", map_tensors(torch.zeros_like))
    selection = Zoo(tiny_copy).select(stage="finetuning")
    found, pairs = compared(selection)
    row = next(place for place, ref in enumerate(selection) if str(ref.member) == "pt-1/ft-0")
    assert (found.norms[0, row], found.spectral_norms[0, row]) == (0, 0)
    assert np.isnan(found.stable_ranks[0, row])
    assert np.isnan(pairs["cosine", ""][row]).all()
    assert np.allclose(pairs["l2", ""][row], found.norms[0])


def test_moves_need_starting_weights(tiny_copy: Path) -> None:
    selection = Zoo(tiny_copy).select(stage="pretraining")
    found, pairs = compared(selection)  # a parent starts from its own epoch 0
    assert (found.moves[0] > 0).all()
    for member in ("pt-0", "pt-2"):
        path = tiny_copy / member / "member.json"
        record = load_member_record(path)
        write_json(path, structs.replace(record, weights=tuple(w for w in record.weights if w.epoch != 0)))
        (tiny_copy / member / "model.epoch-00.safetensors").unlink()
    found, pairs = compared(Zoo(tiny_copy).select(stage="pretraining"))
    assert found.starts[0] == found.starts[2] == -1
    assert np.isnan(found.moves[0]).tolist() == [True, False, True]
    assert np.isnan(pairs["move_cosine", ""]).tolist() == [[True] * 3, [True, False, True], [True] * 3]
    assert np.isfinite(pairs["l2", ""]).all()


def test_backbones_of_other_shapes_are_refused(tiny_copy: Path) -> None:
    def drop(tensors: Tensors) -> Tensors:
        return {name: tensor for name, tensor in tensors.items() if name != "vit.layernorm.bias"}

    rewrite(tiny_copy / "pt-1/ft-0", drop)
    with pytest.raises(WeightsError) as caught:
        compared(Zoo(tiny_copy).select(stage="finetuning"))
    assert "vit.layernorm.bias" in caught.value.problem
