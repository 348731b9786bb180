"""copy.json: the weights that a partial copy of a published zoo has. A whole copy has no such file.

The copy also has the records of these weights' members and of their parents, and every file outside of members'
folders. No manifest names copy.json. `vitzoo.sources.download` writes it. Format 1:

    {"format": 1, "repo": "org/vit-zoo", "revision": "<40 hex>", "weights": ["pt-0/ft-1/model.safetensors", ...]}
"""

from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated

from msgspec import Meta

from vitzoo.errors import RecordError, shown
from vitzoo.ids import MemberId, is_zoo_name, is_zoo_path
from vitzoo.records import layout
from vitzoo.records.json_files import Record, load_record
from vitzoo.records.manifest import Manifest

FORMAT = 1


class CopyRecord(Record, frozen=True, kw_only=True, dict=True):
    """The weights of a partial copy.

    Args:
        format: Version of this file's layout.
        repo: The Hub repo of the zoo.
        revision: Its commit.
        weights: Paths of the weights files in the zoo.
    """

    format: int = FORMAT
    repo: str
    revision: Annotated[str, Meta(pattern="^[0-9a-f]{40}$")]
    weights: tuple[str, ...]

    @cached_property
    def _weights(self) -> frozenset[str]:
        return frozenset(self.weights)

    @cached_property
    def members(self) -> frozenset[MemberId]:
        """The members of the weights, and their parents."""
        named = (layout.parse_member_file(PurePosixPath(path)) for path in self.weights)
        members = {member for member, _ in filter(None, named)}
        return frozenset(members | {member.parent_id for member in members if member.parent_id is not None})

    def includes(self, relative: PurePosixPath) -> bool:
        """Return whether the copy has a file of the zoo."""
        member, name = layout.parse_member_file(relative) or (None, "")
        if layout.is_weights_name(name):
            return str(relative) in self._weights
        return member is None or member in self.members


def load_copy_record(path: Path, manifest: Manifest | None) -> CopyRecord:
    """Read a copy.json.

    Args:
        path: The file.
        manifest: The copy's manifest.json.

    Raises:
        RecordError: The file is damaged, or names a file that is not a weights file of the manifest.
        FormatVersionError: The file has a newer format than this library reads.
    """
    record = load_record(CopyRecord, path, newest=FORMAT)
    unknown = [
        name
        for name in record.weights
        if manifest is None or name not in manifest.files or not layout.is_weights_name(PurePosixPath(name).name)
    ]
    if not is_zoo_name(record.repo) or is_zoo_path(record.repo):
        unknown.append(record.repo)
    if unknown:
        raise RecordError(
            f"{path} names {shown(unknown[0])}",
            expected=f"a Hub repo, and weights files that {layout.MANIFEST} names",
            fix=f"Delete {layout.ZOO_JSON} and {path.name}, and download again to the same folder.",
            path=path,
        )
    return record
