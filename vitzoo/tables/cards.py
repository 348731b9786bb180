"""The card of a zoo's tables, and how any card is written: YAML on top, then Markdown, everything from a zoo escaped.

Pure text: the tables themselves are `vitzoo.tables.columns`'s, the card of the weights
`vitzoo.tables.model_card`'s, publishing
`training.publish`'s. The card of published tables records where the weights are, on one line that `parse_published`
reads:

    Weights: [org/vit-zoo](https://huggingface.co/org/vit-zoo) at commit `<40 hex>`, manifest `sha256:<64 hex>`.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_PUBLISHED = re.compile(
    r"^Weights: \[(?P<repo>[\w./-]{1,200})\]\(\S+\) at commit `(?P<commit>[0-9a-f]{40})`, "
    r"manifest `(?P<digest>sha256:[0-9a-f]{64})`\.$",
    re.MULTILINE | re.ASCII,
)
_MARKUP = re.compile(r"([\\`*_{}\[\]()#!|~])")


@dataclass(frozen=True, kw_only=True, slots=True)
class TableDescription:
    """What a card says of a table.

    Args:
        name: Its name, which is its config's too.
        file: The parquet file's name, beside the card.
        rows: How many it has.
        sha256: Of the parquet file.
        columns: Name, type and meaning (with unit or range) of each.
    """

    name: str
    file: str
    rows: int
    sha256: str
    columns: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """Where the weights are that published tables describe.

    Args:
        repo: The model repo.
        commit: Its commit.
        digest: Of the manifest there.
    """

    repo: str
    commit: str
    digest: str


def dataset_card(
    tables: Sequence[TableDescription],
    *,
    recipe: str,
    metadata_repo: str | None = None,
    published: Published | None = None,
) -> str:
    """The card of the tables, which makes ``datasets.load_dataset`` work.

    Args:
        tables: In their order; the first is the default config.
        recipe: The recipe's name.
        metadata_repo: The dataset repo that it is the card of; None for a folder.
        published: Where the weights are; None for a folder.
    """
    lines = [
        "---",
        f"pretty_name: {json.dumps(f'{recipe} model zoo, metadata')}",
        "tags: [model-zoo, vitzoo]",
        "configs:",
    ]
    for table in tables:
        lines += [
            f"- config_name: {table.name}",
            f"  data_files: {table.file}",
            f"  description: tables {table.sha256}",
            *(["  default: true"] if table is tables[0] else []),
        ]
    where = "<this folder>" if metadata_repo is None else f'"{metadata_repo}"'
    lines += [
        "---",
        "",
        f"# The {escape_markdown(recipe)} model zoo: its members as tables",
        "",
        "Written by `vitzoo` from the records of the members. Read it with "
        f'`datasets.load_dataset({where}, "members")`.',
    ]
    if published is not None:
        lines += [
            "",
            f"Weights: [{published.repo}](https://huggingface.co/{published.repo}) at commit `{published.commit}`, "
            f"manifest `{published.digest}`.",
            "",
            f"Prove that a copy is this zoo: `vitzoo verify {published.repo} --digest {published.digest}`.",
        ]
    for table in tables:
        lines += ["", f"## {table.name} ({table.rows} rows)", ""]
        lines += markdown_table(
            ("column", "type", "meaning"),
            ((name, escape_markdown(kind), escape_markdown(mean)) for name, kind, mean in table.columns),
        )
    return "\n".join(lines) + "\n"


def parse_published(card: str) -> Published | None:
    """Where a dataset card says that the weights are; None where it does not say, because it is no card of ours."""
    match = _PUBLISHED.search(card)
    return match and Published(**match.groupdict())


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table's lines; cells are Markdown already."""
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _line(value: object) -> str:
    return "".join(character if character.isprintable() else " " for character in str(value))


def escape_markdown(value: object) -> str:
    """A value as Markdown shows it: on one line, every markup character escaped."""
    escaped = _MARKUP.sub(r"\\\1", _line(value))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
