"""Planted leaks: each is found and named with its members, parts and ties, and nothing else is a leak."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitzoo import MemberId, MemberRef, Zoo
from vitzoo.errors import LeakError, MemberIdError, MemberNotFoundError, SelectionError
from vitzoo.splits.leaks import assert_no_leaks

# pt-0 and pt-1 start from the same weights, pt-2 and pt-3 from the same backbone under other heads. pt-4 and pt-5 share
# an init_group, but no weights. The zoo lacks pt-6 and pt-7, but has their children, one with weights of pt-1's child.
INITS = {
    0: ("pt-0", "pt-0/ft-0", "pt-0/ft-1", "pt-1", "pt-1/ft-0"),
    2: ("pt-2", "pt-2/ft-0"),
    3: ("pt-3",),
    4: ("pt-4", "pt-5"),
    6: ("pt-6/ft-0", "pt-6/ft-1"),
    7: ("pt-7/ft-0", "pt-7/ft-1"),
}
MEMBERS: list[dict[str, Any]] = [
    {"id": name, "parent": name.partition("/")[0] if "/" in name else None, "init_group": f"init-{init}"}
    for init, names in INITS.items()
    for name in names
]
SHARED = {
    ("pt-0", 0): ("w0", "b0"),
    ("pt-1", 0): ("w0", "b0"),
    ("pt-2", 0): ("w2", "b2"),
    ("pt-3", 0): ("w3", "b2"),
    ("pt-0", 2): ("w0 last", "b0 last"),
    ("pt-0/ft-0", 0): ("w00", "b0 last"),
    ("pt-0/ft-1", 0): ("w00", "b0 last"),
    ("pt-7/ft-1", 2): ("odd", "odd b"),
    ("pt-1/ft-0", 1): ("odd", "odd b"),
}
EPOCHS: list[dict[str, Any]] = [
    {"id": row["id"], "epoch": epoch, "weights_id": ids[0], "backbone_id": ids[1]}
    for row in MEMBERS
    for epoch in range(3)
    for ids in [SHARED.get((row["id"], epoch), (f"w {row['id']} {epoch}", f"b {row['id']} {epoch}"))]
]
Parts = dict[str, list[str]]

SOUND: list[Parts] = [
    {},
    {"train": []},
    {"train": ["pt-0", "pt-0", "pt-0/ft-0", "pt-1/ft-0"], "test": []},
    {"train": ["pt-0", "pt-0/ft-0", "pt-1"], "val": ["pt-2", "pt-3"], "test": ["pt-4"]},
    {"train": ["pt-4"], "test": ["pt-5"]},
    {"a": ["pt-6/ft-0", "pt-6/ft-1"], "b": ["pt-0"]},
]

# parts, the kind of the leak, its two members, and words of the problem
LEAKS: list[tuple[Parts, str, tuple[str, str], str]] = [
    ({"train": ["pt-0", "pt-4"], "test": ["pt-2", "pt-4"]}, "member", ("pt-4", "pt-4"), 'in "train" and in "test"'),
    (
        {"train": ["pt-0"], "test": ["pt-0/ft-1"]},
        "family",
        ("pt-0", "pt-0/ft-1"),
        "pt-0/ft-1 starts from the weights of pt-0",
    ),
    (
        {"train": ["pt-0/ft-1"], "test": ["pt-4", "pt-0"]},
        "family",
        ("pt-0/ft-1", "pt-0"),
        "pt-0/ft-1 starts from the weights of pt-0",
    ),
    (
        {"train": ["pt-0/ft-1"], "val": ["pt-0/ft-0"]},
        "family",
        ("pt-0/ft-1", "pt-0/ft-0"),
        "pt-0/ft-0 and pt-0/ft-1 start from the weights of pt-0",
    ),
    (
        {"left": ["pt-6/ft-0"], "right": ["pt-6/ft-1"]},
        "family",
        ("pt-6/ft-0", "pt-6/ft-1"),
        "pt-6/ft-0 and pt-6/ft-1 start from the weights of pt-6",
    ),
    (
        {"train": ["pt-0"], "test": ["pt-1"]},
        "weights_id",
        ("pt-0", "pt-1"),
        'pt-0 at epoch 0 and pt-1 at epoch 0 have the same weights, weights_id "w0"',
    ),
    (
        {"train": ["pt-3", "pt-4"], "test": ["pt-2"]},
        "backbone_id",
        ("pt-3", "pt-2"),
        'pt-3 at epoch 0 and pt-2 at epoch 0 have the same backbone, backbone_id "b2"',
    ),
    (
        {"train": ["pt-4", "pt-0/ft-0"], "test": ["pt-1/ft-0"]},
        "family",
        ("pt-0/ft-0", "pt-1/ft-0"),
        "pt-0/ft-0 starts from the weights of pt-0; pt-0 at epoch 0 and pt-1 at epoch 0 have the same weights, "
        'weights_id "w0"; pt-1/ft-0 starts from the weights of pt-1',
    ),
    (
        {"test": ["pt-3"], "val": ["pt-2/ft-0"]},
        "family",
        ("pt-3", "pt-2/ft-0"),
        'pt-3 at epoch 0 and pt-2 at epoch 0 have the same backbone, backbone_id "b2"; pt-2/ft-0 starts from the '
        "weights of pt-2",
    ),
    (
        {"train": ["pt-7/ft-0"], "test": ["pt-0"]},
        "family",
        ("pt-7/ft-0", "pt-0"),
        "pt-7/ft-0 and pt-7/ft-1 start from the weights of pt-7; pt-7/ft-1 at epoch 2 and pt-1/ft-0 at epoch 1 have "
        'the same weights, weights_id "odd"; pt-1/ft-0 starts from the weights of pt-1; pt-1 at epoch 0 and pt-0',
    ),
    (  # the members of train that lead to another part are not named
        {"train": ["pt-0/ft-0", "pt-0"], "test": ["pt-1/ft-0"]},
        "family",
        ("pt-0", "pt-1/ft-0"),
        'are of one family: pt-0 at epoch 0 and pt-1 at epoch 0 have the same weights, weights_id "w0"; pt-1/ft-0',
    ),
]


def check(parts: Any, **options: Any) -> None:
    assert_no_leaks(parts, members=MEMBERS, epochs=EPOCHS, **options)


@pytest.mark.parametrize("parts", SOUND)
def test_sound_parts_pass(parts: Parts) -> None:
    check(parts)


@pytest.mark.parametrize(("parts", "kind", "members", "problem"), LEAKS, ids=lambda value: str(value)[:30])
def test_planted_leak_is_named(parts: Parts, kind: str, members: tuple[str, str], problem: str) -> None:
    with pytest.raises(LeakError) as raised:
        check(parts)
    leak = raised.value
    assert isinstance(leak, AssertionError)
    assert problem in leak.problem
    assert (leak.kind, leak.members) == (kind, members)
    assert [leak.parts] == [tuple(part for part in parts if parts[part] and part in leak.parts)]
    assert bool(leak.epochs) == (kind in ("weights_id", "backbone_id"))
    check({part: [] if part == next(iter(parts)) else ids for part, ids in parts.items()})


def test_digest_of_any_epoch_leaks() -> None:
    epochs = [row | {"backbone_id": "b pt-5 2"} if (row["id"], row["epoch"]) == ("pt-4", 1) else row for row in EPOCHS]
    with pytest.raises(LeakError) as raised:
        assert_no_leaks({"train": ["pt-5"], "test": ["pt-4"]}, members=MEMBERS, epochs=epochs)
    assert (raised.value.kind, raised.value.epochs, raised.value.value) == ("backbone_id", (2, 1), "b pt-5 2")


def test_init_groups_leak_on_request() -> None:
    parts = {"train": ["pt-4", "pt-2"], "test": ["pt-5", "pt-0"]}
    check(parts)
    with pytest.raises(LeakError) as raised:
        check(parts, init_groups="apart")
    assert (raised.value.kind, raised.value.members, raised.value.value) == ("init_group", ("pt-4", "pt-5"), "init-4")
    check({"train": ["pt-4", "pt-5"], "test": ["pt-2"]}, init_groups="apart")


def test_init_groups_of_other_members_tie_families_together() -> None:
    rows = [
        {"id": name, "parent": name.partition("/")[0], "init_group": group}
        for name, group in {"pt-0/ft-0": "a", "pt-0/ft-1": "b", "pt-1/ft-0": "b"}.items()
    ]
    parts = {"train": ["pt-0/ft-0"], "test": ["pt-1/ft-0"]}
    assert_no_leaks(parts, members=rows, epochs=[])
    with pytest.raises(LeakError) as raised:
        assert_no_leaks(parts, members=rows, epochs=[], init_groups="apart")
    assert raised.value.kind == "family"
    assert 'pt-0/ft-1 and pt-1/ft-0 share a random initialisation, init_group "b"' in raised.value.problem
    assert "by_init_group" in str(raised.value.fix)


def test_unknown_members_are_refused() -> None:
    with pytest.raises(MemberNotFoundError) as raised:
        check({"train": ["pt-9"]})
    assert raised.value.member == MemberId(9)
    with pytest.raises(MemberIdError) as malformed:
        check({"train": "pt-0"})
    assert malformed.value.text == "p"


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from([row["id"] for row in MEMBERS]), st.sampled_from("abc")), st.randoms())
def test_leaks_are_those_of_the_closure(sides: dict[str, str], random: Any) -> None:
    """Two members leak if steps between members of one parent, or of a common digest, lead from one to the other."""
    line = {row["id"]: row["parent"] or row["id"] for row in MEMBERS}
    digests = {
        name: {row[c] for row in EPOCHS if row["id"] == name for c in ("weights_id", "backbone_id")} for name in line
    }
    tied = {
        name: {other for other in line if line[name] == line[other] or digests[name] & digests[other]} for name in line
    }
    for middle in line:  # Warshall's closure
        for name in line:
            tied[name] |= tied[middle] if middle in tied[name] else set()
    leaks = any(sides[name] != sides[other] for name in sides for other in sides if other in tied[name])
    parts = {part: [name for name, own in sides.items() if own == part] for part in "abc"}
    shuffled = [random.sample(rows, len(rows)) for rows in (MEMBERS, EPOCHS)]
    with pytest.raises(LeakError) if leaks else nullcontext():
        assert_no_leaks(parts, members=shuffled[0], epochs=shuffled[1])


def test_leaks_of_a_real_zoo(tiny_zoo: Path) -> None:
    zoo = Zoo(tiny_zoo)
    zoo.assert_no_leaks({"train": [zoo["pt-0"], zoo["pt-1/ft-0"]], "test": zoo["pt-2"].children})
    with pytest.raises(LeakError) as raised:
        zoo.assert_no_leaks({"train": [zoo["pt-0"]], "test": [zoo["pt-1"]]})
    assert (raised.value.kind, raised.value.epochs) == ("weights_id", (0, 0))
    other = zoo.select(objective="contrastive", epoch=0)[:1]
    zoo.assert_no_leaks({"train": ["zoo/pt-0", f"{tiny_zoo}/pt-1", *zoo.parents[:1]], "test": other})
    with pytest.raises(LeakError) as raised:
        zoo.assert_no_leaks({"train": zoo.select(id="pt-0/ft-0"), "test": zoo.select(id="pt-1/ft-1")})
    assert "pt-0/ft-0 starts from the weights of pt-0; pt-0 at epoch 0 and pt-1 at epoch 0" in raised.value.problem
    with pytest.raises(SelectionError) as strange:
        zoo.assert_no_leaks({"train": ["org/other/pt-0"], "test": other})
    assert strange.value.value == "org/other"
    for train, test in (
        ([MemberId(0)], [MemberId(0, 1)]),
        ([MemberRef(MemberId(0), "zoo", 1)], [MemberRef(MemberId(0, 1), str(tiny_zoo))]),
        (["pt-0@2"], ["zoo/pt-0/ft-1@0"]),
        (iter(["pt-0"]), {MemberId(0, 1)}),
        (["pt-0@0"], ["pt-0@1"]),  # one member at two epochs
    ):
        with pytest.raises(LeakError) as leak:
            zoo.assert_no_leaks({"train": train, "test": test})
        assert leak.value.kind == ("member" if test == ["pt-0@1"] else "family")
    linear, mlp = zoo.select(head_type="linear"), zoo.select(head_type="mlp")
    with pytest.raises(LeakError) as raised:
        zoo.assert_no_leaks({"linear": linear, "mlp": mlp})
    assert raised.value.parts == ("linear", "mlp")
    contrastive, supervised = (zoo.select(objective=name) for name in ("contrastive", "supervised"))
    zoo.assert_no_leaks({"train": supervised, "test": contrastive}, init_groups="apart")


def test_members_of_another_zoo_are_refused(
    tiny_zoo: Path, tiny_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two names of one folder are one zoo."""
    zoo, other = Zoo(tiny_zoo), Zoo(tiny_copy)
    (tmp_path / "linked").symlink_to(tiny_zoo)
    monkeypatch.chdir(tmp_path)
    linked = Zoo("./linked")
    for same in ([linked["pt-0"]], linked.select(id="pt-0"), ["./linked/pt-0"], [f"{tiny_zoo}/pt-0"], ["zoo/pt-0"]):
        zoo.assert_no_leaks({"train": same, "test": ["pt-2"]})
        with pytest.raises(LeakError):
            zoo.assert_no_leaks({"train": same, "test": zoo["pt-0"].children})
    for others in ([other["pt-0"]], other.select(id="pt-0"), ["./zoo/pt-0"], [f"{tiny_copy}/pt-0"], ["a/b/pt-0"]):
        with pytest.raises(SelectionError) as raised:
            zoo.assert_no_leaks({"train": others, "test": [zoo["pt-2"]]})
        assert raised.value.value in (str(tiny_copy), "./zoo", "a/b")
