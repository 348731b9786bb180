"""manifest.json: every file of a published zoo with its size and hash. Its own digest identifies the zoo.

The publisher writes it in the last commit. Readers of a Hub repo list only the files that it names, so they never see a
zoo that is half published. Format 1, keys sorted, so that the same zoo always has the same digest:

    {"format": 1, "recipe_sha256": "...", "epochs": "all",
     "files": {"README.md": {"size": 4711, "sha256": "..."}, "pt-0/config.json": {...}, ...}}

It names every file except itself and what the Hub adds (.gitattributes). Paths that `vitzoo.records.layout` does not
make are refused.
"""

import hashlib
import re
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated

from msgspec import Meta

from vitzoo.errors import AuthenticityError, RecordError, shown
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.records.fields import Count
from vitzoo.records.json_files import Record, parse_versioned, read_bytes, sorted_json

FORMAT = 1
_MAX_BYTES = 2**24  # some 100,000 files; the paper's zoo has 14,000
_DIGEST = re.compile(r"(?:sha256:)?(?P<sha256>[0-9a-f]{64})")


class FileRecord(Record, frozen=True, kw_only=True):
    """A file of the zoo.

    Args:
        size: Bytes.
        sha256: Digest of the whole file.
    """

    size: Count
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Manifest(Record, frozen=True, kw_only=True, dict=True):
    """The files of a published zoo.

    Args:
        format: Version of this file's layout.
        recipe_sha256: Hash of the zoo's recipe, as in zoo.json.
        epochs: The published epochs (`vitzoo.records.epochs.Epochs`).
        files: Every file by its path in the zoo, with forward slashes.
    """

    format: int = FORMAT
    recipe_sha256: str
    epochs: str
    files: dict[str, FileRecord]

    def __contains__(self, relative: PurePosixPath) -> bool:
        return str(relative) in self.files

    @cached_property
    def member_ids(self) -> list[MemberId]:
        """The members with a member.json, parents before their children."""
        named = (layout.parse_member_file(PurePosixPath(path)) for path in self.files)
        return sorted({member for member, name in filter(None, named) if name == layout.MEMBER_JSON})

    def weights_sizes(self, member: MemberId) -> dict[int | None, int]:
        """Return the bytes of a member's weights files by epoch, ascending; None, for the final weights, comes last."""
        return self._weights.get(member, {})

    @cached_property
    def _weights(self) -> dict[MemberId, dict[int | None, int]]:
        weights: dict[MemberId, dict[int | None, int]] = {}
        for path, file in self.files.items():
            member, name = layout.parse_member_file(PurePosixPath(path)) or (None, "")
            if member is not None and layout.is_weights_name(name):
                weights.setdefault(member, {})[layout.parse_weights_name(name)] = file.size
        return {
            member: {epoch: sizes[epoch] for epoch in sorted(sizes, key=lambda epoch: (epoch is None, epoch))}
            for member, sizes in weights.items()
        }

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        return sorted_json(self)

    @property
    def digest(self) -> str:
        """``sha256:`` and the hash of `to_bytes`. It identifies the zoo."""
        return f"sha256:{hashlib.sha256(self.to_bytes()).hexdigest()}"


def load_manifest(path: Path, *, digest: str | None = None) -> Manifest:
    """Read a manifest.json.

    Args:
        path: The file.
        digest: The expected digest, if known from elsewhere.

    Raises:
        AuthenticityError: The file has another digest.
        RecordError: The file is not a manifest, or names a path that no zoo has.
        FormatVersionError: The file has a newer format than this library reads.
    """
    content = read_bytes(path, most=_MAX_BYTES)
    sha256 = hashlib.sha256(content).hexdigest()
    if digest is not None and sha256 != parse_digest(digest):
        raise AuthenticityError(
            f"{path} has digest sha256:{sha256}",
            expected=f"sha256:{parse_digest(digest)}",
            fix="This is another zoo, or another version of it: check the revision, and the source of the digest.",
            path=path,
        )
    manifest = parse_versioned(Manifest, content, path, newest=FORMAT)
    for name in manifest.files:
        if not layout.is_zoo_file(name):
            raise RecordError(
                f"{path} names the file {shown(name)}, which no zoo has", fix="Do not trust this zoo.", path=path
            )
    if manifest.to_bytes() != content:
        raise RecordError(
            f"{path} was edited: vitzoo writes it differently", fix="Get the file again, or publish again.", path=path
        )
    return manifest


def parse_digest(digest: str) -> str:
    """Return the 64 hex digits of a digest that a user gave.

    Raises:
        AuthenticityError: It is not a sha256 digest.
    """
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise AuthenticityError(
            f'digest="{digest}" is not the digest of a zoo',
            expected='"sha256:" and 64 hex digits, as the authors of the zoo publish it',
        )
    return match["sha256"]
