"""Read the state of a zoo from its folder alone: from any machine, also after the training process died.

Nothing is written. Any file may be half written or hostile: an unreadable file is left out, with a note if that lasts.
See `training.population.estimates` for hours and bytes left, and `training.cli.status` for the command's text. The
JSON is one line:

    {"format": 1, "zoo": "/data/zoo", "recipe": "digits",
     "counts": {"done": 57, "diverged": 0, "running": 2, "stalled": 0, "waiting": 82, "failed": 0, "skipped": 0,
                "damaged": 0},
     "waiting_for_parent": 16, "waiting_with_epochs": 1, "share_done": 0.41, "unit": "images", "throughput": 5120.5,
     "hours_left": 0.6, "bytes_written": 12300000, "bytes_left": 20100000, "bytes_free": 800000000000, "notes": [],
     "members": [{"id": "pt-3/ft-1", "state": "running", "epoch": 3, "epochs": 10, "throughput": 2560.2,
                  "host": "a", "process": 4711, "seconds_silent": 2.1, "failed_attempts": 0, "reason": "",
                  "log": null}, ...]}

Unknown values are null. Members are in the order of their ids. A later version may add keys; it removes none without a
new format.
"""

import contextlib
import json
import os
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from training.attempts import Attempt, load_attempts
from training.lease import EXPIRY, Holder, load_holder, newest_files
from training.member.record import describe_divergence
from training.population.estimates import bytes_left, hours_left
from training.recipes.plan import PlannedMember, plan_members
from training.recipes.recipe import Recipe, parse_recipe
from training.workspace import attempts_file, leases_root, log_file, parse_flat, resume_order, work_root
from vitzoo import records
from vitzoo.errors import RecordError, UnsafePathError
from vitzoo.ids import MemberId
from vitzoo.records import TimingRecord, layout
from vitzoo.sources.folder import FolderSource
from vitzoo.sources.source import refuse_link_out

FORMAT = 1
_MOST_MEMBERS = 100_000  # of a plan, and tensors of a model: the plan of a damaged recipe may never end
_MOST_BYTES = 2**20  # read of a file of lines; a member's file has some kB
_LAST_EPOCHS = 12  # read of timing.jsonl: the speed of now
State = Literal["done", "diverged", "running", "stalled", "waiting", "failed", "skipped", "damaged"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberStatus:
    """State of one member.

    Args:
        id: The member's id.
        state: ``done``; ``diverged`` (its loss became NaN or infinite: a result); ``running``; ``stalled`` (its process
            gave no sign of life for `training.lease.EXPIRY`); ``waiting``; ``failed`` (its run gave it up, and no other
            has tried since); ``skipped`` (its parent failed or diverged); ``damaged`` (its member.json is unreadable).
        epoch: The last finished epoch; the next attempt of a waiting member resumes from it.
        epochs: Epochs of its training; None if the recipe cannot be read.
        throughput: Training images or tokens a second in that epoch, while it runs.
        host: Name of its process's machine, while it runs or is stalled.
        process: Number of that process.
        seconds_silent: Seconds since its last sign of life, by this machine's clock.
        failed_attempts: Failed attempts in all runs.
        reason: Cause of the state, in a line; empty if the state says it.
        log: Path of the log, if attempts failed.
    """

    id: MemberId
    state: State
    epoch: int = 0
    epochs: int | None = None
    throughput: float | None = None
    host: str | None = None
    process: int | None = None
    seconds_silent: float | None = None
    failed_attempts: int = 0
    reason: str = ""
    log: Path | None = None

    @property
    def share(self) -> float:
        """Return the finished share of the training, 0 to 1."""
        return 1.0 if self.state == "done" else min(self.epoch / (self.epochs or 1), 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """State of a zoo.

    Args:
        zoo: The folder.
        recipe: Name of its recipe; None if that cannot be read.
        members: The members' states, by id.
        share_done: Finished share of the operations, 0 to 1, without diverged and skipped members.
        unit: Unit of speeds: images or tokens.
        throughput: Sum over running members, each in its last epoch; None if none has finished an epoch.
        hours_left: Estimate of `training.population.estimates.hours_left`.
        bytes_written: Bytes of weights.
        bytes_left: Estimate of `training.population.estimates.bytes_left`; None if the recipe cannot be read.
        bytes_free: Free bytes on the disk, without regard to quotas.
        notes: Files that could not be read.
    """

    zoo: Path
    recipe: str | None
    members: tuple[MemberStatus, ...]
    share_done: float | None
    unit: str
    throughput: float | None
    hours_left: float | None
    bytes_written: int
    bytes_left: int | None
    bytes_free: int
    notes: tuple[str, ...]

    @property
    def counts(self) -> dict[State, int]:
        """Count the members in each state."""
        counts = Counter(member.state for member in self.members)
        return {state: counts[state] for state in get_args(State)}

    def in_state(self, *states: State) -> list[MemberStatus]:
        """List the members in some states."""
        return [member for member in self.members if member.state in states]

    @property
    def waiting_for_parent(self) -> int:
        """Count the members that wait for a parent that is not done."""
        done = {member.id for member in self.in_state("done")}
        return sum(member.id.parent_id not in {None, *done} for member in self.in_state("waiting"))

    @property
    def waiting_with_epochs(self) -> int:
        """Count the waiting members that have finished epochs."""
        return sum(member.epoch > 0 for member in self.in_state("waiting"))

    @property
    def is_over(self) -> bool:
        """Return whether nothing runs and nothing waits."""
        return not self.in_state("running", "stalled", "waiting")

    def as_json(self) -> str:
        """Return one JSON object on one line, in ASCII, as this module's docstring shows it."""
        first = {"format": FORMAT, "zoo": self.zoo, "recipe": self.recipe, "counts": self.counts}
        waiting = {name: getattr(self, name) for name in ("waiting_for_parent", "waiting_with_epochs")}
        members = [asdict(member) | {"id": member.id} for member in self.members]
        values = {name: getattr(self, name) for name in self.__slots__ if name not in ("members", *first)}
        return json.dumps(first | waiting | values | {"members": members}, default=str, allow_nan=False)


def read_status(root: Path) -> Status:
    """Read the state of a zoo.

    Args:
        root: The zoo folder.

    Raises:
        ZooNotFoundError: The folder is not a zoo.
        RecordError: Its zoo.json is damaged, or of a newer format.
    """
    reader = _Reader(FolderSource(root))
    recipe = reader.source.record.recipe
    planned = reader.plan(recipe)
    files = reader.read([member.id for member in planned])
    by_id = {member.id: member for member in planned}
    members: dict[MemberId, MemberStatus] = {}
    for member in sorted(files):  # parents before their children
        parent = None if member.parent_id is None else members.get(member.parent_id)
        members[member] = _judge(log_file(reader.root, member), member, files[member], by_id.get(member), parent)
    left = {id: 1 - member.share for id, member in members.items() if member.state in ("running", "stalled", "waiting")}
    done = {id for id, member in members.items() if member.state == "done"}
    running = [member for member in members.values() if member.state == "running"]
    counted = [member for member in planned if members[member.id].state not in ("diverged", "skipped")]
    work = sum(member.flops for member in counted)
    speeds = [member.throughput for member in running if member.throughput is not None]
    timings = {id: contents.timings for id, contents in files.items()}
    sizes = {id: contents.bytes for id, contents in files.items()}
    name = recipe.get("name")
    return Status(
        zoo=reader.root,
        recipe=name if isinstance(name, str) else None,
        members=tuple(members.values()),
        share_done=sum(member.flops * members[member.id].share for member in counted) / work if work else None,
        unit=planned[0].unit if planned else "images",
        throughput=round(sum(speeds), 1) if speeds else None,
        hours_left=hours_left(planned, left=left, timings=timings, slots=len(running)),
        bytes_written=sum(sizes.values()),
        bytes_left=bytes_left(planned, left=left, done=done, written=sizes) if planned else None,
        bytes_free=shutil.disk_usage(root).free,
        notes=tuple(reader.notes),
    )


def _judge(
    log: Path, member: MemberId, files: "_MemberFiles", planned: PlannedMember | None, parent: MemberStatus | None
) -> MemberStatus:
    """Derive a member's state from its files and its parent's state."""
    epochs = None if planned is None else planned.training.epochs
    record, holder, attempts = files.record, files.holder, files.attempts
    if files.damage:
        return MemberStatus(id=member, state="damaged", epochs=epochs, reason=files.damage)
    if record is not None and record.status == "completed":
        return MemberStatus(id=member, state="done", epoch=record.epochs, epochs=record.epochs)
    if record is not None:
        last, reason = record.last_good_epoch or 0, describe_divergence(record)
        return MemberStatus(id=member, state="diverged", epoch=last, epochs=record.epochs, reason=reason)
    latest = files.timings[-1] if files.timings else None
    status = MemberStatus(
        id=member,
        state="waiting",
        epoch=latest.epoch if latest else 0,
        epochs=epochs,
        failed_attempts=len(attempts),
        reason=attempts[-1].reason if attempts else "",
        log=log if attempts else None,
    )
    is_held = files.seconds_silent is not None and not (holder is not None and holder.is_gone)
    if is_held and files.seconds_silent is not None:
        silent = round(files.seconds_silent, 1)
        status = replace(status, host=holder and holder.host, process=holder and holder.process, seconds_silent=silent)
        if abs(silent) <= EXPIRY:
            return replace(status, state="running", throughput=latest and latest.throughput)
    if attempts and attempts[-1].is_last and (latest is None or (latest.finished_at or 0) <= attempts[-1].at):
        return replace(status, state="failed")
    if is_held:
        reason = f"its process gave no sign of life for more than {EXPIRY:.0f} s; another run takes over"
        return replace(status, state="stalled", reason=reason)
    if parent is not None and parent.state in ("failed", "diverged"):
        return replace(status, state="skipped", reason=f"{parent.id} {parent.state}")
    return status


def _count_tensors(recipe: Recipe) -> int:
    """Return the number of tensors of the first parent's model, without listing them."""
    head = recipe.parents[0].head
    return recipe.architecture.shape(outputs=head.outputs, head_width=head.width, role=head.role).num_tensors


@dataclass(kw_only=True, slots=True)
class _MemberFiles:
    """Contents of a member's files."""

    record: records.MemberRecord | None  # None if the member is not finished
    damage: str  # the reason why the record cannot be read
    holder: Holder | None  # of the newest lease; None if that cannot be read
    seconds_silent: float | None  # since that lease was touched, by this machine's clock; None without a lease
    timings: list[TimingRecord] = field(default_factory=list)  # of the last epochs
    bytes: int = 0  # of the weights on disk
    attempts: list[Attempt] = field(default_factory=list)


class _Reader:
    """Reads files of a zoo folder, and collects notes on unreadable ones."""

    def __init__(self, source: FolderSource):
        self.source, self.root, self.notes = source, source.root, list[str]()

    def plan(self, plain: dict[str, Any]) -> list[PlannedMember]:
        """Plan the members of the zoo's recipe; return none, with a note, if another version of this code wrote it."""
        path = self.root / layout.ZOO_JSON
        try:
            recipe = parse_recipe(plain, path)
            grid = recipe.children
            cells = len(recipe.parents) * len(grid.heads) * len(grid.optimizers) * len(grid.seeds)
            if max(cells, _count_tensors(recipe)) > _MOST_MEMBERS:
                raise RecordError(f"its recipe has {cells} members, or too many layers.", path=path)
            return plan_members(recipe)
        except RecordError as error:
            self.notes.append(
                f"{path} was written by another version, so its plan is unknown: {error} Only members that have begun "
                "are shown."
            )
            return []

    def read(self, planned: list[MemberId]) -> dict[MemberId, _MemberFiles]:
        """Read the files of the planned members; without a plan, of all members that have any."""
        leases, works = self._leases(), self._work_folders()
        files = {}
        for member in planned or sorted({*self._find_members(), *leases, *works}):
            holder, silent = leases.get(member, (None, None))
            record, damage = self._record(member)
            contents = files[member] = _MemberFiles(record=record, damage=damage, holder=holder, seconds_silent=silent)
            folders = works.get(member, [])
            if record is not None:
                folders = [self.root / layout.member_folder(member)]
                # The final weights are a link to the last epoch's.
                contents.bytes = sum(weights.size for weights in record.weights if weights.epoch is not None)
            else:
                with self._noting(path := attempts_file(self.root, member)):
                    contents.attempts = load_attempts(path) if _is_small(path) else []
            if folders:
                nonce = "" if holder is None else holder.nonce
                folder = max(
                    folders, key=lambda path: (path.parent.name.endswith(f"@{nonce}"), *resume_order(path.parent))
                )
                contents.timings = self._timings(folder / layout.timing_file(member).name)
                for name in self._listing(folder) if record is None else ():
                    if layout.parse_weights_name(name) is not None:
                        with self._noting(folder / name):
                            contents.bytes += (folder / name).stat().st_size
        return files

    @contextlib.contextmanager
    def _noting(self, path: Path, then: str = "") -> Iterator[None]:
        """Skip a file that does not exist, and note one that cannot be read."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            return  # deleted a moment ago
        except OSError as error:
            self.notes.append(f"{path} cannot be read: {error.strerror}{then}.")

    def _listing(self, folder: Path) -> list[str]:
        with self._noting(folder):
            return os.listdir(folder)
        return []

    def _find_members(self) -> Iterator[MemberId]:
        """Find finished members, and members that failed."""
        yield from self.source.member_ids()
        for name in self._listing(attempts_file(self.root, MemberId(0)).parent):
            if (member := parse_flat(name.removesuffix(".jsonl"))) is not None:
                yield member

    def _record(self, member: MemberId) -> tuple[records.MemberRecord | None, str]:
        """Read a finished member's record, or the reason why it cannot be read."""
        path = self.root / layout.member_file(member)
        try:
            if not path.exists():
                return None, ""
            record = records.load_member_record(refuse_link_out(path, self.root))
        except (RecordError, UnsafePathError, OSError) as error:
            return None, str(error)
        return (record, "") if record.id == str(member) else (None, f"{path} is another member's.")

    def _leases(self) -> dict[MemberId, tuple[Holder | None, float]]:
        """Read the newest lease of each member: its holder, and the seconds since it was touched."""
        leases: dict[MemberId, tuple[Holder | None, float]] = {}
        newest: dict[str, Path] = {}
        with self._noting(leases_root(self.root), "; running members are unknown"):
            newest = newest_files(leases_root(self.root))
        for name, path in newest.items():
            member = parse_flat(name)  # None for a lease of a run, the tables or zoo.json
            with self._noting(path):
                if member is not None and _is_small(path):
                    holder = load_holder(path)  # opening it makes NFS fetch its time, too
                    leases[member] = holder, time.time() - path.stat().st_mtime
        return leases

    def _work_folders(self) -> dict[MemberId, list[Path]]:
        """List the folders of each unfinished member."""
        works: dict[MemberId, list[Path]] = defaultdict(list)
        for name in self._listing(work_root(self.root)):
            if (member := parse_flat(name.partition("@")[0])) is not None:
                works[member].append(work_root(self.root) / name / "member")
        return works

    def _timings(self, path: Path) -> list[TimingRecord]:
        """Read the last epochs of a timing.jsonl, without torn lines."""
        timings = []
        with self._noting(path):
            lines = path.read_bytes().split(b"\n") if _is_small(path) else []
            for line in lines[-_LAST_EPOCHS:]:
                with contextlib.suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                    timings.append(msgspec.json.decode(line, type=TimingRecord))
        return timings


def _is_small(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= _MOST_BYTES
