"""The whole benchmark, on a network so small that it takes seconds. Times are a machine's: none is asserted."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from training.bench.run import PARTS, run_bench
from training.bench.scale import Scale, small
from training.bench.table import Row
from training.recipes.paper import paper
from vitzoo.errors import TrainingError


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Row], str, dict]:
    recipe = small(paper(), steps=2)
    shape = replace(
        recipe.architecture, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    scale = Scale(
        title="the tiniest",
        recipe=replace(recipe, architecture=shape),
        steps=2,
        rounds=3,
        photograph=(40, 30),
        photographs=4,
        compiled=(),
        child_images=64,
    )
    out, path = StringIO(), tmp_path_factory.mktemp("bench") / "rows.json"
    rows = run_bench(scale=scale, json_file=path, console=Console(file=out, width=200))
    return rows, out.getvalue(), json.loads(path.read_text())


def test_every_part_says_something(measured: tuple[list[Row], str, dict]) -> None:
    rows, printed, content = measured
    assert {row.part for row in rows} == set(PARTS) - {"population"}
    assert [(row.member.partition(",")[0], row.what) for row in rows if row.images_per_second is not None] == [
        ("supervised", "eager"),
        ("supervised", "eager, end to end"),
        *([("supervised", "timm, eager")] if any(row.what == "timm, eager" for row in rows) else []),
        ("supervised", "eager, channels last"),
        ("supervised", "eager, in 2 parts"),
        *((name, what) for name in ("fine-tuning", "contrastive", "halves") for what in ("eager", "eager, end to end")),
    ]
    assert [Row(**row | {"rounds_ms": tuple(row["rounds_ms"])}) for row in content["rows"]] == rows
    for row in rows:
        assert row.describe() in printed
    assert content["about"]["versions"]["torch"] == torch.__version__
    assert content["about"]["trained"] == "the tiniest"


def test_the_figures_of_a_row_agree(measured: tuple[list[Row], str, dict]) -> None:
    rows, _, _ = measured
    speeds = {(row.member, row.what): row for row in rows if row.images_per_second is not None}
    views = {"supervised": 32, "fine-tuning": 32, "contrastive": 24, "halves": 12}
    peaks = set()
    for row in speeds.values():
        assert row.step_ms is not None
        assert row.peak_share is not None
        assert row.images_per_second is not None
        assert row.step_ms == sorted(row.rounds_ms)[1]
        assert row.images_per_second == pytest.approx(1000 * views[row.member.partition(",")[0]] / row.step_ms)
        assert 0 < row.peak_share < 1
        if row.ratio_to is None:
            continue
        base = speeds[row.member, row.ratio_to]
        ratios = [theirs / ours for ours, theirs in zip(row.rounds_ms, base.rounds_ms, strict=True)]
        assert row.ratio == pytest.approx(sorted(ratios)[1])
        peaks.add(row.images_per_second / row.peak_share)
        assert (row.waiting is not None) == row.what.endswith("end to end")
        assert row.waiting is None or 0 <= row.waiting < 1
    assert max(peaks) < 1.3 * min(peaks)  # of one peak: images differ in their heads alone


def test_members_start_and_checkpoints_are_written(measured: tuple[list[Row], str, dict]) -> None:
    rows, _, _ = measured
    starts = [row.seconds for row in rows if row.part == "start"]
    assert len(starts) == 2
    assert all(seconds is not None and seconds > 0 for seconds in starts)
    (stall,) = (row for row in rows if row.part == "checkpoint")
    assert stall.seconds is not None
    assert stall.share is not None
    assert stall.step_ms is not None
    assert stall.member == "fine-tuning, 32 images"


def test_parts_are_chosen_by_name(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match='No part of the benchmark is called "step"'):
        run_bench(only=["step"], console=Console(file=StringIO()))
