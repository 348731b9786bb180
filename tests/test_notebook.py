"""Objects that users hold: a repr is one short line, and HTML of a notebook shows no markup of a zoo."""

import importlib
import pkgutil
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from msgspec import structs

import vitzoo
from vitzoo import Zoo, align, behaviour, diff, diversity, lineage, merge, path, prediction
from vitzoo.analysis.diversity.contrasts import find_contrasts
from vitzoo.analysis.lineage.tasks import lineage_tasks
from vitzoo.analysis.merging.soups import compare_soups
from vitzoo.analysis.prediction.submissions import Entry
from vitzoo.analysis.resampling import bootstrap_pairs
from vitzoo.images.sources import ImageList
from vitzoo.images.splits import FileSplit, ImageDataset
from vitzoo.models.evaluation import Evaluation, MaskedEvaluation
from vitzoo.notebook import Shown, as_html, brief, one_line
from vitzoo.records import MemberRecord, load_member_record
from vitzoo.records.json_files import ShownRecord, write_json
from vitzoo.splits.scores import Score, Scores
from vitzoo.text.masks import fixed_masks
from vitzoo.verification.evaluations import compare_with_record
from vitzoo.verification.problems import Problem
from vitzoo.verification.verify import verify_zoo
from vitzoo.weights.learning.dataset import WeightsDataset
from vitzoo.weights.learning.scaling import fit_scaling
from vitzoo.zoo.selection import Selection

HOSTILE = "<script>alert(1)</script>\n&\"'<img src=x onerror=alert(1)>" + "x" * 300
TAGS = {"div", "strong", "table", "thead", "tbody", "tr", "th", "td", "small"}


class _Tags(HTMLParser):
    """Collects the tags and attributes of a page, and checks that tags are closed in order."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.found: set[str] = set()
        self.attributes: list[Any] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        self.attributes += attrs
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def objects(tiny_copy: Path, text_zoo: Path, sentences: Path, tmp_path: Path) -> list[Any]:
    """Return an object of every class, of a zoo with hostile names."""
    record = load_member_record(tiny_copy / "pt-0/ft-1/member.json")
    record = structs.replace(record, extra={"site": HOSTILE[:200]}, init_group=HOSTILE[:60])
    write_json(tiny_copy / "pt-0/ft-1/member.json", record)
    zoo, texts = Zoo(tiny_copy), Zoo(text_zoo)["pt-0/ft-0"]
    member, children = zoo["pt-0/ft-1"], zoo.select(stage="finetuning", epoch="all")
    weights, fold = zoo.weights(children), zoo.splits("by_parent", folds=2)[0]
    outputs = behaviour(children, cache=tmp_path / "cache", progress=False)
    images, rows = member.load_images(), texts.load_texts(data={"animals": sentences})
    interval = bootstrap_pairs(np.arange(10.0), [(i % 6, (i + 1) % 6) for i in range(10)])
    names = ("estimate", "low", "high", "groups", "resamples", "undefined")
    score = Score(**{name: getattr(interval, name) for name in names}, fold=HOSTILE, members=3, checkpoints=4)
    problem = Problem(member=member.id, what=HOSTILE, fix=HOSTILE)
    hostile = ImageDataset(
        name=HOSTILE, revision=HOSTILE, classes=(HOSTILE,), train=images.train, val=images.val, test=images.test
    )
    difference = diff(member, zoo["pt-0/ft-0"], cache=tmp_path / "cache")
    assert difference.predictions is not None
    found = find_contrasts(zoo.table("members").to_pylist()[3:], {}, columns=["head_type", "replicate"])
    return [
        zoo,
        member,
        member.record,
        member.metrics_at(),
        zoo.source.record,
        children,
        fold,
        weights,
        weights.matrix(),
        weights.distances(),
        weights.distances(by="layer"),
        next(weights.trajectories()),
        WeightsDataset(weights, "flat"),
        fit_scaling(zoo.weights(fold.of(zoo.select(stage="finetuning"))["train"]), fold=fold),
        outputs,
        outputs.pairs("kappa"),
        member.evaluate(),
        zoo["pt-2"].evaluate(),
        Evaluation(logits=torch.eye(2), features=torch.eye(2), labels=torch.arange(2), classes=(HOSTILE, "<b>")),
        zoo.select(stage="finetuning").to_xy("gap"),
        MaskedEvaluation(loss=1.0, accuracy=0.5, positions=7),
        images,
        hostile,
        images.test,
        FileSplit(source=ImageList(images=[]), labels=np.arange(0), indices=np.arange(0)),
        rows,
        rows.test,
        rows.tokenizer,
        fixed_masks(rows.test, 0.15, tokenizer=rows.tokenizer),
        interval,
        score,
        Scores(folds=(score,) * 30, pooled=score),
        compare_with_record(member),
        problem,
        verify_zoo(zoo, members=[member.id]),
        merge(zoo.select(id="pt-0/ft-0", epoch=[1, 2])),
        compare_soups(children, by=("id",), methods=("uniform",), cache=tmp_path / "cache"),
        path(member, member, points=2),
        align(member.load(), member.load()),
        guess := lineage(zoo.select(), method="nearest"),
        guess.score(),
        tasks := lineage_tasks(zoo.select()),
        tasks["roles known"],
        prediction(children, "test_accuracy", scheme="by_parent", folds=2),
        Entry(table=pd.DataFrame({"checkpoint": [HOSTILE]}), seconds=1.0),
        found,
        found.contrasts[0],
        diversity(zoo.select(stage="finetuning"), weights=False),
        difference,
        difference.layers[0],
        difference.predictions,
    ]


def subclasses(base: type) -> set[type]:
    return {base}.union(*(subclasses(child) for child in base.__subclasses__())) - {Shown, ShownRecord}


def test_objects_have_short_reprs_and_escaped_html(objects: list[Any]) -> None:
    for shown in objects:
        assert len(repr(shown)) < 200, shown
        assert repr(shown).isprintable(), shown
        html = shown._repr_html_()
        page = _Tags(html)
        assert page.found <= TAGS, shown
        assert page.open == page.attributes == [], shown
        assert len(html) < 20_000
    for module in pkgutil.walk_packages(vitzoo.__path__, "vitzoo."):
        if ".interop" not in module.name:
            importlib.import_module(module.name)
    # By name, because a dataclass with slots replaces its class.
    known = {cls.__name__ for base in (Shown, ShownRecord) for cls in subclasses(base)}
    assert {name for name in known if not name.startswith("_")} == {type(shown).__name__ for shown in objects}
    member, evaluation = objects[1], objects[18]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\n&amp;&quot;" in member._repr_html_()
    assert "<td>&lt;b&gt;</td>" in evaluation._repr_html_()


def test_html_shows_the_values_of_a_member_and_a_selection(tiny_zoo: Path) -> None:
    zoo = Zoo(tiny_zoo)
    member = zoo["pt-0/ft-1"]
    html = member._repr_html_()
    for text in ("pt-0/ft-1", "completed", f"{member.record.num_parameters:,}", "sgd"):
        assert f"<td>{text}</td>" in html
    chosen = zoo.select(stage="finetuning", epoch="all")
    assert f"<small>10 of {len(chosen)} rows</small>" in chosen._repr_html_()
    assert chosen[:1]._repr_html_().count("<tr>") == 5 + 2
    assert isinstance(chosen, Selection)


def test_hub_member_asks_no_network_to_be_shown(hub: Any, tiny_zoo: Path) -> None:
    from tests.published import REPO, plant

    plant(hub, tiny_zoo)
    zoo = Zoo(REPO)
    assert "members" not in zoo._repr_html_()
    member = zoo["pt-0"]
    requests = len(hub.requests)
    assert "<td>pt-0</td>" in member._repr_html_()
    assert len(hub.requests) == requests
    assert member.record.status == "completed"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"),
        (np.zeros((2, 3), np.float32), "float32[2, 3]"),
        (torch.zeros(4), "float32[4]"),
        ([1, 2], "1, 2"),
        (["a"] * 9, "9 str"),
        ((), "none"),
        ({"a": 1}, "1 items"),
        (b"abc", "3 bytes"),
        ("a\nb", "a\\nb"),
        ("a" * 99, "a" * 57 + "..."),
        (None, "None"),
    ],
)
def test_brief(value: Any, text: str) -> None:
    assert brief(value) == text


def test_one_line_is_cut_and_html_is_escaped() -> None:
    text = one_line("Name", {f"key{number}": HOSTILE for number in range(9)})
    assert len(text) == 199
    assert text.endswith("...)")
    html = as_html(HOSTILE, {HOSTILE: HOSTILE}, [{HOSTILE: HOSTILE}])
    assert re.findall(r"<(\w+)", html).count("script") == 0
    assert _Tags(html).found <= TAGS
    assert MemberRecord.__repr__ is ShownRecord.__repr__
