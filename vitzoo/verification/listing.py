"""Which files a zoo has: its members', and whatever else lies there. Names alone: nothing is opened.

A folder is walked; links to folders are not followed, but for those that stand for a member's folder. Of a Hub repo the
manifest says which files are a zoo's, and the repo's own list which others lie beside them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from vitzoo.errors import VitZooError, shown
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.records.epochs import Epochs
from vitzoo.records.manifest import Manifest
from vitzoo.sources.folder import FolderSource
from vitzoo.sources.hub import HubSource
from vitzoo.sources.source import ZooSource
from vitzoo.verification.problems import Problems

_ADDED_BY_HUB = {layout.MANIFEST, PurePosixPath(".gitattributes")}  # a manifest does not name itself
# git's, huggingface_hub's notes on what it downloaded into a folder, the trainer's: no manifest names them.
_NO_ZOO_FILES = {*_ADDED_BY_HUB, *map(PurePosixPath, (".git", ".cache")), layout.TRAINING}
_IN_FOLDER = "Take it away, or publish the zoo again."
_IN_REPO = (
    "Do not load it: it is no part of the zoo. A publication that is under way, or was broken off, leaves such files: "
    "wait for it, or publish again; else delete it."
)


@dataclass(kw_only=True, slots=True)
class Listing:
    """The files of a zoo.

    Args:
        members: The names of the files in every member's folder, and of those that the manifest names there.
        unreachable: Members whose folder cannot be listed, and why.
        others: Every other file: in no member's folder, further down in one, or hidden.
        unlisted: Why a Hub repo's list of files could not be had; None where it was, or where none is needed.
    """

    members: dict[MemberId, set[str]] = field(default_factory=dict)
    unreachable: dict[MemberId, Problems] = field(default_factory=dict)
    others: list[PurePosixPath] = field(default_factory=list)
    unlisted: str | None = None

    @classmethod
    def of(cls, manifest: Manifest | None) -> "Listing":
        """List the members' files that a manifest names; none without a manifest."""
        listing = cls()
        for path in manifest.files if manifest is not None else ():
            found = layout.parse_member_file(PurePosixPath(path))
            if found is not None:
                listing.members.setdefault(found[0], set()).add(found[1])
        return listing


def list_files(source: ZooSource, manifest: Manifest | None, problems: Problems, *, published: Epochs) -> Listing:
    """List the files of a zoo.

    Args:
        source: Where it is.
        manifest: Its manifest, where there is one that can be read.
        problems: The zoo's own; folders that cannot be listed are added.
        published: Which epochs the manifest says were published.

    Returns:
        What is there.
    """
    listing = Listing.of(manifest)
    if isinstance(source, FolderSource):
        _list_folder(listing, source, problems)
    elif isinstance(source, HubSource) and manifest is not None:
        _list_repo(listing, source, manifest, published)
    listing.members = {member: names for member, names in listing.members.items() if member not in listing.unreachable}
    return listing


def check_others(source: ZooSource, listing: Listing, manifest: Manifest, problems: Mapping[object, Problems]) -> None:
    """Check that the manifest names every file that is there.

    Args:
        source: Where the zoo is.
        listing: Its files; those that lie in the members' folders themselves are `vitzoo.verification.members`'.
        manifest: Its manifest.
        problems: Of each member that is looked at, and the zoo's own under None; what is found is added.
    """
    fix = _IN_FOLDER if isinstance(source, FolderSource) else _IN_REPO
    for path in sorted(listing.others):
        if path in manifest:
            continue
        member = next(filter(None, map(MemberId.match, map(str, path.parents))), None)  # the nearest
        if member not in listing.members and member not in listing.unreachable:
            member = None
        if (its := problems.get(member)) is not None:
            name = str(path if member is None else path.relative_to(layout.member_folder(member)))
            label = name if layout.is_zoo_file(str(path)) else shown(name)
            its.add("not named by manifest.json", file=label, fix=fix)


def _list_folder(listing: Listing, source: FolderSource, problems: Problems) -> None:
    pending = [PurePosixPath()]
    while pending:
        folder = pending.pop()
        member = MemberId.match(str(folder))
        its = problems if member is None else Problems(member)
        with its.collecting(), os.scandir(source.path(folder)) as entries:
            for entry in entries:
                relative = folder / entry.name
                is_folder = os.path.isdir(entry.path)  # unlike entry.is_dir() no error of a link to itself
                if relative in _NO_ZOO_FILES:
                    continue
                if is_folder and (MemberId.match(str(relative)) is not None or not entry.is_symlink()):
                    pending.append(relative)
                elif member is None or is_folder or entry.name.startswith("."):
                    listing.others.append(relative)
                else:
                    listing.members.setdefault(member, set()).add(entry.name)
        if member is not None and list(its):
            listing.unreachable[member] = its


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
        its = None if member is None or not layout.is_weights_name(name) else listing.members.get(member)
        if its is not None and not published.of([layout.parse_weights_name(name)]):
            its.add(name)  # of an epoch published earlier: who asks for it by name still gets it
        else:
            listing.others.append(path)
