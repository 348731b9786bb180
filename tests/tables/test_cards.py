"""The cards: metrics are the records', text from a zoo is escaped, and the Hub takes them."""

import re
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard
from msgspec import structs

from tests.hub import Hub
from vitzoo import Zoo
from vitzoo.architectures import VIT
from vitzoo.ids import MemberId
from vitzoo.sources.folder import FolderSource
from vitzoo.tables import cards
from vitzoo.tables.build import describe_table, encode_table
from vitzoo.tables.cards import Published, dataset_card, parse_published
from vitzoo.tables.catalogue import Catalogue, build_tables
from vitzoo.tables.columns import MEMBERS
from vitzoo.tables.model_card import ZooDescription, model_card

COMMIT, DIGEST = "c0ffee" * 6 + "c0ff", "sha256:" + "0a" * 32
HOSTILE = "x`</td><script>alert(1)</script>|\n---\nlicense: mit\n# [link](http://evil)\x1b[2J"


@pytest.fixture
def described(tiny_zoo: Path) -> ZooDescription:
    source = FolderSource(tiny_zoo)
    members = [Catalogue(source).member_record(member) for member in source.member_ids()]
    return ZooDescription(
        repo="org/vit-zoo",
        metadata_repo="org/tables",
        record=source.record,
        architecture=VIT,
        members=members,
        rows=build_tables(source)["members"].to_pylist(),
        epochs="all",
        published_epochs={member.member: [0, 1, 2, None] for member in members},
        bytes=2_500_000,
        planned=11,
    )


def tables(folder: Path) -> list[cards.TableDescription]:
    built = build_tables(FolderSource(folder))
    return [describe_table(name, table, encode_table(table)) for name, table in built.items()]


def front_matter(card: str) -> dict[str, Any]:
    match = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    assert match is not None
    return yaml.safe_load(match[1])


def rows(card: str, title: str) -> list[list[str]]:
    """Return the cells of the table under a heading, without its head."""
    section = card.split(f"\n## {title}", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_card_counts_members_and_children(described: ZooDescription) -> None:
    card = model_card(described)
    assert "A population of 11 vision transformers" in card
    assert "3 pre-trained parents and 8 children" in card
    assert "44 weights files, 2.5 MB" in card
    assert [(row[0], row[1], row[3], row[5]) for row in rows(card, "Family tree")] == [
        ("pt-0", "supervised", "init-0", "4"),
        ("pt-1", "supervised", "init-0", "2"),
        ("pt-2", "contrastive", "init-2", "2"),
    ]
    assert "tiny: nothing here is the paper's" in card
    assert "that the recipe plans" not in card
    assert "Of the 12 members that the recipe plans, 11 are finished" in model_card(replace(described, planned=12))


def test_accuracies_are_the_members(described: ZooDescription, tiny_zoo: Path) -> None:
    zoo = Zoo(tiny_zoo)
    chosen = [
        child.metrics[-1].test_accuracy
        for parent in zoo.parents
        if parent.record.objective == "supervised"
        for child in parent.children
        if child.record.head_type == "mlp"
    ]
    accuracies = [accuracy for accuracy in chosen if accuracy is not None]
    table = rows(model_card(described), "Accuracy")
    (row,) = [row for row in table if row[:3] == ["child", "supervised", "mlp"]]
    spread = f"{fmean(accuracies):.3f} ± {stdev(accuracies):.3f} [{min(accuracies):.3f}, {max(accuracies):.3f}]"
    assert row[3:7] == ["sgd", "accuracy", "3", spread]
    (row,) = [row for row in table if row[:2] == ["parent", "contrastive"]]
    knn = zoo[MemberId(2)].metrics[-1].test_knn_accuracy
    assert row[3:7] == ["adamw", "k-NN", "1", f"{knn:.3f} [{knn:.3f}, {knn:.3f}]"]
    assert sum(int(row[5]) for row in table) == len(zoo)


def test_only_what_varies_is_a_factor(described: ZooDescription) -> None:
    factors = dict(rows(model_card(described), "What varies"))
    assert factors["head_type"] == "linear (7), mlp (4)"
    assert factors["head_width"] == "8 (4), none (7)"
    assert factors["optimizer"] == "adamw (3), sgd (8)"
    assert "epochs" not in factors
    assert "precision" not in factors


def test_members_that_did_not_complete_are_counted_apart(described: ZooDescription) -> None:
    changed = [dict(row, status="diverged") if row["id"] == "pt-0/ft-0" else row for row in described.rows]
    card = model_card(replace(described, rows=changed))
    assert "Not counted: 1 diverged." in card
    assert sum(int(row[5]) for row in rows(card, "Accuracy")) == 10


def test_card_of_a_large_zoo_is_bounded(described: ZooDescription) -> None:
    members = [structs.replace(described.members[0], id=f"pt-{i}", init_seed=i) for i in range(250)]
    large = [dict(described.rows[0], id=member.id) for member in members]
    card = model_card(replace(described, members=members, rows=large))
    assert len(card) < 20_000
    assert "... and 190 more parents" in card
    assert dict(rows(card, "What varies"))["init_seed"] == "250 values"


def test_loading_is_shown_with_published_epochs(described: ZooDescription) -> None:
    card = model_card(described)
    assert 'ZooModel.from_pretrained("org/vit-zoo/pt-0/ft-0", epoch=1)' in card
    assert '"org/vit-zoo", subfolder="pt-0", variant="epoch-01"' in card
    assert 'load_dataset("org/tables", "members")' in card
    assert "vitzoo verify org/vit-zoo --digest" in card
    last = model_card(
        replace(described, published_epochs={member.member: [None] for member in described.members}, epochs="last")
    )
    assert "variant=" not in last
    assert "epoch=" not in last
    assert "the final weights only" in last


def test_front_matter_has_licence_and_data_sets(described: ZooDescription) -> None:
    assert front_matter(model_card(described)) == {
        "library_name": "vitzoo",
        "pipeline_tag": "image-classification",
        "tags": ["model-zoo", "vitzoo", "weight-space-learning", "vision-transformer"],
    }
    assert "Its authors declare none." in model_card(described)
    record = structs.replace(described.record, license="cc-by-4.0", citation="@misc{me,\n}```\n<script>")
    sources = [("uoft-cs/cifar100", None), ("me/flowers", f"me/flowers@{COMMIT}"), ("lab/private", "imagefolder")]
    members = [
        structs.replace(described.members[0], dataset=name, dataset_revision=revision) for name, revision in sources
    ]
    card = model_card(replace(described, record=record, members=members))
    found = front_matter(card)
    assert (found["license"], found["datasets"]) == ("cc-by-4.0", ["me/flowers", "uoft-cs/cifar100"])
    assert "Cite this zoo as:\n\n```bibtex\n@misc{me,\n}'''\n<script>\n```" in card
    assert "cc-by-4.0, weights and tables alike." in card
    assert front_matter(dataset_card([], recipe="x", license="mit"))["license"] == "mit"
    assert "license" not in front_matter(dataset_card([], recipe="x"))


def test_hostile_text_is_escaped(described: ZooDescription, tiny_zoo: Path) -> None:
    recipe = described.record.recipe | {
        "name": HOSTILE,
        "source": HOSTILE,
        "deviations": [HOSTILE],
        "architecture": {HOSTILE: HOSTILE},
    }
    first, *others = described.members
    hostile = structs.replace(first, dataset=HOSTILE, init_group=HOSTILE, optimizer=HOSTILE, deviations=(HOSTILE,))
    hostile_rows = [dict(row, optimizer=HOSTILE, head_type=HOSTILE, status=HOSTILE) for row in described.rows[:1]]
    card = model_card(
        replace(
            described,
            record=structs.replace(described.record, recipe=recipe),
            members=[hostile, *others],
            rows=[*hostile_rows, *described.rows[1:]],
        )
    )
    table_card = dataset_card(tables(tiny_zoo), recipe=HOSTILE)
    assert "license" not in front_matter(card)
    assert front_matter(table_card)["pretty_name"] == f"{HOSTILE} model zoo, metadata"
    for text in (card, table_card):
        body = text.split("\n---\n", 1)[1]
        assert "<script>" not in body
        assert "](http://evil" not in body
        assert "\x1b" not in text
        assert "\nlicense: mit" not in text
    heads = [line for line in card.splitlines() if line.startswith("#") and not line.startswith("# a member")]
    assert heads[1:] == [f"## {title}" for title in (
        "How to load", "Recipe", "Family tree", "What varies", "Accuracy", "Departures from the source", "Limits",
        "Citation", "Licence",
    )]  # fmt: skip


def test_dataset_card_describes_tables_and_weights(tiny_zoo: Path) -> None:
    found = tables(tiny_zoo)
    assert (tiny_zoo / "metadata/README.md").read_text() == dataset_card(found, recipe="tiny")
    published = Published(repo="org/vit-zoo", commit=COMMIT, digest=DIGEST)
    card = dataset_card(found, recipe="tiny", metadata_repo="org/tables", published=published)
    assert parse_published(card) == published
    assert parse_published(dataset_card(found, recipe="tiny")) is None
    assert 'load_dataset("org/tables", "members")' in card
    configs = front_matter(card)["configs"]
    assert [(config["config_name"], config["data_files"]) for config in configs] == [
        ("members", "members.parquet"),
        ("epochs", "epochs.parquet"),
        ("splits", "splits.parquet"),
    ]
    assert [row[0] for row in rows(card, "members")] == list(MEMBERS)
    assert all(row[2] for row in rows(card, "epochs"))
    assert [row[0] for row in rows(card, "splits")] == ["scheme", "fold", "id", "part", "sound"]


def test_hub_takes_both_cards(hub: Hub, described: ZooDescription, tiny_zoo: Path) -> None:
    described = replace(described, record=structs.replace(described.record, license="apache-2.0"))
    ModelCard(model_card(described)).validate()
    DatasetCard(dataset_card(tables(tiny_zoo), recipe=HOSTILE)).validate(repo_type="dataset")
    assert len(hub.requests.of(path="validate-yaml")) == 2
    assert ModelCard(model_card(described)).data.to_dict()["license"] == "apache-2.0"
