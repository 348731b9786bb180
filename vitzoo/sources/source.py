"""The interface of a zoo that can be read, and the code that folders and Hub repos share.

`ZooSource.path` opens every file of a zoo. It refuses links that leave the zoo and, if a digest was given, files that
differ from the manifest. See `vitzoo.sources.locate` for how names resolve, and `vitzoo.tables.catalogue` for what the
files record.
"""

import os
import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any

from vitzoo import records
from vitzoo.errors import (
    AuthenticityError,
    EpochNotFoundError,
    MemberNotFoundError,
    RecordError,
    UnsafePathError,
    advise,
    did_you_mean,
)
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.records.copies import CopyRecord
from vitzoo.records.files import check_file
from vitzoo.records.manifest import Manifest, load_manifest

_MOST_NAMED = 8  # members in a command


@dataclass(frozen=True, kw_only=True, slots=True)
class HubOptions:
    """Options for reaching a Hub repo. With a folder, a revision is an error and the others have no effect.

    A pickle has no token, because it may end in a file: the other process uses its own.
    """

    revision: str | None = None  # a branch, tag or commit; None for the default branch. Resolved once, then pinned
    token: str | bool | None = field(default=None, repr=False)  # True or None for the stored one, False for none
    cache_dir: str | os.PathLike[str] | None = None  # the Hugging Face cache; None for the usual one
    local_files_only: bool = False  # use the cache alone
    force_download: bool = False  # download cached files again

    def __reduce__(self) -> tuple[Any, ...]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        token = None if isinstance(self.token, str) else self.token
        return partial(HubOptions, **(values | {"token": token})), ()

    def __deepcopy__(self, _: object) -> "HubOptions":
        return self

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> "HubOptions":
        """Take the options from the arguments of a ``from_pretrained``."""
        return cls(**{name: arguments[name] for name in cls.__slots__ if name in arguments})


class ZooSource(ABC):
    """A zoo that can be read: a folder, or a Hub repo at one commit, whose ``root`` has the downloaded files.

    With a digest every file is compared with the manifest of that digest.
    """

    def __init__(self, *, name: str, root: Path, digest: str | None):
        self.name = name
        self.root = root
        self.digest = None
        self.record = records.load_zoo_record(self.path(layout.ZOO_JSON))
        self.digest = digest  # set after zoo.json was read, because the manifest is compared with zoo.json
        self._authentic: dict[PurePosixPath, tuple[int, ...]] = {}
        if digest is not None:
            self.path(layout.ZOO_JSON)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @abstractmethod
    def path(self, relative: PurePosixPath) -> Path:
        """Return the local path of a file, by its path in the zoo. A Hub repo's file is downloaded first.

        Raises:
            UnsafePathError: It is a link that leaves the zoo, or goes through one.
            AuthenticityError: It differs from the manifest of the given digest.
            RecordError: A Hub repo has no such file. (In a folder the file may be missing.)
            UnreadableError: The system refuses to read it.
            HubError: The Hub cannot be reached, or refuses.
        """

    @abstractmethod
    def local_file(self, relative: PurePosixPath) -> Path | None:
        """Return the path of a file that is on this machine, or None if it must be downloaded first.

        Raises:
            RecordError: The file does not exist and cannot be downloaded.
            UnsafePathError, AuthenticityError: As `path`.
        """

    @abstractmethod
    def read_range(self, relative: PurePosixPath, start: int, stop: int) -> tuple[bytes, int]:
        """Read the bytes ``start`` to ``stop`` of a file, fewer if it ends earlier, and its whole size.

        Raises:
            RecordError: There is no such file.
            HubError: The Hub cannot be reached, or refuses.
        """

    @cached_property
    def manifest(self) -> Manifest | None:
        """manifest.json; None for a folder that was never published.

        Raises:
            RecordError: It is damaged, belongs to another zoo than zoo.json, or is missing in a Hub repo.
            AuthenticityError: It has another digest than the given one.
        """
        path = self.path(layout.MANIFEST)
        if not os.path.lexists(path):
            return None
        manifest = load_manifest(path, digest=self.digest)
        if manifest.recipe_sha256 != self.record.recipe_sha256:
            raise RecordError(
                f"{path} and {layout.ZOO_JSON} belong to different zoos: their recipe_sha256 differ",
                fix="Get both again, or publish again.",
                path=path,
            )
        return manifest

    @cached_property
    def copied(self) -> CopyRecord | None:
        """copy.json of a folder with a part of a zoo; None for a whole zoo.

        Raises:
            RecordError: It is damaged.
        """
        return None

    @abstractmethod
    def member_ids(self) -> list[MemberId]:
        """Return every finished member, parents before their children. A Hub repo's are listed by its manifest."""

    @abstractmethod
    def saved_epochs(self, member: MemberId) -> set[int | None]:
        """Return the epochs of a member that have a weights file. None means the final weights."""

    def _authenticate(self, relative: PurePosixPath, path: Path) -> None:
        """Compare a file with the manifest of the given digest, once until the file changes."""
        if self.digest is None or relative == layout.MANIFEST or not path.is_file():
            return
        if self.manifest is None:
            raise AuthenticityError(
                f"{self.name} has no {layout.MANIFEST}, so no digest can prove its identity",
                fix=advise(
                    repository="Publish the zoo first: python -m training publish.",
                    wheel="Get the zoo as its authors published it, or omit the digest.",
                ),
                path=path,
            )
        state = path.stat()
        signature = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        if self._authentic.get(relative) != signature:
            self.compare_with_manifest(relative, path)
            self._authentic[relative] = signature

    def compare_with_manifest(
        self, relative: PurePosixPath, path: Path, *, content: bytes | bytearray | None = None
    ) -> None:
        """Raise an AuthenticityError if there is a manifest and it does not list this very file, or its ``content``."""
        if self.manifest is None:
            return
        expected = self.manifest.files.get(str(relative))
        if expected is None:
            raise AuthenticityError(
                f"{path} is not listed in the manifest of {self.name}", fix="Do not trust this zoo.", path=path
            )
        check_file(path, expected, by=f"the manifest of {self.name}", error=AuthenticityError, content=content)

    def no_member(self, member: MemberId) -> MemberNotFoundError:
        """Make the error for an unknown member, with the nearest members."""
        fix = self._how_to_download(member, None) or did_you_mean(member, self.member_ids()).strip() or None
        return MemberNotFoundError(f"The zoo {self.name} has no member {member}", fix=fix, member=member)

    def no_epoch(self, member: MemberId, epoch: int | None, *, reason: str = "") -> EpochNotFoundError:
        """Make the error for missing weights of an epoch, or for missing final weights (None)."""
        saved = sorted(number for number in self.saved_epochs(member) if number is not None)
        which = "final weights" if epoch is None else f"weights of epoch {epoch}"
        fix = f"Load epoch {saved[-1]} with epoch={saved[-1]} or @{saved[-1]}." if saved else None
        fix = self._how_to_download(member, epoch) or fix
        return EpochNotFoundError(
            f"{member} has no {which}{f' ({reason})' if reason else ''}",
            expected=f"a saved epoch: {_ranges(saved)}",
            fix=fix,
            epoch=epoch,
            epochs=saved,
        )

    def _how_to_download(self, member: MemberId, epoch: int | None) -> str | None:
        """Say how to get weights that a partial copy lacks; None if its zoo does not have them either."""
        if self.copied is None or self.manifest is None or layout.weights_file(member, epoch) not in self.manifest:
            return None
        return self.how_to_widen([member], epochs="last" if epoch is None else epoch)

    def how_to_widen(
        self, members: Sequence[MemberId] = (), *, where: str = "", epochs: int | str = "last"
    ) -> str | None:
        """Return the fix of an error about weights that a partial copy lacks; None if this is not a partial copy.

        Args:
            members: The members whose weights are needed. More than 8 are too many for a command.
            where: Conditions of the command line that choose the members, if none are given.
            epochs: The epochs that are needed.
        """
        if self.copied is None:
            return None
        if 0 < len(members) <= _MOST_NAMED:
            where = f"id={'|'.join(map(str, members))},status=any"
        chosen = f" --where {shlex.quote(where)}" if where else ""
        return (
            f"This folder is a partial copy. Download them: vitzoo download {self.copied.repo} --revision "
            f"{self.copied.revision}{chosen} --epochs {epochs} --to {shlex.quote(str(self.root))}"
        )


def _ranges(numbers: list[int]) -> str:
    if not numbers:
        return "none"
    if len(numbers) > 1 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))


def refuse_link_out(path: Path, root: Path) -> Path:
    """Return the path, or raise an UnsafePathError if a link in it leaves the zoo's folder.

    In a snapshot of the Hugging Face cache, links may lead to the repo's blobs and to the cache's shared blobs.
    """
    place = str(root)
    for part in path.parts[len(root.parts) :]:
        place = os.path.join(place, part)
        if part == ".." or os.path.islink(place):
            break
    else:  # no link below the root: much cheaper than resolving the whole path
        return path
    real = os.path.realpath(path)
    allowed = [os.path.realpath(root)]
    if root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--"):
        repo = Path(os.path.realpath(root.parent.parent))
        allowed += [str(repo / "blobs"), str(repo.parent / "blobs")]  # unresolved: a link here is not followed
    if not any(os.path.commonpath([real, folder]) == folder for folder in allowed):
        raise UnsafePathError(
            f"{path} is a link to {real}, which is outside the zoo {root}",
            fix="Copy the file into the zoo, or remove the link.",
            path=path,
        )
    return path


def read_file_range(path: Path, start: int, stop: int) -> tuple[bytes, int]:
    """Read a range of a local file, as `ZooSource.read_range` does."""
    with open(path, "rb") as file:
        return read_open_range(file.fileno(), start, stop)


def read_open_range(file: int, start: int, stop: int) -> tuple[bytes, int]:
    """Read a range of an open file by its descriptor, as `ZooSource.read_range` does."""
    size = os.fstat(file).st_size
    return os.pread(file, max(0, min(stop, size) - start), start), size
