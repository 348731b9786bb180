"""The card of a zoo: README.md of the model repo, every figure computed from the members' own records.

Pure text. How a card is written, and the card of the tables, are `vitzoo.tables.cards`'.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from vitzoo.ids import MemberId
from vitzoo.records import FACTORS, MemberRecord, ZooRecord, layout
from vitzoo.tables.cards import escape_markdown, markdown_table

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,40}", re.ASCII)
_HUB_DATASET = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)
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


@dataclass(frozen=True, kw_only=True, slots=True)
class ZooDescription:
    """What the model card says of a zoo.

    Args:
        repo: The model repo that it is published in.
        metadata_repo: The dataset repo with its tables.
        record: Its zoo.json.
        members: The records of its members.
        rows: The rows of its members table.
        epochs: The choice of epochs that was published.
        kept: The epochs published of each member, None for the final weights.
        bytes: All of its weights files together.
        planned: Members that the recipe has; None where that cannot be told.
    """

    repo: str
    metadata_repo: str
    record: ZooRecord
    members: Sequence[MemberRecord]
    rows: Sequence[Mapping[str, Any]]
    epochs: str
    kept: Mapping[MemberId, Sequence[int | None]]
    bytes: int
    planned: int | None

    @property
    def license(self) -> str:
        """The recipe's licence as the Hub spells it; Apache-2.0 is our choice where the recipe is silent."""
        named = self.record.recipe.get("license", "apache-2.0")
        return named if isinstance(named, str) and _LICENSE.fullmatch(named) else "other"


def model_card(zoo: ZooDescription) -> str:
    """The card of a zoo's model repo."""
    sections = (
        _front_matter(zoo),
        _summary(zoo),
        ["## How to load", "", *_loading(zoo)],
        ["## Recipe", "", *_recipe(zoo)],
        ["## Family tree", "", *_family(zoo)],
        ["## What varies", "", *_factors(zoo)],
        ["## Accuracy", "", *_accuracy(zoo)],
        ["## Departures from the source", "", *_deviations(zoo)],
        ["## Limits", "", *_limits(zoo)],
        ["## Citation", "", "The kind of population is described by:", "", "```bibtex", _CITATION, "```"],
        ["## Licence", "", f"{escape_markdown(zoo.license)}, weights and tables alike."],
    )
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _front_matter(zoo: ZooDescription) -> list[str]:
    names = {member.dataset for member in zoo.members if member.dataset is not None}
    datasets = sorted(name for name in names if _HUB_DATASET.fullmatch(name))
    return [
        "---",
        f"license: {json.dumps(zoo.license)}",
        "library_name: vitzoo",
        "pipeline_tag: image-classification",
        "tags: [model-zoo, vitzoo, weight-space-learning, vision-transformer]",
        *([f"datasets: {json.dumps(datasets)}"] if datasets else []),
        "---",
    ]


def _summary(zoo: ZooDescription) -> list[str]:
    parents = sum(member.parent is None for member in zoo.members)
    weights = sum(len(epochs) for epochs in zoo.kept.values())
    epochs = {
        "all": "the weights of every epoch that was kept, and the final ones",
        "last": "the final weights only",
    }.get(zoo.epochs, f"the final weights and those of the epochs {zoo.epochs}")
    lines = [
        f"# The {escape_markdown(_recipe_name(zoo))} model zoo",
        "",
        f"A population of {len(zoo.members)} vision transformers with a family tree: {parents} pre-trained parents and "
        f"{len(zoo.members) - parents} children, each fine-tuned from one parent. Published are {epochs}: {weights:,} "
        f"weights files, {zoo.bytes / 1e6:,.1f} MB, safetensors only. Every figure below is computed from the members' "
        f"own records; the same figures by member and epoch are the tables of "
        f"[{zoo.metadata_repo}](https://huggingface.co/datasets/{zoo.metadata_repo}).",
    ]
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
    lines = ["```python", "from vitzoo import VitZooModel", ""]
    lines += [f'model = VitZooModel.from_pretrained("{zoo.repo}/{example.member}")  # final weights']
    lines += [
        f'model = VitZooModel.from_pretrained("{zoo.repo}/{example.member}", epoch={epoch})'
        for epoch in _an_epoch(zoo, example)
    ]
    if plain is not None:
        variant = [f', variant="{layout.variant_name(epoch)}"' for epoch in _an_epoch(zoo, plain)]
        lines += [
            "",
            "# a member with a linear head is a plain ViT, which needs no vitzoo",
            "from transformers import AutoModelForImageClassification",
            "",
            "model = AutoModelForImageClassification.from_pretrained(",
            f'    "{zoo.repo}", subfolder="{plain.member}"{"".join(variant)}',
            ")",
        ]
    lines += [
        "",
        "from datasets import load_dataset",
        "",
        f'members = load_dataset("{zoo.metadata_repo}", "members")["train"].to_pandas()',
        "```",
        "",
        "A commit or a tag (`revision=`) pins the whole zoo. `manifest.json` names every file with its sha256, and its "
        f"own digest says which zoo this is: `vitzoo verify {zoo.repo} --digest sha256:...` compares them. Take the "
        f"digest from whom you trust; [{zoo.metadata_repo}](https://huggingface.co/datasets/{zoo.metadata_repo}) "
        "records it beside the commit.",
    ]
    return lines


def _an_epoch(zoo: ZooDescription, member: MemberRecord) -> list[int]:
    """An epoch to show, from the middle of those published; none where only the final weights are."""
    epochs = [epoch for epoch in zoo.kept.get(member.member, ()) if epoch is not None]
    return [epochs[len(epochs) // 2]] if epochs else []


def _recipe(zoo: ZooDescription) -> list[str]:
    recipe = zoo.record.recipe
    lines = [f"{escape_markdown(_recipe_name(zoo))}, sha256 `{zoo.record.recipe_sha256}`; whole in `zoo.json`."]
    if recipe.get("source"):
        lines[0] += f" Source: {escape_markdown(recipe['source'])}."
    architecture = recipe.get("architecture")
    if isinstance(architecture, dict):
        lines += [
            "",
            *markdown_table(
                ("backbone", "value"), ((escape_markdown(k), escape_markdown(v)) for k, v in architecture.items())
            ),
        ]
    return lines


def _family(zoo: ZooDescription) -> list[str]:
    rows = {row["id"]: row for row in zoo.rows}
    children: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in zoo.rows:
        if row["parent"] is not None:
            children[row["parent"]].append(row)
    parents = [member for member in zoo.members if member.parent is None]
    shown = [
        (
            member.id,
            escape_markdown(member.objective or "unknown"),
            escape_markdown(member.dataset or "unknown"),
            escape_markdown(member.init_group),
            _figure(rows[member.id]),
            str(len(children[member.id])),
            _spread([figure for row in children[member.id] if (figure := _test_accuracy(row)) is not None]),
        )
        for member in parents[:_MOST_PARENTS]
    ]
    head = ("parent", "objective", "data set", "initialisation", "test accuracy", "children", "their test accuracy")
    more = len(parents) - len(shown)
    return [
        "Parents that share an initialisation say so; k-NN is a vote of nearest features, of members without classes.",
        "",
        *markdown_table(head, shown),
        *(["", f"... and {more} more parents: see the members table."] if more else []),
    ]


def _factors(zoo: ZooDescription) -> list[str]:
    shown = []
    for factor in (*FACTORS, "ranks"):
        counts = Counter(getattr(member, factor) for member in zoo.members)
        if len(counts) < 2:
            continue
        if len(counts) > _MOST_VALUES:
            shown.append((factor, f"{len(counts)} values"))
        else:
            values = sorted(counts, key=lambda value: (value is None, str(type(value)), value))
            shown.append((factor, ", ".join(f"{_value(value)} ({counts[value]})" for value in values)))
    return markdown_table(("factor", "values (members)"), shown) if shown else ["Nothing."]


def _accuracy(zoo: ZooDescription) -> list[str]:
    objectives = {row["id"]: row["objective"] for row in zoo.rows}
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in zoo.rows:
        if row["status"] == "completed":
            role = "parent" if row["parent"] is None else "child"
            origin = objectives.get(row["parent"] or row["id"]) or "unknown"
            groups[role, origin, row["head_type"], row["optimizer"] or "unknown", _kind(row)].append(row)
    shown = []
    for key in sorted(groups, key=lambda key: (key[0] == "child", key)):
        test = [figure for row in groups[key] if (figure := _test_accuracy(row)) is not None]
        val = [figure for row in groups[key] if (figure := _val_accuracy(row)) is not None]
        shown.append((*map(escape_markdown, key), str(len(groups[key])), _spread(test), _spread(val)))
    others = Counter(row["status"] for row in zoo.rows if row["status"] != "completed")
    said = ", ".join(f"{count} {escape_markdown(status)}" for status, count in sorted(others.items()))
    head = ("member", "pre-training", "head", "optimizer", "figure", "n", "test", "validation")
    return [
        "Of the final weights, in evaluation mode on plain images: mean ± standard deviation over members [min, max]. "
        + (f"Not counted: {said}." if others else "Every member completed its training."),
        "",
        *markdown_table(head, shown),
    ]


def _deviations(zoo: ZooDescription) -> list[str]:
    said = zoo.record.recipe.get("deviations")
    every = dict.fromkeys(str(entry) for entry in said) if isinstance(said, list) else {}
    every |= dict.fromkeys(entry for member in zoo.members for entry in member.deviations)
    return [f"- {escape_markdown(entry)}" for entry in every] or ["None is recorded."]


def _limits(zoo: ZooDescription) -> list[str]:
    lines = []
    if zoo.members:
        parameters = [member.num_parameters for member in zoo.members]
        train = [member.n_train for member in zoo.members if member.n_train is not None] or [0]
        test = [member.n_test for member in zoo.members if member.n_test is not None] or [0]
        lines += [
            f"- Members have {_range(parameters)} parameters and were trained on {_range(train)} images. They are a "
            "population to study, not models to deploy: nothing was checked for use on other images, or on people.",
            f"- Test figures are of {_range(test)} images: one member's is sure to about "
            f"±{0.5 / max(min(test), 1) ** 0.5:.3f} (a standard error at .5), so small differences between two members "
            "mean little.",
        ]
        if max(parameters) < 10**6:
            lines.append("- Models this small are for machinery and teaching, not for claims about ViTs of usual size.")
    gaps = [row["gap"] for row in zoo.rows if row["gap"] is not None]
    if gaps:
        lines.append(f"- Train minus test accuracy, on unmixed images: {_spread(gaps)}.")
    if any(member.head_role == "embedding" for member in zoo.members):
        lines.append("- Members whose head is an embedding have no classes: they are for features and fine-tuning.")
    return [
        *lines,
        "- Hashes prove that a copy is this zoo; who made it, and how, they do not.",
        _again(zoo),
    ]


def _again(zoo: ZooDescription) -> str:
    releases = dict.fromkeys(member.origin.release for member in zoo.members if member.origin is not None)
    if releases:
        return f"- Imported from {escape_markdown(', '.join(releases))}: what trained these weights is not here."
    return (
        "- Training again gives the same bits on the same kind of machine with the recorded versions, elsewhere the "
        "same to rounding."
    )


def _recipe_name(zoo: ZooDescription) -> str:
    return str(zoo.record.recipe.get("name", "custom"))


def _kind(row: Mapping[str, Any]) -> str:
    return "k-NN" if row["final_test_accuracy"] is None and row["final_test_knn_accuracy"] is not None else "accuracy"


def _test_accuracy(row: Mapping[str, Any]) -> float | None:
    return row["final_test_accuracy"] if row["final_test_accuracy"] is not None else row["final_test_knn_accuracy"]


def _val_accuracy(row: Mapping[str, Any]) -> float | None:
    return row["final_val_accuracy"] if row["final_val_accuracy"] is not None else row["final_val_knn_accuracy"]


def _figure(row: Mapping[str, Any]) -> str:
    figure = _test_accuracy(row)
    return "-" if figure is None else f"{figure:.3f}" + (" (k-NN)" if _kind(row) == "k-NN" else "")


def _spread(figures: Sequence[float]) -> str:
    if not figures:
        return "-"
    deviation = f" ± {stdev(figures):.3f}" if len(figures) > 1 else ""
    return f"{fmean(figures):.3f}{deviation} [{min(figures):.3f}, {max(figures):.3f}]"


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _value(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else escape_markdown(value)
