"""Records: exact text, round trips, and errors that name the file and the key."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from vitzoo.architectures.config_json import load_json
from vitzoo.errors import FormatVersionError, RecordError, UnsafePathError
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
from vitzoo.records.files import file_sha256, is_partial, open_regular, partial_path
from vitzoo.records.json_files import (
    as_json,
    json_sha256,
    parse_record,
    write_atomically,
    write_json,
    write_lines,
)
from vitzoo.records.manifest import load_manifest
from vitzoo.tables.columns import EPOCHS, MEMBERS
from vitzoo.tensors.header import load_header

RECIPE = {"name": "tiny", "epochs": 2, "nested": {"b": [1, 2.5, None, True], "a": "\u00e9"}}
ZOO = ZooRecord(recipe=RECIPE, recipe_sha256=json_sha256(RECIPE))
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
EPOCH_LINE = (
    '{"epoch": 0, "step": 0, "samples_seen": 0, "learning_rate": 0.05, "train_loss_running": null, "train_loss": 1.5, '
    '"train_accuracy": 0.1, "val_loss": null, "val_accuracy": null, "val_knn_accuracy": null, "test_loss": 1.25, '
    '"test_accuracy": 1.0, "test_knn_accuracy": null, "weight_norm": 1e+30, "distance_from_start": 0.0, '
    f'"weights_id": "{"d" * 64}", "backbone_id": "{"e" * 64}", "extra": {{}}}}'
)


def load(file: Path, record: object) -> object:
    """Read a file with the loader of a record's kind."""
    if isinstance(record, ZooRecord):
        return load_zoo_record(file)
    if isinstance(record, MemberRecord):
        return load_member_record(file)
    (loaded,) = load_epoch_records(file)
    return loaded


@pytest.fixture
def member(tiny_zoo: Path) -> MemberRecord:
    return load_member_record(tiny_zoo / "pt-0/ft-3/member.json")


@pytest.fixture
def record(request: pytest.FixtureRequest, member: MemberRecord) -> ZooRecord | MemberRecord | EpochRecord:
    return {"zoo": ZOO, "member": member, "epoch": EPOCH}[request.param]


def write(file: Path, value: object) -> Path:
    """Write a file of one line of JSON."""
    file.write_text(json.dumps(value) + "\n")
    return file


class TestRoundTrips:
    @pytest.mark.parametrize("record", ["zoo", "member", "epoch"], indirect=True)
    def test_record_round_trips_through_a_file(
        self, record: ZooRecord | MemberRecord | EpochRecord, tmp_path: Path
    ) -> None:
        file = tmp_path / "record.json"
        write_json(file, record)
        if not isinstance(record, EpochRecord):
            assert load(file, record) == record
        write_lines(file, [record])
        assert load(file, record) == record
        assert parse_record(type(record), as_json(record), "here", Path("here")) == record

    def test_lines_round_trip_but_an_empty_file_is_refused(self, tmp_path: Path) -> None:
        epochs = [replace(EPOCH, epoch=epoch, weights_id=f"\u2028{epoch}\x85") for epoch in range(3)]
        write_lines(tmp_path / "metrics.jsonl", epochs)
        assert load_epoch_records(tmp_path / "metrics.jsonl") == epochs
        write_lines(tmp_path / "metrics.jsonl", [])
        with pytest.raises(RecordError) as raised:
            load_epoch_records(tmp_path / "metrics.jsonl")
        assert raised.value.path == tmp_path / "metrics.jsonl"

    def test_text_is_frozen(self, tmp_path: Path) -> None:
        write_lines(tmp_path / "metrics.jsonl", [EPOCH, EPOCH])
        assert (tmp_path / "metrics.jsonl").read_text() == f"{EPOCH_LINE}\n{EPOCH_LINE}\n"
        write_json(tmp_path / "zoo.json", ZooRecord(recipe={"name": "x"}, recipe_sha256="y"))
        assert (tmp_path / "zoo.json").read_text() == (
            '{\n "format": 1,\n "recipe": {\n  "name": "x"\n },\n "recipe_sha256": "y",\n "metadata_repo": null,\n'
            ' "license": null,\n "citation": null,\n "unit": "epoch"\n}\n'
        )


class TestMemberRecord:
    def test_fields_are_the_columns_of_the_tables(self) -> None:
        computed = {"pretraining_objective", "bytes", "sha256", "best_val_epoch", "test_accuracy_at_best_val", "gap"}
        computed |= {name for name in MEMBERS if name.startswith("final_")}
        fields = set(MemberRecord.__struct_fields__)
        assert (
            fields - {"format", "weights", "dataset_spec", "text_spec", "origin", "extra"} == MEMBERS.keys() - computed
        )
        assert set(EpochRecord.__struct_fields__) - {"extra"} == EPOCHS.keys() - {"id", "bytes", "dtype"}

    def test_weights_are_found_by_epoch(self, member: MemberRecord) -> None:
        assert member.member == MemberId(0, 3)
        assert member.saved_epochs == [0, 1, 2]
        assert member.weights_at(1) == member.weights[1]
        assert member.final_weights == WeightsRecord(
            epoch=None, size=member.weights[2].size, sha256=member.weights[2].sha256, dtype="float32"
        )
        with pytest.raises(LookupError, match="3"):
            member.weights_at(3)
        assert replace(member, weights=member.weights[::-1]).saved_epochs == [0, 1, 2]


# record, changed values (... removes the key), and the key in the error
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("zoo", {"recipes": 1}, "recipes"),
    ("zoo", {"recipe": ...}, "recipe"),
    ("zoo", {"recipe_sha256": None}, "$.recipe_sha256"),
    ("zoo", {"format": True}, "$.format"),
    ("zoo", {"format": 0}, "format is 0"),
    ("member", {"lerning_rate": 1.0}, "lerning_rate"),
    ("member", {"\x1b[31m": 1.0}, r"\x1b[31m"),
    ("member", {"weights": ...}, "weights"),
    ("member", {"id": None}, "$.id"),
    ("member", {"stage": "training"}, "$.stage"),
    ("member", {"n_train": True}, "$.n_train"),
    ("member", {"n_train": -1}, "$.n_train"),
    ("member", {"n_train": 2**63}, "$.n_train"),
    ("member", {"learning_rate": "0.1"}, "$.learning_rate"),
    ("member", {"label_smoothing": 1.5}, "$.label_smoothing"),
    ("member", {"classes": ["6", 7]}, "$.classes[1]"),
    ("member", {"versions": {"torch": 2}}, "$.versions[...]"),
    ("member", {"weights": [{"epoch": 0, "size": 1}]}, "$.weights[0]"),
    ("member", {"weights": [{"epoch": -1, "size": 1, "sha256": "x"}]}, "$.weights[0].epoch"),
    ("member", {"dataset_spec": {"name": "digits-6-9", "held_out": -1}}, "$.dataset_spec.held_out"),
    ("member", {"dataset_spec": {"name": "digits-6-9", "held_out": 5, "val_split": "\x1b[2J"}}, r"val_split \x1b[2J"),
    ("member", {"dataset_spec": {"name": "evil/animals"}}, "evil/animals"),
    ("member", {"extra": {"Name": 1}}, "$.extra"),
    ("member", {"extra": {"one": [1]}}, "$.extra"),
    ("member", {"learning_rate": float("nan")}, ""),
    ("epoch", {"accuracy": 1.0}, "accuracy"),
    ("epoch", {"weights_id": ...}, "weights_id"),
    ("epoch", {"epoch": True}, "$[0].epoch"),
    ("epoch", {"test_accuracy": 1.5}, "$[0].test_accuracy"),
    ("epoch", {"test_loss": float("inf")}, ""),
]


@pytest.mark.parametrize(("record", "change", "key"), WRONG, indirect=["record"])
def test_wrong_key_or_value_is_refused_by_file_and_key(
    record: Any, change: dict[str, Any], key: str, tmp_path: Path
) -> None:
    changed = {name: value for name, value in (as_json(record) | change).items() if value is not ...}
    file = write(tmp_path / "record.json", changed)
    with pytest.raises(RecordError) as raised:
        load(file, record)
    assert raised.value.path == file
    assert str(file) in raised.value.problem
    assert key in raised.value.problem
    assert raised.value.problem.isprintable()


@pytest.mark.parametrize("record", ["zoo", "member"], indirect=True)
def test_newer_format_is_refused(record: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "record.json", {"format": 2, "later": "an unknown field"})
    with pytest.raises(FormatVersionError) as raised:
        load(file, record)
    assert (raised.value.path, raised.value.found, raised.value.supported) == (file, 2, 1)
    assert raised.value.fix == "Upgrade vitzoo."


def test_edited_recipe_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "zoo.json", as_json(ZOO) | {"recipe": RECIPE | {"epochs": 3}})
    with pytest.raises(RecordError) as raised:
        load_zoo_record(file)
    assert raised.value.path == file
    assert ZOO.recipe_sha256[:12] in raised.value.problem
    write(file, as_json(ZOO) | {"recipe": dict(reversed(RECIPE.items()))})  # another order is the same recipe
    assert load_zoo_record(file) == ZOO


@pytest.mark.parametrize(
    "content", [b"", b"{", b"{}{}", b"\x00" * 100, b'{"a": "\xff"}', b"[1]", b"[" * 100_000, EPOCH_LINE.encode()[:100]]
)
def test_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_bytes(content)
    for loads in (load_zoo_record, load_member_record, load_epoch_records):
        with pytest.raises(RecordError) as raised:
            loads(file)
        assert raised.value.path == file


def test_oversized_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    with open(file, "wb") as handle:
        handle.truncate(4 * 2**20 + 1)  # sparse
    for loads in (load_zoo_record, load_member_record, load_epoch_records):
        with pytest.raises(RecordError) as raised:
            loads(file)
        assert (raised.value.path, raised.value.expected) == (file, "at most 4194304")


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # reading it would wait
    for name in ("absent.json", ".", "pipe"):
        for loads in (load_zoo_record, load_member_record, load_epoch_records):
            with pytest.raises(RecordError) as raised:
                loads(tmp_path / name)
            assert raised.value.path == tmp_path / name


class TestDigests:
    def test_digest_is_sha256_of_canonical_json(self) -> None:
        text = '{"a":{"y":[1,2.0,null,true],"z":"\\u00e9"},"b":{}}'
        value = {"b": {}, "a": {"z": "\u00e9", "y": [1, 2.0, None, True]}}
        assert json_sha256(value) == hashlib.sha256(text.encode()).hexdigest()

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | NUMBERS | st.text(),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
            max_leaves=12,
        )
    )
    def test_digest_ignores_the_order_of_keys(self, value: object) -> None:
        assert json_sha256(reverse_keys(value)) == json_sha256(value) == json_sha256(json.loads(json.dumps(value)))

    @pytest.mark.parametrize(
        ("left", "right"),
        [([1, 2], [2, 1]), (1, "1"), (1, 1.0), (0, False), ({"a": 1}, {"a": 2}), ({"a": 1}, {"b": 1}), ({}, [])],
    )
    def test_digest_tells_values_apart(self, left: object, right: object) -> None:
        assert json_sha256(left) != json_sha256(right)


def reverse_keys(value: object) -> object:
    """Reverse the order of the keys of every object."""
    if isinstance(value, dict):
        return {key: reverse_keys(item) for key, item in reversed(value.items())}
    return [reverse_keys(item) for item in value] if isinstance(value, list) else value


def test_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for load in (open_regular, file_sha256, load_json, load_header):
        with pytest.raises(UnsafePathError) as raised:
            load(fifo)
        assert raised.value.path == fifo
    for load in (load_epoch_records, load_member_record, load_manifest):
        with pytest.raises(RecordError):
            load(fifo)


class TestAtomicWriting:
    def test_file_is_replaced_without_leftovers(self, tmp_path: Path) -> None:
        file = tmp_path / "zoo.json"
        write_atomically(file, b"old")
        os.link(file, tmp_path / "other-name")
        write_atomically(file, b"new")
        assert file.read_bytes() == b"new"
        assert (tmp_path / "other-name").read_bytes() == b"old"  # a new file, not the old one overwritten
        assert sorted(path.name for path in tmp_path.iterdir()) == ["other-name", "zoo.json"]

    @pytest.mark.parametrize(
        ("handler", "status"),
        [("SIG_IGN", 1), ("SIG_DFL", -signal.SIGXFSZ)],
        ids=["the disk is full", "the process is killed"],
    )
    def test_interrupted_write_leaves_the_old_bytes(self, tmp_path: Path, handler: str, status: int) -> None:
        """The process may write 4 kB a file: the kernel refuses the next byte, or kills the process."""
        file = tmp_path / "zoo.json"
        file.write_bytes(b"old")
        code = (
            "import resource, signal, sys; from pathlib import Path\n"
            "from vitzoo.records.files import write_atomically\n"
            f"signal.signal(signal.SIGXFSZ, signal.{handler})\n"
            "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
            "write_atomically(Path(sys.argv[1]), b'new' * 100_000)"
        )
        run = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True)
        assert run.returncode == status
        assert file.read_bytes() == b"old"
        assert status < 0 or [path.name for path in tmp_path.iterdir()] == ["zoo.json"]
        write_atomically(file, b"new")  # the killed process's partial file does not disturb
        assert file.read_bytes() == b"new"
        assert all(is_partial(path, of="zoo.json") for path in tmp_path.iterdir() if path != file)

    def test_planted_links_are_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "other").write_bytes(b"kept")
        for name in (".zoo.json.partial", "zoo.json"):
            (tmp_path / name).symlink_to("other")
        write_atomically(tmp_path / "zoo.json", b"new")
        assert (tmp_path / "zoo.json").read_bytes() == b"new"
        assert not (tmp_path / "zoo.json").is_symlink()
        assert (tmp_path / "other").read_bytes() == b"kept"

    def test_a_file_under_the_temporary_name_is_not_overwritten(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
        partial_path(tmp_path / "zoo.json").symlink_to("other")
        (tmp_path / "other").write_bytes(b"kept")
        with pytest.raises(FileExistsError):
            write_atomically(tmp_path / "zoo.json", b"new")
        assert (tmp_path / "other").read_bytes() == b"kept"

    def test_the_mode_is_that_of_a_new_file(self, tmp_path: Path) -> None:
        (tmp_path / "plain").touch()
        write_atomically(tmp_path / "zoo.json", b"new")
        assert (tmp_path / "zoo.json").stat().st_mode == (tmp_path / "plain").stat().st_mode

    def test_folder_of_that_name_is_kept(self, tmp_path: Path) -> None:
        (tmp_path / "zoo.json").mkdir()
        with pytest.raises(IsADirectoryError):
            write_atomically(tmp_path / "zoo.json", b"new")
        assert [path.name for path in tmp_path.iterdir()] == ["zoo.json"]

    def test_record_with_nan_leaves_the_old_file(self, tmp_path: Path) -> None:
        file = tmp_path / "metrics.jsonl"
        write_lines(file, [EPOCH])
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_lines(file, [EPOCH, replace(EPOCH, test_loss=float("nan"))])
        assert file.read_text() == f"{EPOCH_LINE}\n"
