"""Out of memory: smaller batches are tried, and the error names the option that makes one fit."""

from collections.abc import Callable

import pytest
import torch

from tests.tiny import tiny
from training.images.inputs import ImageInputs
from training.member import device
from training.member.device import count_fitting_parts, out_of_memory_error
from training.member.start import build_model
from training.recipes.plan import plan_member
from vitzoo.ids import MemberId


def card_of(rows: int):
    """Return the attempt on a card with memory for this number of rows."""

    def attempt(tried: int) -> None:
        if tried > rows:
            raise torch.OutOfMemoryError(f"no memory for {tried}")

    return attempt


@pytest.mark.parametrize(
    ("room", "rows", "least", "parts"),
    [
        (100, 256, 1, 4),
        (255, 256, 1, 2),
        (1, 256, 1, 256),
        (0, 256, 1, None),
        (300, 649, 1, 11),  # 649 = 11 x 59: parts must divide it
        (20, 649, 1, 59),
        (3, 96, 4, None),
        (6, 96, 4, 24),
    ],
)
def test_count_fitting_parts_returns_the_fewest(room: int, rows: int, least: int, parts: int | None) -> None:
    assert count_fitting_parts(card_of(room), rows, least=least) == parts


def test_count_fitting_parts_raises_other_errors() -> None:
    def attempt(rows: int) -> None:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        count_fitting_parts(attempt, 8)


@pytest.mark.parametrize(
    ("member", "ranks", "accumulation", "parts", "sharing", "expected", "fix"),
    [
        ("pt-0", 1, 1, 4, 1, "at most 16", "Add --accumulation 4"),
        ("pt-0", 2, 2, 2, 1, "at most 8", "Add --accumulation 4"),
        ("pt-2", 1, 1, 4, 1, "at most 16", "share it between 4 GPUs"),
        ("pt-0", 1, 1, None, 1, "1 do not fit either", "a larger card"),
        ("pt-2", 1, 1, None, 1, "2 do not fit either", "a larger card"),
        ("pt-0", 1, 1, 4, 8, "at most 16", "train fewer at a time (--members-per-gpu). Or: Add --accumulation 4"),
        ("pt-0", 1, 1, None, 8, "1 do not fit either", "8 members share the GPU: train fewer at a time"),
    ],
)
def test_out_of_memory_names_the_option_and_changes_no_weights(
    member: str,
    ranks: int,
    accumulation: int,
    parts: int | None,
    sharing: int,
    expected: str,
    fix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def count(attempt: Callable[[int], None], rows: int, *, least: int = 1) -> int | None:
        assert rows == 64 // ranks // accumulation
        attempt(4)  # a real forward and backward pass
        return parts

    planned = plan_member(tiny(), MemberId.parse(member))
    model = build_model(planned, tuple("abcdef"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    monkeypatch.setattr(device, "count_fitting_parts", count)
    inputs, cpu = ImageInputs(planned, data={}), torch.device("cpu")
    error = out_of_memory_error(
        planned, model, inputs, device=cpu, ranks=ranks, accumulation=accumulation, members_per_gpu=sharing
    )
    rows = 64 // ranks // accumulation
    assert error.problem.startswith(f"{member}: {rows} images at a time (batch size 64, {ranks} ranks, ")
    assert expected in (error.expected or "")
    assert fix in (error.fix or "")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
