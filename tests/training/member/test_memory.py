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
    ("room", "rows", "fits"), [(100, 256, 64), (128, 256, 128), (255, 256, 128), (1, 256, 1), (0, 256, 0), (5, 6, 3)]
)
def test_the_largest_half_that_fits(room: int, rows: int, fits: int) -> None:
    assert what_fits(card_of(room), rows) == fits


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
    ("training", "ranks", "accumulation", "fits", "said"),
    [
        (SUPERVISED, 1, 1, 16, "64 images at a time .* 16 would: --accumulation 4.$"),
        (SUPERVISED, 2, 2, 8, r"16 images at a time \(batch size 64, 2 ranks, 2 parts\) .* 8 would: --acc.* 4.$"),
        (CONTRASTIVE, 1, 1, 16, "16 would. InfoNCE needs the whole batch at once: share it between 4 GPUs"),
        (SUPERVISED, 1, 1, 0, "not even 2 do. End what else is on the card"),
    ],
)
def test_what_is_said(training: Training, ranks: int, accumulation: int, fits: int, said: str) -> None:
    message = explain("pt-0", training, ranks=ranks, accumulation=accumulation, fits=fits)
    assert message.startswith("pt-0: ")
    assert re.search(said, message), message
