"""Metrics of a BERT on rows of tokens, compared with a plain forward pass."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from tests.berts import LINEAR, MASKED, MLP, make_model
from vitzoo.errors import DatasetError
from vitzoo.models.evaluation import evaluate_masked, evaluate_texts
from vitzoo.text.masks import FixedMasks
from vitzoo.text.splits import TextSplit

ROWS = [[2, 7, 9, 3], [2, 8, 3], [2, 30, 31, 32, 33, 3], [2, 9, 3], [2, 10, 11, 3]]
MASK = 4


def split_of(rows: list[list[int]], **more: Any) -> TextSplit:
    lengths = [len(row) for row in rows]
    return TextSplit(
        labels=np.arange(len(rows)) % 2,
        indices=np.arange(len(rows)),
        token_ids=np.concatenate(rows).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        **more,
    )


@pytest.mark.parametrize("member", [LINEAR, MLP])
def test_texts_are_a_plain_forward_in_the_split_s_order(member: str) -> None:
    model: Any = make_model(member).train()
    found = evaluate_texts(model, split_of(ROWS), batch_size=2)
    assert model.training
    assert all(module.training for module in model.modules())
    model.eval()
    for number, row in enumerate(ROWS):
        with torch.inference_mode():
            output = model(torch.tensor([row]), output_hidden_states=True)
        torch.testing.assert_close(found.logits[number], output.logits[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(found.features[number], output.hidden_states[-1][0, 0], rtol=0, atol=1e-6)
    assert found.labels.tolist() == [0, 1, 0, 1, 0]
    with torch.inference_mode():  # the first batch has rows 1 and 3, the shortest, and no padding
        assert torch.equal(found.logits[[1, 3]], model(torch.tensor([ROWS[1], ROWS[3]])).logits)
    again = evaluate_texts(model, split_of(ROWS), batch_size=2)
    assert torch.equal(again.logits, found.logits)
    half = evaluate_texts(model, split_of(ROWS), batch_size=2, precision="bf16")
    assert 0 < (half.logits - found.logits).abs().max() < 0.1


def test_second_texts_have_their_own_embedding() -> None:
    model: Any = make_model(LINEAR)
    pair = split_of([[2, 7, 3, 9, 3]], second=np.array([3], dtype=np.int32))
    kinds = torch.tensor([[0, 0, 0, 1, 1]])
    with torch.inference_mode():
        expected = model(torch.tensor([[2, 7, 3, 9, 3]]), token_type_ids=kinds).logits
    assert torch.equal(evaluate_texts(model, pair).logits, expected)
    assert not torch.equal(evaluate_texts(model, split_of([[2, 7, 3, 9, 3]])).logits, expected)


@pytest.mark.parametrize("batch_size", [2, 128])
def test_masked_metrics_are_those_of_all_logits(batch_size: int) -> None:
    model: Any = make_model(MASKED).train()
    split = split_of(ROWS)
    # row 0: token 9; row 2: tokens 30 and 33; row 4: token 10; rows 1 and 3: none
    masks = FixedMasks(places=np.array([2, 8, 11, 17]), starts=np.array([0, 1, 1, 3, 3, 4]), mask_id=MASK)
    found = evaluate_masked(model, split, masks, batch_size=batch_size)
    model.eval()
    losses, right = [], []
    for row, columns in ((0, [2]), (2, [1, 4]), (4, [1])):
        tokens = torch.tensor([ROWS[row]])
        tokens[0, columns] = MASK
        with torch.inference_mode():
            scores = model(tokens).logits[0, columns].double().log_softmax(1)
        truth = torch.tensor([ROWS[row][column] for column in columns])
        losses += (-scores[torch.arange(len(columns)), truth]).tolist()
        right += (scores.argmax(1) == truth).tolist()
    assert found.loss == pytest.approx(sum(losses) / 4, rel=1e-6)
    assert (found.accuracy, found.positions) == (sum(right) / 4, 4)
    assert found.loss == pytest.approx(math.log(50), rel=0.1)  # untrained
    assert evaluate_masked(model, split, masks, batch_size=batch_size) == found


def test_logits_of_positions_are_those_of_all() -> None:
    model: Any = make_model(MASKED)
    tokens, positions = torch.tensor([ROWS[0], ROWS[4]]), torch.tensor([[2, 1], [0, 3]])
    with torch.inference_mode():
        every, some = model(tokens).logits, model(tokens, positions=positions).logits
    torch.testing.assert_close(some, every.gather(1, positions[..., None].expand(-1, -1, 50)), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="labels and positions"):
        model(tokens, positions=positions, labels=tokens)


def test_other_rows_are_refused() -> None:
    model = make_model(LINEAR)
    with pytest.raises(DatasetError, match="A row has 17 tokens; expected at most 16"):
        evaluate_texts(model, split_of([[2] * 17]))
    with pytest.raises(DatasetError, match="A row has token 50; expected below 50"):
        evaluate_texts(model, split_of([[2, 50, 3]]))
    with pytest.raises(ValueError, match="0 samples"):
        evaluate_texts(model, split_of(ROWS).part(0, 0))
    nothing = FixedMasks(places=np.zeros(0, np.int64), starts=np.zeros(6, np.int64), mask_id=MASK)
    with pytest.raises(DatasetError, match="0 masked tokens"):
        evaluate_masked(make_model(MASKED), split_of(ROWS), nothing)
