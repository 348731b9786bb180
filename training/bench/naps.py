"""What workers do with members in part ``population``: train or sleep, and note when they began and ended."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.recipes.digits import digits
from training.recipes.plan import PlannedMember, plan_members
from training.workspace import Workspace

_SHORTEST = 10.0  # seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class _Weights:
    sha256: str = "0" * 64


@dataclass(frozen=True, kw_only=True, slots=True)
class _Slept:
    """What a worker looks at of a member's record."""

    status: str = "completed"
    final_weights: _Weights = field(default_factory=_Weights)


def train(workspace: Workspace, planned: PlannedMember, **options: Any) -> Any:
    """Train a member."""
    from training.member.train import train_member

    began = time.time()
    record = train_member(workspace, planned, **options)
    _note(workspace.root, began)
    return record


def sleep(workspace: Workspace, planned: PlannedMember, **options: Any) -> Any:
    """Hold a member for seconds in proportion to its operations, the shortest for 10 s."""
    return _sleep(workspace, planned, _SHORTEST * planned.flops / min(one.flops for one in plan_members(digits())))


def pass_by(workspace: Workspace, planned: PlannedMember, **options: Any) -> Any:
    """Hold a member, and let it go."""
    return _sleep(workspace, planned, 0.0)


def load_busy(root: Path) -> list[tuple[float, float]]:
    """When workers began and ended with members, in seconds since 1970."""
    lines = (root / ".training" / "busy.jsonl").read_text("utf-8").splitlines()
    return [(began, ended) for began, ended in map(json.loads, lines)]


def _sleep(workspace: Workspace, planned: PlannedMember, seconds: float) -> _Slept:
    with workspace.hold(planned.id):
        began = time.time()
        time.sleep(seconds)
        _note(workspace.root, began)
    workspace.discard(planned.id)
    return _Slept()


def _note(root: Path, began: float) -> None:
    with open(root / ".training" / "busy.jsonl", "a", encoding="utf-8") as file:
        file.write(f"{json.dumps([began, time.time()])}\n")
