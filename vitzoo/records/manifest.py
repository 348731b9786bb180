"""manifest.json: every file of a published zoo with its size and hash. Its own digest says which zoo it is.

Written when a zoo is published, in the last commit: readers of a Hub repo list only what it names, so a zoo that is
half published is not seen. Format 1, keys sorted, so that the same zoo always has the same digest:

    {"format": 1, "recipe_sha256": "...", "epochs": "all",
     "files": {"README.md": {"size": 4711, "sha256": "..."}, "pt-0/config.json": {...}, ...}}

It names everything but itself and what the Hub adds (.gitattributes). A file's path is one that `vitzoo.records.layout`
makes; any other is refused.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from vitzoo.errors import AuthenticityError, RecordError, shown
from vitzoo.ids import MemberId
from vitzoo.records import json_files, layout

FORMAT = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"(?:sha256:)?(?P<sha256>[0-9a-f]{64})")


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRecord:
    """What a file of the zoo must be.

    Args:
        size: Bytes.
        sha256: Of the whole file.
    """

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The files of a published zoo.

    Args:
        format: Version of this file's layout.
        recipe_sha256: The zoo's recipe, as in zoo.json.
        epochs: Which epochs were published: ``all``, ``last``, ``every-<n>`` or a list
            (`vitzoo.zoo.conditions.Epochs`).
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
        """The members that it names, parents before their children."""
        named = (layout.parse_member_file(PurePosixPath(path)) for path in self.files)
        return sorted({member for member, name in filter(None, named) if name == layout.MEMBER_JSON})

    def kept_epochs(self, member: MemberId) -> list[int | None]:
        """The epochs whose weights it names, ascending; None at the end for the final weights."""
        return self._epochs.get(member, [])

    @cached_property
    def _epochs(self) -> dict[MemberId, list[int | None]]:
        epochs: dict[MemberId, list[int | None]] = {}
        for path in self.files:
            member, name = layout.parse_member_file(PurePosixPath(path)) or (None, "")
            if member is not None and layout.is_weights_name(name):
                epochs.setdefault(member, []).append(layout.parse_weights_name(name))
        return {member: sorted(found, key=lambda e: (e is None, e)) for member, found in epochs.items()}

    def to_bytes(self) -> bytes:
        """The file's content."""
        return json_files.sorted_json(self)

    @property
    def digest(self) -> str:
        """``sha256:`` and the hash of `to_bytes`: it says which zoo this is."""
        return f"sha256:{hashlib.sha256(self.to_bytes()).hexdigest()}"


def load_manifest(path: Path, *, digest: str | None = None) -> Manifest:
    """Read a manifest.json.

    Args:
        path: The file.
        digest: What it must hash to, where that is known from elsewhere.

    Raises:
        AuthenticityError: It has another digest.
        RecordError: It is no such record, or names a path that no zoo has.
        FormatVersionError: A newer format than this library reads.
    """
    text = json_files.read_text(path)
    found = hashlib.sha256(text.encode()).hexdigest()
    if digest is not None and found != parse_digest(digest):
        raise AuthenticityError(
            f"{path} has digest sha256:{found}; expected sha256:{parse_digest(digest)}. This is another zoo than the "
            "one whose digest was given, or another version of it: check the revision, and where the digest is from.",
            path=path,
        )
    manifest = json_files.parse_versioned_record(Manifest, text, path, newest=FORMAT)
    for name, file in manifest.files.items():
        if not layout.is_zoo_file(name):
            raise RecordError(f"{path} names the file {shown(name)}, which no zoo has. Do not trust it.", path=path)
        if file.size < 0 or not _SHA256.fullmatch(file.sha256):
            raise RecordError(f"{path}: {shown(name)} has no valid size and sha256.", path=path)
    if manifest.to_bytes() != text.encode():
        raise RecordError(
            f"{path} is not written as vitzoo writes it: it was edited. Get the file again, or publish again.",
            path=path,
        )
    return manifest


def parse_digest(digest: str) -> str:
    """The 64 hex digits of a digest that a user gave.

    Raises:
        AuthenticityError: It is no sha256 digest.
    """
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise AuthenticityError(
            f'digest="{digest}" is no digest of a zoo: expected "sha256:" and 64 hex digits, such as '
            '"python -m training publish" prints.',
            path=None,
        )
    return match["sha256"]
