"""Plan a publication: list every file of both repos from the zoo folder alone, without the network.

Only finished members are published, and of their folders only the files that `vitzoo.records.layout` names. A symbolic
link is refused, because it may lead out of the zoo's published part, such as to a log under ``.training/``. See
`training.publish.checks` for the verification of the contents.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import msgspec

from training.publish.privacy import Privacy
from vitzoo.architectures import load_architecture
from vitzoo.errors import RecordError, TrainingError, UnsafePathError, WeightsError
from vitzoo.ids import MemberId, is_zoo_name, is_zoo_path
from vitzoo.records import MemberRecord, TimingRecord, WeightsRecord, ZooRecord, json_files, layout
from vitzoo.records.epochs import Epochs
from vitzoo.records.manifest import FileRecord, Manifest
from vitzoo.sources.folder import FolderSource
from vitzoo.tables import cards
from vitzoo.tables.build import describe_table, encode_table
from vitzoo.tables.catalogue import Catalogue, build_tables
from vitzoo.tables.model_card import ZooDescription, model_card

_ALL = Epochs("all")
_PNG = b"\x89PNG\r\n\x1a\n"
_LARGEST_PICTURE = 2 * 10**6
_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"pHYs", b"gAMA", b"sRGB", b"IDAT", b"IEND"}  # no text, no metadata
_TAG = re.compile(
    r"(?!.*\.\.)(?!(?:main|HEAD)$)(?![0-9a-f]{7,40}$)[A-Za-z0-9][\w.-]{0,60}(?<![.])(?<!\.lock)", re.ASCII
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedFile:
    """A file of a repo.

    Args:
        path: Path in the repo.
        size: Bytes.
        sha256: Hash of the whole file, in hex.
        content: The bytes, or the local weights file.
    """

    path: str
    size: int
    sha256: str
    content: bytes | Path = field(repr=False)

    @classmethod
    def of(cls, path: PurePosixPath | str, content: bytes) -> "PlannedFile":
        """Plan a file from its bytes."""
        return cls(path=str(path), size=len(content), sha256=hashlib.sha256(content).hexdigest(), content=content)

    def read(self) -> bytes:
        """Return the bytes. A local file may have changed since the plan."""
        return self.content if isinstance(self.content, bytes) else _read(self.content)


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """A planned publication.

    Args:
        source: The zoo.
        to: The model repo.
        metadata_to: The dataset repo.
        record: zoo.json, as published.
        members: The files of each member.
        closing: The files of the closing commit: cards, tables, zoo.json and, at the end, manifest.json.
        manifest: Lists every file except itself.
        tables: Descriptions of the tables, for the dataset repo's card.
        planned: Number of members in the recipe; None if it is unknown.
        left_out: Files in members' folders that are not part of a zoo. They are not sent.
        tag: Tag of both repos; None for no tag.
    """

    source: FolderSource
    to: str
    metadata_to: str
    record: ZooRecord
    members: dict[MemberId, tuple[PlannedFile, ...]]
    closing: tuple[PlannedFile, ...]
    manifest: Manifest
    tables: tuple[cards.TableDescription, ...]
    planned: int | None
    left_out: tuple[str, ...]
    tag: str | None

    @property
    def member_files(self) -> list[PlannedFile]:
        """Every file of every member."""
        return [file for files in self.members.values() for file in files]

    @property
    def files(self) -> list[PlannedFile]:
        """Every file of the model repo."""
        return [*self.member_files, *self.closing]

    @property
    def table_files(self) -> tuple[PlannedFile, ...]:
        """The tables, at their paths in the dataset repo."""
        tables = {layout.table_file(table.name) for table in self.tables}
        files = [file for file in self.closing if PurePosixPath(file.path) in tables]
        return tuple(replace(file, path=PurePosixPath(file.path).name) for file in files)

    def dataset_card(self, commit: str) -> PlannedFile:
        """Make the dataset repo's card, which names a commit of the model repo."""
        card = cards.dataset_card(
            self.tables,
            recipe=_recipe_name(self.record),
            metadata_repo=self.metadata_to,
            published=cards.Published(repo=self.to, commit=commit, digest=self.manifest.digest),
            license=self.record.license,
        )
        return PlannedFile.of(layout.README, card.encode())

    def describe(self) -> list[str]:
        """Describe the publication, a line for each fact."""
        weights = sum(len(self.manifest.weights_sizes(member)) for member in self.members)
        size = sum(file.size for file in self.files)
        lines = [
            f"{self.to} (model): {len(self.members)} members, {weights:,} weights files (epochs: "
            f"{self.manifest.epochs}), {len(self.files):,} files, {size:,} bytes",
            f"{self.metadata_to} (dataset): " + ", ".join(f"{table.name} {table.rows:,} rows" for table in self.tables),
            f"digest {self.manifest.digest}" + ("" if self.tag is None else f", tag {self.tag}"),
            f"licence: {self.record.license or 'none; declare one with --license'}",
        ]
        if self.planned is not None and self.planned != len(self.members):
            lines.append(
                f"{len(self.members)} of the recipe's {self.planned} members are finished. Only they are published, "
                "and the card says so."
            )
        if self.left_out:
            lines.append(f"Not sent, because they are not part of a zoo: {some(self.left_out)}")
        return lines


def plan_publication(
    source: FolderSource,
    *,
    to: str,
    metadata_to: str | None = None,
    epochs: Epochs = _ALL,
    tag: str | None = None,
    license: str | None = None,
    citation: str | None = None,
    pictures: Path | None = None,
) -> Publication:
    """Plan the publication of a zoo folder.

    Args:
        source: The zoo.
        to: The model repo, ``org/name``.
        metadata_to: The dataset repo; None for ``<to>-metadata``.
        epochs: Epochs whose weights are published beside the final ones.
        tag: Tag of both repos; None for no tag.
        license: Licence of weights and tables, as the Hub spells it; None for the one in zoo.json, if any.
        citation: BibTeX of the zoo; None for the one in zoo.json, if any.
        pictures: Folder of pictures for the card, as ``vitzoo report --pictures`` writes it; None for no pictures.

    Raises:
        TrainingError: A name is not a Hub repo or a tag, no member is finished, a file cannot be read, a text holds
            private data, or a picture is not a plain PNG.
        RecordError: A record is damaged, or a file is missing.
        WeightsError: A weights file has another size than its record says.
        UnsafePathError: A file is a link.
    """
    metadata_to = check_repo_names(to, metadata_to)
    if tag is not None and not _TAG.fullmatch(tag):
        raise TrainingError(f'--tag "{tag}" is not a tag', expected="letters, digits and ._- such as v1 or v1.0-rc1")
    if source.copied is not None:
        raise TrainingError(
            f"{source.root} is a partial copy of {source.copied.repo}: parents or epochs are missing",
            expected="a whole zoo, because readers would miss the rest",
            fix=source.how_to_widen(epochs="all"),
        )
    catalogue = Catalogue(source)
    records = {member: catalogue.member_record(member) for member in catalogue.member_ids}
    if not records:
        raise TrainingError(
            f"{source.root} has no finished member to publish", fix="Train some: python -m training run."
        )
    privacy = Privacy(source.root, public=(to, metadata_to))
    chosen: dict[MemberId, list[WeightsRecord]] = {}
    for member, member_record in records.items():
        numbers = {None, *epochs.of(member_record.saved_epochs)}
        chosen[member] = [weights for weights in member_record.weights if weights.epoch in numbers]
    members = {member: tuple(_member_files(source, member, chosen[member], privacy)) for member in records}
    record = with_terms(source.record, license=license, citation=citation)
    record = msgspec.structs.replace(record, metadata_repo=metadata_to)
    tables = build_tables(source, epochs=epochs)
    drawn = () if pictures is None else _read_pictures(pictures)
    contents = {name: encode_table(table) for name, table in tables.items()}
    described = [describe_table(name, table, contents[name]) for name, table in tables.items()]
    zoo = ZooDescription(
        repo=to,
        metadata_repo=metadata_to,
        record=record,
        architecture=load_architecture(source.path(layout.config_file(next(iter(records))))),
        members=list(records.values()),
        rows=tables["members"].to_pylist(),
        epochs=str(epochs),
        published_epochs={member: [weights.epoch for weights in saved] for member, saved in chosen.items()},
        bytes=sum(weights.size for saved in chosen.values() for weights in saved),
        planned=count_planned(record),
        pictures=[file.path for file in drawn],
    )
    texts = (
        PlannedFile.of(layout.README, model_card(zoo).encode()),
        PlannedFile.of(layout.ZOO_JSON, json_files.sorted_json(record)),
        PlannedFile.of(layout.METADATA_README, cards.dataset_card(described, recipe=_recipe_name(record)).encode()),
    )
    for file in texts:
        privacy.check(file.path, file.read())
    closing = (
        *texts,
        *drawn,
        *(PlannedFile.of(layout.table_file(name), content) for name, content in contents.items()),
    )
    manifest = Manifest(
        recipe_sha256=record.recipe_sha256,
        epochs=str(epochs),
        files={
            file.path: FileRecord(size=file.size, sha256=file.sha256)
            for files in (*members.values(), closing)
            for file in files
        },
    )
    return Publication(
        source=source,
        to=to,
        metadata_to=metadata_to,
        record=record,
        members=members,
        closing=(*closing, PlannedFile.of(layout.MANIFEST, manifest.to_bytes())),
        manifest=manifest,
        tables=tuple(described),
        planned=zoo.planned,
        tag=tag,
        left_out=tuple(path for member, record in records.items() for path in _left_out(source, member, record)),
    )


def check_repo_names(to: str, metadata_to: str | None, *, option: str = "--to") -> str:
    """Return the dataset repo of a model repo.

    Args:
        to: The model repo, ``org/name``.
        metadata_to: The dataset repo; None for ``<to>-metadata``.
        option: Option of the command line that names the model repo.

    Raises:
        TrainingError: A name is not the name of a Hub repo.
    """
    metadata_to = f"{to}-metadata" if metadata_to is None else metadata_to
    for name, repo in ((option, to), ("--metadata-to", metadata_to)):
        if not is_zoo_name(repo) or is_zoo_path(repo):
            raise TrainingError(f'{name} "{repo}" is not a Hub repo', expected="<org>/<name>, such as my-org/vit-zoo")
    return metadata_to


def with_terms(record: ZooRecord, *, license: str | None, citation: str | None) -> ZooRecord:
    """Return zoo.json with a licence and a citation; None leaves them as they are.

    Raises:
        TrainingError: The licence is not spelled as on the Hub, or the citation is too long.
    """
    terms = {name: text for name, text in {"license": license, "citation": citation}.items() if text is not None}
    try:
        msgspec.convert({"recipe": {}, "recipe_sha256": "", **terms}, ZooRecord)
    except msgspec.ValidationError as error:
        raise TrainingError(
            f"--license or --cite is not valid: {error}",
            expected='a licence as the Hub spells it, such as "apache-2.0" or "cc-by-4.0", and BibTeX up to 10,000 '
            "characters",
        ) from None
    return msgspec.structs.replace(record, **terms)


def keep_terms(source: FolderSource, *, license: str | None, citation: str | None) -> None:
    """Write a licence and a citation into the folder's zoo.json, so that later publications have them.

    A downloaded copy stays as it is: its manifest has the hash of its zoo.json.
    """
    record = with_terms(source.record, license=license, citation=citation)
    if record != source.record and not (source.root / layout.MANIFEST).exists():
        json_files.write_json(source.root / layout.ZOO_JSON, record)


def count_planned(record: ZooRecord) -> int | None:
    """Count the members of a recipe (see `training.recipes.plan`); None for a recipe of another shape."""
    try:
        children = record.recipe["children"]
        cells = len(children["heads"]) * len(children["optimizers"])
        return sum(1 + parent["replicates"] * cells for parent in record.recipe["parents"])
    except (KeyError, TypeError):
        return None


def some(values: Iterable[object], most: int = 8) -> str:
    """Join the first values, sorted, for a message."""
    texts = sorted(map(str, values))
    return ", ".join(texts[:most]) + (", ..." if len(texts) > most else "")


def read_error(path: Path | str, error: OSError) -> TrainingError:
    """Make an error of ours from a local file's OSError."""
    return TrainingError(
        f"{path} cannot be read: {error.strerror or error}", fix="Make it readable for you, and publish again."
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise read_error(path, error) from None


def read_text(path: Path) -> str:
    """Read a text that the user names, such as a BibTeX file.

    Raises:
        TrainingError: The file cannot be read, or is not UTF-8.
    """
    try:
        return _read(path).decode().strip()
    except UnicodeDecodeError:
        raise TrainingError(f"{path} is not a text", expected="UTF-8") from None


def _read_pictures(folder: Path) -> tuple[PlannedFile, ...]:
    """Plan the pictures of a folder. A PNG may have pixels alone: text in it could be private.

    Raises:
        TrainingError: There is no picture, or a file is not such a PNG of at most 2 MB.
    """
    files = []
    for path in sorted(folder.glob("*.png")):
        content = _read(path)
        planned = PlannedFile.of(layout.PICTURES / path.name, content)
        chunks = _png_chunks(content) if len(content) <= _LARGEST_PICTURE else set()
        if not layout.is_zoo_file(planned.path) or not {b"IHDR", b"IDAT", b"IEND"} <= chunks <= _PIXELS:
            raise TrainingError(
                f"{path} cannot be published",
                expected="a PNG of at most 2 MB without text or metadata, named by small letters, digits, - and _",
                fix="Draw it again: vitzoo report ... --pictures.",
            )
        files.append(planned)
    if not files:
        raise TrainingError(f"{folder} has no picture", fix="Draw some: vitzoo report ... --to report --pictures.")
    return tuple(files)


def _png_chunks(content: bytes) -> set[bytes]:
    """Return the types of a PNG's chunks; none if the bytes are not a PNG to their end."""
    place, types = len(_PNG), set()
    while content.startswith(_PNG) and place + 12 <= len(content):
        types.add(content[place + 4 : place + 8])
        place += 12 + int.from_bytes(content[place : place + 4], "big")
    return types if place == len(content) else set()


def _recipe_name(record: ZooRecord) -> str:
    return str(record.recipe.get("name", "custom"))


def _member_files(
    source: FolderSource, member: MemberId, weights: Sequence[WeightsRecord], privacy: Privacy
) -> Iterator[PlannedFile]:
    """Plan a member's files."""
    config = layout.config_file(member)
    _existing(source, config)
    processors = Catalogue(source).processor_files(member)
    texts = [config, *processors, layout.member_file(member), layout.metrics_file(member)]
    timing = layout.timing_file(member)
    if source.path(timing).is_file():
        check_timings(_existing(source, timing))
        texts.append(timing)
    for relative in texts:
        file = PlannedFile.of(relative, _read(_existing(source, relative)))
        privacy.check(file.path, file.read())
        yield file
    for recorded in weights:
        relative = layout.weights_file(member, recorded.epoch)
        path = _existing(source, relative)
        if (size := path.stat().st_size) != recorded.size:
            raise WeightsError(
                f"{path} has {size} bytes; nothing was sent",
                expected=f"{recorded.size}, as the record of {member} says",
                fix="Train the member again, or get the folder again.",
                path=path,
            )
        yield PlannedFile(path=str(relative), size=recorded.size, sha256=recorded.sha256, content=path)


def _existing(source: FolderSource, relative: PurePosixPath) -> Path:
    """Return the path of a file to be published.

    Raises:
        RecordError: The file does not exist.
        UnsafePathError: The file is a symbolic link, or is in a folder that is one.
    """
    path = source.path(relative)
    if os.path.realpath(path) != os.path.join(os.path.realpath(source.root), relative):
        raise UnsafePathError(
            f"{path} is a symbolic link, or goes through one, and links are not published",
            fix="Copy the file in.",
            path=path,
        )
    if not path.is_file():
        raise RecordError(
            f"{path} is missing, so this member cannot be published",
            fix="Train it again or get the folder again; --epochs publishes a folder with some epochs only.",
            path=path,
        )
    return path


def _left_out(source: FolderSource, member: MemberId, record: MemberRecord) -> Iterator[str]:
    """List the files in a member's folder that are neither its records nor its recorded weights."""
    folder = layout.member_folder(member)
    weights = {layout.weights_name(recorded.epoch) for recorded in record.weights}
    for entry in sorted(os.scandir(source.root / folder), key=lambda entry: entry.name):
        path = str(folder / entry.name)
        known = layout.is_zoo_file(path) and (not layout.is_weights_name(entry.name) or entry.name in weights)
        if not known and not (entry.is_dir() and MemberId.match(path)):
            yield path


def check_timings(path: Path) -> None:
    """Refuse a timing.jsonl with anything but timings: no other check reads it, so it could hold any text.

    Raises:
        RecordError: The file is not as the trainer or an import writes it.
    """
    content = _read(path)
    if not content:  # an import without clock times
        return
    timings = json_files.load_lines(TimingRecord, path)
    try:  # compared as text, because a JSON object may have a key twice
        plain = "".join(f"{json_files.json_line(json.loads(line))}\n" for line in content.splitlines()).encode()
    except ValueError:
        plain = None
    if content != plain or not all((timing.hardware or "").isprintable() for timing in timings):
        raise RecordError(
            f"{path} is not written as the trainer writes it",
            fix="Delete the file, which no member needs, or get it again.",
            path=path,
        )
