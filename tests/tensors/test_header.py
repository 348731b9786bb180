"""A safetensors header compared with safetensors' reading of the same file, and damaged headers."""

import hashlib
import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import deserialize
from safetensors.torch import save, save_file
from torch import Tensor

from vitzoo.architectures import is_head
from vitzoo.errors import WeightsError
from vitzoo.records.files import file_sha256
from vitzoo.tensors.header import TensorEntry, content_ids, load_header, parse_header

TENSORS = {
    "b.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a.bias": torch.tensor([1.5, -2.0], dtype=torch.float64),
    "scalar": torch.tensor(3.0),
    "half": torch.tensor([[1.0], [2.0]], dtype=torch.float16),
    "brain": torch.tensor([1.0, 2.0, 4.0], dtype=torch.bfloat16),
}
ENTRY = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def as_bytes(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def build(header: object, *, data: int = 24) -> bytes:
    """Build a file of a header and zero bytes of data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\x00" * data


def read_by_safetensors(content: bytes) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in deserialize(content)}


def test_a_file_is_read_as_by_safetensors(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file(TENSORS, file, metadata={"format": "pt"})
    content = file.read_bytes()
    entries = load_header(file)
    assert {name: (entry.dtype, entry.shape) for name, entry in entries.items()} == {
        "b.weight": ("F32", (2, 3)),
        "a.bias": ("F64", (2,)),
        "scalar": ("F32", ()),
        "half": ("F16", (2, 1)),
        "brain": ("BF16", (3,)),
    }
    assert {name: (entry.dtype, entry.shape) for name, entry in entries.items()} == read_by_safetensors(content)
    for name, entry in entries.items():
        assert content[entry.start : entry.end] == as_bytes(TENSORS[name]), name
    places = [(entry.start, entry.end) for entry in entries.values()]
    assert places == sorted(places)
    assert places[-1][1] == len(content)
    assert file_sha256(file) == hashlib.sha256(content).hexdigest()


WHOLE = [
    ({"a": ENTRY}, 24, {"a": TensorEntry("F32", (2, 3), 0, 24)}),
    ({"__metadata__": {"format": "pt"}, "a": ENTRY}, 24, {"a": TensorEntry("F32", (2, 3), 0, 24)}),
    ({"__metadata__": {}}, 0, {}),
    ({"__metadata__": {"format": "\U0001f600"}}, 0, {}),  # as a pair of surrogates
    ({}, 0, {}),
    (
        {
            "second": {"dtype": "F16", "shape": [1], "data_offsets": [4, 6]},
            "first": {"dtype": "BF16", "shape": [1, 2, 1], "data_offsets": [0, 4]},
            "third": {"dtype": "F64", "shape": [], "data_offsets": [6, 14]},
        },
        14,
        {
            "first": TensorEntry("BF16", (1, 2, 1), 0, 4),
            "second": TensorEntry("F16", (1,), 4, 6),
            "third": TensorEntry("F64", (), 6, 14),
        },
    ),
    (json.dumps({"a": ENTRY}).encode() + b"     ", 24, {"a": TensorEntry("F32", (2, 3), 0, 24)}),
]


@pytest.mark.parametrize(("header", "data", "expected"), WHOLE)
def test_valid_headers(header: object, data: int, expected: dict[str, TensorEntry], tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    content = build(header, data=data)
    file.write_bytes(content)
    found = load_header(file)
    start = len(content) - data
    assert list(found.items()) == [
        (name, TensorEntry(entry.dtype, entry.shape, entry.start + start, entry.end + start))
        for name, entry in expected.items()
    ]
    assert read_by_safetensors(content) == {name: (entry.dtype, entry.shape) for name, entry in expected.items()}


def entry(**change: object) -> dict[str, Any]:
    return {"a": {key: value for key, value in (ENTRY | change).items() if value is not ...}}


NO_OBJECT = "its header is not a JSON object"
NO_FIELDS = "a has no dtype, shape and data_offsets, or more than these"
NO_SHAPE = "a has a shape that is not a list of at most 8 numbers from 1"
NO_OFFSETS = "a has data_offsets that are not two numbers from 0"
TWICE = "its header names a tensor twice"
DAMAGED: list[tuple[bytes, str]] = [
    (b"", "it has 0 bytes, and its header would be 0 bytes long"),
    (b"\x10\x00\x00", "it has 3 bytes, and its header would be 16 bytes long"),
    (build({"a": ENTRY})[:8], "it has 8 bytes, and its header would be 65 bytes long"),
    (build({"a": ENTRY})[:40], "it has 40 bytes, and its header would be 65 bytes long"),
    (build({"a": ENTRY}, data=0), "it is truncated: its header promises 97 bytes, the file has 73"),
    (build({"a": ENTRY}, data=23), "it is truncated: its header promises 97 bytes, the file has 96"),
    (build({"a": ENTRY}, data=25), "it is too long: its header promises 97 bytes, the file has 98"),
    (build({}, data=1), "it is too long: its header promises 10 bytes, the file has 11"),
    (struct.pack("<Q", 2**63) + b"{}", f"and its header would be {2**63} bytes long"),
    (struct.pack("<Q", 2**64 - 1) + b"{}", f"and its header would be {2**64 - 1} bytes long"),
    (struct.pack("<Q", 2**20 + 1) + b" " * (2**20 + 1), "its header would be 1048577 bytes long"),
    (build(b""), NO_OBJECT),
    (build(b"{"), NO_OBJECT),
    (build(b"{}x"), NO_OBJECT),
    (build(b"\xff\xfe{}"), NO_OBJECT),
    (build(b"\xef\xbb\xbf{}", data=0), NO_OBJECT),
    (build(json.dumps({"a": ENTRY}).encode("utf-16")), NO_OBJECT),
    (build(json.dumps({"a": ENTRY}).encode("utf-32")), NO_OBJECT),
    (build(b"\x80\x04pickle"), NO_OBJECT),
    *((build(value), NO_OBJECT) for value in ([], [1], "text", 1, 1.5, None, True)),
    (build(b"[" * 100_000), NO_OBJECT),
    (build(b'{"a":' * 100_000), NO_OBJECT),
    (build(b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}"), f"{NO_FIELDS}|{NO_OBJECT}"),
    (build(b'{"a": {"dtype": "F32", "shape": ' + b"[" * 900 + b"]" * 900 + b"}}"), f"{NO_FIELDS}|{NO_OBJECT}"),
    (build(b'{"a": 1' + b"1" * 5000 + b"}"), NO_OBJECT),
    (build(b'{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"a":{}}'), TWICE),
    (build(b'{"a":{"dtype":"F32","dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}'), TWICE),
    (build(b'{"__metadata__":{},"__metadata__":{}}', data=0), TWICE),
    *((build({"__metadata__": value, **entry()}), "not an object of texts") for value in (1, [], "x")),
    *((build({"__metadata__": {"a": value}}), "not an object of texts") for value in (1, None, {}, ["pt"])),
    *((build(b'{"__metadata__":' + metadata + b"}", data=0), NO_OBJECT) for metadata in (
        b'{"format":"\\ud800"}', b'{"\\udfff":"pt"}', b'{"format":"\\udc00\\ud800"}',
    )),
    *((build({"a": value}), NO_FIELDS) for value in (None, 1, "F32", [], [1, 2, 3], {})),
    *((build(entry(**{key: ...})), NO_FIELDS) for key in ENTRY),
    (build(entry(more=1)), NO_FIELDS),
    *((build(entry(dtype=dtype)), f"a has dtype {shown}; expected one of F64, F32, F16, BF16") for dtype, shown in (
        ("I32", '"I32"'), ("f32", '"f32"'), ("", '""'), (1, "1"), (None, "null"), (["F32"], "a list"), ({}, "an object")
    )),
    *((build(entry(shape=shape)), NO_SHAPE) for shape in (
        None, 6, "23", {"2": 3}, [2.0, 3], [2, True], ["2", "3"], [-2, -3], [[2, 3]], [None], [2**63], [0], [1] * 9,
        [2**62, 2**62, 0],
    )),
    *((build(entry(data_offsets=offsets)), NO_OFFSETS) for offsets in (
        None, 24, "ab", {"0": 24, "1": 0}, [], [0], [0, 12, 24], [0.0, 24], [0, 24.0], [False, 24], ["0", "24"],
        [-24, 0], [0, -24], [0, 2**63], [[0], 24],
    )),
    (build(b'{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[-0,24]}}'), NO_OFFSETS),
    (build(b'{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,2.4e1]}}'), NO_OFFSETS),
    (build(b'{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,NaN]}}'), NO_OFFSETS),
    (build(b'{"a":{"dtype":"F32","shape":[2,1e999],"data_offsets":[0,24]}}'), NO_SHAPE),
    (build(entry(shape=[2, 4])), "a of shape [2, 4] and dtype F32 takes 24 bytes"),
    (build(entry(shape=[])), "a of shape [] and dtype F32 takes 24 bytes"),
    (build(entry(shape=[2**62] * 8)), "and dtype F32 takes 24 bytes"),
    (build(entry(dtype="F16")), "a of shape [2, 3] and dtype F16 takes 24 bytes"),
    (build(entry(data_offsets=[24, 0])), "a of shape [2, 3] and dtype F32 takes -24 bytes"),
    (build(entry(data_offsets=[0, 23])), "a of shape [2, 3] and dtype F32 takes 23 bytes"),
    (build(entry(data_offsets=[8, 32]), data=32), "a begins at byte 81, expected 73"),
    (build({**entry(), "b": ENTRY}), "b begins at byte 138, expected 162"),  # the same bytes twice
    (build({**entry(), "b": ENTRY | {"data_offsets": [20, 44]}}, data=44), "b begins at byte"),  # overlapping
    (build({**entry(), "b": ENTRY | {"data_offsets": [28, 52]}}, data=52), "b begins at byte"),  # a gap
    (build({"\x1b[31m": ENTRY}), r'it names a tensor "\u001b[31m"'),
    (build({"a b": ENTRY}), 'it names a tensor "a b"'),
    (build({"": ENTRY}), 'it names a tensor ""'),
    (build({"\u00e9": ENTRY}), r'it names a tensor "\u00e9"'),
    (build(b'{"\\ud800":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}'), r'it names a tensor "\ud800"'),
    (build({"a" * 201: ENTRY}), f'it names a tensor "{"a" * 56}...'),
]  # fmt: skip


@pytest.mark.parametrize(("content", "says"), DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_files_are_refused(content: bytes, says: str, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(WeightsError) as error:
        load_header(file)
    assert error.value.path == file
    assert any(part in error.value.problem for part in says.split("|")), error.value.problem


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, 300, -41, -8, -1])
def test_a_truncated_file_is_refused(length: int, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    content = save(TENSORS, metadata={"format": "pt"})
    file.write_bytes(content[:length])
    with pytest.raises(WeightsError):
        load_header(file)
    file.write_bytes(content + b"\x00")
    with pytest.raises(WeightsError, match="too long"):
        load_header(file)


HEADER = save(TENSORS, metadata={"format": "pt"})
HEADER_LENGTH = struct.unpack("<Q", HEADER[:8])[0]


@given(
    st.lists(st.tuples(st.integers(0, HEADER_LENGTH - 1), st.integers(0, 255)), min_size=1, max_size=4)
    | st.lists(st.tuples(st.integers(0, HEADER_LENGTH - 1), st.sampled_from(b'0123456789-.eE"[]{}:, \\')), max_size=4)
)
def test_a_changed_header_is_read_as_by_safetensors_or_refused(flips: list[tuple[int, int]]) -> None:
    content = bytearray(HEADER)
    for place, byte in flips:
        content[8 + place] = byte
    try:
        found = parse_header(
            bytes(content[8 : 8 + HEADER_LENGTH]), data_start=8 + HEADER_LENGTH, path=Path("model.safetensors")
        )
    except WeightsError:
        return
    end = max(entry.end for entry in found.values())
    expected = read_by_safetensors(bytes(content[:end]))
    assert {name: (entry.dtype, entry.shape) for name, entry in found.items()} == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["F32", "F64", "a", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "a"]), inner, max_size=4)
    ),
    max_leaves=15,
)


@given(st.binary(max_size=200) | JSON.map(lambda header: json.dumps(header).encode()))
def test_other_headers_raise_weights_errors_alone(header: bytes) -> None:
    with suppress(WeightsError):
        parse_header(header, data_start=0, path=Path("model.safetensors"))


Content = dict[str, tuple[str, tuple[int, ...], bytes | memoryview]]
WEIGHTS: Content = {
    "vit.a": ("F32", (2, 1), b"12345678"),
    "vit.b": ("F32", (1,), b"abcd"),
    "classifier.weight": ("F32", (1, 1), b"wxyz"),
}


class TestContentIds:
    def test_are_frozen(self) -> None:
        head, a, b = (hashlib.sha256(data).hexdigest().encode() for data in (b"wxyz", b"12345678", b"abcd"))
        lines = b"vit.a F32 [2, 1] " + a + b"\nvit.b F32 [1] " + b + b"\n"
        weights = hashlib.sha256(b"classifier.weight F32 [1, 1] " + head + b"\n" + lines).hexdigest()
        backbone = hashlib.sha256(lines).hexdigest()
        assert content_ids(WEIGHTS, is_head=is_head) == (weights, backbone)

    @pytest.mark.parametrize(
        ("change", "backbone_too"),
        [
            ({"vit.a": ("F32", (2, 1), b"12345679")}, True),
            ({"vit.a": ("F32", (1, 2), b"12345678")}, True),
            ({"vit.a": ("F16", (2, 1), b"12345678")}, True),
            ({"vit.c": ("F32", (1,), b"efgh")}, True),
            ({"vit.a": WEIGHTS["vit.b"], "vit.b": WEIGHTS["vit.a"]}, True),
            ({"classifier.weight": ("F32", (1, 1), b"wxyy")}, False),
            ({"classifier.bias": ("F32", (1,), b"bias")}, False),
            ({"vit.bb": WEIGHTS["vit.b"]}, True),
        ],
    )
    def test_differ_for_any_change(self, change: Content, *, backbone_too: bool) -> None:
        weights, backbone = content_ids(WEIGHTS, is_head=is_head)
        changed, changed_backbone = content_ids(WEIGHTS | change, is_head=is_head)
        assert changed != weights
        assert (changed_backbone != backbone) == backbone_too

    def test_of_a_file_are_those_of_its_tensors(self, tmp_path: Path) -> None:
        """safetensors sorts the tensors of a file by type, then by name: the ids do not depend on it."""
        file = tmp_path / "model.safetensors"
        save_file(TENSORS, file)
        content = file.read_bytes()
        of_file: Content = {
            name: (entry.dtype, entry.shape, content[entry.start : entry.end])
            for name, entry in load_header(file).items()
        }
        assert list(of_file) != sorted(of_file)
        of_tensors: Content = {
            name: (of_file[name][0], tuple(tensor.shape), as_bytes(tensor)) for name, tensor in TENSORS.items()
        }
        assert content_ids(of_file, is_head=is_head) == content_ids(of_tensors, is_head=is_head)
