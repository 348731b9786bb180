"""manifest.json: members, digest, and refused content."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitzoo.errors import AuthenticityError, FormatVersionError, RecordError
from vitzoo.ids import MemberId
from vitzoo.records.manifest import FileRecord, Manifest, load_manifest, parse_digest

HASH = "0123456789abcdef" * 4
NAMES = [
    "zoo.json",
    "pt-10/member.json",
    "pt-10/model.safetensors",
    "pt-2/ft-0/member.json",
    "pt-2/ft-0/model.epoch-00.safetensors",
    "pt-2/ft-0/model.epoch-100.safetensors",
    "pt-2/ft-0/model.epoch-20.safetensors",
    "pt-2/ft-0/model.safetensors",
    "pt-2/member.json",
    "pt-3/config.json",
]


def manifest(names: list[str] = NAMES) -> Manifest:
    return Manifest(recipe_sha256=HASH, epochs="all", files={name: FileRecord(size=7, sha256=HASH) for name in names})


def test_manifest_names_members_and_weights() -> None:
    made = manifest()
    assert made.member_ids == [MemberId(2), MemberId(2, 0), MemberId(10)]  # pt-3 has no member.json
    assert made.weights_sizes(MemberId(2, 0)).keys() == {0, 20, 100, None}
    assert list(made.weights_sizes(MemberId(10))) == [None]
    assert made.weights_sizes(MemberId(2)) == made.weights_sizes(MemberId(99)) == {}


@given(st.permutations(NAMES))
def test_digest_depends_on_files_but_not_on_their_order(names: list[str]) -> None:
    assert manifest(names).digest == manifest().digest
    assert manifest(names[1:]).digest != manifest().digest


def test_manifest_round_trips_with_and_without_digest(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(manifest().to_bytes())
    for digest in (None, manifest().digest, manifest().digest.removeprefix("sha256:")):
        assert load_manifest(path, digest=digest) == manifest()
    assert manifest().digest == "sha256:dc3b3e8398c55be6a8e9ac4242c86e0b033fbde17577d63573f059e4e9e4cbb7"  # format 1


@pytest.mark.parametrize("digest", ["", "sha256:", HASH[:-1], f"md5:{HASH}", HASH.upper(), f"sha256:{HASH} "])
def test_malformed_digest_is_refused(digest: str) -> None:
    with pytest.raises(AuthenticityError) as raised:
        parse_digest(digest)
    assert f'"{digest}"' in raised.value.problem


def _set(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update(values)


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        (_set(format=2), FormatVersionError, "format 2"),
        (_set(files={"../x": {"size": 1, "sha256": HASH}}), RecordError, '"../x"'),
        (_set(files={"manifest.json": {"size": 1, "sha256": HASH}}), RecordError, '"manifest.json"'),
        (_set(files={"zoo.json": {"size": -1, "sha256": HASH}}), RecordError, "size"),
        (_set(files={"zoo.json": {"size": 1, "sha256": "x"}}), RecordError, "sha256"),
        (_set(files={"zoo.json": {"size": 1}}), RecordError, "sha256"),
        (_set(files=[]), RecordError, "files"),
        (_set(evil=1), RecordError, "evil"),
        (lambda content: content.pop("epochs"), RecordError, "epochs"),
    ],
)
def test_damaged_manifest_is_refused(
    tmp_path: Path, change: Callable[[Any], None], error: type[RecordError], named: str
) -> None:
    content = json.loads(manifest().to_bytes())
    change(content)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    with pytest.raises(error) as raised:
        load_manifest(path)
    assert raised.value.path == path
    assert named in raised.value.problem


def test_digest_is_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(manifest().to_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(AuthenticityError) as raised:
        load_manifest(path, digest=manifest().digest)
    assert raised.value.path == path


def test_manifest_in_another_layout_is_refused(tmp_path: Path) -> None:
    """A manifest has one text, so that its digest is the digest of the file."""
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(json.loads(manifest().to_bytes())))
    with pytest.raises(RecordError) as raised:
        load_manifest(path)
    assert raised.value.path == path
