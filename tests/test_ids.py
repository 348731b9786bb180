"""The grammar of names as tables: text, value, round trip; what is malformed; and what is left to transformers."""

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
# Behind "zoo/", each is an error; without it, each is no member id.
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
def test_member_id(text: str, member: MemberId) -> None:
    assert MemberId.parse(text) == member
    assert str(member) == text
    assert member.is_parent == (member.child is None) == (member.parent_id is None)
    assert member.parent_id in (None, MemberId(member.parent))


@pytest.mark.parametrize(("text", "ref"), REFS)
def test_member_ref(text: str, ref: MemberRef) -> None:
    assert MemberRef.parse(text) == MemberRef.match(text) == ref
    assert str(ref) == text


@pytest.mark.parametrize("text", [*MALFORMED, "", "zoo/pt-1", "org/name/pt-1", "pt-1@7"])
def test_what_is_no_member_id(text: str) -> None:
    with pytest.raises(MemberIdError) as raised:
        MemberId.parse(text)
    assert str(raised.value) == (
        f'"{text}" is no member of a zoo: expected pt-<parent> or pt-<parent>/ft-<child>, with numbers from 0 and no '
        'leading zeros, such as "pt-12/ft-3".'
    )
    assert vars(raised.value)["text"] == text


@pytest.mark.parametrize("text", [*MALFORMED, "", "name/pt-1", "zoo/pt-1"])
def test_what_starts_with_zoo_is_ours_and_malformed(text: str) -> None:
    for read in (MemberRef.parse, MemberRef.match):
        with pytest.raises(MemberIdError) as raised:
            read(f"zoo/{text}")
        assert str(raised.value) == (
            f'"zoo/{text}" is no member id: expected [<zoo>/]pt-<parent>[/ft-<child>][@<epoch>] with numbers from 0 '
            'and no leading zeros, such as "zoo/pt-12/ft-3" or "pt-0@7".'
        )
        assert vars(raised.value)["text"] == f"zoo/{text}"


@pytest.mark.parametrize("text", NOT_OURS)
def test_what_is_left_to_transformers(text: str) -> None:
    assert MemberRef.match(text) is None
    with pytest.raises(MemberIdError, match="is no member id: expected"):
        MemberRef.parse(text)


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
def test_a_path_object_is_always_a_folder(path: Path, text: str, zoo: str) -> None:
    assert as_text(path) == text
    ref = MemberRef.parse(path)
    assert ref.zoo == zoo
    assert is_zoo_path(zoo)
    assert str(ref) == text


@pytest.mark.parametrize("path", ["saved-model", "zoo", "zoo/pt-x", "zoo/pt-01", ".", "..", "/"])
def test_a_path_object_that_is_no_member_may_be_a_saved_model(path: str) -> None:
    assert MemberRef.match(Path(path)) is None  # though "zoo/pt-x" as a text is an error


@pytest.mark.parametrize(
    ("path", "text"), [(".", "."), ("..", ".."), ("a", "./a"), ("./a/", "./a"), ("..a", "./..a"), (".a", "./.a")]
)
def test_paths_as_text(path: str, text: str) -> None:
    assert as_text(Path(path)) == text
    assert as_text(path) == path


@pytest.mark.parametrize(
    ("text", "epoch", "variant", "expected"),
    [
        ("pt-1", None, None, "pt-1"),
        ("pt-1@7", None, None, "pt-1@7"),
        ("pt-1", 7, None, "pt-1@7"),
        ("pt-1", 0, None, "pt-1@0"),
        ("pt-1", None, "epoch-07", "pt-1@7"),
        ("./zoo/pt-1/ft-2@7", 7, "epoch-07", "./zoo/pt-1/ft-2@7"),
        ("zoo/pt-1@0", 0, "epoch-00", "zoo/pt-1@0"),
        ("zoo/pt-1", None, "epoch-123", "zoo/pt-1@123"),
    ],
)
def test_epochs_that_agree(text: str, epoch: int | None, variant: str | None, expected: str) -> None:
    assert str(MemberRef.parse(text).at(epoch=epoch, variant=variant)) == expected


@pytest.mark.parametrize(
    ("text", "epoch", "variant", "said"),
    [
        ("pt-1@3", 4, None, "@3 and epoch=4"),
        ("pt-1@0", 1, None, "@0 and epoch=1"),
        ("pt-1@3", None, "epoch-04", '@3 and variant="epoch-04"'),
        ("pt-1", 3, "epoch-04", 'epoch=3 and variant="epoch-04"'),
        ("zoo/pt-1@2", 3, "epoch-04", '@2 and epoch=3 and variant="epoch-04"'),
        ("zoo/pt-1@3", 3, "epoch-04", '@3 and epoch=3 and variant="epoch-04"'),
    ],
)
def test_epochs_that_differ(text: str, epoch: int | None, variant: str | None, said: str) -> None:
    with pytest.raises(ConflictingArgumentsError) as raised:
        MemberRef.parse(text).at(epoch=epoch, variant=variant)
    assert str(raised.value) == f'"{text}" was asked for at different epochs: {said}. Say one of them.'


@pytest.mark.parametrize("number", [-1, 10**9, True])
def test_numbers_that_no_text_could_give(number: int) -> None:
    for make in (lambda: MemberId(number), lambda: MemberId(0, number)):
        with pytest.raises(MemberIdError, match=rf"A member's number is {number}; expected a whole one from 0"):
            make()
    for make in (lambda: MemberRef(MemberId(0), None, number), lambda: MemberRef(MemberId(0)).at(epoch=number)):
        with pytest.raises(MemberIdError, match=rf"An epoch is {number}; expected a whole number"):
            make()


@pytest.mark.parametrize(
    ("expression", "printed"),
    [
        ("MemberId(1.0)", "A member's number is 1.0; expected a whole one from 0 to 999999999."),
        ("MemberId(0, 1.5)", "A member's number is 1.5; expected a whole one from 0 to 999999999."),
        ("MemberId('1')", "A member's number is 1; expected a whole one from 0 to 999999999."),
        ("MemberRef.parse('pt-1').at(epoch=90.0)", "An epoch is 90.0; expected a whole number of finished epochs"),
        ("MemberRef.parse('pt-1').at(epoch=float('nan'))", "An epoch is nan; expected a whole number"),
        ("MemberRef(MemberId(np.int64(1), np.int32(2))).at(epoch=np.int64(7))", "pt-1/ft-2@7"),
        ("MemberRef.parse('pt-1@7').at(epoch=np.int64(7)) == MemberRef.parse('pt-1@7')", "True"),
    ],
)
def test_numbers_of_other_types(expression: str, printed: str) -> None:
    """As a table's columns give them. In a process of its own, for here the tests check types themselves."""
    code = (
        "import numpy as np; from vitzoo import MemberId, MemberRef; from vitzoo.errors import MemberIdError\n"
        f"try: print({expression})\nexcept MemberIdError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith(printed)


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


@given(MEMBER_IDS)
def test_every_member_id_round_trips(member: MemberId) -> None:
    assert MemberId.parse(str(member)) == member
    assert MemberRef.parse(str(member)) == MemberRef(member)


@given(st.builds(MemberRef, MEMBER_IDS, ZOOS, st.none() | NUMBERS))
def test_every_member_ref_round_trips(ref: MemberRef) -> None:
    assert MemberRef.parse(str(ref)) == ref


@given(st.text(alphabet="pft-/@.0123456789zoax\n\u0661", max_size=20))
def test_whatever_parses_is_written_the_same(text: str) -> None:
    try:
        ref = MemberRef.match(text)
    except MemberIdError:
        assert text.startswith("zoo/")
        return
    if ref is not None:
        assert str(ref) == text


def hub_takes(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, True) for name in ("org/name", "a/b", "0/1", "Org_1/na.me-2", "a_/_b", "org/pt-1", "x/zoo")),
        *((f"{'a' * 96}/{'b' * 96}", True), (f"{'a' * 97}/b", False), (f"a/{'b' * 97}", False)),
        *((name, False) for name in ("org/", "org/na me", "org/name/x", "org/.name", "org/name.", "org/-name")),
        *(
            (name, False)
            for name in ("org/name-", "-org/name", ".org/name", "org/a--b", "o--g/a", "org/a..b", "o..g/a")
        ),
        *(
            (name, False)
            for name in ("org/name.git", "org/.git", "\u00e9/name", "org/n\u0661", "org/name\n", "or\ng/name")
        ),
    ],
)
def test_hub_names(name: str, expected: bool) -> None:
    assert is_zoo_name(name) == expected
    assert hub_takes(name) == expected
    assert (MemberRef.match(f"{name}/pt-1") is not None) == expected


@given(st.text(alphabet="aZ09_.-g\u00e9\n ", max_size=12), st.text(alphabet="aZ09_.-git\n ", max_size=100))
def test_a_hub_name_is_what_huggingface_hub_takes(org: str, name: str) -> None:
    assume(org not in (".", "..", "zoo"))
    assert is_zoo_name(f"{org}/{name}") == hub_takes(f"{org}/{name}") or is_zoo_path(f"{org}/{name}")


@given(NUMBERS)
def test_every_epoch_round_trips_through_its_variant(epoch: int) -> None:
    assert parse_variant(layout.variant_name(epoch)) == epoch


@pytest.mark.parametrize(
    "variant",
    [
        *(
            "",
            "epoch",
            "epoch-",
            "epoch-7",
            "epoch-007",
            "epoch-012",
            "epoch-x7",
            "epoch-07\n",
            " epoch-07",
            "epoch--7",
        ),
        *("fp16", "Epoch-07", "epoch_07", "epoch-07.bin", "epoch-\u0660\u0661", "epoch-1000000000"),
    ],
)
def test_what_is_no_variant(variant: str) -> None:
    with pytest.raises(MemberIdError) as raised:
        parse_variant(variant)
    assert str(raised.value) == (
        f'variant="{variant}" is no epoch of a zoo member: expected "epoch-" and at least two digits, such as '
        '"epoch-07"; leave it out for the final weights.'
    )
