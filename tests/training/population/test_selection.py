"""Test the selection of the members that a run trains."""

import re
from collections.abc import Sequence
from typing import Any

import pytest

from tests.tiny import tiny
from training.population.selection import Shard, select_members
from training.recipes.digits import digits
from training.recipes.paper import paper
from training.recipes.plan import PlannedMember, plan_members
from vitzoo.errors import TrainingError
from vitzoo.ids import MemberId

TINY = plan_members(tiny())  # pt-0 with four children, pt-1 and pt-2 with two


def select(planned: Sequence[PlannedMember], **options: Any) -> tuple[set[MemberId], set[MemberId]]:
    """Return the ids of the members that the options name, and of the parents that are trained too."""
    members, parents = select_members(planned, **options)
    assert members == [member for member in planned if member in members]  # in the plan's order
    return {member.id for member in members} - parents, set(parents)


def ids(*texts: str) -> set[MemberId]:
    return {MemberId.parse(text) for text in texts}


@pytest.mark.parametrize(
    ("only", "members", "parents"),
    [
        (["pt-1/*"], ["pt-1/ft-0", "pt-1/ft-1"], ["pt-1"]),
        (["pt-1"], ["pt-1"], []),
        (["pt-1", "pt-1/*"], ["pt-1", "pt-1/ft-0", "pt-1/ft-1"], []),
        (["pt-*"], ["pt-0", "pt-1", "pt-2"], []),  # a star ends at the slash
        (["pt-*/ft-0"], ["pt-0/ft-0", "pt-1/ft-0", "pt-2/ft-0"], ["pt-0", "pt-1", "pt-2"]),
        (["pt-[12]/ft-1"], ["pt-1/ft-1", "pt-2/ft-1"], ["pt-1", "pt-2"]),
        (["pt-0/ft-?", "pt-2"], ["pt-0/ft-0", "pt-0/ft-1", "pt-0/ft-2", "pt-0/ft-3", "pt-2"], ["pt-0"]),
    ],
)
def test_patterns_select_members_and_add_their_parents(only: list[str], members: list[str], parents: list[str]) -> None:
    assert select(TINY, only=only) == (ids(*members), ids(*parents))


@pytest.mark.parametrize(
    ("done", "parents"),
    [
        (["pt-1"], ["pt-1"]),
        (["pt-1/ft-0"], ["pt-1"]),
        (["pt-1/ft-0", "pt-1/ft-1"], []),
        (["pt-1", "pt-1/ft-0", "pt-1/ft-1"], ["pt-1"]),
    ],
)
def test_missing_parent_is_not_trained_for_finished_children_alone(done: list[str], parents: list[str]) -> None:
    assert select(TINY, only=["pt-1/*"], done=ids(*done))[1] == ids(*parents)


@pytest.mark.parametrize("pattern", ["pt-3", "pt-*/*/*", "*/", "ft-0", "", "pt-01", "PT-0"])
def test_pattern_that_matches_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(TrainingError, match=re.escape(f'--only "{pattern}"')):
        select_members(TINY, only=["pt-0", pattern])


@pytest.mark.parametrize("count", [1, 3, 40])
def test_shards_split_all_members_whatever_is_done(count: int) -> None:
    shards = [select(TINY, shard=Shard(number=number, of=count))[0] for number in range(1, count + 1)]
    assert sorted(member for shard in shards for member in shard) == sorted(member.id for member in TINY)
    done = ids("pt-0", "pt-0/ft-0")
    assert [select(TINY, shard=Shard(number=n, of=count), done=done)[0] for n in range(1, count + 1)] == shards


@pytest.mark.parametrize(("recipe", "count", "most"), [(paper, 8, 1.05), (digits, 4, 1.02), (paper, 4, 1.02)])
def test_shards_cost_about_the_same(recipe, count: int, most: float) -> None:
    planned = plan_members(recipe())
    cost = {member.id: member.flops + member.evaluation_flops for member in planned}
    shards = [select(planned, shard=Shard(number=number, of=count))[0] for number in range(1, count + 1)]
    costs = [sum(cost[member] for member in shard) for shard in shards]
    assert max(costs) < most * sum(costs) / count


def test_shards_of_selected_members_share_the_parents() -> None:
    (one, parent), (two, same) = (select(TINY, only=["pt-0/*"], shard=Shard(number=n, of=2)) for n in (1, 2))
    assert (len(one), len(two)) == (2, 2)
    assert one | two == ids("pt-0/ft-0", "pt-0/ft-1", "pt-0/ft-2", "pt-0/ft-3")
    assert parent == same == ids("pt-0")


def test_shard_is_parsed_from_its_text() -> None:
    assert Shard.parse("2/8") == Shard(number=2, of=8)
    assert str(Shard.parse("8/8")) == "8/8"


@pytest.mark.parametrize("text", ["0/8", "9/8", "1/0", "2", "-1/8", "1/8 ", "a/b"])
def test_text_that_is_not_a_shard_is_refused(text: str) -> None:
    with pytest.raises(TrainingError, match=text) as error:
        Shard.parse(text)
    assert error.value.expected is not None
