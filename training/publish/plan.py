"""What a publication is: every file of both repos, decided from the zoo folder alone. No network, nothing written.

Only members that stand finished in the folder are taken, and of their folders only what `vitzoo.records.layout` makes.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from training.publish.files import PlannedFile
from training.publish.members import chosen_weights, left_out, plan_member
from training.publish.privacy import Privacy
from training.publish.verified import Verified
from vitzoo.errors import RecordError, TrainingError
from vitzoo.ids import MemberId, is_zoo_name, is_zoo_path
from vitzoo.records import ZooRecord, json_files, layout
from vitzoo.records.epochs import Epochs
from vitzoo.records.manifest import FileRecord, Manifest
from vitzoo.sources.folder import FolderSource
from vitzoo.tables import cards
from vitzoo.tables.build import describe_table, encode_table
from vitzoo.tables.catalogue import Catalogue, build_tables
from vitzoo.tables.model_card import ZooDescription, model_card

_ALL = Epochs("all")
_TAG = re.compile(
    r"(?!.*\.\.)(?!(?:main|HEAD)$)(?![0-9a-f]{7,40}$)[A-Za-z0-9][\w.-]{0,60}(?<![.])(?<!\.lock)", re.ASCII
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """What is published, and where.

    Args:
        source: The zoo.
        to: The model repo.
        metadata_to: The dataset repo.
        record: zoo.json, as published.
        members: The files of each member.
        closing: What goes last and together: cards, tables, zoo.json and, at the end, manifest.json.
        manifest: Names every file but itself.
        tables: The tables' descriptions, for the dataset repo's card.
        planned: Members that the recipe has; None where that cannot be told.
        left_out: Files in members' folders that no zoo has, and that are not sent.
        tag: What both repos are tagged with; None for no tag.
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
    def files(self) -> Iterator[PlannedFile]:
        """Every file of the model repo."""
        for files in self.members.values():
            yield from files
        yield from self.closing

    @property
    def size(self) -> int:
        """Bytes of the model repo."""
        return sum(file.size for file in self.files)

    def dataset_files(self, commit: str) -> tuple[PlannedFile, ...]:
        """Every file of the dataset repo, whose card names a commit of the model repo."""
        card = cards.dataset_card(
            self.tables,
            recipe=_recipe_name(self.record),
            metadata_repo=self.metadata_to,
            published=cards.Published(repo=self.to, commit=commit, digest=self.manifest.digest),
        )
        tables = {layout.table_file(table.name) for table in self.tables}
        found = [file for file in self.closing if PurePosixPath(file.path) in tables]
        return (
            *(replace(file, path=PurePosixPath(file.path).name) for file in found),
            PlannedFile.of(layout.README, card.encode()),
        )

    def describe(self) -> list[str]:
        """The publication in words, a line each."""
        weights = sum(len(self.manifest.weights_sizes(member)) for member in self.members)
        count = sum(1 for _ in self.files)
        lines = [
            f"{self.to} (model): {len(self.members)} members, {weights:,} weights files (epochs: "
            f"{self.manifest.epochs}), {count:,} files, {self.size:,} bytes",
            f"{self.metadata_to} (dataset): " + ", ".join(f"{table.name} {table.rows:,} rows" for table in self.tables),
            f"digest {self.manifest.digest}" + ("" if self.tag is None else f", tag {self.tag}"),
        ]
        if self.planned is not None and self.planned != len(self.members):
            lines.append(
                f"{len(self.members)} of the recipe's {self.planned} members are finished; only they are published, "
                "and the card says so."
            )
        if self.left_out:
            some = ", ".join(self.left_out[:8]) + (", ..." if len(self.left_out) > 8 else "")
            lines.append(f"Not sent, for no zoo has such files: {some}")
        return lines


def plan_publication(
    source: FolderSource,
    *,
    to: str,
    metadata_to: str | None = None,
    epochs: Epochs = _ALL,
    tag: str | None = None,
    verified: Verified | None = None,
) -> Publication:
    """Decide what is published of a zoo folder.

    Args:
        source: The zoo.
        to: The model repo, ``org/name``.
        metadata_to: The dataset repo; None for ``<to>-metadata``.
        epochs: Which weights go along with the final ones, which always do.
        tag: What both repos are tagged with; None for no tag.
        verified: What this process verified before: those weights files are not opened again.

    Raises:
        TrainingError: A name is no Hub repo or no tag, no member is finished, or a file cannot be read, or holds what
            is never published.
        RecordError: A record is damaged, or a file missing.
        ConfigError: A member's config says what no member may say.
        WeightsError: A weights file is not what its record says.
        UnsafePathError: A file is a link.
    """
    metadata_to = metadata_repo(to, metadata_to)
    if tag is not None and not _TAG.fullmatch(tag):
        raise TrainingError(f'--tag "{tag}" is no tag: expected letters, digits and ._- such as v1 or v1.0-rc1.')
    catalogue = Catalogue(source)
    records = {member: catalogue.member_record(member) for member in catalogue.member_ids}
    if not records:
        raise TrainingError(f"{source.root} has no finished member to publish. Train some: python -m training run.")
    privacy = Privacy(source.root, public=(to, metadata_to))
    chosen = {member: chosen_weights(record, epochs) for member, record in records.items()}
    verified = Verified() if verified is None else verified
    members = {member: plan_member(source, member, chosen[member], privacy, verified) for member in records}
    record = replace(source.record, metadata_repo=metadata_to)
    tables = build_tables(source, epochs=epochs)
    contents = {name: encode_table(table) for name, table in tables.items()}
    described = [describe_table(name, table, contents[name]) for name, table in tables.items()]
    zoo = ZooDescription(
        repo=to,
        metadata_repo=metadata_to,
        record=record,
        members=list(records.values()),
        rows=tables["members"].to_pylist(),
        epochs=str(epochs),
        kept={member: [weights.epoch for weights in kept] for member, kept in chosen.items()},
        bytes=sum(weights.size for kept in chosen.values() for weights in kept),
        planned=_planned(record),
    )
    try:
        texts = _closing_texts(zoo, described)
    except RecursionError:
        path = source.root / layout.ZOO_JSON
        raise RecordError(f"{path} is nested too deeply to be written again; no recipe is.", path=path) from None
    for file in texts:
        privacy.check(file.path, file.read())
    closing = (*texts, *(PlannedFile.of(layout.table_file(name), content) for name, content in contents.items()))
    every = [file for files in members.values() for file in files] + list(closing)
    manifest = Manifest(
        recipe_sha256=record.recipe_sha256,
        epochs=str(epochs),
        files={file.path: FileRecord(size=file.size, sha256=file.sha256) for file in every},
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
        left_out=tuple(path for member, found in records.items() for path in left_out(source, member, found)),
    )


def metadata_repo(to: str, metadata_to: str | None, *, option: str = "--to") -> str:
    """The dataset repo of a model repo.

    Args:
        to: The model repo, ``org/name``.
        metadata_to: Its name where it is given; None for ``<to>-metadata``.
        option: What the model repo is named by on the command line.

    Raises:
        TrainingError: One of both is no Hub repo.
    """
    metadata_to = f"{to}-metadata" if metadata_to is None else metadata_to
    for name, repo in ((option, to), ("--metadata-to", metadata_to)):
        if not is_zoo_name(repo) or is_zoo_path(repo):
            raise TrainingError(f'{name} "{repo}" is no Hub repo: expected <org>/<name>, such as my-org/vit-zoo.')
    return metadata_to


def _closing_texts(zoo: ZooDescription, tables: Sequence[cards.TableDescription]) -> tuple[PlannedFile, ...]:
    """Both cards, and zoo.json."""
    tables_card = cards.dataset_card(tables, recipe=_recipe_name(zoo.record))
    return (
        PlannedFile.of(layout.README, model_card(zoo).encode()),
        PlannedFile.of(layout.ZOO_JSON, json_files.sorted_json(zoo.record)),
        PlannedFile.of(layout.METADATA_README, tables_card.encode()),
    )


def _planned(record: ZooRecord) -> int | None:
    """Members that a recipe has (see `training.recipes.plan`); None where it is of another shape."""
    try:
        children = record.recipe["children"]
        cells = len(children["heads"]) * len(children["optimizers"])
        return sum(1 + parent["replicates"] * cells for parent in record.recipe["parents"])
    except (KeyError, TypeError):
        return None


def _recipe_name(record: ZooRecord) -> str:
    return str(record.recipe.get("name", "custom"))
