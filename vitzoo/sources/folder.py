"""A zoo in a local folder."""

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from vitzoo import records
from vitzoo.errors import RecordError, ZooNotFoundError, shown
from vitzoo.ids import MemberId, MemberRef
from vitzoo.records import layout
from vitzoo.sources.source import MemberFiles, ZooSource, read_file_range, refuse_link_out

if TYPE_CHECKING:
    import pyarrow as pa

HOW_TO_GET_ONE = (
    'Generate one with "make zoo" (or "python -m training run digits --out zoo"), or name one: a path such as '
    "./my-zoo/pt-0, a Hub repo such as org/name/pt-0, or VITZOO_ZOO=/path/to/zoo."
)


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
                f"{absolute} is no zoo: it holds no {layout.ZOO_JSON}. {HOW_TO_GET_ONE}", zoo=str(root)
            )
        self._sizes: dict[MemberId, dict[int | None, int]] = {}  # by the records, each read once
        super().__init__(name=str(absolute), root=absolute, digest=digest)

    def path(self, relative: PurePosixPath) -> Path:
        """See `ZooSource.path`."""
        path = refuse_link_out(self.root / relative, self.root)
        self._authenticate(relative, path)
        return path

    def local_file(self, relative: PurePosixPath) -> Path:
        """See `ZooSource.local_file`."""
        path = self.path(relative)
        if not path.is_file():
            raise RecordError(
                f"{path} is missing: the member is not whole, or only some of its epochs were downloaded. Get the "
                "file again, or train the member again.",
                path=path,
            )
        return path

    def read_range(self, relative: PurePosixPath, start: int, stop: int) -> tuple[bytes, int]:
        """See `ZooSource.read_range`."""
        return read_file_range(self.local_file(relative), start, stop)

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

    def load_tables(self, name: str) -> "dict[str, pa.Table]":
        """See `ZooSource.load_tables`; from the records, which the files in metadata/ may be older than.

        A copy of some members of a published zoo keeps that zoo's tables: lineage, families and splits are of all.
        """
        from vitzoo.tables.metadata import build_tables
        from vitzoo.tables.tables import load_published_table

        there = set(self.member_ids())
        if self.manifest is not None and there < set(self.manifest.member_ids):
            return {name: load_published_table(self, name, self.manifest)}
        return build_tables(self)

    def weights_sizes(self, member: MemberId) -> dict[int | None, int]:
        """See `ZooSource.weights_sizes`: what the record says of the files that are there."""
        if member not in self._sizes:
            self._sizes[member] = super().weights_sizes(member)
        folder = self.root / layout.member_folder(member)
        names = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
        return {epoch: size for epoch, size in self._sizes[member].items() if layout.weights_name(epoch) in names}

    def member_files(self, ref: MemberRef, *, verify: bool = False) -> MemberFiles:
        """See `ZooSource.member_files`; a local record costs nothing, so it is always read."""
        weights_record = self._weights_record(ref)
        config = self.local_file(layout.config_file(ref.member))
        if verify and self.manifest is not None:
            self._compare(layout.config_file(ref.member), config, self.manifest)
        return MemberFiles(
            ref=ref,
            config=config,
            weights=self.local_file(layout.weights_file(ref.member, ref.epoch)),
            weights_record=weights_record,
        )

    def config_file(self, ref: MemberRef) -> Path:
        """See `ZooSource.config_file`."""
        self._weights_record(ref)
        return self.local_file(layout.config_file(ref.member))

    def _weights_record(self, ref: MemberRef) -> records.WeightsRecord:
        record = self.member_record(ref.member)
        try:
            return record.weights_at(ref.epoch)
        except LookupError:
            raise self.no_epoch(ref.member, ref.epoch) from None


def is_zoo_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a zoo.json."""
    return os.path.isfile(os.path.join(path, layout.ZOO_JSON))  # False for a name that is no path


def _numbered_folders(folder: Path, prefix: str) -> list[int]:
    numbers = []
    for entry in os.scandir(folder):
        head, _, number = entry.name.partition("-")
        if head == prefix and number.isascii() and number.isdigit() and str(int(number)) == number and entry.is_dir():
            numbers.append(int(number))
    return sorted(number for number in numbers if number < 10**9)
