"""The interface of a zoo that can be read, and the code that folders and Hub repos share.

Every file of a zoo is opened through `ZooSource.path`, which refuses what lies outside and, where a digest was given,
what is not the zoo of that digest. From a name to a zoo is `vitzoo.sources.locate`'s business.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from vitzoo import records
from vitzoo.errors import (
    AuthenticityError,
    EpochNotFoundError,
    MemberNotFoundError,
    RecordError,
    SelectionError,
    UnsafePathError,
    did_you_mean,
)
from vitzoo.ids import MemberId, MemberRef
from vitzoo.records import layout
from vitzoo.records.manifest import Manifest, load_manifest
from vitzoo.tensors.header import file_sha256

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True, slots=True)
class HubOptions:
    """How a Hub repo is reached; with a folder, a revision is an error and the others mean nothing.

    Args:
        revision: A branch, tag or commit; None for the default branch. Resolved once, then pinned.
        token: As in huggingface_hub: a token, True or None for the one that is logged in, False for none.
        cache_dir: The Hugging Face cache; None for the usual one.
        local_files_only: Only what is in the cache.
        force_download: Also download what is in the cache.
    """

    revision: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False
    force_download: bool = False

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> "HubOptions":
        """Those among the arguments of a ``from_pretrained``."""
        return cls(**{name: arguments[name] for name in cls.__slots__ if name in arguments})


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberFiles:
    """A member found: the files that one load reads.

    Args:
        ref: The reference that led here, with the epoch however it was said.
        config: Its config.json.
        weights: The weights file of the epoch.
        weights_record: What the member's record says of that file; None where the record was not asked for.
    """

    ref: MemberRef
    config: Path
    weights: Path
    weights_record: records.WeightsRecord | None


class ZooSource(ABC):
    """A zoo that can be read: a folder, or a Hub repo at one commit.

    Args:
        name: How messages call it.
        root: The local folder that its files lie in, of a Hub repo as far as they were downloaded.
        digest: What the manifest must hash to, where that is known; every file is then compared with the manifest.
    """

    def __init__(self, *, name: str, root: Path, digest: str | None):
        self.name = name
        self.root = root
        self.digest = None
        self.record = records.load_zoo_record(self.path(layout.ZOO_JSON))
        self.digest = digest  # from here on every file is compared, this one first: the manifest is checked against it
        self._tables: dict[str, pa.Table] = {}
        self._authentic: dict[PurePosixPath, tuple[int, ...]] = {}
        if digest is not None:
            self.path(layout.ZOO_JSON)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @abstractmethod
    def path(self, relative: PurePosixPath) -> Path:
        """The local path of a file of the zoo; a Hub repo's is downloaded first.

        Args:
            relative: Its place in the zoo, from `vitzoo.records.layout`.

        Raises:
            UnsafePathError: It is, or goes through, a link that leaves the zoo.
            AuthenticityError: It is not what the manifest of the given digest says.
            RecordError: A Hub repo has no such file. (A folder's path is given whether the file is there or not.)
            HubError: The Hub cannot be reached, or refuses.
        """

    @abstractmethod
    def local_file(self, relative: PurePosixPath) -> Path | None:
        """The local path of a file that is here, checked as `path` checks; None where it would be downloaded first.

        Raises:
            RecordError: There is no such file, and nowhere to get it.
            UnsafePathError, AuthenticityError: As `path`.
        """

    @abstractmethod
    def read_range(self, relative: PurePosixPath, start: int, stop: int) -> tuple[bytes, int]:
        """Bytes ``start`` to ``stop`` of a file, fewer where it ends earlier, and its whole size.

        Raises:
            RecordError: There is no such file.
            HubError: The Hub cannot be reached, or refuses.
        """

    @cached_property
    def manifest(self) -> Manifest | None:
        """manifest.json; None for a folder that has none, because it was never published.

        Raises:
            RecordError: It is damaged, of another zoo than zoo.json, or missing in a Hub repo.
            AuthenticityError: It is not the one of the given digest.
        """
        path = self.path(layout.MANIFEST)
        if not path.is_file():
            return None
        manifest = load_manifest(path, digest=self.digest)
        if manifest.recipe_sha256 != self.record.recipe_sha256:
            raise RecordError(
                f"{path} is of another zoo than the {layout.ZOO_JSON} beside it. Get both again, or publish again.",
                path=path,
            )
        return manifest

    @abstractmethod
    def member_ids(self) -> list[MemberId]:
        """Every finished member, parents before their children; of a Hub repo, those that the manifest names."""

    @abstractmethod
    def member_record(self, member: MemberId) -> records.MemberRecord:
        """A member's record; of a Hub repo it comes from the tables, so that many cost no request each.

        Raises:
            MemberNotFoundError: The zoo has no such member.
            RecordError: There is no valid record.
        """

    @abstractmethod
    def epoch_records(self, member: MemberId) -> list[records.EpochRecord]:
        """A member's figures by epoch, ascending. Raises as `member_record`."""

    def table(self, name: str) -> "pa.Table":
        """One of the zoo's tables, read or built once: as `vitzoo.Zoo.table`."""
        from vitzoo.tables.metadata import TABLES  # pyarrow: one member is loaded without it

        if name not in TABLES:
            raise SelectionError(f'There is no table "{name}".{did_you_mean(name, TABLES)}', value=name)
        if name not in self._tables:
            self._tables |= self.load_tables(name)
        return self._tables[name]

    @abstractmethod
    def load_tables(self, name: str) -> "dict[str, pa.Table]":
        """A table of the zoo by its name, and those that come with it at no cost. Raises as `table`."""

    @abstractmethod
    def member_files(self, ref: MemberRef, *, verify: bool = False) -> MemberFiles:
        """The files that one load of a member reads.

        Args:
            ref: The member and the epoch.
            verify: Whether its record is asked for too.

        Raises:
            MemberNotFoundError, EpochNotFoundError: Something is not there.
            RecordError: A record is damaged or a file missing.
        """

    @abstractmethod
    def config_file(self, ref: MemberRef) -> Path:
        """A member's config.json; all its epochs share one. Raises as `member_files`."""

    def kept_epochs(self, member: MemberId) -> list[int | None]:
        """The epochs whose weights this place has, ascending; None at the end for the final ones."""
        return list(self.weights_sizes(member))

    def weights_sizes(self, member: MemberId) -> dict[int | None, int]:
        """The bytes of each weights file that this place has, by epoch; ordered as `kept_epochs`."""
        sizes = {weights.epoch: weights.size for weights in self.member_record(member).weights}
        return {epoch: sizes[epoch] for epoch in sorted(sizes, key=lambda epoch: (epoch is None, epoch))}

    def _authenticate(self, relative: PurePosixPath, path: Path) -> None:
        """Compare a file with the manifest whose digest was given; once, as long as it stays as it is."""
        if self.digest is None or relative == layout.MANIFEST or not path.is_file():
            return
        if self.manifest is None:
            raise AuthenticityError(
                f"{self.name} has no {layout.MANIFEST}, so no digest can prove which zoo it is. Only published zoos "
                "have one: python -m training publish.",
                path=path,
            )
        state = path.stat()
        signature = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        if self._authentic.get(relative) != signature:
            self._compare(relative, path, self.manifest)
            self._authentic[relative] = signature

    def _compare(self, relative: PurePosixPath, path: Path, manifest: Manifest) -> None:
        """Compare a file with the manifest."""
        expected = manifest.files.get(str(relative))
        if expected is None:
            raise AuthenticityError(f"{path} is not named by the manifest of {self.name}. Do not trust it.", path=path)
        size, found = path.stat().st_size, file_sha256(path)
        if (size, found) != (expected.size, expected.sha256):
            raise AuthenticityError(
                f"{path} has {size} bytes and sha256 {found[:16]}..., but the manifest of {self.name} says "
                f"{expected.size} and {expected.sha256[:16]}...: it was altered. Get the file again.",
                path=path,
            )

    def no_member(self, member: MemberId) -> MemberNotFoundError:
        """The error that says so, with the nearest members."""
        return MemberNotFoundError(
            f"The zoo {self.name} has no member {member}.{did_you_mean(member, self.member_ids())}", member=member
        )

    def no_epoch(self, member: MemberId, epoch: int | None) -> EpochNotFoundError:
        """The error that says so, with the epochs that there are."""
        kept = [number for number in self.kept_epochs(member) if number is not None]
        which = "final weights" if epoch is None else f"weights of epoch {epoch}"
        record = self.member_record(member)
        why = f" (it diverged after step {record.diverged_step})" if record.status == "diverged" else ""
        # Who asked for the final weights has said no epoch, and may not know how.
        said = len(kept) == 1 or (epoch is None and kept)
        how = f"; load {'it' if len(kept) == 1 else 'the last'} with epoch={kept[-1]} or @{kept[-1]}" if said else ""
        return EpochNotFoundError(
            f"{member} has no {which}{why}; kept {'is' if len(kept) < 2 else 'are'} {_ranges(kept)}{how}.",
            epoch=epoch,
            epochs=kept,
        )


def refuse_link_out(path: Path, root: Path) -> Path:
    """The path, unless it is, or goes through, a link that leaves the zoo's folder.

    Where that folder is a snapshot in the Hugging Face cache, links may lead to the blobs of the same repo, and to the
    cache's own store of shared blobs.

    Raises:
        UnsafePathError: It leads elsewhere.
    """
    real = os.path.realpath(path)
    allowed = [os.path.realpath(root)]
    if root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--"):
        repo = Path(os.path.realpath(root.parent.parent))
        allowed += [str(repo / "blobs"), str(repo.parent / "blobs")]  # which are no links themselves
    if not any(os.path.commonpath([real, folder]) == folder for folder in allowed):
        raise UnsafePathError(
            f"{path} is a link to {real}, which is outside the zoo {root}. A zoo's files never leave its folder: copy "
            "the file in, or take the link out.",
            path=path,
        )
    return path


def read_file_range(path: Path, start: int, stop: int) -> tuple[bytes, int]:
    """`ZooSource.read_range` of a local file."""
    with open(path, "rb") as file:
        return read_open_range(file.fileno(), start, stop)


def read_open_range(file: int, start: int, stop: int) -> tuple[bytes, int]:
    """`ZooSource.read_range` of a local file that is open, by its descriptor."""
    size = os.fstat(file).st_size
    return os.pread(file, max(0, min(stop, size) - start), start), size


def _ranges(numbers: list[int]) -> str:
    if not numbers:
        return "none"
    if len(numbers) > 1 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))
