"""Train members in workers of tests: with the real function, after the faults that a file in the zoo folder lists."""

import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

from tests.tiny import tiny
from training.member.report import Report
from training.member.train import train_member
from training.recipes.plan import PlannedMember, plan_members
from training.workspace import Workspace
from vitzoo import records

FAULTS, STARTS = "faults.json", "starts.txt"
SMALL_FILES = 26_000  # bytes; the largest file of the tiny zoo is smaller


def write_faults(root: Path, **faults: list[str]) -> None:
    """Write the faults of members' first attempts (raise, die or full); ids have _ for - and __ for /."""
    named = {member.replace("__", "/").replace("_", "-"): kinds for member, kinds in faults.items()}
    (root / ".training" / FAULTS).write_text(json.dumps(named))


def starts(root: Path) -> list[str]:
    """Return the started members, in order."""
    return (root / ".training" / STARTS).read_text().split()


def train_or_fail(workspace: Workspace, planned: PlannedMember, **options: Any) -> records.MemberRecord:
    """Train a member, unless a fault comes first."""
    member = str(planned.id)
    with open(workspace.root / ".training" / STARTS, "a") as file:
        file.write(f"{member}\n")
    kinds = json.loads((workspace.root / ".training" / FAULTS).read_text()).get(member, [])
    attempt = starts(workspace.root).count(member)
    kind = kinds[attempt - 1] if attempt <= len(kinds) else "none"
    if kind == "raise":
        raise RuntimeError(f"attempt {attempt} was to raise")
    if kind == "full":
        raise OSError(28, "No space left on device")
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return train_member(workspace, planned, **options)


def train_with_small_files(workspace: Workspace, planned: PlannedMember, **options: Any) -> records.MemberRecord:
    """Train a member in a process whose files are too small for AdamW's state, and large enough for SGD's."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_FILES, SMALL_FILES))
    return train_member(workspace, planned, **options)


def train_in_one_process(workspace: Workspace, planned: PlannedMember, **options: Any) -> records.MemberRecord:
    """Train a member in the first process that comes; others fail at once, as if their cards were broken."""
    first = workspace.root / ".training" / "first"
    try:
        first.touch(exist_ok=False)
        first.write_text(str(os.getpid()))
    except FileExistsError:
        if first.read_text() != str(os.getpid()):
            raise RuntimeError("this card is broken") from None
    return train_member(workspace, planned, **options)


def train_and_stop(root: Path) -> None:
    """Train the first member of the tiny zoo, and stop this process after its first epoch."""

    def stop(report: Report) -> None:
        if report.epoch == 1:
            os.kill(os.getpid(), signal.SIGSTOP)

    train_member(Workspace(root, tiny()), plan_members(tiny())[0], report=stop)
