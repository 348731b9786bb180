"""From a recipe to its members: ids, parents, seeds, cost and disk."""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.tiny import tiny
from training.recipes import load_recipe
from training.recipes.plan import PlannedMember, plan_member, plan_members
from training.recipes.recipe import Seeds
from vitzoo.errors import MemberNotFoundError
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.sources.folder import FolderSource
from vitzoo.tables.catalogue import Catalogue

_opened: list[str] = []
_watching = [False]


def _watch(event: str, arguments: tuple) -> None:
    if _watching[0] and event in ("open", "os.listdir", "os.scandir", "subprocess.Popen", "socket.connect"):
        _opened.append(f"{event} {arguments[0]}")


sys.addaudithook(_watch)  # a hook cannot be removed, so it is active on demand


def digits() -> dict[MemberId, PlannedMember]:
    return {member.id: member for member in plan_members(load_recipe("digits"))}


def test_digits_has_141_members_parents_first() -> None:
    planned = plan_members(load_recipe("digits"))
    assert len(planned) == len({member.id for member in planned}) == 141
    assert [member.id for member in planned if member.id.is_parent] == [MemberId(i) for i in range(13)]
    children = Counter(member.id.parent for member in planned if not member.id.is_parent)
    assert children == {i: 16 if i in (0, 1, 10) else 8 for i in range(13)}
    seen: set[MemberId] = set()
    for member in planned:
        assert member.id.parent_id is None or member.id.parent_id in seen
        seen.add(member.id)


def test_digits_parents_are_ten_supervised_and_three_contrastive() -> None:
    parents = [member for member in digits().values() if member.id.is_parent]
    assert [member.training.objective for member in parents] == ["supervised"] * 10 + ["contrastive"] * 3
    assert [member.head.role for member in parents] == ["classifier"] * 10 + ["embedding"] * 3
    assert {member.training.dataset.name for member in parents} == {"digits-0-5"}
    assert {member.head.type for member in parents} == {"linear"}


def test_two_digits_parents_share_their_initialisation_alone() -> None:
    members = digits()
    first, second = members[MemberId(0)], members[MemberId(1)]
    assert (first.seeds.init, first.seeds.head) == (second.seeds.init, second.seeds.head)
    assert first.seeds.order != second.seeds.order
    assert first.seeds.augmentation != second.seeds.augmentation
    assert replace(second, id=first.id, seeds=first.seeds) == first  # nothing else differs
    groups = Counter(member.init_group for member in members.values() if member.id.is_parent)
    assert sorted(groups.values()) == [1] * 11 + [2]
    assert groups[first.init_group] == 2
    orders = [member.seeds.order for member in members.values() if member.id.is_parent]
    assert len(set(orders)) == 13


def test_digits_children_are_the_cells_of_the_grid() -> None:
    members = digits()
    for parent in (members[MemberId(i)] for i in range(13)):
        children = [member for member in members.values() if member.id.parent_id == parent.id]
        replicates = 2 if parent.id.parent in (0, 1, 10) else 1
        cells = [
            (child.replicate, child.head.type, child.training.optimizer.name, child.training.optimizer.learning_rate)
            for child in children
        ]
        heads, optimizers = {cell[1] for cell in cells}, {cell[2] for cell in cells}
        assert (heads, optimizers) == ({"linear", "mlp"}, {"adamw", "sgd"})
        rates = {name: {cell[3] for cell in cells if cell[2] == name} for name in optimizers}
        assert [len(rates[name]) for name in ("adamw", "sgd")] == [2, 2]
        assert sorted(cells) == sorted(
            (replicate, head, optimizer, rate)
            for replicate in range(replicates)
            for head in heads
            for optimizer in optimizers
            for rate in rates[optimizer]
        )
        assert {child.training.dataset.name for child in children} == {"digits-6-9"}
        assert {child.head.outputs for child in children} == {4}
        assert {child.init_group for child in children} == {parent.init_group}
        assert {child.seeds.init for child in children} == {parent.seeds.init}


def test_children_of_a_replicate_share_seeds_and_replicates_differ() -> None:
    children = [member for member in digits().values() if not member.id.is_parent]
    seeds = {
        replicate: {replace(c.seeds, init=0) for c in children if c.replicate == replicate} for replicate in (0, 1)
    }
    (first,), (second,) = seeds.values()
    assert first == Seeds(init=0, head=first.head, order=first.head, augmentation=first.head)
    assert first.head != second.head
    assert {child.id.parent for child in children if child.replicate == 1} == {0, 1, 10}


def test_digits_full_has_every_member_of_digits() -> None:
    full = plan_members(load_recipe("digits_full"))
    assert len(full) == 13 + 312
    by_id = {member.id: member for member in full}
    for member in digits().values():
        assert by_id[member.id] == member


def test_planning_reads_nothing_and_draws_nothing() -> None:
    recipe = load_recipe("digits")
    expected = plan_members(recipe)  # imports whatever it imports
    state = torch.random.get_rng_state()
    _watching[0] = True
    try:
        planned = plan_members(load_recipe("digits"))
        assert sum(member.bytes + member.flops for member in planned) > 0
        Path(__file__).read_bytes()
    finally:
        _watching[0] = False
    assert _opened == [f"open {__file__}"]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert planned == expected
    assert load_recipe("digits") == recipe


def test_bytes_equal_the_files(tiny_zoo: Path) -> None:
    source = FolderSource(tiny_zoo)
    for planned in plan_members(tiny()):
        files = [source.path(layout.weights_file(planned.id, epoch)) for epoch in range(planned.training.epochs + 1)]
        assert planned.bytes == sum(file.stat().st_size for file in files)
        final = source.path(layout.weights_file(planned.id))
        assert final.samefile(files[-1])  # a link, without bytes of its own
        assert planned.num_parameters == Catalogue(source).member_record(planned.id).num_parameters


def test_parameters_equal_values_by_hand() -> None:
    # Patches of 4 x 4 x 3, the class token, 5 positions; width 16, one block with an MLP of 32, a last norm.
    planned = plan_member(tiny(), MemberId(0))
    embeddings = (4 * 4 * 3 * 16 + 16) + 16 + 5 * 16
    block = 4 * (16 * 16 + 16) + (16 * 32 + 32) + (32 * 16 + 16) + 2 * (16 + 16)
    backbone = embeddings + block + (16 + 16)
    assert planned.num_parameters == backbone + 16 * 6 + 6
    mlp = plan_member(tiny(), MemberId(0, 1))
    assert mlp.head.width == 8
    assert mlp.num_parameters == backbone + (16 * 8 + 8) + (8 * 4 + 4)


def test_flops_of_a_tiny_shape_equal_values_by_hand() -> None:
    # 5 tokens of width 16: 4 patches of 4 x 4 x 3 and the class token; one block; 2 epochs of 10 batches of 64.
    forward = 4 * 48 * 16  # patches
    forward += 5 * 16 * 3 * 16 + 5 * 16 * 16  # queries, keys and values; what attention puts out
    forward += 5 * 5 * 16 + 5 * 5 * 16  # scores; their use
    forward += 5 * 16 * 32 + 5 * 32 * 16  # the MLP
    linear, mlp = 16 * 4, 16 * 8 + 8 * 4
    images = {"supervised": 2 * 10 * 64, "contrastive": 2 * 10 * 64 * 2, "child": 2 * 6 * 64}
    assert plan_member(tiny(), MemberId(0)).flops == 6 * images["supervised"] * (forward + 16 * 6)
    assert plan_member(tiny(), MemberId(2)).flops == 6 * images["contrastive"] * (forward + 16 * 12)
    assert plan_member(tiny(), MemberId(0, 0)).flops == 6 * images["child"] * (forward + linear)
    assert plan_member(tiny(), MemberId(0, 1)).flops == 6 * images["child"] * (forward + mlp)


def test_flops_of_vit_s_16_equal_the_measured_ones() -> None:
    planned = plan_member(load_recipe("paper"), MemberId(0))
    assert planned.unit_flops == pytest.approx(27.5e9, rel=0.02)  # as measured, forward and backward
    assert planned.num_parameters == 22_050_664  # timm's vit_small_patch16_224


def test_plan_refuses_an_unknown_member_with_the_nearest() -> None:
    with pytest.raises(MemberNotFoundError) as error:
        plan_member(tiny(), MemberId(0, 4))
    assert error.value.member == MemberId(0, 4)
    assert str(error.value.fix).startswith("Nearest: pt-0/ft-")
