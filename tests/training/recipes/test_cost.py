"""The cost of a plan equals values by hand and the published floors."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from tests.tiny import tiny
from training.recipes.cost import estimate, in_flop, in_hours
from training.recipes.paper import paper
from training.recipes.plan import plan_member, plan_members
from training.recipes.retention import Retention
from vitzoo import Zoo
from vitzoo.ids import MemberId

TINY = plan_members(tiny())


def test_evaluation_cost_equals_values_by_hand() -> None:
    # 64 training images are evaluated, no test images known; epochs 0, 1 and 2; a third of a training pass.
    supervised, contrastive = plan_member(tiny(), MemberId(0)), plan_member(tiny(), MemberId(2))
    assert supervised.evaluation_flops == pytest.approx(3 * 64 * supervised.unit_flops / 3)
    assert contrastive.evaluation_flops == pytest.approx(3 * 64 * 3 * contrastive.unit_flops / 3)  # features, two views
    dataset = supervised.training.dataset
    more = replace(dataset, test_images=100, images=structs.replace(dataset.images, held_out=36))
    known = replace(supervised, training=replace(supervised.training, dataset=more))
    assert known.evaluation_flops == pytest.approx(3 * 200 * supervised.unit_flops / 3)


def test_groups_add_up_to_the_total() -> None:
    cost = estimate(TINY, throughput=1000.0)
    assert {name: len(group.remaining) for name, group in cost.groups.items()} == {
        "supervised parents": 2,
        "contrastive parents": 1,
        "children": 8,
    }
    for name in ("checkpoints", "bytes", "training_flops", "evaluation_flops", "hours"):
        assert getattr(cost, name) == pytest.approx(sum(getattr(group, name) for group in cost.groups.values()))
    assert cost.checkpoints == 11 * 3
    assert cost.bytes == sum(member.bytes for member in TINY)
    lines = cost.describe()
    rows = {line[:20].rstrip(): line[20:].split() for line in lines[1:5]}
    for name, members, epochs, images in (
        ("supervised parents", "2", "4", 2 * 2 * 640),
        ("contrastive parents", "1", "2", 2 * 640 * 2),
    ):
        assert [rows[name][0], *rows[name][-2:]] == [members, epochs, f"{images:,}"]
    assert [rows["together"][0], rows["together"][-2]] == ["11", "22"]
    assert max(map(len, cost.describe(width=40)[:5])) <= 40
    assert "data: digits-0-5, 649 training images, 3 members" in lines
    assert "data: digits-6-9, 429 training images, 8 members" in lines
    assert any(re.fullmatch(r"longest: pt-2, [\d.]+ s; largest: pt-0/ft-1, [\d.]+ kB an epoch", line) for line in lines)


def test_hours_are_operations_at_the_rate_of_the_reference() -> None:
    reference = plan_member(tiny(), MemberId(0))
    assert estimate([reference], throughput=100.0).hours == pytest.approx((reference.units + 3 * 64 / 3) / 100 / 3600)
    assert estimate(TINY).hours is None


@pytest.mark.parametrize(
    ("rate", "child", "supervised", "contrastive", "children", "ten"),
    [(9_000, 4.6 / 60, 3.6, 7.1, 18.5, 46), (28_700, 87 / 3600, 1.1, 2.2, 5.8, 14.5)],
)
def test_training_hours_of_paper_equal_the_published_floors(
    rate: float, child: float, supervised: float, contrastive: float, children: float, ten: float
) -> None:
    planned = plan_members(paper())

    def hours(*, parent: bool | None = None, objective: str = "") -> float:
        """Return the hours of some members without evaluation, which the floors leave out."""
        cost = estimate([planned[0]], throughput=rate)
        a_flop = (cost.hours or 0) / (cost.training_flops + cost.evaluation_flops)
        chosen = [one for one in planned if parent is None or one.id.is_parent == parent]
        return a_flop * sum(one.flops for one in chosen if objective in one.training.objective)

    assert hours(parent=False) / 240 == pytest.approx(child, rel=0.03)
    assert hours(parent=False) == pytest.approx(children, rel=0.03)
    assert hours(parent=True, objective="supervised") / 7 == pytest.approx(supervised, rel=0.03)
    assert hours(parent=True, objective="contrastive") / 3 == pytest.approx(contrastive, rel=0.03)
    assert hours(parent=True) == pytest.approx(ten, rel=0.03)


@pytest.mark.parametrize(("keep", "checkpoints"), [("all", 33), ("last", 11), ("every-2", 22), ("last-2", 22)])
def test_kept_epochs_decide_the_disk(keep: str, checkpoints: int) -> None:
    total = estimate(TINY, keep=Retention(keep))
    assert total.checkpoints == checkpoints
    assert total.bytes == sum(one.checkpoint_bytes for one in TINY) * checkpoints // 11


def test_planned_bytes_are_the_bytes_of_the_files(tiny_zoo: Path) -> None:
    planned = {str(one.id): one.checkpoint_bytes for one in TINY}
    assert planned == {member: (tiny_zoo / member / "model.safetensors").stat().st_size for member in planned}
    assert estimate(TINY).bytes == Zoo(tiny_zoo).select(epoch="all").bytes


def test_disk_of_paper() -> None:
    planned = plan_members(paper())
    assert estimate(planned, keep=Retention("last")).bytes == pytest.approx(21.8e9, rel=0.003)
    cost = estimate(planned)
    assert cost.checkpoints == 13_150
    assert cost.summary().startswith("250 members (10 parents, 240 children), 13,150 checkpoints, 57.9 EFLOP, 1.1 TB")


def test_finished_members_cost_nothing() -> None:
    done = {MemberId(0), MemberId(1), *(one.id for one in TINY if one.id.parent == 0)}
    cost = estimate(TINY, done=done, throughput=1000.0)
    left = [one for one in TINY if one.id not in done]
    assert cost.done == len(done)
    assert len(cost.remaining) == len(left)
    assert cost.bytes == sum(one.bytes for one in left)
    assert list(cost.groups) == ["contrastive parents", "children"]
    rate = 1000 * 3600 * TINY[0].unit_flops  # the rate of pt-0, which the user measured
    assert cost.hours == pytest.approx(sum(one.flops + one.evaluation_flops for one in left) / rate)
    assert cost.reference == TINY[0]
    assert f"done: {len(done)} members, not counted above" in cost.describe()
    nothing = estimate(TINY, done={one.id for one in TINY})
    assert nothing.describe() == ["Nothing is left to do: all 11 members are done."]
    assert nothing.bytes == 0


def test_description_uses_the_singular() -> None:
    children = replace(tiny().children, heads=tiny().children.heads[:1], seeds=(100,))
    one = replace(tiny(), parents=(replace(tiny().parents[0], replicates=1),), children=children)
    planned = plan_members(one)
    assert [str(member.id) for member in planned] == ["pt-0", "pt-0/ft-0"]
    assert estimate(planned).summary().startswith("2 members (1 parent, 1 child), 6 checkpoints, ")
    assert (
        estimate(planned[:1], keep=Retention("last"))
        .summary()
        .startswith("1 member (1 parent, 0 children), 1 checkpoint, ")
    )
    lines = estimate(planned, done={MemberId(0)}).describe()
    assert "data: digits-6-9, 429 training images, 1 member" in lines
    assert "done: 1 member, not counted above" in lines
    assert estimate(planned[:1], done={MemberId(0)}).describe() == ["Nothing is left to do: its 1 member is done."]


def test_empty_plan_costs_nothing() -> None:
    assert estimate([], throughput=1.0).describe() == ["Nothing is left to do: all 0 members are done."]


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_estimate_refuses_a_rate_of_0_or_less(rate: float) -> None:
    with pytest.raises(ValueError, match="throughput"):
        estimate(TINY, throughput=rate)


def test_description_of_paper() -> None:
    lines = estimate(plan_members(paper()), throughput=9_000).describe(free_bytes=10**12)
    assert lines == [
        "                     members   hours     disk  checkpoints    training   evaluation  epochs         images",
        "supervised parents         7  25.3 h  56.2 GB          637  22.3 EFLOP  351.5 PFLOP     630    807,045,120",
        "contrastive parents        3  21.9 h  24.1 GB          273  19.1 EFLOP  452.0 PFLOP     270    691,804,800",
        "children                 240  20.4 h   1.1 TB       12,240  16.5 EFLOP    1.7 EFLOP  12,000    599,040,000",
        "together                 250  67.5 h   1.1 TB       13,150  57.9 EFLOP    2.5 EFLOP  12,900  2,097,889,920",
        "data: ILSVRC/imagenet-1k, 1,281,167 training images, 10 members",
        "data: uoft-cs/cifar100, 50,000 training images, 240 members",
        "longest: pt-7, 7.3 h; largest: pt-0, 88.2 MB an epoch",
        "hours: of one card that trains pt-0 at 9,000 images/s, if data never keep it waiting",
        "warning: 1.1 TB are needed with --keep all, 1.0 TB are free. Keep fewer epochs, such as --keep last, or "
        "name a larger disk.",
    ]
    last = estimate(plan_members(paper()), keep=Retention("last")).describe(free_bytes=10**9)[-1]
    assert last == "warning: 21.8 GB are needed with --keep last, 1.0 GB are free. Name a larger disk."


def test_description_without_a_rate_or_a_warning() -> None:
    lines = estimate(TINY).describe(free_bytes=10**12)
    assert "hours" not in lines[0]
    assert lines[-1] == "hours: unknown without a rate of training images a second"
    assert not any("warning" in line for line in lines)


def test_numbers_have_units() -> None:
    assert [in_flop(count) for count in (0, 999.0, 1e3, 27.5e9, 5.79e19, 1e25)] == [
        "0.0 FLOP",
        "999.0 FLOP",
        "1.0 kFLOP",
        "27.5 GFLOP",
        "57.9 EFLOP",
        "10000.0 ZFLOP",
    ]
    assert [in_hours(hours) for hours in (0.001, 4.6 / 60, 1.0, 1234.56)] == ["3.6 s", "4.6 min", "1.0 h", "1,234.6 h"]
