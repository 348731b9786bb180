"""Read the state of a zoo from its folder alone: from any machine, also after the training process died.

Nothing is written. Any file may be half written or hostile: an unreadable file is left out, with a note if that lasts.
See `training.population.estimates` for hours and bytes left, and `training.cli.status` for the text of the command. As
JSON, on one line:

    {"format": 1, "zoo": "/data/zoo", "recipe": "digits",
     "counts": {"done": 57, "diverged": 0, "running": 2, "stalled": 0, "waiting": 82, "failed": 0, "skipped": 0,
                "damaged": 0},
     "waiting_for_parent": 16, "waiting_with_epochs": 1, "share_done": 0.41, "images_per_second": 5120.5,
     "hours_left": 0.6, "bytes_written": 12300000, "bytes_left": 20100000, "bytes_free": 800000000000, "notes": [],
     "members": [{"id": "pt-3/ft-1", "state": "running", "epoch": 3, "epochs": 10, "images_per_second": 2560.2,
                  "host": "a", "process": 4711, "seconds_silent": 2.1, "failed_attempts": 0, "reason": "",
                  "log": null}, ...]}

Unknown values are null. Members are in the order of their ids. A later version may add keys; it removes none without a
new format.
"""

import json
import os
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import msgspec

from training.attempts import Attempt, load_attempts
from training.lease import EXPIRY, Holder, load_holder, newest_files
from training.member.record import describe_divergence
from training.population.estimates import bytes_left, hours_left
from training.recipes.plan import PlannedMember, plan_members
from training.recipes.recipe import Recipe
from training.workspace import RESUME, attempts_path, leases_root, log_path, parse_flat, work_root
from vitzoo import records
from vitzoo.errors import RecordError, UnsafePathError, ZooNotFoundError
from vitzoo.ids import MemberId, is_zoo_name, is_zoo_path
from vitzoo.records import TimingRecord, layout
from vitzoo.records.json_files import parse_record
from vitzoo.sources.folder import is_zoo_folder
from vitzoo.sources.source import refuse_link_out

FORMAT = 1
_MOST_MEMBERS = 100_000  # of a plan, and layers of a model: the plan of a damaged recipe may never end
_MOST_BYTES = 2**20  # read of a file of lines; a member's file has some kB
_LAST_EPOCHS = 12  # read of timing.jsonl: the speed of now
State = Literal["done", "diverged", "running", "stalled", "waiting", "failed", "skipped", "damaged"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberStatus:
    """State of one member.

    Args:
        id: The member's id.
        state: ``done``; ``diverged`` (its loss was not finite: an outcome); ``running``; ``stalled`` (its process gave
            no sign of life for `training.lease.EXPIRY`: another run takes over); ``waiting``; ``failed`` (its run gave
            it up, and no other has tried since); ``skipped`` (its parent failed or diverged); ``damaged`` (its
            member.json cannot be read).
        epoch: The last finished epoch. Of a waiting member: of an interrupted attempt, from which the next one resumes.
        epochs: Epochs of its training; None where the recipe cannot be read.
        images_per_second: Training images a second in that epoch, while it runs.
        host: Name of its process's machine, while it runs or is stalled.
        process: Number of that process.
        seconds_silent: Seconds since its last sign of life, by this machine's clock.
        failed_attempts: Failed attempts in all runs.
        reason: Cause of the state, in a line; empty where the state says it.
        log: Path of the log, where attempts failed.
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

    @property
    def share(self) -> float:
        """Return the finished share of the training, 0 to 1."""
        return 1.0 if self.state == "done" else min(self.epoch / (self.epochs or 1), 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """State of a zoo.

    Args:
        zoo: The folder.
        recipe: Name of its recipe; None where that cannot be read.
        members: The members' states, by id.
        share_done: Share of the operations of all members but those that diverged or are skipped, 0 to 1.
        images_per_second: Sum over running members, each in its last epoch; None where none has finished an epoch.
        hours_left: Hours at the speed of the finished epochs and with as many members at a time as run now, at least
            those of the longest chain of a parent and its child. None where nothing runs.
        bytes_written: Bytes of weights.
        bytes_left: Bytes of weights to come, for as many epochs of each member as done ones saved; all if none is done.
        bytes_free: Bytes free on the disk, without regard to quotas.
        notes: Files that could not be read.
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
        ZooNotFoundError: It is not a zoo.
        RecordError: Its zoo.json is damaged, or of a newer format.
    """
    record = _load_zoo_record(root)
    root = root.absolute()
    planned, notes = _plan(record, root)
    files = _read_files(root, [member.id for member in planned], notes)
    by_id = {member.id: member for member in planned}
    members: dict[MemberId, MemberStatus] = {}
    for member in sorted(files):  # parents before their children
        parent = None if member.parent_id is None else members.get(member.parent_id)
        members[member] = _judge(log_path(root, member), member, files[member], by_id.get(member), parent)
    left = {one.id: 1 - one.share for one in members.values() if one.state in ("running", "stalled", "waiting")}
    done = {one.id for one in members.values() if one.state == "done"}
    running = [one for one in members.values() if one.state == "running"]
    counted = [one for one in planned if members[one.id].state not in ("diverged", "skipped")]
    work = sum(one.flops for one in counted)
    speeds = [one.images_per_second for one in running if one.images_per_second is not None]
    timings = {member: its.timings for member, its in files.items()}
    sizes = {member: its.bytes for member, its in files.items()}
    name = record.recipe.get("name")
    return Status(
        zoo=root,
        recipe=name if isinstance(name, str) else None,
        members=tuple(members.values()),
        share_done=sum(one.flops * members[one.id].share for one in counted) / work if work else None,
        images_per_second=round(sum(speeds), 1) if speeds else None,
        hours_left=hours_left(planned, left=left, timings=timings, slots=len(running)),
        bytes_written=sum(sizes.values()),
        bytes_left=bytes_left(planned, left=left, done=done, written=sizes) if planned else None,
        bytes_free=shutil.disk_usage(root).free,
        notes=tuple(notes),
    )


def _load_zoo_record(root: Path) -> records.ZooRecord:
    if not is_zoo_folder(root):
        may_be_hub = is_zoo_name(str(root)) and not is_zoo_path(str(root))
        hub = f"; a zoo on the Hub is finished: vitzoo tree {root}" if may_be_hub else ""
        raise ZooNotFoundError(
            f"{root.absolute()} is not a zoo: it has no {layout.ZOO_JSON}",
            fix=f"Name the folder that a run was given with --out{hub}.",
            zoo=str(root),
        )
    path = root / layout.ZOO_JSON
    try:
        return records.load_zoo_record(path)
    except OSError as error:
        raise RecordError(
            f"{path} cannot be read: {error.strerror}", fix="Ask its owner for access.", path=path
        ) from error


def _plan(record: records.ZooRecord, root: Path) -> tuple[list[PlannedMember], list[str]]:
    """Plan the members of a zoo's recipe; return none, with a note, if another version of this code wrote it."""
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
            f"{path} was written by another version, so its plan is unknown: {error} Only members that have begun are "
            "shown."
        ]


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
            return replace(status, state="running", images_per_second=latest and latest.images_per_second)
    if attempts and attempts[-1].is_last and (latest is None or (latest.finished_at or 0) <= attempts[-1].at):
        return replace(status, state="failed")
    if is_held:
        reason = f"its process gave no sign of life for more than {EXPIRY:.0f} s; another run takes over"
        return replace(status, state="stalled", reason=reason)
    if parent is not None and parent.state in ("failed", "diverged"):
        return replace(status, state="skipped", reason=f"{parent.id} {parent.state}")
    return status


@dataclass(kw_only=True, slots=True)
class _MemberFiles:
    """Contents of a member's files.

    Args:
        record: Its member.json; None if it is not finished.
        damage: Reason why that cannot be read; empty otherwise.
        holder: Process of its newest lease; None if that cannot be read.
        seconds_silent: Seconds since that lease was touched, by this machine's clock; None without a lease.
        timings: Its last epochs.
        bytes: Bytes of its weights on disk.
        attempts: Its failed attempts.
    """

    record: records.MemberRecord | None = None
    damage: str = ""
    holder: Holder | None = None
    seconds_silent: float | None = None
    timings: tuple[TimingRecord, ...] = ()
    bytes: int = 0
    attempts: tuple[Attempt, ...] = ()


def _read_files(root: Path, planned: Sequence[MemberId], notes: list[str]) -> dict[MemberId, _MemberFiles]:
    """Read the files of the planned members; without a plan, of all members that have any."""
    leases, works = _leases(root, notes), _works(root, notes)
    members = planned or sorted({*_find_members(root), *leases, *works})
    files = {}
    for member in members:
        its = files[member] = _MemberFiles()
        its.holder, its.seconds_silent = leases.get(member, (None, None))
        its.record, its.damage = _record(root, member)
        if its.record is not None:
            folder = root / layout.member_folder(member)
            # The final weights are a link to those of the last epoch.
            its.bytes = sum(weights.size for weights in its.record.weights if weights.epoch is not None)
        else:
            folder = _work_folder(works.get(member, []), its.holder)
            its.bytes = 0 if folder is None else _weights_bytes(folder)
            its.attempts = _attempts(attempts_path(root, member), notes)
        its.timings = () if folder is None else tuple(_timings(folder / layout.timing_file(member).name))
    return files


def _find_members(root: Path) -> Iterator[MemberId]:
    """Find finished members, and those that failed."""
    for name in _listing(root, []):
        if (parent := MemberId.match(name)) is not None and parent.is_parent:
            for member in (parent, *(MemberId.match(f"{name}/{child}") for child in _listing(root / name, []))):
                if member is not None and (root / layout.member_file(member)).is_file():
                    yield member
    for name in _listing(attempts_path(root, MemberId(0)).parent, []):
        if (member := parse_flat(name.removesuffix(".jsonl"))) is not None:
            yield member


def _record(root: Path, member: MemberId) -> tuple[records.MemberRecord | None, str]:
    """Read a finished member's record, or the reason why it cannot be read."""
    path = root / layout.member_file(member)
    try:
        if not path.exists():
            return None, ""
        record = records.load_member_record(refuse_link_out(path, root))
    except (RecordError, UnsafePathError, OSError) as error:
        return None, str(error)
    return (record, "") if record.id == str(member) else (None, f"{path} is another member's.")


def _leases(root: Path, notes: list[str]) -> dict[MemberId, tuple[Holder | None, float]]:
    """Read the newest lease of each member: its holder, and the seconds since it was touched."""
    leases: dict[MemberId, tuple[Holder | None, float]] = {}
    try:
        newest = newest_files(leases_root(root))
    except (FileNotFoundError, NotADirectoryError):
        return leases
    except OSError as error:
        notes.append(f"{leases_root(root)} cannot be read: {error.strerror}; running members are unknown.")
        return leases
    for name, path in newest.items():
        if (member := parse_flat(name)) is None:
            continue  # a lease of the tables, or of zoo.json
        try:
            if path.is_file() and path.stat().st_size <= _MOST_BYTES:
                holder = load_holder(path)  # opening it makes NFS fetch its time, too
                leases[member] = holder, time.time() - path.stat().st_mtime
        except FileNotFoundError:
            continue  # released a moment ago
        except OSError as error:
            notes.append(f"{path} cannot be read: {error.strerror}.")
    return leases


def _works(root: Path, notes: list[str]) -> dict[MemberId, list[Path]]:
    """List the work folders of each unfinished member."""
    works: dict[MemberId, list[Path]] = defaultdict(list)
    for name in _listing(work_root(root), notes):
        if (member := parse_flat(name.partition("@")[0])) is not None:
            works[member].append(work_root(root) / name)
    return works


def _work_folder(folders: list[Path], holder: Holder | None) -> Path | None:
    """Choose the holder's work folder, else the one from which `training.workspace` would resume."""
    nonce = "" if holder is None else holder.nonce
    folders = sorted(folders, key=lambda path: (path.name.endswith(f"@{nonce}"), (path / RESUME).exists(), path.name))
    return folders[-1] / "member" if folders else None


def _timings(path: Path) -> Iterator[TimingRecord]:
    try:
        if not path.is_file():
            return
        with open(path, "rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - _MOST_BYTES, 0))
            lines = file.read(_MOST_BYTES).split(b"\n")
    except OSError:
        return
    for line in lines[-_LAST_EPOCHS:]:
        try:
            yield msgspec.json.decode(line, type=TimingRecord)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            continue  # it is being written


def _attempts(path: Path, notes: list[str]) -> tuple[Attempt, ...]:
    try:
        if not path.is_file():
            return ()
        if path.stat().st_size > _MOST_BYTES:
            notes.append(f"{path} is too large to be read.")
            return ()
        return tuple(load_attempts(path))
    except (OSError, RecursionError) as error:
        notes.append(f"{path} cannot be read: {error}.")
        return ()


def _weights_bytes(folder: Path) -> int:
    total = 0
    for name in _listing(folder, []):
        if layout.parse_weights_name(name) is not None:
            try:
                total += (folder / name).stat().st_size
            except OSError:
                continue  # deleted meanwhile
    return total


def _listing(folder: Path, notes: list[str]) -> list[str]:
    """List the names in a folder; none if it does not exist."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        notes.append(f"{folder} cannot be read: {error.strerror}.")
        return []
