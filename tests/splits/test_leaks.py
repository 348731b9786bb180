"""Planted leaks: each is found, named with what leaks and where, and nothing else is one."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitzoo import MemberId, MemberRef, Zoo
from vitzoo.errors import LeakError, MemberIdError, MemberNotFoundError, SelectionError
from vitzoo.splits.leaks import assert_no_leaks

# pt-0 and pt-1 start from the same weights, pt-2 and pt-3 from the same backbone under other heads; pt-4 and pt-5 say
# that they share an initialisation, but no weights; pt-6 and pt-7 are gone, their children are there, and one of them
# has weights of pt-1's child.
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

LEAKS: list[tuple[Parts, str, tuple[str, str], tuple[str, str], str]] = [
    (
        {"train": ["pt-0", "pt-4"], "test": ["pt-2", "pt-4"]},
        "member",
        ("pt-4", "pt-4"),
        ("train", "test"),
        'pt-4 is in "train" and in "test"',
    ),
    (
        {"train": ["pt-0"], "test": ["pt-0/ft-1"]},
        "family",
        ("pt-0", "pt-0/ft-1"),
        ("train", "test"),
        'pt-0/ft-1 is in "test", its parent pt-0 in "train": it starts from those weights. Keep families whole',
    ),
    (
        {"train": ["pt-0/ft-1"], "test": ["pt-4", "pt-0"]},
        "family",
        ("pt-0/ft-1", "pt-0"),
        ("train", "test"),
        'pt-0/ft-1 is in "train", its parent pt-0 in "test"',
    ),
    (
        {"train": ["pt-0/ft-1"], "val": ["pt-0/ft-0"]},
        "family",
        ("pt-0/ft-1", "pt-0/ft-0"),
        ("train", "val"),
        'pt-0/ft-0 is in "val", its sibling pt-0/ft-1 in "train": both start from the weights of "pt-0"',
    ),
    (
        {"left": ["pt-6/ft-0"], "right": ["pt-6/ft-1"]},
        "family",
        ("pt-6/ft-0", "pt-6/ft-1"),
        ("left", "right"),
        'its sibling pt-6/ft-0 in "left": both start from the weights of "pt-6"',
    ),
    (
        {"train": ["pt-0"], "test": ["pt-1"]},
        "weights_id",
        ("pt-0", "pt-1"),
        ("train", "test"),
        'pt-0 at epoch 0 in "train" and pt-1 at epoch 0 in "test" have the same weights, weights_id "w0"',
    ),
    (
        {"train": ["pt-3", "pt-4"], "test": ["pt-2"]},
        "backbone_id",
        ("pt-2", "pt-3"),
        ("test", "train"),
        'pt-2 at epoch 0 in "test" and pt-3 at epoch 0 in "train" have the same backbone, backbone_id "b2"',
    ),
    (
        {"train": ["pt-4", "pt-0/ft-0"], "test": ["pt-1/ft-0"]},
        "family",
        ("pt-0/ft-0", "pt-1/ft-0"),
        ("train", "test"),
        'pt-0/ft-0 in "train" and pt-1/ft-0 in "test" are of one family: pt-0/ft-0 starts from the weights of pt-0; '
        'pt-0 at epoch 0 and pt-1 at epoch 0 have the same weights, weights_id "w0"; pt-1/ft-0 starts from the weights '
        "of pt-1. Keep families whole",
    ),
    (
        {"test": ["pt-3"], "val": ["pt-2/ft-0"]},
        "family",
        ("pt-3", "pt-2/ft-0"),
        ("test", "val"),
        'are of one family: pt-3 at epoch 0 and pt-2 at epoch 0 have the same backbone, backbone_id "b2"; pt-2/ft-0 '
        "starts from the weights of pt-2.",
    ),
    (
        {"train": ["pt-7/ft-0"], "test": ["pt-0"]},
        "family",
        ("pt-7/ft-0", "pt-0"),
        ("train", "test"),
        "pt-7/ft-0 and pt-7/ft-1 start from the weights of pt-7; pt-7/ft-1 at epoch 2 and pt-1/ft-0 at epoch 1 have "
        'the same weights, weights_id "odd"; pt-1/ft-0 starts from the weights of pt-1; pt-1 at epoch 0 and pt-0',
    ),
]


def check(parts: Any, **options: Any) -> None:
    assert_no_leaks(parts, members=MEMBERS, epochs=EPOCHS, **options)


@pytest.mark.parametrize("parts", SOUND)
def test_sound(parts: Parts) -> None:
    check(parts)


@pytest.mark.parametrize(("parts", "kind", "members", "sides", "message"), LEAKS, ids=lambda value: str(value)[:30])
def test_planted(parts: Parts, kind: str, members: tuple[str, str], sides: tuple[str, str], message: str) -> None:
    with pytest.raises(LeakError) as raised:
        check(parts)
    found = raised.value
    assert isinstance(found, AssertionError)
    assert message in str(found)
    assert {"kind": kind, "members": members, "parts": sides}.items() <= vars(found).items()
    assert bool(found.epochs) == (kind in ("weights_id", "backbone_id"))
    check({part: [] if part == next(iter(parts)) else ids for part, ids in parts.items()})


def test_a_digest_of_any_epoch(tmp_path: Path) -> None:
    epochs = [row | {"backbone_id": "b pt-5 2"} if (row["id"], row["epoch"]) == ("pt-4", 1) else row for row in EPOCHS]
    with pytest.raises(LeakError, match='pt-4 at epoch 1 in "test" and pt-5 at epoch 2 in "train"') as raised:
        assert_no_leaks({"train": ["pt-5"], "test": ["pt-4"]}, members=MEMBERS, epochs=epochs)
    assert vars(raised.value)["epochs"] == (1, 2)
    assert vars(raised.value)["value"] == "b pt-5 2"


def test_init_groups_on_request() -> None:
    apart = {"train": ["pt-4", "pt-2"], "test": ["pt-5", "pt-0"]}
    check(apart)
    with pytest.raises(LeakError, match=r'pt-4 in "train" and pt-5 in "test" share a random init.* "init-4"') as raised:
        check(apart, init_groups="apart")
    assert vars(raised.value)["kind"] == "init_group"
    check({"train": ["pt-4", "pt-5"], "test": ["pt-2"]}, init_groups="apart")


def test_init_groups_that_others_tie_together() -> None:
    rows = [
        {"id": name, "parent": name.partition("/")[0], "init_group": group}
        for name, group in {"pt-0/ft-0": "a", "pt-0/ft-1": "b", "pt-1/ft-0": "b"}.items()
    ]
    sides = {"train": ["pt-0/ft-0"], "test": ["pt-1/ft-0"]}
    assert_no_leaks(sides, members=rows, epochs=[])
    with pytest.raises(
        LeakError, match=r'the weights of pt-0; pt-0/ft-1 and pt-1/ft-0 share init_group "b". .*by_init'
    ):
        assert_no_leaks(sides, members=rows, epochs=[], init_groups="apart")


def test_unknown_members() -> None:
    with pytest.raises(MemberNotFoundError, match="pt-9") as raised:
        check({"train": ["pt-9"]})
    assert raised.value.member == MemberId(9)
    with pytest.raises(MemberIdError, match='"p"'):
        check({"train": "pt-0"})


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from([row["id"] for row in MEMBERS]), st.sampled_from("abc")), st.randoms())
def test_against_the_rule_word_by_word(sides: dict[str, str], random: Any) -> None:
    """Two members leak where steps lead from one to the other: between kin, or those that have a digest in common."""
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
    parts = {part: [name for name, its in sides.items() if its == part] for part in "abc"}
    shuffled = [random.sample(rows, len(rows)) for rows in (MEMBERS, EPOCHS)]
    try:
        assert_no_leaks(parts, members=shuffled[0], epochs=shuffled[1])
        found = False
    except LeakError:
        found = True
    assert found == leaks


def test_of_a_real_zoo(tiny_zoo: Path) -> None:
    zoo = Zoo(tiny_zoo)
    zoo.assert_no_leaks({"train": [zoo["pt-0"], zoo["pt-1/ft-0"]], "test": zoo["pt-2"].children})
    with pytest.raises(
        LeakError, match='pt-0 at epoch 0 in "train" and pt-1 at epoch 0 in "test" have the same weights'
    ):
        zoo.assert_no_leaks({"train": [zoo["pt-0"]], "test": [zoo["pt-1"]]})
    other = zoo.select(objective="contrastive", epoch=0)[:1]
    zoo.assert_no_leaks({"train": ["zoo/pt-0", f"{tiny_zoo}/pt-1", *zoo.parents[:1]], "test": other})
    with pytest.raises(
        LeakError, match="pt-0/ft-0 starts from the weights of pt-0; pt-0 at epoch 0 and pt-1 at epoch 0"
    ):
        zoo.assert_no_leaks({"train": zoo.select(id="pt-0/ft-0"), "test": zoo.select(id="pt-1/ft-1")})
    with pytest.raises(SelectionError) as raised:
        zoo.assert_no_leaks({"train": ["org/other/pt-0"], "test": other})
    assert raised.value.value == "org/other"
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
    with pytest.raises(LeakError, match=r'pt-0/ft-1 is in "mlp", its parent pt-0 in "linear"'):
        zoo.assert_no_leaks({"linear": linear, "mlp": mlp})
    contrastive, supervised = (zoo.select(objective=name) for name in ("contrastive", "supervised"))
    zoo.assert_no_leaks({"train": supervised, "test": contrastive}, init_groups="apart")


def test_of_which_zoo(tiny_zoo: Path, tiny_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zoo is where its name leads, whatever it is called."""
    zoo, other = Zoo(tiny_zoo), Zoo(tiny_copy)
    (tmp_path / "linked").symlink_to(tiny_zoo)
    monkeypatch.chdir(tmp_path)
    linked = Zoo("./linked")
    for same in ([linked["pt-0"]], linked.select(id="pt-0"), ["./linked/pt-0"], [f"{tiny_zoo}/pt-0"], ["zoo/pt-0"]):
        zoo.assert_no_leaks({"train": same, "test": ["pt-2"]})
        with pytest.raises(LeakError, match="its parent pt-0"):
            zoo.assert_no_leaks({"train": same, "test": zoo["pt-0"].children})
    for others in ([other["pt-0"]], other.select(id="pt-0"), ["./zoo/pt-0"], [f"{tiny_copy}/pt-0"], ["a/b/pt-0"]):
        with pytest.raises(SelectionError, match="tiny-zoo"):
            zoo.assert_no_leaks({"train": others, "test": [zoo["pt-2"]]})
