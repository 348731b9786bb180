"""What a zoo folder tells of its members: what is finished, what is under way, how attempts ended. Nothing is written.

Any file may be half written, or somebody else's mischief: what cannot be read is left out, with a note where that is
no matter of a moment. What follows from all this is `training.population.status`'s.
"""

import json
import math
import os
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from training.attempts import Attempt, load_attempts
from training.lease import EXPIRY, Holder, load_holder, newest_files
from training.workspace import RESUME, attempts_path, leases_root, parse_flat, work_root
from vitzoo import records
from vitzoo.errors import RecordError, UnsafePathError
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.records.json_files import parse_json, parse_record, read_bytes
from vitzoo.sources.source import refuse_link_out

_MOST = 2**20  # bytes that are read of a file of lines; a member's are some kB
_LINES = 12  # of timing.jsonl, the last ones: how fast it goes now
_LATEST = 1e11  # seconds since 1970, and images a second, beyond which a number is no such thing


@dataclass(frozen=True, kw_only=True, slots=True)
class Sighting:
    """A lease, seen by somebody who may not write there.

    Args:
        holder: Who wrote it; None where that cannot be read.
        silent: Seconds since it was touched, by this machine's clock. Where that and the file system's differ, so does
            this: by more than `EXPIRY`, and who lives looks dead.
    """

    holder: Holder | None
    silent: float

    @property
    def is_gone(self) -> bool:
        """Whether its process is known to have ended: one of this machine that does not run any more."""
        return self.holder is not None and self.holder.is_gone

    @property
    def is_heard_of(self) -> bool:
        """Whether it was touched lately."""
        return abs(self.silent) <= EXPIRY


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """A line of timing.jsonl, as far as it matters here.

    Args:
        epoch: Finished epochs.
        finished_at: When, in seconds since 1970.
        images_per_second: Of training in that epoch; None of epoch 0.
    """

    epoch: int
    finished_at: float
    images_per_second: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """What lies in a zoo folder of one member.

    Args:
        record: Its member.json, without its classes and weights; None where it is not finished.
        damage: Why there is one that cannot be read; empty otherwise.
        lease: The newest one, whatever it is worth; None where there is none.
        timings: Of its last epochs, whether it is finished or under way.
        bytes: Of its weights on disk.
        attempts: Those that failed.
    """

    record: records.MemberRecord | None = None
    damage: str = ""
    lease: Sighting | None = None
    timings: tuple[Timing, ...] = ()
    bytes: int = 0
    attempts: tuple[Attempt, ...] = ()


@dataclass(kw_only=True, slots=True)
class Traces:
    """All that a zoo folder tells of its members.

    Args:
        members: By id.
        notes: What could not be read.
    """

    members: dict[MemberId, Trace] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_traces(root: Path, members: Collection[MemberId]) -> Traces:
    """Look at a zoo folder.

    Args:
        root: The folder.
        members: Whom to look for; what else lies there is not a member of this zoo.
    """
    traces = Traces()
    leases = _leases(root, traces.notes)
    works = _works(root, traces.notes)
    for member in members:
        record, size, damage = _record(root, member)
        if record is None:
            work = _work_of(works.get(member, []), leases.get(member))
            folder = None if work is None else work / "member"
            size = 0 if folder is None else _weights_bytes(folder)
        else:
            folder = root / layout.member_folder(member)
        traces.members[member] = Trace(
            record=record,
            damage=damage,
            lease=leases.get(member),
            timings=() if folder is None else _timings(folder / layout.timing_file(member).name),
            bytes=size,
            attempts=_attempts(root, member, traces.notes) if record is None else (),
        )
    return traces


def find_members(root: Path) -> list[MemberId]:
    """The members that have left anything in a zoo folder, for one whose recipe cannot be read."""
    found: set[MemberId] = set()
    for name in _listing(root, []):
        if (parent := MemberId.match(name)) is not None and parent.is_parent:
            candidates = [parent, *(MemberId.match(f"{name}/{child}") for child in _listing(root / name, []))]
            found.update(one for one in candidates if one and (root / layout.member_file(one)).is_file())
    found.update(_works(root, []), _leases(root, []))
    names = _listing(attempts_path(root, MemberId(0)).parent, [])
    found.update(one for name in names if (one := parse_flat(name.removesuffix(".jsonl"))) is not None)
    return sorted(found)


def _record(root: Path, member: MemberId) -> tuple[records.MemberRecord | None, int, str]:
    """A finished member's record but for its long lists, the bytes of its weights, and what is wrong with it."""
    path = root / layout.member_file(member)
    try:
        if not path.exists():
            return None, 0, ""
        value = parse_json(read_bytes(refuse_link_out(path, root)), str(path), path)
        if not isinstance(value, dict) or value.get("format") != records.FORMAT:
            return records.load_member_record(path), 0, ""  # which says what it should be
        record = parse_record(records.MemberRecord, value | {"weights": [], "classes": []}, str(path), path)
        weights = [one for one in value["weights"] if one["epoch"] is not None]  # the final one is a link to the last
        size = sum(max(int(one["size"]), 0) for one in weights)
    except (RecordError, UnsafePathError, OSError) as error:
        return None, 0, str(error)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None, 0, f"{path}: weights are no list of files."
    return (record, size, "") if record.id == str(member) else (None, 0, f"{path} is of another member.")


def _leases(root: Path, notes: list[str]) -> dict[MemberId, Sighting]:
    found: dict[MemberId, Sighting] = {}
    try:
        newest = newest_files(leases_root(root))
    except (FileNotFoundError, NotADirectoryError):
        return found
    except OSError as error:
        notes.append(f"{leases_root(root)} cannot be read: {error.strerror}; what runs is not known.")
        return found
    for name, path in newest.items():
        if (member := parse_flat(name)) is None:
            continue  # of the tables, or of zoo.json
        try:
            if path.is_file() and path.stat().st_size <= _MOST:
                holder = load_holder(path)  # opened, so that NFS asks the server for the time too
                found[member] = Sighting(holder=holder, silent=time.time() - path.stat().st_mtime)
        except FileNotFoundError:
            continue  # given back a moment ago
        except OSError as error:
            notes.append(f"{path} cannot be read: {error.strerror}.")
    return found


def _works(root: Path, notes: list[str]) -> dict[MemberId, list[Path]]:
    """The folders of what is under way, or was interrupted."""
    works: dict[MemberId, list[Path]] = {}
    for name in _listing(work_root(root), notes):
        if (member := parse_flat(name.partition("@")[0])) is not None:
            works.setdefault(member, []).append(work_root(root) / name)
    return works


def _work_of(folders: list[Path], lease: Sighting | None) -> Path | None:
    """The one of its holder; else the one that the next holder goes on with, as `training.workspace` chooses."""
    nonce = "" if lease is None or lease.holder is None else lease.holder.nonce
    return max(
        folders, key=lambda path: (path.name.endswith(f"@{nonce}"), (path / RESUME).exists(), path.name), default=None
    )


def _timings(path: Path) -> tuple[Timing, ...]:
    timings = []
    for line in _tail(path).split("\n")[-_LINES:]:
        try:
            value = json.loads(line)
            epoch, finished_at = value["epoch"], float(value["finished_at"])
            speed = value.get("images_per_second")
            speed = None if speed is None else float(speed)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            continue  # one that is being written
        numbers = [finished_at, *([] if speed is None else [speed])]
        if (
            type(epoch) is int
            and 0 <= epoch < 10**9
            and all(math.isfinite(one) and 0 <= one < _LATEST for one in numbers)
        ):
            timings.append(Timing(epoch=epoch, finished_at=finished_at, images_per_second=speed))
    return tuple(timings)


def _attempts(root: Path, member: MemberId, notes: list[str]) -> tuple[Attempt, ...]:
    path = attempts_path(root, member)
    try:
        if not path.is_file():
            return ()
        if path.stat().st_size > _MOST:
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
                continue  # not kept, and gone meanwhile
    return total


def _tail(path: Path) -> str:
    """The end of a text file; nothing where it is not there."""
    try:
        if not path.is_file():
            return ""
        with open(path, "rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - _MOST, 0))
            return file.read(_MOST).decode("utf-8", errors="replace")
    except OSError:
        return ""


def _listing(folder: Path, notes: list[str]) -> list[str]:
    """Names in a folder; none where it is not there."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        notes.append(f"{folder} cannot be read: {error.strerror}.")
        return []
