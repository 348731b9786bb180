"""Write the card of a zoo's tables, as YAML and Markdown; all text from a zoo is escaped.

See `vitzoo.tables.columns` for the tables, and `vitzoo.tables.model_card` for the card of the weights. The card of
published tables names the weights on one line, which `parse_published` reads:

    Weights: [org/vit-zoo](https://huggingface.co/org/vit-zoo) at commit `<40 hex>`, manifest `sha256:<64 hex>`.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vitzoo.records import layout

_PUBLISHED = re.compile(
    r"^Weights: \[(?P<repo>[\w./-]{1,200})\]\(\S+\) at commit `(?P<commit>[0-9a-f]{40})`, "
    r"manifest `(?P<digest>sha256:[0-9a-f]{64})`\.$",
    re.MULTILINE | re.ASCII,
)
_MARKUP = re.compile(r"([\\`*_{}\[\]()#!|~])")


@dataclass(frozen=True, kw_only=True, slots=True)
class TableDescription:
    """A table on the card.

    Args:
        name: Name of the table and of its config.
        rows: Number of rows.
        sha256: Digest of the parquet file.
        columns: Name, type and meaning (with unit or range) of each column.
    """

    name: str
    rows: int
    sha256: str
    columns: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """The model repo, commit and manifest digest of the weights that published tables describe."""

    repo: str
    commit: str
    digest: str


def dataset_card(
    tables: Sequence[TableDescription],
    *,
    recipe: str,
    metadata_repo: str | None = None,
    published: Published | None = None,
    license: str | None = None,
) -> str:
    """Write the card of the tables, which makes ``datasets.load_dataset`` work.

    Args:
        tables: The tables; the first is the default config.
        recipe: The recipe's name.
        metadata_repo: The dataset repo of the tables; None for a folder.
        published: The weights of published tables; None for a folder.
        license: Licence of published tables, as the Hub spells it; None for none.
    """
    where = "<this folder>" if metadata_repo is None else f'"{metadata_repo}"'
    lines = [
        *front_matter({table.name: table.sha256 for table in tables}, recipe=recipe, license=license),
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
        rows = ((name, escape_markdown(kind), escape_markdown(meaning)) for name, kind, meaning in table.columns)
        lines += ["", f"## {table.name} ({table.rows} rows)", "", *markdown_table(("column", "type", "meaning"), rows)]
    return "\n".join(lines) + "\n"


def front_matter(digests: Mapping[str, str], *, recipe: str, license: str | None = None) -> list[str]:
    """Return the lines of a card that ``datasets.load_dataset`` reads.

    Args:
        digests: Names of the tables to the sha256 of their files; the first is the default config.
        recipe: The recipe's name.
        license: Licence of published tables, as the Hub spells it; None for none.
    """
    configs = [
        line
        for name, sha256 in digests.items()
        for line in (
            f"- config_name: {name}",
            f"  data_files: {layout.table_file(name).name}",
            f"  description: tables {sha256}",
            *(["  default: true"] if name == next(iter(digests)) else []),
        )
    ]
    pretty_name = json.dumps(f"{recipe} model zoo, metadata")
    licence = [] if license is None else [f"license: {json.dumps(license)}"]
    return ["---", *licence, f"pretty_name: {pretty_name}", "tags: [model-zoo, vitzoo]", "configs:", *configs, "---"]


def parse_published(card: str) -> Published | None:
    """Parse the line about the weights; return None for a card without one."""
    match = _PUBLISHED.search(card)
    return match and Published(**match.groupdict())


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table's lines. Cells are Markdown."""
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]


def escape_markdown(value: object) -> str:
    """Write a value on one line, with every markup character escaped."""
    line = "".join(character if character.isprintable() else " " for character in str(value))
    return _MARKUP.sub(r"\\\1", line).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
