"""How busy the slots of a plan are."""

from pathlib import Path

from training.bench import naps
from training.bench.population import time_plan
from training.population.local import LocalEngine
from training.recipes.digits import digits
from training.recipes.plan import plan_members


def test_members_that_pass_by(tmp_path: Path) -> None:
    """Each once, never more of them at a time than there are slots, children after their parents."""
    planned = plan_members(digits())[:40]
    timed = time_plan(planned, tmp_path, lambda job, slots: LocalEngine(job, workers=slots), slots=2, train="pass_by")
    intervals = naps.load_busy(tmp_path)
    assert timed.members == len(intervals) == 40
    assert timed.slots == 2
    changes = sorted([(began, 1) for began, _ in intervals] + [(ended, -1) for _, ended in intervals])
    at_once = [sum(change for _, change in changes[: place + 1]) for place in range(len(changes))]
    assert max(at_once) <= 2
    assert 0 < timed.share < 1
    assert timed.busy == sum(ended - began for began, ended in intervals)
    assert timed.ready > 0
    for folder in ("work", "leases"):
        assert list((tmp_path / ".training" / folder).iterdir()) == []
