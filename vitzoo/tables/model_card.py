"""Write the card of a zoo's model repo, README.md, with metrics from the members' own records.

See `vitzoo.tables.cards` for the card of the tables and for Markdown.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from vitzoo.architectures import Architecture
from vitzoo.data.known import find_known, is_repo_id
from vitzoo.ids import MemberId
from vitzoo.progress import in_bytes
from vitzoo.records import FACTORS, MemberRecord, ZooRecord, layout
from vitzoo.tables.cards import escape_markdown, markdown_table

_MOST_PARENTS = 60
_MOST_VALUES = 12
_CITATION = """\
@misc{falk2025modelzoovisiontransformers,
  title         = {A Model Zoo of Vision Transformers},
  author        = {Damian Falk and Léo Meynent and Florence Pfammatter and Konstantin Schürholt and Damian Borth},
  year          = {2025},
  eprint        = {2504.10231},
  archivePrefix = {arXiv},
  primaryClass  = {cs.LG}
}"""


Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class ZooDescription:
    """A zoo on its card.

    Args:
        repo: The model repo.
        metadata_repo: The dataset repo of the tables.
        record: The zoo's zoo.json.
        architecture: The architecture of all members.
        members: The records of the members.
        rows: The rows of the members table.
        epochs: The choice of epochs that was published.
        published_epochs: The published epochs of each member; None for the final weights.
        bytes: Bytes of all weights files.
        planned: Number of members in the recipe; None if it is unknown.
        pictures: Paths of the published pictures.
    """

    repo: str
    metadata_repo: str
    record: ZooRecord
    architecture: Architecture
    members: Sequence[MemberRecord]
    rows: Sequence[Row]
    epochs: str
    published_epochs: Mapping[MemberId, Sequence[int | None]]
    bytes: int
    planned: int | None
    pictures: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The recipe's name, as Markdown."""
        return escape_markdown(self.record.recipe.get("name", "custom"))

    @property
    def is_text(self) -> bool:
        """True if the members are language models."""
        return self.architecture.modality == "text"

    @property
    def samples(self) -> str:
        """The kind of data, as a noun."""
        return "texts" if self.is_text else "images"

    @property
    def metadata_link(self) -> str:
        """A Markdown link to the dataset repo."""
        return f"[{self.metadata_repo}](https://huggingface.co/datasets/{self.metadata_repo})"


def model_card(zoo: ZooDescription) -> str:
    """Write the card of a zoo's model repo."""
    sections = (
        _front_matter(zoo),
        _summary(zoo),
        ["## How to load", "", *_loading(zoo)],
        ["## Recipe", "", *_recipe(zoo)],
        ["## Family tree", "", *_family(zoo)],
        ["## What varies", "", *_factors(zoo)],
        ["## Accuracy", "", *_accuracy(zoo)],
        *([["## Pictures", "", *_pictures(zoo)]] if zoo.pictures else []),
        ["## Departures from the source", "", *_deviations(zoo)],
        ["## Limits", "", *_limits(zoo)],
        ["## Citation", "", *_citation(zoo)],
        ["## Licence", "", _licence(zoo)],
    )
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _front_matter(zoo: ZooDescription) -> list[str]:
    datasets = sorted({member.dataset for member in zoo.members if member.dataset is not None and _is_on_hub(member)})
    return [
        "---",
        *([f"license: {json.dumps(zoo.record.license)}"] if zoo.record.license is not None else []),
        "library_name: vitzoo",
        f"pipeline_tag: {'text' if zoo.is_text else 'image'}-classification",
        f"tags: [model-zoo, vitzoo, weight-space-learning, {'bert' if zoo.is_text else 'vision-transformer'}]",
        *([f"datasets: {json.dumps(datasets)}"] if datasets else []),
        "---",
    ]


def _is_on_hub(member: MemberRecord) -> bool:
    """Tell whether a member's data set is a repo of the Hub: a known one, or one that was downloaded from there."""
    name, revision = member.dataset or "", member.dataset_revision or ""
    return is_repo_id(name) and (find_known(name) is not None or revision.startswith(f"{name}@"))


def _citation(zoo: ZooDescription) -> list[str]:
    lines = ["The kind of population is described by:", "", "```bibtex", _CITATION, "```"]
    if zoo.record.citation is None:
        return lines
    safe = "".join(char for char in zoo.record.citation if char.isprintable() or char == "\n").replace("`", "'")
    return ["Cite this zoo as:", "", "```bibtex", safe.strip(), "```", "", *lines]


def _licence(zoo: ZooDescription) -> str:
    if zoo.record.license is None:
        return "Its authors declare none. Ask them before you use it."
    return f"{escape_markdown(zoo.record.license)}, weights and tables alike."


def _summary(zoo: ZooDescription) -> list[str]:
    parents = sum(member.parent is None for member in zoo.members)
    weights = sum(len(epochs) for epochs in zoo.published_epochs.values())
    epochs = {
        "all": "the weights of every saved epoch, and the final ones",
        "last": "the final weights only",
    }.get(zoo.epochs, f"the final weights and the epochs {zoo.epochs}")
    kind = "language models" if zoo.is_text else "vision transformers"
    lines = [
        f"# The {zoo.name} model zoo",
        "",
        f"A population of {len(zoo.members)} {kind} with a family tree: {parents} pre-trained parents and "
        f"{len(zoo.members) - parents} children, each fine-tuned from one parent. Published are {epochs}: {weights:,} "
        f"weights files, {in_bytes(zoo.bytes)}, safetensors only. Every metric below is computed from the members' "
        f"own records; {zoo.metadata_link} has them as tables, by member and epoch.",
    ]
    if zoo.record.unit == "step":
        lines += ["", "Checkpoints are numbered by optimizer steps: an `epoch` below, and in the tables, is a step."]
    if zoo.planned is not None and zoo.planned != len(zoo.members):
        lines += ["", f"Of the {zoo.planned} members that the recipe plans, {len(zoo.members)} are finished and here."]
    return lines


def _loading(zoo: ZooDescription) -> list[str]:
    if not zoo.members:
        return ["No member is finished yet."]
    example = next((member for member in zoo.members if member.parent is not None), zoo.members[0])
    plain = next(
        (member for member in zoo.members if member.head_type == "linear" and member.head_role == "classifier"), None
    )
    lines = [
        "```python",
        "from vitzoo import ZooModel",
        "",
        f'model = ZooModel.from_pretrained("{zoo.repo}/{example.member}")  # final weights',
    ]
    if (epoch := _middle_epoch(zoo, example)) is not None:
        lines += [f'model = ZooModel.from_pretrained("{zoo.repo}/{example.member}", epoch={epoch})']
    if plain is not None:
        epoch = _middle_epoch(zoo, plain)
        auto = "AutoModelForSequenceClassification" if zoo.is_text else "AutoModelForImageClassification"
        variant = "" if epoch is None else f', variant="{layout.variant_name(epoch)}"'
        lines += [
            "",
            "# a member with a linear head needs no vitzoo",
            f"from transformers import {auto}",
            "",
            f"model = {auto}.from_pretrained(",
            f'    "{zoo.repo}", subfolder="{plain.member}"{variant}',
            ")",
        ]
    return [
        *lines,
        "",
        "from datasets import load_dataset",
        "",
        f'members = load_dataset("{zoo.metadata_repo}", "members")["train"].to_pandas()',
        "```",
        "",
        "A commit or a tag (`revision=`) pins the whole zoo. `manifest.json` names every file with its sha256, and its "
        f"own digest identifies the zoo: `vitzoo verify {zoo.repo} --digest sha256:...` compares them. Take the digest "
        f"from a source that you trust; {zoo.metadata_link} records it with the commit.",
    ]


def _middle_epoch(zoo: ZooDescription, member: MemberRecord) -> int | None:
    epochs = [epoch for epoch in zoo.published_epochs.get(member.member, ()) if epoch is not None]
    return epochs[len(epochs) // 2] if epochs else None


def _recipe(zoo: ZooDescription) -> list[str]:
    recipe = zoo.record.recipe
    source = f" Source: {escape_markdown(recipe['source'])}." if recipe.get("source") else ""
    lines = [f"{zoo.name}, sha256 `{zoo.record.recipe_sha256}`; whole in `zoo.json`.{source}"]
    architecture = recipe.get("architecture")
    if isinstance(architecture, dict):
        cells = ((escape_markdown(name), escape_markdown(value)) for name, value in architecture.items())
        lines += ["", *markdown_table(("backbone", "value"), cells)]
    return lines


def _family(zoo: ZooDescription) -> list[str]:
    rows = {row["id"]: row for row in zoo.rows}
    children: dict[str, list[Row]] = defaultdict(list)
    for row in zoo.rows:
        if row["parent"] is not None:
            children[row["parent"]].append(row)
    parents = [member for member in zoo.members if member.parent is None]
    cells = [
        (
            member.id,
            escape_markdown(member.objective or "unknown"),
            escape_markdown(member.dataset or "unknown"),
            escape_markdown(member.init_group),
            _own_accuracy(rows[member.id]),
            str(len(children[member.id])),
            _spread(_accuracies(children[member.id], "test")),
        )
        for member in parents[:_MOST_PARENTS]
    ]
    head = ("parent", "objective", "data set", "initialisation", "test accuracy", "children", "their test accuracy")
    more = len(parents) - len(cells)
    return [
        "Parents with one initialisation have the same name for it. k-NN is a vote of nearest features, for members "
        "without classes.",
        "",
        *markdown_table(head, cells),
        *(["", f"... and {more} more parents: see the members table."] if more else []),
    ]


def _factors(zoo: ZooDescription) -> list[str]:
    cells = []
    for factor in (*FACTORS, "ranks"):
        counts = Counter(getattr(member, factor) for member in zoo.members)
        if len(counts) > _MOST_VALUES:
            cells.append((factor, f"{len(counts)} values"))
        elif len(counts) > 1:
            values = sorted(counts, key=lambda value: (value is None, str(type(value)), value))
            cells.append((factor, ", ".join(f"{_value(value)} ({counts[value]})" for value in values)))
    return markdown_table(("factor", "values (members)"), cells) if cells else ["Nothing."]


def _accuracy(zoo: ZooDescription) -> list[str]:
    objectives = {row["id"]: row["objective"] for row in zoo.rows}
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in zoo.rows:
        if row["status"] == "completed":
            role = "parent" if row["parent"] is None else "child"
            origin = objectives.get(row["parent"] or row["id"]) or "unknown"
            groups[role, origin, row["head_type"], row["optimizer"] or "unknown", _metric(row)].append(row)
    cells = [
        (
            *map(escape_markdown, key),
            str(len(groups[key])),
            *(_spread(_accuracies(groups[key], part)) for part in ("test", "val")),
        )
        for key in sorted(groups, key=lambda key: (key[0] == "child", key))
    ]
    others = Counter(row["status"] for row in zoo.rows if row["status"] != "completed")
    not_counted = ", ".join(f"{count} {escape_markdown(status)}" for status, count in sorted(others.items()))
    head = ("member", "pre-training", "head", "optimizer", "metric", "n", "test", "validation")
    return [
        f"Of the final weights, in evaluation mode on plain {zoo.samples}: mean ± standard deviation over members "
        "[min, max]. " + (f"Not counted: {not_counted}." if others else "Every member completed its training."),
        "",
        *markdown_table(head, cells),
    ]


def _pictures(zoo: ZooDescription) -> list[str]:
    """Link the pictures. Their names are those of `vitzoo.records.layout.picture_file`, which need no escape."""
    return [
        "By `vitzoo report`, which also writes how each is computed. Accuracies on test data are results.",
        *(line for path in zoo.pictures for line in ("", f"![{path.split('/')[-1].removesuffix('.png')}]({path})")),
    ]


def _deviations(zoo: ZooDescription) -> list[str]:
    listed = zoo.record.recipe.get("deviations")
    deviations = dict.fromkeys(map(str, listed)) if isinstance(listed, list) else {}
    deviations |= dict.fromkeys(entry for member in zoo.members for entry in member.deviations)
    return [f"- {escape_markdown(entry)}" for entry in deviations] or ["None is recorded."]


def _limits(zoo: ZooDescription) -> list[str]:
    lines = []
    if zoo.members:
        parameters, train, test = (
            [count for member in zoo.members if (count := getattr(member, name)) is not None] or [0]
            for name in ("num_parameters", "n_train", "n_test")
        )
        lines += [
            f"- Members have {_range(parameters)} parameters and were trained on {_range(train)} {zoo.samples}. They "
            f"are a population to study, not models to deploy: nothing was checked for use on other {zoo.samples}, or "
            "on people.",
            f"- Test metrics are of {_range(test)} {zoo.samples}: one member's standard error is about "
            f"±{0.5 / max(min(test), 1) ** 0.5:.3f} (at .5), so small differences between two members mean little.",
        ]
        if max(parameters) < 10**6:
            lines.append("- Models this small are for machinery and teaching, not for claims about larger ones.")
    gaps = [row["gap"] for row in zoo.rows if row["gap"] is not None]
    if gaps:
        lines.append(f"- Train minus test accuracy, on unmixed {zoo.samples}: {_spread(gaps)}.")
    if any(member.head_role == "embedding" for member in zoo.members):
        lines.append("- Members whose head is an embedding have no classes: they are for features and fine-tuning.")
    lines.append("- Hashes prove that a copy is this zoo. They do not prove who made it, or how.")
    releases = dict.fromkeys(member.origin.release for member in zoo.members if member.origin is not None)
    if releases:
        lines.append(f"- Imported from {escape_markdown(', '.join(releases))}: their training cannot be repeated here.")
    else:
        lines.append(
            "- Training again gives the same bits on the same kind of machine with the recorded versions, elsewhere "
            "the same to rounding."
        )
    return lines


def _metric(row: Row) -> str:
    return "k-NN" if row["final_test_accuracy"] is None and row["final_test_knn_accuracy"] is not None else "accuracy"


def _accuracies(rows: Sequence[Row], part: str) -> list[float]:
    """Return the final accuracies of rows on a part, of k-NN for members without classes."""
    values = (
        row[f"final_{part}_knn_accuracy"] if row[f"final_{part}_accuracy"] is None else row[f"final_{part}_accuracy"]
        for row in rows
    )
    return [value for value in values if value is not None]


def _own_accuracy(row: Row) -> str:
    accuracies = _accuracies([row], "test")
    return f"{accuracies[0]:.3f}{' (k-NN)' if _metric(row) == 'k-NN' else ''}" if accuracies else "-"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    deviation = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{deviation} [{min(values):.3f}, {max(values):.3f}]"


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _value(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else escape_markdown(value)
