"""Records: their exact text, that they come back equal, and that anything else in a file is an error that says what."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from vitzoo.errors import FormatVersionError, RecordError
from vitzoo.ids import MemberId
from vitzoo.records import (
    EpochRecord,
    MemberRecord,
    WeightsRecord,
    ZooRecord,
    load_epoch_records,
    load_member_record,
    load_zoo_record,
)
from vitzoo.records.dataset_spec import DatasetSpec
from vitzoo.records.json_files import (
    as_json,
    json_line,
    json_sha256,
    parse_record,
    write_atomically,
    write_json,
    write_lines,
)
from vitzoo.tables.columns import EPOCHS, MEMBERS

RECIPE = {"name": "tiny", "epochs": 2, "nested": {"b": [1, 2.5, None, True], "a": "\u00e9"}}
ZOO = ZooRecord(recipe=RECIPE, recipe_sha256=json_sha256(RECIPE))
MEMBER = MemberRecord(
    id="pt-12/ft-3",
    parent="pt-12",
    parent_epoch=30,
    parent_sha256="b" * 64,
    init_group="init-2",
    stage="finetuning",
    status="completed",
    diverged_step=None,
    last_good_epoch=None,
    objective="supervised",
    dataset="digits-6-9",
    dataset_spec=DatasetSpec(name="digits-6-9"),
    dataset_revision="scikit-learn 1.9.1",
    dataset_fingerprint="c" * 64,
    classes=("6", "7", "8", "9"),
    n_train=429,
    n_train_evaluated=128,
    n_val=142,
    n_test=143,
    head_type="mlp",
    head_width=8,
    head_role="classifier",
    optimizer="sgd",
    learning_rate=0.05,
    weight_decay=0.0,
    momentum=0.9,
    schedule="constant",
    batch_size=16,
    epochs=8,
    steps=216,
    mixup=0.8,
    cutmix=1.0,
    label_smoothing=0.1,
    random_erasing=0.25,
    init_seed=2,
    head_seed=4_294_967_295,
    order_seed=0,
    augmentation_seed=1,
    replicate=1,
    precision="fp32",
    compile="none",
    ranks=1,
    versions={"torch": "2.13.0", "transformers": "5.23.0"},
    commit=None,
    deviations=("one", 'two "quoted"'),
    num_parameters=3000,
    weights=(
        WeightsRecord(epoch=0, size=100, sha256="0" * 64),
        WeightsRecord(epoch=8, size=101, sha256="8" * 64),
        WeightsRecord(epoch=None, size=101, sha256="8" * 64),
    ),
)
EPOCH = EpochRecord(
    epoch=0,
    step=0,
    samples_seen=0,
    learning_rate=0.05,
    train_loss_running=None,
    train_loss=1.5,
    train_accuracy=0.1,
    val_loss=None,
    val_accuracy=None,
    val_knn_accuracy=None,
    test_loss=1.25,
    test_accuracy=1.0,
    test_knn_accuracy=None,
    weight_norm=1e30,
    distance_from_start=0.0,
    weights_id="d" * 64,
    backbone_id="e" * 64,
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
OF_TYPE = {
    int: st.integers(-(2**63), 2**63 - 1),
    float: NUMBERS,
    float | None: st.none() | NUMBERS,
    str | None: st.none() | st.text(),
}
EPOCH_LINE = (
    '{"epoch": 0, "step": 0, "samples_seen": 0, "learning_rate": 0.05, "train_loss_running": null, "train_loss": 1.5, '
    '"train_accuracy": 0.1, "val_loss": null, "val_accuracy": null, "val_knn_accuracy": null, "test_loss": 1.25, '
    '"test_accuracy": 1.0, "test_knn_accuracy": null, "weight_norm": 1e+30, "distance_from_start": 0.0, '
    f'"weights_id": "{"d" * 64}", "backbone_id": "{"e" * 64}"}}'
)


def load(file: Path, record: object) -> object:
    """What the loader of a record's kind makes of a file."""
    if isinstance(record, ZooRecord):
        return load_zoo_record(file)
    if isinstance(record, MemberRecord):
        return load_member_record(file)
    (found,) = load_epoch_records(file)
    return found


def write(file: Path, value: object) -> Path:
    """A file of one line, whatever stands in it."""
    file.write_text(json.dumps(value) + "\n")
    return file


class TestRoundTrips:
    @pytest.mark.parametrize(
        "record",
        [
            ZOO,
            replace(ZOO, metadata_repo="org/zoo-metadata"),
            MEMBER,
            replace(MEMBER, parent=None, parent_epoch=None, stage="pretraining", classes=(), versions={}, weights=()),
            EPOCH,
        ],
    )
    def test_through_a_file(self, record: ZooRecord | MemberRecord | EpochRecord, tmp_path: Path) -> None:
        file = tmp_path / "record.json"
        write_json(file, record)
        if not isinstance(record, EpochRecord):
            assert load(file, record) == record
        write_lines(file, [record])
        assert load(file, record) == record
        assert parse_record(type(record), as_json(record), "here", Path("here")) == record

    def test_lines(self, tmp_path: Path) -> None:
        epochs = [replace(EPOCH, epoch=epoch, weights_id=f"\u2028{epoch}\x85") for epoch in range(3)]
        write_lines(tmp_path / "metrics.jsonl", epochs)
        assert load_epoch_records(tmp_path / "metrics.jsonl") == epochs
        write_lines(tmp_path / "metrics.jsonl", [])
        with pytest.raises(RecordError, match="is empty; a member has figures of epoch 0 at least"):
            load_epoch_records(tmp_path / "metrics.jsonl")

    def test_the_exact_text(self, tmp_path: Path) -> None:
        write_lines(tmp_path / "metrics.jsonl", [EPOCH, EPOCH])
        assert (tmp_path / "metrics.jsonl").read_text() == f"{EPOCH_LINE}\n{EPOCH_LINE}\n"
        write_json(tmp_path / "zoo.json", ZooRecord(recipe={"name": "x"}, recipe_sha256="y"))
        assert (tmp_path / "zoo.json").read_text() == (
            '{\n "format": 1,\n "recipe": {\n  "name": "x"\n },\n "recipe_sha256": "y",\n "metadata_repo": null\n}\n'
        )

    def test_what_json_does_not_tell_apart_is_typed_again(self) -> None:
        found = parse_record(EpochRecord, as_json(EPOCH) | {"test_loss": 1, "test_accuracy": 0}, "here", Path("here"))
        assert (found.test_loss, found.test_accuracy) == (1.0, 0.0)
        assert type(found.test_loss) is type(found.test_accuracy) is float
        assert type(parse_record(MemberRecord, as_json(MEMBER), "here", Path("here")).classes) is tuple

    @given(st.builds(EpochRecord, **{name: OF_TYPE[hint] for name, hint in typing.get_type_hints(EpochRecord).items()}))
    def test_every_epoch_record(self, record: EpochRecord) -> None:
        assert parse_record(EpochRecord, json.loads(json_line(record)), "here", Path("here")) == record
        assert "\n" not in json_line(record)


class TestMemberRecord:
    def test_its_fields_are_the_columns_of_the_tables(self) -> None:
        computed = {"pretraining_objective", "bytes", "sha256", "best_val_epoch", "test_accuracy_at_best_val", "gap"}
        computed |= {name for name in MEMBERS if name.startswith("final_")}
        fields = {field.name for field in dataclasses.fields(MemberRecord)}
        assert fields - {"format", "weights", "dataset_spec", "origin"} == MEMBERS.keys() - computed
        assert {field.name for field in dataclasses.fields(EpochRecord)} == EPOCHS.keys() - {"id", "bytes"}

    def test_weights(self) -> None:
        assert MEMBER.member == MemberId(12, 3)
        assert MEMBER.saved_epochs == [0, 8]
        assert MEMBER.weights_at(8).size == 101
        assert MEMBER.weights_at(0).sha256 == "0" * 64
        assert MEMBER.final_weights == WeightsRecord(epoch=None, size=101, sha256="8" * 64)
        with pytest.raises(LookupError, match="3"):
            MEMBER.weights_at(3)
        assert replace(MEMBER, weights=MEMBER.weights[::-1]).saved_epochs == [0, 8]


LONG = "x" * 100
# record, what is changed (... takes the key out), what the error says behind the file's path
WRONG: list[tuple[ZooRecord | MemberRecord | EpochRecord, dict[str, Any], str]] = [
    (ZOO, {"recipes": 1}, ': unknown key "recipes". Nearest: recipe, recipe_sha256.'),
    (ZOO, {"\x1b[31m": 1}, r': unknown key "\u001b[31m". There are: format'),
    (ZOO, {"recipe": ...}, ': "recipe" is missing.'),
    (ZOO, {"recipe": []}, ": recipe is a list; expected"),
    (ZOO, {"recipe_sha256": None}, ": recipe_sha256 is null; expected str."),
    (ZOO, {"metadata_repo": 1}, ": metadata_repo is 1; expected str."),
    (ZOO, {"format": ...}, ": format is null; expected 1."),
    (ZOO, {"format": "1"}, ': format is "1"; expected 1.'),
    (ZOO, {"format": True}, ": format is true; expected 1."),
    (ZOO, {"format": 1.0}, ": format is 1.0; expected 1."),
    (ZOO, {"format": 0}, ": format is 0; expected 1."),
    (MEMBER, {"lerning_rate": 1.0}, ': unknown key "lerning_rate". Nearest: learning_rate'),
    (MEMBER, {LONG: 1.0}, f': unknown key "{"x" * 56}.... There are: '),
    (MEMBER, {"weights": ...}, ': "weights" is missing.'),
    (MEMBER, {"commit": ...}, ': "commit" is missing.'),
    (MEMBER, {"id": 3}, ": id is 3; expected str."),
    (MEMBER, {"id": None}, ": id is null; expected str."),
    (MEMBER, {"parent": 12}, ": parent is 12; expected str."),
    (MEMBER, {"stage": "training"}, ": stage is \"training\"; expected 'pretraining' or 'finetuning'."),
    (MEMBER, {"status": None}, ": status is null; expected 'completed' or 'diverged' or 'failed' or 'skipped'."),
    (MEMBER, {"status": ["completed"]}, ": status is a list; expected 'completed'"),
    (MEMBER, {"n_train": True}, ": n_train is true; expected int."),
    (MEMBER, {"n_train": 1.0}, ": n_train is 1.0; expected int."),
    (MEMBER, {"n_train": "1"}, ': n_train is "1"; expected int.'),
    (MEMBER, {"n_train": 2**63}, ": n_train is 9223372036854775808; expected int."),
    (MEMBER, {"n_train": -(2**63) - 1}, ": n_train is -9223372036854775809; expected int."),
    (MEMBER, {"n_train": 10**400}, f": n_train is 1{'0' * 56}...; expected int."),
    (MEMBER, {"head_width": False}, ": head_width is false; expected int."),
    (MEMBER, {"learning_rate": "0.1"}, ': learning_rate is "0.1"; expected float.'),
    (MEMBER, {"learning_rate": True}, ": learning_rate is true; expected float."),
    (MEMBER, {"learning_rate": None}, ": learning_rate is null; expected float."),
    (MEMBER, {"learning_rate": 10**400}, f": learning_rate is 1{'0' * 56}...; expected float."),
    (MEMBER, {"momentum": []}, ": momentum is a list; expected float."),
    (MEMBER, {"classes": "6789"}, ': classes is "6789"; expected'),
    (MEMBER, {"classes": ["6", 7]}, ": classes[1] is 7; expected str."),
    (MEMBER, {"deviations": {"0": "x"}}, ": deviations is an object; expected"),
    (MEMBER, {"versions": []}, ": versions is a list; expected"),
    (MEMBER, {"versions": {"torch": 2}}, ': versions."torch" is 2; expected str.'),
    (MEMBER, {"weights": [{"epoch": 0, "size": 1}]}, ': weights[0]: "sha256" is missing.'),
    (MEMBER, {"weights": [{"epoch": "0", "size": 1, "sha256": "x"}]}, ': weights[0]: epoch is "0"; expected int.'),
    (MEMBER, {"weights": [{"epoch": 0, "size": 1.5, "sha256": "x"}]}, ": weights[0]: size is 1.5; expected int."),
    (MEMBER, {"weights": [None]}, ": weights[0]: expected an object, found NoneType."),
    (MEMBER, {"weights": None}, ": weights is null; expected"),
    (
        MEMBER,
        {"dataset_spec": {"name": "digits-6-9", "held_out": -1}},
        ": dataset_spec: held_out is -1; expected a whole number from 0 on. Get the file again.",
    ),
    (
        MEMBER,
        {"dataset_spec": {"name": "digits-6-9", "held_out": 5, "val_split": "\x1b[2J"}},
        ": dataset_spec: held_out is 5; expected 0 with val_split \\x1b[2J: give one of the two. Get the file again.",
    ),
    (
        MEMBER,
        {"dataset_spec": {"name": "evil/animals"}},
        ': dataset is "digits-6-9", but dataset_spec: name is "evil/animals"; expected one data set.',
    ),
    (MEMBER, {"learning_rate": float("nan")}, ": NaN is no JSON number; null stands for a value that is not there."),
    (MEMBER, {"mixup": float("-inf")}, ": -Infinity is no JSON number; null stands for"),
    (MEMBER, {"id": "\ud800"}, " is no JSON: 'utf-8' codec can't encode character"),
    (EPOCH, {"accuracy": 1.0}, ', line 1: unknown key "accuracy". Nearest: '),
    (EPOCH, {"weights_id": ...}, ', line 1: "weights_id" is missing.'),
    (EPOCH, {"epoch": True}, ", line 1: epoch is true; expected int."),
    (EPOCH, {"learning_rate": None}, ", line 1: learning_rate is null; expected float."),
    (EPOCH, {"test_loss": float("inf")}, ", line 1: Infinity is no JSON number"),
    (EPOCH, {"weights_id": 1}, ", line 1: weights_id is 1; expected str."),
]


@pytest.mark.parametrize(("record", "change", "says"), WRONG)
def test_wrong_keys_and_values(record: Any, change: dict[str, Any], says: str, tmp_path: Path) -> None:
    changed = {key: value for key, value in (as_json(record) | change).items() if value is not ...}
    file = write(tmp_path / "record.json", changed)
    with pytest.raises(RecordError) as raised:
        load(file, record)
    assert str(raised.value).startswith(f"{file}{says}")
    assert vars(raised.value)["path"] == file


@pytest.mark.parametrize("record", [ZOO, MEMBER, EPOCH])
def test_every_key_must_be_there_and_be_of_its_type(record: Any, tmp_path: Path) -> None:
    hints = typing.get_type_hints(type(record))
    for field in dataclasses.fields(record):
        if field.name in ("metadata_repo", "origin"):
            continue  # have a default: a zoo that nobody published, or that was trained, says nothing of it
        plain = as_json(record)
        del plain[field.name]
        with pytest.raises(RecordError, match=field.name):
            load(write(tmp_path / "record.json", plain), record)
        if hints[field.name] != dict[str, Any]:
            with pytest.raises(RecordError, match=field.name):
                load(write(tmp_path / "record.json", plain | {field.name: {"no": ["such", "value"]}}), record)


@pytest.mark.parametrize("record", [ZOO, MEMBER])
def test_a_newer_format(record: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "record.json", {"format": 2, "what it says": "nobody knows yet"})
    with pytest.raises(FormatVersionError) as raised:
        load(file, record)
    assert str(raised.value) == f"{file} has format 2; this vitzoo reads formats up to 1. Upgrade vitzoo."
    assert {key: vars(raised.value)[key] for key in ("path", "found", "supported")} == {
        "path": file,
        "found": 2,
        "supported": 1,
    }


def test_an_edited_recipe(tmp_path: Path) -> None:
    file = write(tmp_path / "zoo.json", as_json(ZOO) | {"recipe": RECIPE | {"epochs": 3}})
    with pytest.raises(
        RecordError, match=rf"recipe_sha256 is {ZOO.recipe_sha256[:12]}\.\.\., but the recipe .* edited"
    ):
        load_zoo_record(file)
    write(file, as_json(ZOO) | {"recipe": dict(reversed(RECIPE.items()))})  # another order is the same recipe
    assert load_zoo_record(file) == ZOO


DAMAGED = [
    (b"", "is no JSON"),
    (b"{", "is no JSON"),
    (b"{}{}", "is no JSON: Extra data"),
    (b"\x00" * 100, "is no JSON"),
    (b"\xef\xbb\xbf{}", "is no JSON: Unexpected UTF-8 BOM"),
    (b'{"a": "\xff"}', "is no UTF-8 text"),
    ('{"a": 1}'.encode("utf-16"), "is no UTF-8 text"),
    (b'"text"', "expected an object, found str"),
    (b"[1]", "expected an object, found list"),
    (b"null", "expected an object, found NoneType"),
    (b"[" * 100_000, "is no JSON"),
    (b'{"format": 1, "recipe": {"a": 1e999}, "recipe_sha256": ""}', "is no JSON: Out of range float values"),
    (b'{"format": 1, "recipe": {"a": NaN}, "recipe_sha256": ""}', "NaN is no JSON number"),
    (b'{"format": ' + b"1" * 5000 + b"}", "is no JSON: Exceeds the limit"),
]


@pytest.mark.parametrize(("content", "says"), DAMAGED)
def test_damaged_files(content: bytes, says: str, tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_bytes(content)
    for loads in (load_zoo_record, load_member_record, load_epoch_records):
        if content == b"" and loads is load_epoch_records:
            continue  # no line, no record
        with pytest.raises(RecordError, match=f"{re.escape(str(file))}.*({says}|unknown key)"):
            loads(file)


def test_every_depth_of_nesting_is_read_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "zoo.json"
    read = set()
    for depth in (10, 100, *range(850, 1000, 3), 100_000):  # Python 3.11 can follow about 900, newer ones more
        text = "[" * depth + "1" + "]" * depth
        file.write_text(f'{{"format": 1, "recipe": {{"a": {text}}}, "recipe_sha256": "", "metadata_repo": {text}}}')
        with pytest.raises(RecordError) as raised:
            load_zoo_record(file)
        read.add("metadata_repo is a list" in str(raised.value))
    assert read == {True, False}


def test_a_cut_line_is_damage(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(f"{EPOCH_LINE}\n{EPOCH_LINE[:100]}")
    with pytest.raises(RecordError, match=r"metrics\.jsonl, line 2 is no JSON"):
        load_epoch_records(file)
    file.write_text(f"{EPOCH_LINE}\n\n{EPOCH_LINE}\n")
    with pytest.raises(RecordError, match=r"metrics\.jsonl, line 2 is no JSON"):
        load_epoch_records(file)


def test_an_oversized_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    with open(file, "wb") as handle:
        handle.truncate(64 * 2**20 + 1)  # sparse
    for loads in (load_zoo_record, load_member_record, load_epoch_records):
        with pytest.raises(RecordError, match="has 67108865 bytes; a record has at most 67108864"):
            loads(file)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # would be waited for
    for name in ("absent.json", ".", "pipe"):
        for loads in (load_zoo_record, load_member_record, load_epoch_records):
            with pytest.raises(RecordError, match="is missing, or no file"):
                loads(tmp_path / name)


@dataclass(frozen=True, kw_only=True)
class Inner:
    kind: Literal["a", "b"]


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner
    many: tuple[Inner, ...] = ()
    maybe: Inner | None = None
    by_name: dict[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)


def test_parse_record_goes_into_dataclasses() -> None:
    plain = {"inner": {"kind": "a"}, "many": [{"kind": "b"}], "maybe": {"kind": "a"}, "by_name": {"x": [1, 2.5]}}
    record = Outer(inner=Inner(kind="a"), many=(Inner(kind="b"),), maybe=Inner(kind="a"), by_name={"x": (1.0, 2.5)})
    assert parse_record(Outer, plain, "here", Path("here")) == record
    assert as_json(record) == plain
    assert parse_record(Outer, {"inner": {"kind": "b"}}, "here", Path("here")) == Outer(inner=Inner(kind="b"))
    with pytest.raises(RecordError, match=re.escape("here: many[1]: kind is \"c\"; expected 'a' or 'b'.")):
        parse_record(Outer, plain | {"many": [{"kind": "a"}, {"kind": "c"}]}, "here", Path("here"))
    with pytest.raises(RecordError, match=re.escape('here: by_name."x"[0] is "1"; expected float.')):
        parse_record(Outer, plain | {"by_name": {"x": ["1"]}}, "here", Path("here"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["epoch", "size", "x"]), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(as_json(MEMBER))), JSON, max_size=4))
def test_whatever_is_said_is_read_or_refused_by_us(change: dict[str, Any]) -> None:
    plain = as_json(MEMBER) | change
    try:
        found = parse_record(MemberRecord, plain, "here", Path("here"))
    except RecordError:
        return
    assert as_json(found) == plain


class TestDigests:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ({"b": 1, "a": [1, 2.0, None, True]}, '{"a":[1,2.0,null,true],"b":1}'),
            ({"a": {"z": "\u00e9", "y": {}}}, '{"a":{"y":{},"z":"\\u00e9"}}'),
            ([], "[]"),
        ],
    )
    def test_is_sha256_of_canonical_json(self, value: object, text: str) -> None:
        command = [
            sys.executable,
            "-c",
            "import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())",
        ]
        run = subprocess.run(command, input=text.encode(), capture_output=True, check=True)
        assert json_sha256(value) == run.stdout.decode().strip()

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | NUMBERS | st.text(),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
            max_leaves=12,
        )
    )
    def test_ignores_the_order_of_keys_and_a_trip_through_a_file(self, value: object) -> None:
        assert json_sha256(turned(value)) == json_sha256(value) == json_sha256(json.loads(json.dumps(value)))

    @pytest.mark.parametrize(
        ("one", "other"),
        [([1, 2], [2, 1]), (1, "1"), (1, 1.0), (0, False), ({"a": 1}, {"a": 2}), ({"a": 1}, {"b": 1}), ({}, [])],
    )
    def test_tells_values_apart(self, one: object, other: object) -> None:
        assert json_sha256(one) != json_sha256(other)

    def test_nan_has_none(self) -> None:
        with pytest.raises(ValueError, match="not JSON compliant"):
            json_sha256(float("nan"))


def turned(value: object) -> object:
    """The same JSON value with the keys of every object in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(item) for key, item in reversed(value.items())}
    return [turned(item) for item in value] if isinstance(value, list) else value


class TestAtomicWriting:
    def test_a_file_is_replaced_and_nothing_else_is_left(self, tmp_path: Path) -> None:
        file = tmp_path / "zoo.json"
        write_atomically(file, b"old")
        os.link(file, tmp_path / "other-name")
        write_atomically(file, b"new")
        assert file.read_bytes() == b"new"
        assert (tmp_path / "other-name").read_bytes() == b"old"  # a new file, not the old one overwritten
        assert sorted(path.name for path in tmp_path.iterdir()) == ["other-name", "zoo.json"]

    def test_a_disk_that_is_full_leaves_the_old_bytes(self, tmp_path: Path) -> None:
        """A real failure in the middle of a write: the process may write 4 kB a file and no more."""
        file = tmp_path / "zoo.json"
        old = b"old" * 1000
        file.write_bytes(old)
        code = (
            "import resource, signal, sys; from pathlib import Path\n"
            "from vitzoo.records.files import write_atomically\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
            "write_atomically(Path(sys.argv[1]), b'new' * 100_000)"
        )
        run = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True)
        assert run.returncode == 1
        assert "OSError: [Errno 27] File too large" in run.stderr
        assert file.read_bytes() == old
        assert [path.name for path in tmp_path.iterdir()] == ["zoo.json"]

    def test_a_kill_in_the_middle_leaves_the_old_bytes(self, tmp_path: Path) -> None:
        """The same limit without the handler: the kernel kills the process at the 4,097th byte."""
        file = tmp_path / "zoo.json"
        file.write_bytes(b"old")
        code = (
            "import resource, signal, sys; from pathlib import Path\n"
            "from vitzoo.records.files import write_atomically\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"
            "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
            "write_atomically(Path(sys.argv[1]), b'new' * 100_000)"
        )
        run = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True)
        assert run.returncode == -signal.SIGXFSZ
        assert file.read_bytes() == b"old"
        write_atomically(file, b"new")  # what the dead one left is in nobody's way
        assert file.read_bytes() == b"new"
        assert [path.name for path in tmp_path.iterdir()] == ["zoo.json"]

    def test_a_folder_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "zoo.json").mkdir()
        with pytest.raises(IsADirectoryError):
            write_atomically(tmp_path / "zoo.json", b"new")
        assert [path.name for path in tmp_path.iterdir()] == ["zoo.json"]

    def test_a_record_that_is_no_json_leaves_the_old_one(self, tmp_path: Path) -> None:
        file = tmp_path / "metrics.jsonl"
        write_lines(file, [EPOCH])
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_lines(file, [EPOCH, replace(EPOCH, test_loss=float("nan"))])
        assert file.read_text() == f"{EPOCH_LINE}\n"
