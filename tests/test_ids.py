"""Names of members: text, value, round trip, malformed text, and names left to transformers."""

import random
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from hypothesis import assume, given
from hypothesis import strategies as st

from vitzoo.errors import ConflictingArgumentsError, MemberIdError
from vitzoo.ids import MemberId, MemberRef, as_text, is_zoo_name, is_zoo_path, parse_variant
from vitzoo.records import layout

MEMBERS = [
    ("pt-0", MemberId(0)),
    ("pt-12", MemberId(12)),
    ("pt-999999999", MemberId(999_999_999)),
    ("pt-0/ft-0", MemberId(0, 0)),
    ("pt-12/ft-3", MemberId(12, 3)),
    ("pt-9/ft-999999999", MemberId(9, 999_999_999)),
]
REFS = [
    ("pt-0", MemberRef(MemberId(0))),
    ("pt-12/ft-3", MemberRef(MemberId(12, 3))),
    ("pt-12/ft-3@7", MemberRef(MemberId(12, 3), None, 7)),
    ("pt-0@0", MemberRef(MemberId(0), None, 0)),
    ("pt-0@999999999", MemberRef(MemberId(0), None, 999_999_999)),
    ("zoo/pt-12/ft-3", MemberRef(MemberId(12, 3), "zoo")),
    ("zoo/pt-0@7", MemberRef(MemberId(0), "zoo", 7)),
    ("demo/pt-1/ft-2", MemberRef(MemberId(1, 2), "demo")),
    ("org/name/pt-12/ft-3", MemberRef(MemberId(12, 3), "org/name")),
    ("org/vit-zoo/pt-0@90", MemberRef(MemberId(0), "org/vit-zoo", 90)),
    ("a/b/pt-1", MemberRef(MemberId(1), "a/b")),
    ("org/pt-3/pt-1/ft-2", MemberRef(MemberId(1, 2), "org/pt-3")),
    ("org/zoo/pt-1", MemberRef(MemberId(1), "org/zoo")),
    ("./pt-1", MemberRef(MemberId(1), ".")),
    ("../pt-1/ft-2", MemberRef(MemberId(1, 2), "..")),
    ("./zoo/pt-1", MemberRef(MemberId(1), "./zoo")),
    ("./my-zoo/pt-12/ft-3@7", MemberRef(MemberId(12, 3), "./my-zoo", 7)),
    ("../zoos/a b/pt-1", MemberRef(MemberId(1), "../zoos/a b")),
    ("/data/my-zoo/pt-1@3", MemberRef(MemberId(1), "/data/my-zoo", 3)),
    ("/zoo/pt-1", MemberRef(MemberId(1), "/zoo")),
    ("./zoo@2/pt-1/ft-2@3", MemberRef(MemberId(1, 2), "./zoo@2", 3)),
    ("./pt-1/pt-2/ft-3", MemberRef(MemberId(2, 3), "./pt-1")),
    ("./pt-1/ft-2/pt-3", MemberRef(MemberId(3), "./pt-1/ft-2")),
    ("./one\ntwo/pt-1", MemberRef(MemberId(1), "./one\ntwo")),
    ("./zoo//pt-1", MemberRef(MemberId(1), "./zoo/")),
]
# After "zoo/", each is an error. Without it, each is not a member id.
MALFORMED = [
    *("pt", "pt-", "pt-x", "pt-1x", "x-1", "PT-1", "pt_1", "pt1", "ft-1", "model"),
    *("pt-01", "pt-00", "pt-1/ft-01", "pt-1@01", "pt-1@00"),
    *("pt--1", "pt-+1", "pt-1.0", "pt-1e3", "pt- 1", " pt-1", "pt-1 ", "pt-1/ft--2", "pt-1@-1"),
    *("pt-1000000000", "pt-1/ft-1000000000", "pt-1@1000000000"),
    *("pt-1@", "pt-1@x", "pt-1@7@7", "pt-1@epoch-07", "pt-1/@7", "@7", "pt-1@7/ft-2"),
    *("pt-1/", "pt-1/ft-", "pt-1/ft-2/", "pt-1//ft-2", "pt-1/ft-2/ft-3", "pt-1/pt-2", "pt-1/model.safetensors"),
    *("pt-1/..", "pt-1/../../etc", "pt-1/../pt-2", "pt-1/./ft-2", "../pt-1", "./pt-1"),
    *("pt-1\n", "pt-1\n/ft-2", "pt-1\x00", "pt-1\u2028", "pt-1/ft-2\n", "pt-1@7\n"),
    *("pt-\u0661", "pt-\uff11", "pt-\u00b2", "pt-1/ft-\u0661", "pt-1@\u0661", "pt\u20111"),
]
NOT_OURS = [
    *("./saved-model", "../saved-model", "/data/saved-model", "saved-model", "~/zoo/pt-1"),
    *("org/one-model", "org/pt-12", "org/pt-12/ft-3", "bert-base-uncased", "google/vit-base-patch16-224"),
    *("", ".", "..", "/", "zoo", "zoos/pt-1", "my-zoo/pt-1", "/pt-1"),
    *("org/name/more/pt-1", "org//pt-1", "org/name-/pt-1", "org/na--me/pt-1", "org/na..me/pt-1", "org/name.git/pt-1"),
    *("or g/name/pt-1", "\u00e9/name/pt-1", "./zoo/pt-1/", "./zoo/pt-01", "./zoo/pt-1/ft-x", "C:\\zoo\\pt-1"),
    *(text for text in MALFORMED if not text.startswith(("./", "../"))),
]


@pytest.mark.parametrize(("text", "member"), MEMBERS)
def test_member_id_parses_and_prints(text: str, member: MemberId) -> None:
    assert MemberId.parse(text) == member
    assert str(member) == text
    assert member.is_parent == (member.child is None) == (member.parent_id is None)
    assert member.parent_id in (None, MemberId(member.parent))


@pytest.mark.parametrize(("text", "ref"), REFS)
def test_member_ref_parses_and_prints(text: str, ref: MemberRef) -> None:
    assert MemberRef.parse(text) == MemberRef.match(text) == ref
    assert str(ref) == text


def test_member_id_refuses_malformed_text() -> None:
    for text in (*MALFORMED, "", "zoo/pt-1", "org/name/pt-1", "pt-1@7"):
        with pytest.raises(MemberIdError) as raised:
            MemberId.parse(text)
        assert raised.value.text == text
        assert str(raised.value.expected).startswith("pt-<parent> or pt-<parent>/ft-<child>")


def test_member_ref_refuses_malformed_text_in_the_default_zoo() -> None:
    for text in (*MALFORMED, "", "name/pt-1", "zoo/pt-1"):
        for parse in (MemberRef.parse, MemberRef.match):
            with pytest.raises(MemberIdError) as raised:
                parse(f"zoo/{text}")
            assert raised.value.text == f"zoo/{text}"
            assert str(raised.value.expected).startswith("[<zoo>/]pt-<parent>[/ft-<child>][@<epoch>]")


def test_member_ref_leaves_other_names_to_transformers() -> None:
    for text in NOT_OURS:
        assert MemberRef.match(text) is None
        with pytest.raises(MemberIdError) as raised:
            MemberRef.parse(text)
        assert raised.value.text == text


@pytest.mark.parametrize(
    ("path", "text", "zoo"),
    [
        (Path("zoo/pt-1"), "./zoo/pt-1", "./zoo"),
        (Path("pt-1"), "./pt-1", "."),
        (Path("./pt-1/ft-2"), "./pt-1/ft-2", "."),
        (Path("org/name/pt-1"), "./org/name/pt-1", "./org/name"),
        (Path("../pt-1@3"), "../pt-1@3", ".."),
        (Path("/data/zoo/pt-1"), "/data/zoo/pt-1", "/data/zoo"),
        (PurePosixPath("zoo/pt-1"), "./zoo/pt-1", "./zoo"),
    ],
)
def test_path_object_is_always_a_folder(path: Path, text: str, zoo: str) -> None:
    assert as_text(path) == text
    ref = MemberRef.parse(path)
    assert ref.zoo == zoo
    assert is_zoo_path(zoo)
    assert str(ref) == text


@pytest.mark.parametrize("path", ["saved-model", "zoo", "zoo/pt-x", "zoo/pt-01", ".", "..", "/"])
def test_path_object_of_another_folder_may_be_a_saved_model(path: str) -> None:
    assert MemberRef.match(Path(path)) is None  # though "zoo/pt-x" as a text is an error


@pytest.mark.parametrize(
    ("path", "text"), [(".", "."), ("..", ".."), ("a", "./a"), ("./a/", "./a"), ("..a", "./..a"), (".a", "./.a")]
)
def test_path_object_becomes_text(path: str, text: str) -> None:
    assert as_text(Path(path)) == text
    assert as_text(path) == path


@pytest.mark.parametrize(
    ("text", "epoch", "variant", "expected"),
    [
        ("pt-1", None, None, "pt-1"),
        ("pt-1@7", None, None, "pt-1@7"),
        ("pt-1", 0, None, "pt-1@0"),
        ("pt-1", None, "epoch-07", "pt-1@7"),
        ("./zoo/pt-1/ft-2@7", 7, "epoch-07", "./zoo/pt-1/ft-2@7"),
        ("zoo/pt-1", None, "epoch-123", "zoo/pt-1@123"),
    ],
)
def test_epochs_that_agree_are_one(text: str, epoch: int | None, variant: str | None, expected: str) -> None:
    assert str(MemberRef.parse(text).at(epoch=epoch, variant=variant)) == expected


@pytest.mark.parametrize(
    ("text", "epoch", "variant", "named"),
    [
        ("pt-1@0", 1, None, "@0 and epoch=1"),
        ("pt-1@3", None, "epoch-04", '@3 and variant="epoch-04"'),
        ("pt-1", 3, "epoch-04", 'epoch=3 and variant="epoch-04"'),
        ("zoo/pt-1@3", 3, "epoch-04", '@3 and epoch=3 and variant="epoch-04"'),
    ],
)
def test_epochs_that_differ_are_refused(text: str, epoch: int | None, variant: str | None, named: str) -> None:
    with pytest.raises(ConflictingArgumentsError) as raised:
        MemberRef.parse(text).at(epoch=epoch, variant=variant)
    assert raised.value.problem.endswith(named)


@pytest.mark.parametrize("number", [-1, 10**9, True])
def test_numbers_out_of_range_are_refused(number: int) -> None:
    member = MemberId(0)
    for make in (
        lambda: MemberId(number),
        lambda: MemberId(0, number),
        lambda: MemberRef(member, None, number),
        lambda: MemberRef(member).at(epoch=number),
    ):
        with pytest.raises(MemberIdError) as raised:
            make()
        assert (raised.value.text, raised.value.expected) == (str(number), "a whole number from 0 to 999999999")


def test_numbers_of_other_types_are_refused_but_numpy_s_are_taken() -> None:
    """Run in a process of its own, because the tests check types themselves."""
    code = """
import numpy as np
from vitzoo import MemberId, MemberRef
from vitzoo.errors import MemberIdError

for make in (
    lambda: MemberId(1.0),
    lambda: MemberId(0, 1.5),
    lambda: MemberId("1"),
    lambda: MemberRef.parse("pt-1").at(epoch=90.0),
    lambda: MemberRef.parse("pt-1").at(epoch=float("nan")),
):
    try:
        make()
    except MemberIdError as error:
        print(error.text)
print(MemberRef(MemberId(np.int64(1), np.int32(2))).at(epoch=np.int64(7)))
print(MemberRef.parse("pt-1@7").at(epoch=np.int64(7)) == MemberRef.parse("pt-1@7"))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["1.0", "1.5", "1", "90.0", "nan", "pt-1/ft-2@7", "True"]


def test_order_is_by_parent_then_child() -> None:
    texts = ["pt-0", "pt-0/ft-0", "pt-0/ft-2", "pt-0/ft-10", "pt-1", "pt-2", "pt-2/ft-0", "pt-10", "pt-10/ft-0"]
    members = [MemberId.parse(text) for text in texts]
    shuffled = members.copy()
    random.Random(0).shuffle(shuffled)
    assert sorted(shuffled) == members
    assert MemberId(0) < MemberId(0, 0) <= MemberId(0, 0) < MemberId(1)
    assert MemberId(1) > MemberId(0, 999)
    with pytest.raises(TypeError, match="'<' not supported"):
        assert MemberId(0) < "pt-1"  # pyright: ignore[reportOperatorIssue]


def test_equal_members_are_one_key() -> None:
    assert {MemberId(1, 2): "a", MemberId.parse("pt-1/ft-2"): "b"} == {MemberId(1, 2): "b"}
    assert {MemberRef.parse("zoo/pt-1"), MemberRef.parse("pt-1"), MemberRef.parse("./zoo/pt-1")} == {
        MemberRef(MemberId(1), zoo) for zoo in ("zoo", None, "./zoo")
    }
    assert MemberId(1) not in ("pt-1", MemberId(1, 0))


NUMBERS = st.integers(0, 10**9 - 1)
MEMBER_IDS = st.builds(MemberId, NUMBERS, st.none() | NUMBERS)
HUB_NAMES = st.from_regex(re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,30}[A-Za-z0-9])?", re.ASCII), fullmatch=True)
PATHS = st.builds("{}{}".format, st.sampled_from(["./", "../", "/"]), st.text(max_size=30)) | st.sampled_from(
    [".", ".."]
)
ZOOS = st.none() | st.just("zoo") | st.builds("{}/{}".format, HUB_NAMES, HUB_NAMES).filter(is_zoo_name) | PATHS


@given(MEMBER_IDS, ZOOS, st.none() | NUMBERS)
def test_member_ids_and_refs_round_trip(member: MemberId, zoo: str | None, epoch: int | None) -> None:
    ref = MemberRef(member, zoo, epoch)
    assert MemberId.parse(str(member)) == member
    assert MemberRef.parse(str(ref)) == ref
    assert epoch is None or parse_variant(layout.variant_name(epoch)) == epoch


@given(st.text(alphabet="pft-/@.0123456789zoax\n\u0661", max_size=20))
def test_parsed_text_prints_the_same(text: str) -> None:
    try:
        ref = MemberRef.match(text)
    except MemberIdError:
        assert text.startswith("zoo/")
        return
    assert ref is None or str(ref) == text


def hub_takes(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


HUB_REPOS = ["org/name", "a/b", "0/1", "Org_1/na.me-2", "a_/_b", "org/pt-1", "x/zoo", f"{'a' * 96}/{'b' * 96}"]
NOT_HUB_REPOS = [
    *("org/", "org/na me", "org/name/x", "org/.name", "org/name.", "org/-name", f"{'a' * 97}/b", f"a/{'b' * 97}"),
    *("org/name-", "-org/name", ".org/name", "org/a--b", "o--g/a", "org/a..b", "o..g/a"),
    *("org/name.git", "org/.git", "\u00e9/name", "org/n\u0661", "org/name\n", "or\ng/name"),
]


def test_hub_names_are_those_that_the_hub_takes() -> None:
    for name in (*HUB_REPOS, *NOT_HUB_REPOS):
        expected = name in HUB_REPOS
        assert is_zoo_name(name) == hub_takes(name) == (MemberRef.match(f"{name}/pt-1") is not None) == expected, name


@given(st.text(alphabet="aZ09_.-g\u00e9\n ", max_size=12), st.text(alphabet="aZ09_.-git\n ", max_size=100))
def test_any_hub_name_is_one_that_the_hub_takes(org: str, name: str) -> None:
    assume(org not in (".", "..", "zoo"))
    assert is_zoo_name(f"{org}/{name}") == hub_takes(f"{org}/{name}") or is_zoo_path(f"{org}/{name}")


@pytest.mark.parametrize(
    "variant",
    [
        *("", "epoch", "epoch-", "epoch-7", "epoch-007", "epoch-012", "epoch-x7", "epoch-07\n", " epoch-07"),
        *("epoch--7", "fp16", "Epoch-07", "epoch_07", "epoch-07.bin", "epoch-\u0660\u0661", "epoch-1000000000"),
    ],
)
def test_variant_of_no_epoch_is_refused(variant: str) -> None:
    with pytest.raises(MemberIdError) as raised:
        parse_variant(variant)
    assert raised.value.text == variant
