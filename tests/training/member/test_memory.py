"""Out of memory: what would fit is found by trying, and said with the option that makes it so."""

import re

import pytest
import torch

from tests.tiny import CONTRASTIVE, SUPERVISED, tiny
from training.member.memory import explain, try_rows, what_fits
from training.member.start import build_model
from training.recipes.plan import plan_members
from training.recipes.training import Training


def card_of(rows: int):
    """A card with memory for so many rows."""

    def attempt(wanted: int) -> None:
        if wanted > rows:
            raise torch.OutOfMemoryError(f"no memory for {wanted}")

    return attempt


@pytest.mark.parametrize(
    ("room", "rows", "least", "parts"),
    [
        (100, 256, 1, 4),
        (128, 256, 1, 2),
        (255, 256, 1, 2),
        (1, 256, 1, 256),
        (0, 256, 1, None),
        (5, 6, 1, 2),
        (300, 649, 1, 11),  # 649 = 11 x 59: parts must divide it
        (20, 649, 1, 59),
        (1, 96, 2, None),
        (2, 96, 2, 48),
        (3, 96, 4, None),
        (6, 96, 4, 24),
    ],
)
def test_the_fewest_parts_that_fit(room: int, rows: int, least: int, parts: int | None) -> None:
    assert what_fits(card_of(room), rows, least=least) == parts


def test_other_errors_are_not_taken_for_it() -> None:
    def attempt(rows: int) -> None:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        what_fits(attempt, 8)


@pytest.mark.parametrize("parent", [0, 2])
def test_an_attempt_is_a_real_step_that_leaves_nothing(parent: int) -> None:
    planned = plan_members(tiny())[0] if parent == 0 else next(m for m in plan_members(tiny()) if str(m.id) == "pt-2")
    model = build_model(planned, tuple("abcdef"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try_rows(model, planned.training, image_size=8, classes=planned.head.outputs)(4)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("training", "ranks", "accumulation", "parts", "said"),
    [
        (SUPERVISED, 1, 1, 4, "64 images at a time .* 16 would: --accumulation 4.$"),
        (SUPERVISED, 2, 2, 2, r"16 images at a time \(batch size 64, 2 ranks, 2 parts\) .* 8 would: --acc.* 4.$"),
        (CONTRASTIVE, 1, 1, 4, "16 would. InfoNCE needs the whole batch at once: share it between 4 GPUs"),
        (SUPERVISED, 1, 1, None, "not even 1 would. End what else is on the card"),
        (CONTRASTIVE, 1, 1, None, "not even 2 would. End what else is on the card"),
    ],
)
def test_what_is_said(training: Training, ranks: int, accumulation: int, parts: int | None, said: str) -> None:
    message = explain("pt-0", training, ranks=ranks, accumulation=accumulation, parts=parts)
    assert message.startswith("pt-0: ")
    assert re.search(said, message), message
