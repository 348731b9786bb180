"""Where a zoo stands, from its folder alone: from any machine, and after whatever trained it died. Nothing is written.

What lies in the folder is read by `traces.py`, hours and bytes are reckoned in `left.py`; here is what follows for each
member, and the whole. As JSON, on one line:

    {"format": 1, "zoo": "/data/zoo", "recipe": "digits",
     "counts": {"done": 57, "diverged": 0, "running": 2, "stalled": 0, "waiting": 82, "failed": 0, "skipped": 0,
                "damaged": 0},
     "waiting_for_parent": 16, "waiting_with_epochs": 1, "share_done": 0.41, "images_per_second": 5120.5,
     "hours_left": 0.6, "bytes_written": 12300000, "bytes_left": 20100000, "bytes_free": 800000000000, "notes": [],
     "members": [{"id": "pt-3/ft-1", "state": "running", "epoch": 3, "epochs": 10, "images_per_second": 2560.2,
                  "host": "a", "process": 4711, "seconds_silent": 2.1, "failed_attempts": 0, "reason": "",
                  "log": null}, ...]}

What is not known is null. Members are in the order of their ids. A further key may come; none goes but with the format.
"""

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from training.lease import EXPIRY
from training.member.record import describe_divergence
from training.population.left import bytes_left, hours_left
from training.population.traces import Trace, find_members, read_traces
from training.recipes.plan import PlannedMember, plan_members
from training.recipes.recipe import Recipe
from training.workspace import log_path
from vitzoo import records
from vitzoo.errors import RecordError, ZooNotFoundError
from vitzoo.ids import MemberId, is_zoo_name, is_zoo_path
from vitzoo.records import layout
from vitzoo.records.json_files import parse_record
from vitzoo.sources.folder import is_zoo_folder

FORMAT = 1
_MOST_MEMBERS = 100_000  # of a plan, and layers of one: a damaged recipe is not counted to its end
State = Literal["done", "diverged", "running", "stalled", "waiting", "failed", "skipped", "damaged"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberStatus:
    """Where one member stands.

    Args:
        id: Which.
        state: ``done``; ``diverged`` (its loss was not finite: an outcome); ``running``; ``stalled`` (a process holds
            it that was not heard of for `training.lease.EXPIRY`: the next to come takes over); ``waiting``; ``failed``
            (the last attempt that its run allowed, and nobody has been at it since); ``skipped`` (its parent failed or
            diverged); ``damaged`` (it has a member.json that cannot be read).
        epoch: The last finished one; of a waiting member that of an interrupted attempt, which the next goes on from.
        epochs: Of its training; None where the recipe cannot be read.
        images_per_second: Of training in that epoch, while it runs.
        host: Name of the machine that its process is on; of what runs or is stalled.
        process: Number of that process.
        seconds_silent: Since its last sign of life, by this machine's clock.
        failed_attempts: In all runs.
        reason: Why it is where it is, in a line; empty where that goes without saying.
        log: What was said, where attempts failed.
    """

    id: MemberId
    state: State
    epoch: int = 0
    epochs: int | None = None
    images_per_second: float | None = None
    host: str | None = None
    process: int | None = None
    seconds_silent: float | None = None
    failed_attempts: int = 0
    reason: str = ""
    log: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """Where a zoo stands.

    Args:
        zoo: The folder.
        recipe: Name of its recipe; None where that cannot be read.
        members: Each, by id.
        share_done: Of the operations of all members but those that diverged or are skipped, 0 to 1.
        images_per_second: Of all that runs, in the last epoch of each; None where nothing has finished one.
        hours_left: At the speed of the epochs that were finished, in wall time, times the members that run now, but as
            long at least as the longest chain of a parent and its child. None where nothing runs.
        bytes_written: Of weights.
        bytes_left: Of weights yet to be written, as many epochs of each member as done ones kept; all where none is.
        bytes_free: On the disk; quotas are not seen.
        notes: What could not be read.
    """

    zoo: Path
    recipe: str | None
    members: tuple[MemberStatus, ...]
    share_done: float | None
    images_per_second: float | None
    hours_left: float | None
    bytes_written: int
    bytes_left: int | None
    bytes_free: int
    notes: tuple[str, ...]

    @property
    def counts(self) -> dict[State, int]:
        """How many members are in each state."""
        found = Counter(member.state for member in self.members)
        return {state: found[state] for state in get_args(State)}

    def those(self, *states: State) -> list[MemberStatus]:
        """The members in some states."""
        return [member for member in self.members if member.state in states]

    @property
    def waiting_for_parent(self) -> int:
        """How many members wait for one that is not done."""
        done = {member.id for member in self.those("done")}
        return sum(member.id.parent_id not in {None, *done} for member in self.those("waiting"))

    @property
    def waiting_with_epochs(self) -> int:
        """How many waiting members have finished epochs, from an attempt that was interrupted."""
        return sum(member.epoch > 0 for member in self.those("waiting"))

    @property
    def is_over(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not self.those("running", "stalled", "waiting")

    def as_json(self) -> str:
        """One JSON object on one line, as this module's docstring shows it; of ASCII, whatever a name holds."""
        values = {
            "format": FORMAT,
            "zoo": self.zoo,
            "recipe": self.recipe,
            "counts": self.counts,
            "waiting_for_parent": self.waiting_for_parent,
            "waiting_with_epochs": self.waiting_with_epochs,
            "share_done": self.share_done,
            "images_per_second": self.images_per_second,
            "hours_left": self.hours_left,
            "bytes_written": self.bytes_written,
            "bytes_left": self.bytes_left,
            "bytes_free": self.bytes_free,
            "notes": self.notes,
            "members": [asdict(member) | {"id": member.id} for member in self.members],
        }
        return json.dumps(values, default=str, allow_nan=False)


def read_status(root: Path) -> Status:
    """Look where a zoo stands.

    Args:
        root: Its folder.

    Raises:
        ZooNotFoundError: It is none.
        RecordError: Its zoo.json is damaged, or of a newer format.
    """
    record = _zoo_record(root)
    root = root.absolute()
    planned, notes = _plan(record, root)
    traces = read_traces(root, [member.id for member in planned] or find_members(root))
    by_id = {member.id: member for member in planned}
    members: dict[MemberId, MemberStatus] = {}
    for member in sorted(traces.members):  # parents before their children
        members[member] = _judge(root, member, traces.members[member], by_id.get(member), members)
    left = {one.id: 1 - _share(one) for one in members.values() if one.state in ("running", "stalled", "waiting")}
    done = {one.id for one in members.values() if one.state == "done"}
    running = [one for one in members.values() if one.state == "running"]
    counted = [one for one in planned if members[one.id].state not in ("diverged", "skipped")]
    work = sum(one.flops for one in counted)
    speeds = [one.images_per_second for one in running if one.images_per_second is not None]
    timings = {member: trace.timings for member, trace in traces.members.items()}
    sizes = {member: trace.bytes for member, trace in traces.members.items()}
    name = record.recipe.get("name")
    return Status(
        zoo=root,
        recipe=name if isinstance(name, str) else None,
        members=tuple(members.values()),
        share_done=sum(one.flops * _share(members[one.id]) for one in counted) / work if work else None,
        images_per_second=round(sum(speeds), 1) if speeds else None,
        hours_left=hours_left(planned, left=left, timings=timings, slots=len(running)),
        bytes_written=sum(sizes.values()),
        bytes_left=bytes_left(planned, left=left, done=done, written=sizes) if planned else None,
        bytes_free=shutil.disk_usage(root).free,
        notes=(*notes, *traces.notes),
    )


def _zoo_record(root: Path) -> records.ZooRecord:
    if not is_zoo_folder(root):
        may_be_hub = is_zoo_name(str(root)) and not is_zoo_path(str(root))
        hub = f"; what is on the Hub is finished: vitzoo tree {root}" if may_be_hub else ""
        raise ZooNotFoundError(
            f"{root.absolute()} is no zoo: it holds no {layout.ZOO_JSON}. Name the folder that a run was given with "
            f"--out{hub}.",
            zoo=str(root),
        )
    try:
        return records.load_zoo_record(root / layout.ZOO_JSON)
    except OSError as error:
        path = root / layout.ZOO_JSON
        raise RecordError(f"{path} cannot be read: {error.strerror}. Ask for leave to.", path=path) from error


def _plan(record: records.ZooRecord, root: Path) -> tuple[list[PlannedMember], list[str]]:
    """The members of a zoo's recipe; none, and why, where another version of this code wrote it."""
    path = root / layout.ZOO_JSON
    try:
        recipe = parse_record(Recipe, record.recipe, "its recipe", path)
        grid = recipe.children
        cells = len(recipe.parents) * len(grid.heads) * len(grid.optimizers) * len(grid.seeds)
        if max(cells, recipe.architecture.num_hidden_layers) > _MOST_MEMBERS:
            raise RecordError(f"its recipe has {cells} members, or too many layers.", path=path)
        return plan_members(recipe), []
    except RecordError as error:
        return [], [
            f"The plan is not known, for {path} was written by another version: {error} What has begun is shown; what "
            "has not, and what is left, cannot be."
        ]


def _judge(
    root: Path,
    member: MemberId,
    trace: Trace,
    planned: PlannedMember | None,
    before: Mapping[MemberId, MemberStatus],
) -> MemberStatus:
    """Where a member stands; its parent's status is known."""
    epochs = None if planned is None else planned.training.epochs
    record, lease, attempts = trace.record, trace.lease, trace.attempts
    if trace.damage:
        return MemberStatus(id=member, state="damaged", epochs=epochs, reason=trace.damage)
    if record is not None and record.status == "completed":
        return MemberStatus(id=member, state="done", epoch=record.epochs, epochs=record.epochs)
    if record is not None:
        last, reason = record.last_good_epoch or 0, describe_divergence(record)
        return MemberStatus(id=member, state="diverged", epoch=last, epochs=record.epochs, reason=reason)
    latest = trace.timings[-1] if trace.timings else None
    waiting = MemberStatus(
        id=member,
        state="waiting",
        epoch=latest.epoch if latest else 0,
        epochs=epochs,
        failed_attempts=len(attempts),
        reason=attempts[-1].reason if attempts else "",
        log=log_path(root, member) if attempts else None,
    )
    if lease is not None and not lease.is_gone:
        holder = lease.holder
        waiting = replace(
            waiting,
            host=holder and holder.host,
            process=holder and holder.process,
            seconds_silent=round(lease.silent, 1),
        )
        if lease.is_heard_of:
            return replace(waiting, state="running", images_per_second=latest and latest.images_per_second)
    if attempts and attempts[-1].is_last and (latest is None or latest.finished_at <= attempts[-1].at):
        return replace(waiting, state="failed")
    if waiting.seconds_silent is not None:
        reason = f"its process was not heard of for more than {EXPIRY:.0f} s; who comes next takes over"
        return replace(waiting, state="stalled", reason=reason)
    parent = None if member.parent_id is None else before.get(member.parent_id)
    if parent is not None and parent.state in ("failed", "diverged"):
        return replace(waiting, state="skipped", reason=f"{parent.id} {parent.state}")
    return waiting


def _share(member: MemberStatus) -> float:
    """How much of a member is done, 0 to 1."""
    return 1.0 if member.state == "done" else min(member.epoch / (member.epochs or 1), 1.0)
