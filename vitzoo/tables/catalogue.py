"""The catalogue of a zoo: the records and tables of its members, whether it is a folder or a Hub repo.

A folder's records come from each member's own files, and a Hub repo's from the published tables, so that many members
cost no request each. See `vitzoo.sources.source` for the files themselves.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from vitzoo import records
from vitzoo.architectures import load_architecture
from vitzoo.errors import EpochNotFoundError, RecordError, SelectionError, VitZooError, advise, did_you_mean, shown
from vitzoo.ids import MemberId, MemberRef
from vitzoo.records import layout
from vitzoo.records.epochs import Epochs
from vitzoo.records.files import write_atomically
from vitzoo.records.json_files import read_bytes
from vitzoo.sources.folder import FolderSource
from vitzoo.sources.source import ZooSource
from vitzoo.splits.leaks import CONTENT_IDS, join_families

if TYPE_CHECKING:
    import pyarrow as pa

_ALL = Epochs("all")


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberFiles:
    """The files that loading one member reads.

    Args:
        ref: The reference, with the epoch.
        config: The member's config.json.
        weights: The weights file of the epoch.
        weights_record: Size and hash of that file in the member's record; None if the record was not read.
        config_content: Bytes of config.json that were compared with their hash; None if they were not read.
    """

    ref: MemberRef
    config: Path
    weights: Path
    weights_record: records.WeightsRecord | None
    config_content: bytes | None


class Catalogue:
    """Records and tables of a zoo. Each is read or built once, when it is asked for.

    Args:
        source: The zoo's files.
    """

    def __init__(self, source: ZooSource):
        self.source = source
        self._records: dict[MemberId, records.MemberRecord] = {}
        self._metrics: dict[MemberId, list[records.EpochRecord]] = {}
        self._tables: dict[str, pa.Table] = {}

    def __reduce__(self):  # another process reads the records again
        return (Catalogue, (self.source,))

    @property
    def is_local(self) -> bool:
        """True for a folder, whose records cost no download."""
        return isinstance(self.source, FolderSource)

    @cached_property
    def member_ids(self) -> list[MemberId]:
        """Every finished member, parents before their children."""
        return self.source.member_ids()

    def member_record(self, member: MemberId) -> records.MemberRecord:
        """Return a member's record.

        Raises:
            MemberNotFoundError: The zoo has no such member.
            RecordError: There is no valid record.
        """
        if member not in self._records:
            if self.is_local:
                self._records[member] = self._load_member_record(member)
            elif member not in self.source.member_ids():
                raise self.source.no_member(member)
            else:
                from vitzoo.tables.read import parse_member_records  # pyarrow

                path = self.source.path(layout.table_file("members"))
                self._records = parse_member_records(self.table("members"), self._manifest, path)
        return self._records[member]

    def has_record(self, member: MemberId) -> bool:
        """Return whether a member's record can be read without the network."""
        return self.is_local or (member in self._records and bool(self._metrics))

    def epoch_records(self, member: MemberId) -> list[records.EpochRecord]:
        """Return a member's metrics, epochs ascending. Raises as `member_record`."""
        if member not in self._metrics:
            if self.is_local:
                path = self.source.path(layout.metrics_file(member))
                self._metrics[member] = records.load_epoch_records(path)
            elif member not in self.source.member_ids():
                raise self.source.no_member(member)
            else:
                from vitzoo.tables.read import parse_epoch_records  # pyarrow

                path = self.source.path(layout.table_file("epochs"))
                self._metrics = parse_epoch_records(self.table("epochs"), path)
        return self._metrics[member]

    def weights_sizes(self, member: MemberId) -> dict[int | None, int]:
        """Return the recorded bytes of each weights file that exists, by epoch; None, the final weights, comes last."""
        saved = self.source.saved_epochs(member)
        sizes = {file.epoch: file.size for file in self.member_record(member).weights if file.epoch in saved}
        return {epoch: sizes[epoch] for epoch in sorted(sizes, key=lambda epoch: (epoch is None, epoch))}

    def saved_epochs(self, member: MemberId) -> list[int | None]:
        """Return the epochs whose weights file exists, ascending; None, the final weights, comes last."""
        return list(self.weights_sizes(member))

    def table(self, name: str) -> "pa.Table":
        """Return a table: built from a folder's records, or a Hub repo's published one.

        A folder's published files may be older than its records. A partial copy of a published zoo keeps that zoo's
        tables, because lineage, families and splits depend on all members. Args and errors as `vitzoo.Zoo.table`.
        """
        from vitzoo.tables.build import build_splits, build_table  # pyarrow
        from vitzoo.tables.columns import TABLES

        if name not in TABLES:
            raise SelectionError(f'There is no table "{name}"', fix=did_you_mean(name, TABLES), value=name)
        if name not in self._tables:
            if not self.is_local or self._is_partial:
                from vitzoo.tables.read import load_published_table  # pyarrow.parquet

                self._tables[name] = load_published_table(self.source, name, self._manifest)
            elif name == "splits":
                self._tables[name] = build_splits(self.table("members"), self.table("epochs"))
            else:
                self._tables[name] = build_table(name, self.read_members())
        return self._tables[name]

    def member_rows(self, members: Sequence[MemberId]) -> "pa.Table":
        """Return the rows of the table ``members`` of some members, in their order."""
        table = self.table("members")
        places = {text: row for row, text in enumerate(table.column("id").to_pylist())}
        return _take(table, [places[str(member)] for member in members])

    def epoch_rows(self, refs: Iterable[MemberRef]) -> "pa.Table":
        """Return the rows of the table ``epochs`` of some checkpoints, in their order.

        Final weights are the last epoch.
        """
        places, rows = self.epoch_places, []
        for ref in refs:
            epochs = places[ref.member]
            rows.append(epochs[max(epochs) if ref.epoch is None else ref.epoch])
        return _take(self.table("epochs"), rows)

    @cached_property
    def epoch_places(self) -> dict[MemberId, dict[int, int]]:
        """Row numbers in the table ``epochs`` by member and epoch."""
        table = self.table("epochs")
        places: dict[str, dict[int, int]] = {}
        columns = (table.column(name).to_pylist() for name in ("id", "epoch"))
        for row, (text, epoch) in enumerate(zip(*columns, strict=True)):
            places.setdefault(text, {})[epoch] = row
        return {MemberId.parse(text): epochs for text, epochs in places.items()}

    @cached_property
    def init_families(self) -> dict[str, str]:
        """Family of each member by id: a parent with its children, joined with those of the same initialisation."""
        digests = self.table("epochs").select(["id", "epoch", *CONTENT_IDS])
        return join_families(self.table("members").to_pylist(), digests.to_pylist(), by="init_group")

    def member_files(self, ref: MemberRef, *, verify: bool = False) -> MemberFiles:
        """Return the files that loading one member reads; of a Hub repo they are downloaded.

        Args:
            ref: The member and the epoch.
            verify: Whether to download a Hub repo's record, too, and compare the config with its hash.

        Raises:
            MemberNotFoundError, EpochNotFoundError: Something does not exist.
            RecordError: A record is damaged or a file is missing.
        """
        weights_record = self._weights_record(ref) if self.is_local or verify else None
        config = self._file(layout.config_file(ref.member), missing=lambda: self.source.no_member(ref.member))
        content = self._read_checked_config(ref.member, config) if verify else None
        weights = layout.weights_file(ref.member, ref.epoch)
        return MemberFiles(
            ref=ref,
            config=config,
            weights=self._file(weights, missing=lambda: self.no_epoch(ref.member, ref.epoch)),
            weights_record=weights_record,
            config_content=content,
        )

    def processor_files(self, member: MemberId) -> tuple[PurePosixPath, ...]:
        """Return the paths of the files that prepare a member's inputs: an image processor, or a tokenizer.

        An imported member may have none. Another member always has them, and reading a missing one is an error.
        """
        architecture = load_architecture(self.source.path(layout.config_file(member)))
        files = layout.processor_files(member, architecture.modality)
        if not self.is_local:
            manifest = self.source.manifest
            return files if manifest is None else tuple(path for path in files if path in manifest)
        if all(self.source.path(path).is_file() for path in files) or self.member_record(member).origin is None:
            return files
        return ()

    def config_file(self, ref: MemberRef) -> Path:
        """Return the path of a member's config.json, which all its epochs share.

        Raises as `member_files`; whether a Hub repo has the epoch is not checked.
        """
        if self.is_local:
            self._weights_record(ref)
        return self._file(layout.config_file(ref.member), missing=lambda: self.source.no_member(ref.member))

    def _weights_record(self, ref: MemberRef) -> records.WeightsRecord:
        try:
            return self._load_member_record(ref.member).weights_at(ref.epoch)
        except LookupError:
            raise self.no_epoch(ref.member, ref.epoch) from None

    def _file(self, relative: PurePosixPath, *, missing: Callable[[], VitZooError]) -> Path:
        """Return the path of an existing file. A file that a Hub repo or a partial copy lacks is the given error."""
        try:
            if self.is_local:
                return self.source.local_file(relative) or self.source.root / relative
            return self.source.path(relative)
        except RecordError:
            if self.is_local and (self.source.copied is None or self.source.copied.includes(relative)):
                raise
            raise missing() from None

    def no_epoch(self, member: MemberId, epoch: int | None) -> EpochNotFoundError:
        """Make the error for an epoch without weights, with the saved epochs."""
        record = self.member_record(member)
        diverged = f"it diverged after step {record.diverged_step}" if record.status == "diverged" else ""
        return self.source.no_epoch(member, epoch, reason=diverged)

    def read_members(self) -> list[tuple[records.MemberRecord, list[records.EpochRecord]]]:
        """Return every member's record and metrics, ordered by id."""
        return [(self.member_record(member), self.epoch_records(member)) for member in self.member_ids]

    @property
    def _manifest(self):
        manifest = self.source.manifest
        if manifest is None:
            raise RecordError(f"{self.source.name} has no {layout.MANIFEST}", fix="Publish it again.")
        return manifest

    @cached_property
    def _is_partial(self) -> bool:
        manifest = self.source.manifest
        return manifest is not None and set(self.member_ids) < set(manifest.member_ids)

    def _load_member_record(self, member: MemberId) -> records.MemberRecord:
        """Read a member's own member.json."""
        file = self.source.path(layout.member_file(member))
        if not file.is_file():
            if not file.parent.is_dir():
                raise self.source.no_member(member)
            raise RecordError(
                f"{file.parent} has no {file.name}",
                expected="a finished member",
                fix=advise(
                    repository="Train it again (python -m training run), or get the folder again.",
                    wheel="Get the folder again.",
                ),
                path=file,
            )
        record = records.load_member_record(file)
        if record.id != str(member):
            raise RecordError(
                f"{file} has id {shown(record.id)}, but is in the folder of {member}", fix="Get it again.", path=file
            )
        return record

    def _read_checked_config(self, member: MemberId, config: Path) -> bytes:
        """Read config.json, and compare it with the manifest, or with the hash that the Hub gave it."""
        from vitzoo.sources.hub import HubSource  # huggingface_hub

        content = read_bytes(config)
        if isinstance(self.source, HubSource):
            self.source.check_blob(layout.config_file(member), content)
        else:
            self.source.compare_with_manifest(layout.config_file(member), config, content=content)
        return content


def _take(table: "pa.Table", rows: Sequence[int]) -> "pa.Table":
    import pyarrow as pa

    return table.take(pa.array(rows, pa.int64()))  # an empty list has no type of its own


def build_tables(source: ZooSource, *, epochs: Epochs = _ALL) -> "dict[str, pa.Table]":
    """Build all tables of a zoo from its members' own records.

    Args:
        source: The zoo.
        epochs: The epochs whose weights exist; ``bytes`` of the others is null.
    """
    from vitzoo.tables.build import build_splits, build_table  # pyarrow

    read = Catalogue(source).read_members()
    members, rows = (build_table(name, read, epochs=epochs) for name in ("members", "epochs"))
    return {"members": members, "epochs": rows, "splits": build_splits(members, rows)}


def write_tables(source: ZooSource) -> None:
    """Build a zoo's tables and write them with their card.

    The card carries a digest of each table, because `datasets` caches a local folder by its name and its card.
    """
    from vitzoo.tables.build import describe_table, encode_table
    from vitzoo.tables.cards import dataset_card

    (source.root / layout.METADATA).mkdir(exist_ok=True)
    descriptions = []
    for name, table in build_tables(source).items():
        content = encode_table(table)
        write_atomically(source.path(layout.table_file(name)), content)
        descriptions.append(describe_table(name, table, content))
    card = dataset_card(descriptions, recipe=str(source.record.recipe.get("name", "custom")))
    write_atomically(source.path(layout.METADATA_README), card.encode())
