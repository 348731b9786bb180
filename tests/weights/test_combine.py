"""Linear combinations of checkpoints: equal to numpy's in float64, to the last bit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.weights.checkpoints import map_tensors, rewrite, weights_of
from vitzoo.errors import WeightsError
from vitzoo.weights.combine import combine
from vitzoo.weights.population import PopulationWeights

ONE_SEED = ["pt-0/ft-0", "pt-0/ft-2", "pt-1/ft-0"]  # with a linear head


def _combine(weights: PopulationWeights, coefficients: list[float], divisor: float = 1.0) -> np.ndarray:
    index = weights.index("all")
    tiled = np.tile(np.array(coefficients), (len(index), 1))
    return combine(weights.files, index, tiled, divisor=divisor, dtype=weights.dtype(part="all"))


def _same_bits(one: np.ndarray, two: np.ndarray) -> bool:
    return one.dtype == two.dtype and one.tobytes() == two.tobytes()


@pytest.mark.parametrize("most_open", [256, 1])
def test_mean_equals_numpy_s_to_the_last_bit(tiny_zoo: Path, most_open: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitzoo.weights.files._MAX_OPEN", most_open)
    monkeypatch.setattr("vitzoo.weights.combine._WIDTH", 100)  # several slices of a tensor
    weights = weights_of(tiny_zoo, head_type="linear", stage="finetuning")
    assert len(weights) == 4
    values = weights.matrix(part="all").values.astype(np.float64)
    assert _same_bits(_combine(weights, [1.0] * 4, 4.0), values.mean(axis=0).astype(np.float32))


@settings(max_examples=20)
@given(st.lists(st.floats(-3, 3).filter(lambda value: abs(value) > 0.01), min_size=4, max_size=4))
def test_weighted_mean_equals_numpy_s_to_the_last_bit(tiny_zoo: Path, coefficients: list[float]) -> None:
    total = float(np.sum(coefficients))
    if abs(total) < 0.01:
        return
    weights = weights_of(tiny_zoo, head_type="linear", stage="finetuning")
    values = weights.matrix(part="all").values.astype(np.float64)
    expected = np.average(values, axis=0, weights=coefficients).astype(np.float32)
    assert _same_bits(_combine(weights, coefficients, total), expected)


def test_each_tensor_has_its_own_coefficients(tiny_zoo: Path) -> None:
    weights = weights_of(tiny_zoo, head_type="linear", stage="finetuning")[:2]
    index, matrix = weights.index("all"), weights.matrix(part="all").values
    chosen = np.arange(len(index)) % 2
    found = combine(weights.files, index, np.eye(2)[chosen], dtype=np.dtype(np.float32))
    for place, entry in enumerate(index.values()):
        assert _same_bits(found[entry.span], matrix[chosen[place]][entry.span])


def test_one_checkpoint_is_itself_with_the_sign_of_zero(tiny_copy: Path) -> None:
    rewrite(tiny_copy / "pt-0/ft-0", map_tensors(lambda tensor: torch.where(tensor > 0, tensor, -0.0)))
    weights = weights_of(tiny_copy, id="pt-0/ft-0")
    expected = weights.vector(0, part="all")
    assert np.signbit(expected[expected == 0]).any()
    assert _same_bits(_combine(weights, [1.0]), expected)


def test_half_precision_is_summed_in_float64(tiny_copy: Path) -> None:
    for member in ONE_SEED:
        rewrite(tiny_copy / member, map_tensors(torch.Tensor.half))
    weights = weights_of(tiny_copy, id=ONE_SEED)
    values = weights.matrix(part="all").values
    assert values.dtype == np.float16
    assert _same_bits(_combine(weights, [1.0] * 3, 3.0), values.astype(np.float64).mean(axis=0).astype(np.float16))
    with pytest.raises(WeightsError) as raised:
        _combine(weights, [1e7] * 3)
    assert raised.value.path is None


def test_nan_names_the_checkpoint(tiny_copy: Path) -> None:
    rewrite(tiny_copy / "pt-0/ft-2", map_tensors(lambda tensor: torch.full_like(tensor, torch.nan)))
    with pytest.raises(WeightsError) as raised:
        _combine(weights_of(tiny_copy, id=ONE_SEED), [1.0] * 3, 3.0)
    assert raised.value.path == tiny_copy / "pt-0/ft-2/model.safetensors"


def test_model_of_a_row_equals_the_member(tiny_zoo: Path) -> None:
    weights = weights_of(tiny_zoo, id=ONE_SEED)
    matrix, images = weights.matrix(part="all"), torch.rand(2, 3, 8, 8)
    for row, (_, member) in enumerate(weights.iter_models()):
        model = matrix.to_model(row)
        assert model.config.id2label == member.config.id2label
        assert torch.equal(model(pixel_values=images).logits, member(pixel_values=images).logits)


def test_model_of_a_vector_is_a_copy_of_its_dtype(tiny_zoo: Path, tmp_path: Path) -> None:
    weights = weights_of(tiny_zoo, id=ONE_SEED)
    matrix = weights.matrix(part="all")
    vector = matrix.values.astype(np.float64).mean(axis=0)
    model = matrix.to_model(vector)
    vector[:] = 0
    assert model.dtype == torch.float64
    again = weights.index("all").flatten(model.state_dict())
    assert np.array_equal(again, matrix.values.astype(np.float64).mean(axis=0))
    model.save_pretrained(tmp_path / "saved")
    assert type(model).from_pretrained(tmp_path / "saved", dtype=torch.float64).dtype == torch.float64
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_model_of_a_masked_text_member_has_tied_weights(text_zoo: Path) -> None:
    weights = weights_of(text_zoo, head_role="masked")
    model = weights.matrix(part="all").to_model(0)
    (_, member) = next(weights.iter_models())
    ids = torch.tensor([[2, 10, 11, 3]])
    assert torch.equal(model(input_ids=ids).logits, member(input_ids=ids).logits)


def test_model_of_a_backbone_or_of_another_size_is_refused(tiny_zoo: Path) -> None:
    weights = weights_of(tiny_zoo, id=ONE_SEED)
    with pytest.raises(WeightsError) as raised:
        weights.matrix().to_model(0)
    assert 'part="all"' in str(raised.value.fix)
    with pytest.raises(WeightsError):
        weights.matrix(part="all").to_model(np.zeros(3, np.float32))
    with pytest.raises(IndexError):
        weights.matrix(part="all").to_model(7)
