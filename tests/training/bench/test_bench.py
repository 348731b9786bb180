"""The whole benchmark on a tiny network. No time is asserted."""

import json
from dataclasses import replace
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.tiny import CONTRASTIVE, tiny
from training.batch import Batch
from training.bench.members import Scale, scale_for, small, starting, write_photographs
from training.bench.population import time_plan
from training.bench.rows import Row, measure
from training.bench.run import PARTS, run_bench
from training.bench.steps import Trainee, measure_rate
from training.member.execution import Execution
from training.population.local import LocalEngine
from training.recipes.digits import digits
from training.recipes.paper import paper
from training.recipes.plan import plan_member, plan_members
from training.recipes.training import Training
from vitzoo.errors import TrainingError
from vitzoo.ids import MemberId


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Row], str, dict]:
    recipe = small(paper())
    parents = tuple(replace(parent, training=with_few_images(parent.training)) for parent in recipe.parents)
    shape = replace(
        recipe.architecture, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    scale = Scale(
        title="the tiniest",
        recipe=replace(recipe, architecture=shape, parents=parents),
        steps=2,
        rounds=3,
    )
    out, path = StringIO(), tmp_path_factory.mktemp("bench") / "rows.json"
    with patch("training.bench.parts.get_context", lambda _: get_context("forkserver")):  # it has the imports
        rows = run_bench(scale=scale, json_file=path, console=Console(file=out, width=200))
    return rows, out.getvalue(), json.loads(path.read_text())


def with_few_images(training: Training) -> Training:
    """Shorten the epochs, because the order and the mixing of an epoch are drawn as a whole."""
    return replace(training, dataset=replace(training.dataset, train_images=256, evaluated_train_images=64))


@pytest.mark.slow
def test_bench_shows_every_part_in_tables_and_json(measured: tuple[list[Row], str, dict]) -> None:
    rows, printed, content = measured
    assert {row.part for row in rows} == set(PARTS) - {"population", "sharing"}
    assert [(row.member.partition(",")[0], row.what) for row in rows if row.images_per_second is not None] == [
        ("supervised", "eager"),
        ("supervised", "eager, end to end"),
        ("supervised", "plain loop, eager"),
        *([("supervised", "timm, eager")] if any(row.what == "timm, eager" for row in rows) else []),
        *((name, what) for name in ("contrastive", "fine-tuning") for what in ("eager", "eager, end to end")),
    ]
    assert [Row(**row | {"rounds_ms": tuple(row["rounds_ms"])}) for row in content["rows"]] == rows
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    for row in rows:
        assert any(line.startswith(f"{row.member} {row.what} ") for line in lines)
    assert content["about"]["trained"] == "the tiniest"
    assert content["about"]["versions"]["torch"] == torch.__version__
    assert len([row.seconds for row in rows if row.part == "start" and row.seconds is not None]) == 2
    (checkpoint,) = (row for row in rows if row.part == "checkpoint")
    assert checkpoint.seconds is not None
    assert checkpoint.share is not None


@pytest.mark.slow
def test_bench_row_agrees_with_its_rounds(measured: tuple[list[Row], str, dict]) -> None:
    rows, _, _ = measured
    speeds = {(row.member, row.what): row for row in rows if row.images_per_second is not None}
    views = {"supervised": 8, "fine-tuning": 8, "contrastive": 16}
    for row in speeds.values():
        assert row.step_ms is not None
        assert row.peak_share is not None
        assert row.step_ms == sorted(row.rounds_ms)[1]
        assert row.spread == pytest.approx((max(row.rounds_ms) - min(row.rounds_ms)) / row.step_ms)
        assert row.images_per_second == pytest.approx(1000 * views[row.member.partition(",")[0]] / row.step_ms)
        assert 0 < row.peak_share < 1
        if row.ratio_to is not None:
            base = speeds[row.member, row.ratio_to]
            ratios = [theirs / ours for ours, theirs in zip(row.rounds_ms, base.rounds_ms, strict=True)]
            assert row.ratio == pytest.approx(sorted(ratios)[1])


def test_bench_refuses_unknown_part() -> None:
    with pytest.raises(TrainingError) as error:
        run_bench(only=("step",))
    assert '"step"' in error.value.problem
    assert "Nearest: steps" in (error.value.fix or "")


def test_measure_takes_ways_in_turn_after_their_first_steps() -> None:
    calls: list[tuple[str, int]] = []

    def way(name: str, seconds: float):
        def take(steps: int) -> float:
            calls.append((name, steps))
            return seconds * steps

        return take

    ways = [(Row(part="steps", what="a"), way("a", 1.0)), (Row(part="steps", what="b", ratio_to="a"), way("b", 2.0))]
    first, second = measure(ways, steps=5, rounds=2)
    assert calls == [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("a", 5), ("b", 5), ("a", 5), ("b", 5)]
    assert (first.step_ms, first.rounds_ms, first.ratio) == (1000.0, (1000.0, 1000.0), None)
    assert (second.step_ms, second.spread, second.ratio) == (2000.0, 0.0, 0.5)


def test_measure_compares_ways_within_each_round() -> None:
    def way(*rounds: float):
        seconds = iter((9.0, 9.0, *rounds))
        return lambda steps: next(seconds) * steps

    # The machine slows down by three between the first round and the last: the ratio does not change.
    ours = Row(part="steps", what="ours, compiled", ratio_to="theirs"), way(1.0, 2.0, 3.0)
    theirs = Row(part="steps", what="theirs"), way(1.1, 2.2, 9.0)
    row, _ = measure([ours, theirs], steps=4, rounds=3)
    assert row.ratio == pytest.approx(1.1)
    assert (row.step_ms, row.spread, row.compile_seconds) == (2000.0, 1.0, 7.0)


def test_scale_has_the_papers_members_on_a_gpu_and_small_ones_on_a_cpu() -> None:
    scale, cpu = scale_for("cuda"), scale_for("cpu")
    for name, member in (("supervised", "pt-0"), ("contrastive", "pt-7")):
        assert scale.members[name] == plan_member(paper(), MemberId.parse(member))
    for name, planned in cpu.members.items():
        ours, theirs = planned.training, scale.members[name].training
        assert planned.unit_flops < scale.members[name].unit_flops / 50
        assert (ours.objective, ours.views, ours.mixing) == (theirs.objective, theirs.views, theirs.mixing)
        for part in ("resize", "random_crop", "random_resized_crop", "color_jitter", "blur"):
            assert (getattr(ours.augmentation, part) is None) == (getattr(theirs.augmentation, part) is None)
    parent, *children = plan_members(starting(scale.recipe))
    assert parent.training.epochs == 1
    assert (parent.training.dataset.train_images, len(children)) == (5_120, 12)


def test_photographs_are_jpegs_as_large_as_imagenets(tmp_path: Path) -> None:
    files = write_photographs(tmp_path / "photographs")
    sizes = files.sizes(np.arange(128))
    assert 70_000 < sizes.mean() < 140_000
    assert files.load(0).size == (500, 375)


@pytest.mark.slow
def test_plan_is_timed_slot_by_slot(tmp_path: Path) -> None:
    planned = plan_members(digits())[:5]
    row = time_plan(
        planned, tmp_path / "zoo", lambda job, slots: LocalEngine(job, workers=slots), slots=1, train="hold"
    )
    assert row.member == "hold 5 members of digits"
    assert row.seconds is not None
    assert row.seconds > 0
    assert row.share is not None
    assert 0 < row.share <= 1


def test_rate_counts_views_and_fills_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measure_rate(plan_member(tiny(), MemberId(0)), Execution(accumulation=4)) > 0
    assert measure_rate(replace(plan_member(tiny(), MemberId(2)), training=CONTRASTIVE)) > 0
    with pytest.raises(TrainingError) as error:
        measure_rate(plan_member(tiny(), MemberId(2)), Execution(accumulation=2))
    assert "accumulation is 2" in error.value.problem
    for seconds_an_image, rows in ((0.01, [4, 8, 16, 32, 64]), (0.1, [4, 8])):  # until a step takes half a second
        tried: list[int] = []

        def repeat(_: Trainee, batch: Batch, steps: int, tried: list[int] = tried, seconds: float = seconds_an_image):
            tried.append(len(batch.inputs["pixel_values"]))
            return len(batch.inputs["pixel_values"]) * seconds * steps

        monkeypatch.setattr(Trainee, "repeat", repeat)
        assert measure_rate(plan_member(tiny(), MemberId(0))) == pytest.approx(1 / seconds_an_image)
        assert list(dict.fromkeys(tried)) == rows
