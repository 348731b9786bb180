"""A lease: who works on a member, said by a file in the zoo folder, where machines share a folder but no locks.

    .training/leases/pt-3.ft-1.000002   {"format": 1, "host": "a", "boot": "...", "namespace": "pid:[4026531836]",
                                         "process": 4711, "started": 1234567, "nonce": "5f3a..."}

The file with the highest number holds. It is created exclusively, so each number has one winner, and touched as long
as its process lives. It is over when that process is gone, where that can be seen (the same boot of the same machine),
or when it was not touched for `EXPIRY`. Ages are differences of two times of the file system, which is one clock for
all machines that share it. Whoever takes over creates the next number and removes those below.

A holder that was taken for dead and wakes up finds out by `Lease.check`; what keeps it from writing is the rename of
the folder that it writes in (`training.workspace`).
"""

import contextlib
import os
import re
import secrets
import socket
import tempfile
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vitzoo.errors import RecordError, TrainingError
from vitzoo.records import json_files

BEAT = 10.0  # seconds between two touches
EXPIRY = 120.0  # seconds without a touch; beyond the minute that NFS may show an old time
FORMAT = 1
_HELD: list["Lease"] = []


class LeaseHeld(TrainingError):
    """Another process works there, or did a moment ago. Attribute: ``holder``, in words."""

    def __init__(self, message: str, *, holder: str):
        super().__init__(message)
        self.holder = holder


class LeaseLost(TrainingError):
    """Another process took over, for this one was not heard of for too long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """A process that holds a lease.

    Args:
        host: Name of its machine.
        boot: Of that machine, since it was last started; empty where the system does not say.
        namespace: That its process number is of; containers have their own.
        process: Its number.
        started: When it began, in ticks since the boot: numbers of processes come again. -1 where that is not known.
        nonce: Of this lease alone.
        format: Version of the file.
    """

    host: str
    boot: str
    namespace: str
    process: int
    started: int
    nonce: str
    format: int = FORMAT

    @classmethod
    def here(cls) -> "Holder":
        """This process, with a nonce of its own."""
        host, boot, namespace = _machine()
        process = os.getpid()
        return cls(
            host=host,
            boot=boot,
            namespace=namespace,
            process=process,
            started=_start_of(process) or -1,
            nonce=secrets.token_hex(8),
        )

    @property
    def is_gone(self) -> bool:
        """Whether the process is known to have ended; False where it cannot be seen from here."""
        host, boot, namespace = _machine()
        if not boot or (self.host, self.boot, self.namespace) != (host, boot, namespace):
            return False
        started = _start_of(self.process)
        return started != self.started if started is not None else not _is_there(self.process)

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


class Lease:
    """A lease that this process holds. `acquire` makes one.

    Args:
        path: Its file.
        holder: This process.
    """

    def __init__(self, path: Path, holder: Holder):
        self.path, self.holder = path, holder
        self._released = threading.Event()
        _HELD.append(self)
        self._thread = threading.Thread(target=self._keep_alive, name=f"lease {path.name}", daemon=True)
        self._thread.start()

    @property
    def nonce(self) -> str:
        """That only this lease has."""
        return self.holder.nonce

    def check(self) -> None:
        """See to it that the lease is still this process's.

        Raises:
            LeaseLost: It is not.
        """
        name, number = _parse(self.path)
        found = load_holder(self.path)  # opened, so that NFS asks the server
        if found is None or found.nonce != self.nonce or _file(self.path.parent, name, number + 1).exists():
            raise LeaseLost(
                f"{name}: another process took over while this one was not heard of for {EXPIRY:.0f} s. Nothing was "
                "lost; this process leaves it to the other one."
            )

    def release(self) -> None:
        """Give it back."""
        self._released.set()
        self._thread.join()
        if self in _HELD:
            _HELD.remove(self)
        self._remove()

    def _remove(self) -> None:
        found = load_holder(self.path)
        if found is not None and found.nonce == self.nonce:
            self.path.unlink(missing_ok=True)

    def _keep_alive(self) -> None:
        while not self._released.wait(BEAT):
            try:
                os.utime(self.path)  # to the file system's own time
            except FileNotFoundError:
                return  # lost: `check` says so
            except OSError:
                continue  # a server that does not answer now may do so in time


def acquire(folder: Path, name: str, *, patience: float = 0.0) -> Lease:
    """Take a lease, at once where nobody holds it.

    Args:
        folder: Where leases lie.
        name: What is leased.
        patience: Seconds to wait for a holder that lives.

    Raises:
        LeaseHeld: Somebody holds it still.
    """
    give_up, least = time.monotonic() + patience, 0
    while True:
        number = max(_newest(folder, name), least)
        path = _file(folder, name, number)
        if number and not _is_over(path):
            if time.monotonic() >= give_up:
                holder = str(load_holder(path) or "a process that began just now")
                raise LeaseHeld(
                    f"{name} is held by {holder} ({path}). Wait for it, or end it; it is free {EXPIRY:.0f} s after its "
                    "last sign of life. Nothing was changed.",
                    holder=holder,
                )
            time.sleep(0.1)
            continue
        lease = _create(_file(folder, name, number + 1))
        if lease is None:
            least = number + 1  # somebody was faster; a listing of a moment ago may not show it
            continue
        if _newest(folder, name) > number + 1:
            lease.release()
            continue
        for other in range(number, 0, -1):
            if not _remove(_file(folder, name, other)):
                break
        return lease


def release_all() -> None:
    """Give every lease of this process back: it is about to end without further ado. Forks of it own none."""
    for held in _HELD:
        if held.holder.process == os.getpid():
            held._remove()


def holder_of(folder: Path, name: str) -> Holder | None:
    """Who holds a lease now; None where nobody does that lives."""
    number = _newest(folder, name)
    path = _file(folder, name, number)
    return None if number == 0 or _is_over(path) else load_holder(path)


def newest_files(folder: Path) -> dict[str, Path]:
    """The file of each lease of a folder, by what is leased; whether it is over is not asked, and nothing written."""
    newest: dict[str, int] = {}
    for found in os.listdir(folder):
        name, _, number = found.rpartition(".")
        if number.isascii() and number.isdigit():
            newest[name] = max(newest.get(name, 0), int(number))
    return {name: _file(folder, name, number) for name, number in newest.items()}


def held_names(folder: Path) -> set[str]:
    """Return the names of the leases in a folder that a living process holds."""
    return {name for name, path in newest_files(folder).items() if not _is_over(path)}


def clear(folder: Path, name: str) -> None:
    """Remove what dead holders left."""
    for number in range(_newest(folder, name), 0, -1):
        path = _file(folder, name, number)
        if path.exists() and not _is_over(path):
            return
        if not _remove(path):
            return


def _create(path: Path) -> Lease | None:
    """A lease under a number that nobody has yet; None where somebody does."""
    holder = Holder.here()
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json_files.json_line(holder) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError:  # a full disk: what is empty would hold for two minutes
        path.unlink(missing_ok=True)
        raise
    found = load_holder(path)  # a folder without exclusive creation shows another's: the last one to write holds
    return Lease(path, holder) if found is not None and found.nonce == holder.nonce else None


def _is_over(path: Path) -> bool:
    """Whether a lease's holder is gone, or was not heard of for too long."""
    holder = load_holder(path)
    if holder is not None and holder.is_gone:
        return True
    age = age_of(path)
    return age is None or abs(age) > EXPIRY  # one from the future: the clock was set back


def age_of(path: Path) -> float | None:
    """Seconds since a lease was touched, by the clock of its file system; None where it is not there."""
    try:
        with open(path, "rb") as file:  # opened, so that NFS asks the server
            touched = os.fstat(file.fileno()).st_mtime
        with tempfile.TemporaryFile(dir=path.parent) as now:
            return os.fstat(now.fileno()).st_mtime - touched
    except FileNotFoundError:
        return None


def load_holder(path: Path) -> Holder | None:
    """Who wrote a lease; None where it is not there, or being written."""
    try:
        return json_files.parse_record(
            Holder, json_files.parse_json(path.read_text("utf-8"), str(path), path), str(path), path
        )
    except (FileNotFoundError, RecordError, UnicodeDecodeError):
        return None


def _newest(folder: Path, name: str) -> int:
    """The highest number of a lease; 0 where there is none."""
    pattern = re.compile(rf"{re.escape(name)}\.(\d+)")
    found = [match for path in os.listdir(folder) if (match := pattern.fullmatch(path))]
    return max((int(match[1]) for match in found), default=0)


def _file(folder: Path, name: str, number: int) -> Path:
    return folder / f"{name}.{number:06}"


def _parse(path: Path) -> tuple[str, int]:
    name, _, number = path.name.rpartition(".")
    return name, int(number)


def _remove(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        return True
    return False


@cache
def _machine() -> tuple[str, str, str]:
    """This machine's name, its boot and the namespace of its process numbers; empty where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot = namespace = ""
    return socket.gethostname(), boot, namespace


def _is_there(process: int) -> bool:
    """Whether a process runs that ``/proc`` may hide, for it is another user's."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return False  # our own, and yet without a start: its parent alone still knows of it


def _start_of(process: int) -> int | None:
    """When a process began, in ticks since the boot; None where it is gone or hidden, or a zombie."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text("utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()  # a program's name may hold blanks and brackets
    return None if state in ("Z", "X") else int(fields[18])
