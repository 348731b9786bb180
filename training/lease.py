"""Lease a name to one process by a file in the zoo folder: machines share a folder, but no locks.

    .training/leases/pt-3.ft-1.000002   {"host": "a", "boot": "...", "namespace": "pid:[4026531836]", "process": 4711,
                                         "started": 1234567, "nonce": "5f3a...", "format": 1}

The file with the highest number is the valid one. It is created exclusively, so each number has one owner, who touches
it regularly. A lease is over when its process is gone, as far as this machine can see that, or when it was not touched
for `EXPIRY`. Ages are differences of two times of the file system, the one clock that all machines share. A new holder
creates the next number and deletes the lower ones.

A holder that was suspended for too long loses its lease, and `Lease.check` tells it. Until then a renamed folder keeps
it from writing: see `training.workspace`.
"""

import contextlib
import os
import secrets
import socket
import tempfile
import threading
import time
from functools import cache
from pathlib import Path

import msgspec

from vitzoo.errors import TrainingError
from vitzoo.records import json_files

BEAT = 10.0  # seconds between two touches
EXPIRY = 120.0  # seconds without a touch; NFS may show a time that is a minute old
FORMAT = 1
_LEASES: list["Lease"] = []


class LeaseHeld(TrainingError):
    """Another process holds the lease, or did a moment ago. ``holder`` describes it."""

    holder: str = ""


class LeaseLost(TrainingError):
    """Another process took over a lease that was not renewed for too long."""


class Holder(json_files.Record, frozen=True, kw_only=True):
    """A process that holds a lease.

    Args:
        host: Name of its machine.
        boot: Random id of the machine's last boot; empty where the system has none.
        namespace: Namespace of the process number; each container has its own.
        process: Process number.
        started: Start of the process, in ticks since the boot, because process numbers are reused; -1 if unknown.
        nonce: Random text of this lease alone.
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
        """Describe this process, with a new nonce."""
        (host, boot, namespace), process = _machine(), os.getpid()
        started, nonce = _start_of(process) or -1, secrets.token_hex(8)
        return cls(host=host, boot=boot, namespace=namespace, process=process, started=started, nonce=nonce)

    @property
    def is_gone(self) -> bool:
        """Return whether the process is known to have ended; False if this machine cannot see it."""
        if not self.boot or (self.host, self.boot, self.namespace) != _machine():
            return False
        started = _start_of(self.process)
        return started != self.started if started is not None else not _is_hidden(self.process)

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


class Lease:
    """A lease that this process holds, made by `acquire`; a context manager that releases it.

    Args:
        path: The lease's file.
        holder: This process.
    """

    def __init__(self, path: Path, holder: Holder):
        self.path, self.holder = path, holder
        self._released = threading.Event()
        _LEASES.append(self)
        self._thread = threading.Thread(target=self._keep_alive, name=f"lease {path.name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def check(self) -> None:
        """Check that this process still holds the lease.

        Raises:
            LeaseLost: Another process took over.
        """
        name, number = _parse(self.path)
        if not self._is_ours() or _file(self.path.parent, name, number + 1).exists():
            raise LeaseLost(
                f"{name}: another process took over, because this one gave no sign of life for {EXPIRY:.0f} s",
                fix="Nothing was lost; the other process continues.",
            )

    def release(self) -> None:
        """Release the lease."""
        self._released.set()
        self._thread.join()
        if self in _LEASES:
            _LEASES.remove(self)
        self.delete()

    def delete(self) -> None:
        """Delete the file, unless another process took over."""
        if self._is_ours():
            self.path.unlink(missing_ok=True)

    def _is_ours(self) -> bool:
        holder = load_holder(self.path)  # opens the file, so that NFS asks the server
        return holder is not None and holder.nonce == self.holder.nonce

    def _keep_alive(self) -> None:
        while not self._released.wait(BEAT):
            try:
                os.utime(self.path)  # to the file system's own time
            except FileNotFoundError:
                return  # `check` reports the loss
            except OSError:
                continue  # the file server may come back in time


def acquire(folder: Path, name: str, *, patience: float = 0.0) -> Lease:
    """Acquire a lease, at once if nobody holds it.

    Args:
        folder: Folder of the leases.
        name: Name of the lease.
        patience: Seconds to wait for a living holder.

    Raises:
        LeaseHeld: Another process still holds it.
    """
    give_up, least = time.monotonic() + patience, 0
    while True:
        number = max(_newest(folder, name), least)
        path = _file(folder, name, number)
        if number and not _is_over(path):
            if time.monotonic() >= give_up:
                holder = str(load_holder(path) or "a process that started just now")
                raise LeaseHeld(
                    f"{name} is held by {holder} ({path})",
                    fix=f"Wait for it, or end it. The lease ends {EXPIRY:.0f} s after its last sign of life.",
                    holder=holder,
                )
            time.sleep(0.1)
            continue
        lease = _create(_file(folder, name, number + 1))
        if lease is None:
            least = number + 1  # another process was faster; a cached listing may not show its file yet
        elif _newest(folder, name) > number + 1:
            lease.release()
        else:
            _delete_from(path)
            return lease


def release_all() -> None:
    """Delete every lease of this process, which is about to end. A fork has none."""
    for lease in _LEASES:
        if lease.holder.process == os.getpid():
            lease.delete()


def holder_of(folder: Path, name: str) -> Holder | None:
    """Return the living holder of a lease; None without one."""
    path = newest_files(folder).get(name)
    return None if path is None or _is_over(path) else load_holder(path)


def newest_files(folder: Path) -> dict[str, Path]:
    """Return the valid file of each lease in a folder, by the lease's name, also of leases that are over."""
    newest: dict[str, int] = {}
    for file in os.listdir(folder):
        name, _, number = file.rpartition(".")
        if number.isascii() and number.isdigit():
            newest[name] = max(newest.get(name, 0), int(number))
    return {name: _file(folder, name, number) for name, number in newest.items()}


def held_names(folder: Path) -> set[str]:
    """Return the names of the leases in a folder that living processes hold."""
    return {name for name, path in newest_files(folder).items() if not _is_over(path)}


def clear(folder: Path, name: str) -> None:
    """Delete the files of a lease that is over."""
    path = newest_files(folder).get(name)
    if path is not None and _is_over(path):
        _delete_from(path)


def age_of(path: Path) -> float | None:
    """Return the seconds since a lease was touched, by its file system's clock; None if the file does not exist."""
    try:
        with open(path, "rb") as file:  # opened, so that NFS asks the server
            touched = os.fstat(file.fileno()).st_mtime
        with tempfile.TemporaryFile(dir=path.parent) as now:
            return os.fstat(now.fileno()).st_mtime - touched
    except FileNotFoundError:
        return None


def load_holder(path: Path) -> Holder | None:
    """Read the holder from a lease's file; None if it does not exist, or is being written."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Holder)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _create(path: Path) -> Lease | None:
    """Create a lease under a free number; return None if another process was faster."""
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
    except OSError:  # a full disk: an empty file would be a lease until it is over
        path.unlink(missing_ok=True)
        raise
    return Lease(path, holder) if load_holder(path) == holder else None  # some file systems let two processes create it


def _is_over(path: Path) -> bool:
    holder = load_holder(path)
    if holder is not None and holder.is_gone:
        return True
    age = age_of(path)
    return age is None or abs(age) > EXPIRY  # a time in the future: the clock was set back


def _newest(folder: Path, name: str) -> int:
    """Return the highest number of a lease; 0 without one."""
    path = newest_files(folder).get(name)
    return 0 if path is None else _parse(path)[1]


def _file(folder: Path, name: str, number: int) -> Path:
    return folder / f"{name}.{number:06}"


def _parse(path: Path) -> tuple[str, int]:
    name, _, number = path.name.rpartition(".")
    return name, int(number)


def _delete_from(path: Path) -> None:
    """Delete a lease's file and those with lower numbers."""
    name, newest = _parse(path)
    with contextlib.suppress(FileNotFoundError):
        for number in range(newest, 0, -1):
            _file(path.parent, name, number).unlink()


@cache
def _machine() -> tuple[str, str, str]:
    """Return this machine's name, its boot and the namespace of its process numbers; empty texts if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot = namespace = ""
    return socket.gethostname(), boot, namespace


def _is_hidden(process: int) -> bool:
    """Return whether a process runs that ``/proc`` hides because it belongs to another user."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return False  # our own, and yet without a start time: a zombie


def _start_of(process: int) -> int | None:
    """Return the start of a process in ticks since the boot; None if it is gone, hidden or a zombie."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text("utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()  # a program's name may have spaces and brackets
    return None if state in ("Z", "X") else int(fields[18])
