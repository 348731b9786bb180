"""List the files of a zoo by name: the members' files and all others. No file is opened.

A folder is walked. Links to folders are followed only for members' folders. The files of a Hub repo come from the
manifest, and other files from the repo's own list.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from vitzoo.errors import VitZooError, shown
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.records.copies import CopyRecord
from vitzoo.records.epochs import Epochs
from vitzoo.records.manifest import Manifest
from vitzoo.sources.folder import FolderSource
from vitzoo.sources.hub import HubSource
from vitzoo.sources.source import ZooSource
from vitzoo.verification.problems import Problems

_ADDED_BY_HUB = {layout.MANIFEST, PurePosixPath(".gitattributes")}  # a manifest does not name itself
# Files of git, of downloads into a folder, and of the trainer. No manifest names them.
_IGNORED = {*_ADDED_BY_HUB, *map(PurePosixPath, (".git", ".cache")), layout.COPY, layout.TRAINING}
_FIX_IN_FOLDER = "Delete it, or publish the zoo again."
_FIX_IN_REPO = (
    "Do not load it: it does not belong to the zoo. An unfinished publication leaves such files: wait, or publish "
    "again. Otherwise delete it."
)


@dataclass(kw_only=True, slots=True)
class Listing:
    """The files of a zoo."""

    members: dict[MemberId, set[str]] = field(default_factory=dict)  # in their folders and in the manifest
    unreachable: dict[MemberId, Problems] = field(default_factory=dict)  # whose folders cannot be listed
    others: list[PurePosixPath] = field(default_factory=list)  # outside of members' folders, in subfolders, or hidden
    unlisted: str | None = None  # why the list of a Hub repo's files is missing

    @classmethod
    def of(cls, manifest: Manifest | None, copied: CopyRecord | None = None) -> "Listing":
        """List the members' files of a manifest that a copy has; none without a manifest."""
        listing = cls()
        for path in manifest.files if manifest is not None else ():
            member, name = layout.parse_member_file(PurePosixPath(path)) or (None, "")
            if member is not None and (copied is None or copied.includes(PurePosixPath(path))):
                listing.members.setdefault(member, set()).add(name)
        return listing


def list_files(
    source: ZooSource,
    manifest: Manifest | None,
    problems: Problems,
    *,
    published: Epochs,
    copied: CopyRecord | None = None,
) -> Listing:
    """List the files of a zoo, and add a problem if its folder cannot be listed."""
    listing = Listing.of(manifest, copied)
    if isinstance(source, FolderSource):
        _list_folder(listing, source, problems)
    elif isinstance(source, HubSource) and manifest is not None:
        _list_repo(listing, source, manifest, published)
    for member in listing.unreachable:
        listing.members.pop(member, None)
    return listing


def check_others(
    source: ZooSource, listing: Listing, manifest: Manifest | None, problems: Mapping[object, Problems]
) -> None:
    """Add a problem, to its member or to the zoo (None), for each other file that the manifest does not name.

    Without a manifest, only files beside the tables are problems: `datasets` reads .huggingface.yaml before the card.
    """
    fix = _FIX_IN_FOLDER if isinstance(source, FolderSource) else _FIX_IN_REPO
    if manifest is None:
        for path in sorted(listing.others):
            if layout.METADATA in path.parents and not (layout.is_zoo_file(str(path)) or path.suffix == ".partial"):
                problems[None].add("no table or card of a zoo: datasets may read it", file=shown(str(path)), fix=fix)
        return
    for path in sorted(path for path in listing.others if path not in manifest):
        member = next(filter(None, map(MemberId.match, map(str, path.parents))), None)  # the nearest folder's
        if member not in listing.members and member not in listing.unreachable:
            member = None
        if member in problems:
            name = str(path if member is None else path.relative_to(layout.member_folder(member)))
            label = name if layout.is_zoo_file(str(path)) else shown(name)
            problems[member].add("not named by manifest.json", file=label, fix=fix)


def _list_folder(listing: Listing, source: FolderSource, problems: Problems) -> None:
    pending = [PurePosixPath()]
    while pending:
        folder = pending.pop()
        member = MemberId.match(str(folder))
        own = problems if member is None else Problems(member)
        with own.collecting(), os.scandir(source.path(folder)) as entries:
            for entry in entries:
                relative = folder / entry.name
                is_folder = os.path.isdir(entry.path)  # entry.is_dir() fails for a link to itself
                if relative in _IGNORED:
                    continue
                if is_folder and (MemberId.match(str(relative)) is not None or not entry.is_symlink()):
                    pending.append(relative)
                elif member is None or is_folder or entry.name.startswith("."):
                    listing.others.append(relative)
                else:
                    listing.members.setdefault(member, set()).add(entry.name)
        if member is not None and list(own):
            listing.unreachable[member] = own


def _list_repo(listing: Listing, source: HubSource, manifest: Manifest, published: Epochs) -> None:
    if source.is_offline:
        listing.unlisted = "only the cache may be used (local_files_only, HF_HUB_OFFLINE)."
        return
    try:
        names = source.listed_files()
    except VitZooError as error:
        listing.unlisted = str(error)
        return
    for path in map(PurePosixPath, names):
        if path in manifest or path in _ADDED_BY_HUB:
            continue
        member, name = layout.parse_member_file(path) or (None, "")
        unpublished = layout.is_weights_name(name) and not published.of([layout.parse_weights_name(name)])
        if unpublished and member in listing.members:
            listing.members[member].add(name)  # an epoch of an earlier publication, which can still be loaded
        else:
            listing.others.append(path)
