"""A zoo in a local folder."""

import contextlib
import os
from functools import cached_property
from pathlib import Path, PurePosixPath

from vitzoo.errors import RecordError, ZooNotFoundError, advise, did_you_mean
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.records.copies import CopyRecord, load_copy_record
from vitzoo.records.files import check_readable, reading
from vitzoo.sources.source import ZooSource, read_file_range, refuse_link_out

ZOO_VARIABLE = "VITZOO_ZOO"
DEMO_FOLDER = Path(__file__).parents[1] / "demo"
"""The zoo in the wheel, which the name ``demo`` means. ``python -m tests.demo`` trains it again."""

_NAMES = (
    "a path such as ./my-zoo/pt-0, a Hub repo such as org/name/pt-0, VITZOO_ZOO=/path/to/zoo, or demo, a small zoo "
    "that comes with vitzoo."
)
_HOW_TO_GET_A_ZOO = advise(
    repository=f'Generate one with "make zoo" (or "python -m training run digits --out zoo"), or name one: {_NAMES}',
    wheel=f"Name one: {_NAMES} Training one needs a clone of vitzoo's repository.",
)


class FolderSource(ZooSource):
    """A zoo in a local folder.

    Args:
        root: The folder.
        name: The name by which it is opened again; None for the folder's absolute path.
        digest: As `vitzoo.Zoo`.
    """

    def __init__(self, root: str | os.PathLike[str], *, name: str | None = None, digest: str | None = None):
        absolute = Path(root).absolute()  # a later change of the working directory has no effect
        if not is_zoo_folder(absolute):
            check_readable(absolute / layout.ZOO_JSON)
            raise ZooNotFoundError(
                f"{absolute} is not a zoo: it has no {layout.ZOO_JSON}", fix=how_to_get_a_zoo(absolute), zoo=str(root)
            )
        super().__init__(name=name or str(absolute), root=absolute, digest=digest)

    def path(self, relative: PurePosixPath) -> Path:
        """Return a file's path. See `ZooSource.path`."""
        path = refuse_link_out(self.root / relative, self.root)
        check_readable(path)
        self._authenticate(relative, path)
        return path

    def local_file(self, relative: PurePosixPath) -> Path:
        """Return an existing file's path. See `ZooSource.local_file`."""
        path = self.path(relative)
        if not path.is_file():
            raise RecordError(
                f"{path} is missing: the member is incomplete, or only some of its epochs were downloaded",
                fix="Get the file again, or train the member again.",
                path=path,
            )
        return path

    def read_range(self, relative: PurePosixPath, start: int, stop: int) -> tuple[bytes, int]:
        """Read a range of a file. See `ZooSource.read_range`."""
        return read_file_range(self.local_file(relative), start, stop)

    @cached_property
    def copied(self) -> CopyRecord | None:
        """copy.json. See `ZooSource.copied`."""
        path = refuse_link_out(self.root / layout.COPY, self.root)
        return load_copy_record(path, self.manifest) if path.exists() else None

    def member_ids(self) -> list[MemberId]:
        """List the members whose folder has a member.json. See `ZooSource.member_ids`."""
        members = _match_folders(self.root)
        for parent in list(members):
            members += _match_folders(self.root / str(parent), f"{parent}/")
        return [member for member in sorted(members) if self.path(layout.member_file(member)).is_file()]

    def saved_epochs(self, member: MemberId) -> set[int | None]:
        """List the epochs of the weights files in a member's folder. See `ZooSource.saved_epochs`."""
        folder = self.path(layout.member_folder(member))
        with reading(folder):
            names = os.listdir(folder) if folder.is_dir() else []
        return {layout.parse_weights_name(name) for name in names if layout.is_weights_name(name)}


def is_zoo_folder(path: str | os.PathLike[str]) -> bool:
    """Tell whether a folder has a zoo.json. A text that cannot be a path has none."""
    return os.path.isfile(os.path.join(path, layout.ZOO_JSON))


def how_to_get_a_zoo(missing: str | os.PathLike[str]) -> str:
    """Say how to get a zoo, after the names of the zoos beside a missing one."""
    folder = Path(missing).absolute()
    names = {"zoo"} if os.environ.get(ZOO_VARIABLE) else set()
    with contextlib.suppress(OSError):
        names |= {entry.name for entry in os.scandir(folder.parent) if is_zoo_folder(entry.path)}
    return f"{did_you_mean(folder.name, sorted(names))} {_HOW_TO_GET_A_ZOO}"


def _match_folders(folder: Path, prefix: str = "") -> list[MemberId]:
    with reading(folder):
        ids = [MemberId.match(prefix + entry.name) for entry in os.scandir(folder) if entry.is_dir()]
    return [member for member in ids if member is not None]
