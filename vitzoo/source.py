"""Where a zoo is and how its files are reached: the interface, and a local folder.

``zoo`` means ``$VITZOO_ZOO``, else ``./zoo``; a path, or ``org/name`` where a folder of that name holds a zoo.json, is
a folder; any other ``org/name`` is a Hub repo (`vitzoo.hub`, the library's only network code beside `vitzoo.images`).
Every file of a zoo is opened through `ZooSource.path`, which refuses what lies outside and, where a digest was given,
what is not the zoo of that digest. From a name to a member's files is `vitzoo.locate`'s business.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from vitzoo import layout, records
from vitzoo.errors import (
    AuthenticityError,
    ConflictingArgumentsError,
    EpochNotFoundError,
    MemberNotFoundError,
    RecordError,
    UnsafePathError,
    ZooNotFoundError,
    did_you_mean,
    shown,
)
from vitzoo.ids import MemberId, MemberRef, is_zoo_name, is_zoo_path
from vitzoo.manifest import Manifest, load_manifest
from vitzoo.weights.header import file_sha256

if TYPE_CHECKING:
    from vitzoo.hub import HubSource

DEFAULT_ZOO = "zoo"
ZOO_VARIABLE = "VITZOO_ZOO"
_HOW_TO_GET_ONE = (
    'Generate one with "make zoo" (or "python -m training run digits --out zoo"), or name one: a path such as '
    f"./my-zoo/pt-0, a Hub repo such as org/name/pt-0, or {ZOO_VARIABLE}=/path/to/zoo."
)


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
        self._authentic: dict[PurePosixPath, tuple[int, ...]] = {}
        self.path(layout.ZOO_JSON)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @abstractmethod
    def path(self, relative: PurePosixPath) -> Path:
        """The local path of a file of the zoo; a Hub repo's is downloaded first.

        Args:
            relative: Its place in the zoo, from `vitzoo.layout`.

        Raises:
            UnsafePathError: It is, or goes through, a link that leaves the zoo.
            AuthenticityError: It is not what the manifest of the given digest says.
            RecordError: A Hub repo has no such file. (A folder's path is given whether the file is there or not.)
            HubError: The Hub cannot be reached, or refuses.
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
        record = self.member_record(member)
        return [*record.kept_epochs, *(None for weights in record.weights if weights.epoch is None)]

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
        signature = (state.st_ino, state.st_size, state.st_mtime_ns)
        if self._authentic.get(relative) == signature:
            return
        expected = self.manifest.files.get(str(relative))
        if expected is None:
            raise AuthenticityError(f"{path} is not named by the manifest of {self.name}. Do not trust it.", path=path)
        found = file_sha256(path)
        if (state.st_size, found) != (expected.size, expected.sha256):
            raise AuthenticityError(
                f"{path} has {state.st_size} bytes and sha256 {found[:16]}..., but the manifest of {self.name} says "
                f"{expected.size} and {expected.sha256[:16]}...: it was altered. Get the file again.",
                path=path,
            )
        self._authentic[relative] = signature

    def no_member(self, member: MemberId) -> MemberNotFoundError:
        """The error that says so, with the nearest members."""
        return MemberNotFoundError(
            f"The zoo {self.name} has no member {member}.{did_you_mean(member, self.member_ids())}", member=member
        )

    def no_epoch(self, member: MemberId, epoch: int | None) -> EpochNotFoundError:
        """The error that says so, with the epochs that there are."""
        kept = [number for number in self.kept_epochs(member) if number is not None]
        which = "final weights" if epoch is None else f"weights of epoch {epoch}"
        return EpochNotFoundError(f"{member} has no {which}; kept are {_ranges(kept)}.", epoch=epoch, epochs=kept)


class FolderSource(ZooSource):
    """A zoo in a local folder.

    Args:
        root: The folder that holds zoo.json.
        digest: What its manifest must hash to, where that is known.

    Raises:
        ZooNotFoundError: There is no zoo.json.
        RecordError: zoo.json is damaged, or of a newer format.
        AuthenticityError: It is not the zoo of that digest.
    """

    def __init__(self, root: str | os.PathLike[str], *, digest: str | None = None):
        absolute = Path(root).absolute()  # a later change of the working directory moves no zoo
        if not is_zoo_folder(absolute):
            raise ZooNotFoundError(
                f"{absolute} is no zoo: it holds no {layout.ZOO_JSON}. {_HOW_TO_GET_ONE}", zoo=str(root)
            )
        super().__init__(name=str(absolute), root=absolute, digest=digest)

    def path(self, relative: PurePosixPath) -> Path:
        """See `ZooSource.path`."""
        path = refuse_link_out(self.root / relative, self.root)
        self._authenticate(relative, path)
        return path

    def read_range(self, relative: PurePosixPath, start: int, stop: int) -> tuple[bytes, int]:
        """See `ZooSource.read_range`."""
        return read_file_range(self._existing(relative), start, stop)

    def member_ids(self) -> list[MemberId]:
        """See `ZooSource.member_ids`."""
        members = []
        for parent in _numbered_folders(self.root, "pt"):
            members.append(MemberId(parent))
            members += [MemberId(parent, child) for child in _numbered_folders(self.root / f"pt-{parent}", "ft")]
        return [member for member in members if self.path(layout.member_file(member)).is_file()]

    def member_record(self, member: MemberId) -> records.MemberRecord:
        """See `ZooSource.member_record`."""
        folder, path = self.path(layout.member_folder(member)), self.path(layout.member_file(member))
        if not folder.is_dir():
            raise self.no_member(member)
        if not path.is_file():
            raise RecordError(
                f"{folder} holds no {path.name}: it is no finished member. Train it again "
                "(python -m training run), or get the folder again.",
                path=path,
            )
        record = records.load_member_record(path)
        if record.id != str(member):
            raise RecordError(f"{path} says id {shown(record.id)}, but lies in the folder of {member}.", path=path)
        return record

    def epoch_records(self, member: MemberId) -> list[records.EpochRecord]:
        """See `ZooSource.epoch_records`."""
        return records.load_epoch_records(self.path(layout.metrics_file(member)))

    def member_files(self, ref: MemberRef, *, verify: bool = False) -> MemberFiles:
        """See `ZooSource.member_files`; a local record costs nothing, so it is always read."""
        weights_record = self._weights_record(ref)
        return MemberFiles(
            ref=ref,
            config=self._existing(layout.config_file(ref.member)),
            weights=self._existing(layout.weights_file(ref.member, ref.epoch)),
            weights_record=weights_record,
        )

    def config_file(self, ref: MemberRef) -> Path:
        """See `ZooSource.config_file`."""
        self._weights_record(ref)
        return self._existing(layout.config_file(ref.member))

    def _weights_record(self, ref: MemberRef) -> records.WeightsRecord:
        record = self.member_record(ref.member)
        try:
            return record.weights_at(ref.epoch)
        except LookupError:
            raise self.no_epoch(ref.member, ref.epoch) from None

    def _existing(self, relative: PurePosixPath) -> Path:
        path = self.path(relative)
        if not path.is_file():
            raise RecordError(
                f"{path} is missing: the member is not whole, or only some of its epochs were downloaded. Get the "
                "file again, or train the member again.",
                path=path,
            )
        return path


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
        repo = root.parent.parent
        allowed += [os.path.realpath(repo / "blobs"), os.path.realpath(repo.parent / "blobs")]
    if not any(os.path.commonpath([real, folder]) == folder for folder in allowed):
        raise UnsafePathError(
            f"{path} is a link to {real}, which is outside the zoo {root}. A zoo's files never leave its folder: copy "
            "the file in, or take the link out.",
            path=path,
        )
    return path


def is_zoo_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a zoo.json."""
    return (Path(path) / layout.ZOO_JSON).is_file()


def open_source(
    zoo: str | os.PathLike[str] | None = None, *, options: HubOptions | None = None, digest: str | None = None
) -> "FolderSource | HubSource":
    """The zoo of a name.

    Args:
        zoo: ``"zoo"`` or None for the default zoo, a path, or ``org/name``.
        options: How a Hub repo is reached.
        digest: What its manifest must hash to, where that is known.

    Raises:
        ZooNotFoundError: The name leads to no zoo.
        ConflictingArgumentsError: A revision was asked of a folder.
        AuthenticityError: It is not the zoo of that digest.
        HubError: The Hub cannot be reached, or refuses.
    """
    name, options = str(zoo), options or HubOptions()
    if zoo is None or zoo == DEFAULT_ZOO:
        name = os.environ.get(ZOO_VARIABLE) or DEFAULT_ZOO
        if name == DEFAULT_ZOO and not is_zoo_folder(DEFAULT_ZOO):
            raise ZooNotFoundError(
                f'"{DEFAULT_ZOO}" leads nowhere: {ZOO_VARIABLE} names no other, and ./{DEFAULT_ZOO} holds no '
                f"{layout.ZOO_JSON} (looked in {Path.cwd()}). {_HOW_TO_GET_ONE}",
                zoo=DEFAULT_ZOO,
            )
        if name != DEFAULT_ZOO and not is_zoo_folder(name) and not _is_hub_name(name):
            raise ZooNotFoundError(
                f'{ZOO_VARIABLE} is "{name}", which is no zoo: no folder of that name holds a {layout.ZOO_JSON}. '
                f"Point it at one or at a Hub repo (org/name), or unset it to use ./{DEFAULT_ZOO}.",
                zoo=name,
            )
    if _is_hub_name(name) and not is_zoo_folder(name):
        from vitzoo.hub import HubSource

        return HubSource(name, options=options, digest=digest)
    source = FolderSource(name if isinstance(zoo, str) or zoo is None else zoo, digest=digest)
    if options.revision is not None:
        raise ConflictingArgumentsError(
            f'revision="{options.revision}" was asked of the folder {source.root}. A revision is a git one of a Hub '
            "repo; for an epoch say epoch= or @<epoch>."
        )
    return source


def read_file_range(path: Path, start: int, stop: int) -> tuple[bytes, int]:
    """`ZooSource.read_range` of a local file."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return os.pread(file.fileno(), max(0, min(stop, size) - start), start), size


def _is_hub_name(name: str) -> bool:
    return is_zoo_name(name) and not is_zoo_path(name)


def _numbered_folders(folder: Path, prefix: str) -> list[int]:
    numbers = []
    for entry in os.scandir(folder):
        head, _, number = entry.name.partition("-")
        if head == prefix and number.isascii() and number.isdigit() and str(int(number)) == number and entry.is_dir():
            numbers.append(int(number))
    return sorted(number for number in numbers if number < 10**9)


def _ranges(numbers: list[int]) -> str:
    if not numbers:
        return "none"
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))
