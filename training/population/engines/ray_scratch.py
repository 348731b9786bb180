"""Members whose files go to the zoo through the driver, where a cluster's machines do not share the zoo's folder.

A machine trains in a zoo of its own, in the scratch folder. After each epoch, before it counts as finished, what
changed goes to the member's work folder in the zoo, whose lease the driver holds: in the order in which training wrote
it, the resume state last, so that whatever ends the transfer leaves what can be gone on from. At the end the driver
publishes. To begin or to go on, the machine is sent the parent's files and those of the work folder.

Files are sent in parts, a few at a time; nobody holds a whole one in memory.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from training.population.engines.ray_folder import OwnFolder
from training.workspace import Work, Workspace
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.records.files import partial_path

PART = 4 * 2**20  # bytes
_WORK, _TRACKING, _PARENT = "work", "tracking", "parent"


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A piece of a file.

    Args:
        path: The file's: ``work/...`` under the work folder, ``tracking/...`` under the trackers', ``parent/...``.
        offset: Where in the file it begins.
        data: The bytes.
        is_last: Whether the file ends with it.
    """

    path: str
    offset: int
    data: bytes
    is_last: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """A file that is another name of one that was sent before."""

    path: str
    target: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """All files of the folder that the zoo will have; others there go."""

    names: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Log:
    """What was added to the member's log."""

    text: str


Sent = Part | Link | Names | Log


class ScratchZoo:
    """The folder of one slot on its machine, gone when its process is.

    Args:
        folder: The scratch folder.
        name: Of the zoo: trackers call a project by it.
    """

    def __init__(self, folder: Path, name: str):
        self._own = OwnFolder(folder, "vitzoo-")
        self._received = self._own.path / "received"
        self.root = self._own.path / name

    def receive(self, part: Part) -> None:
        """Take a part of a file that a member starts from."""
        self._received.mkdir(exist_ok=True)
        write_part(self._received, part.path, part)

    def unpack(self, workspace: Workspace, member: MemberId) -> None:
        """Put what was received for a member to where training finds it."""
        parent, work = self._received / _PARENT, self._received / _WORK
        if member.parent_id is not None and parent.is_dir():
            parent.rename(self.root / layout.member_folder(member.parent_id))
        if work.is_dir():
            with workspace.hold(member) as held:
                for path in work.iterdir():
                    path.rename(held.folder / path.name)

    def clear(self) -> None:
        """Remove all that members left."""
        training = self.root / layout.TRAINING
        kept = {self.root / layout.ZOO_JSON, training}
        folders = [path for path in training.iterdir() if path.is_dir()]
        for path in (self._received, *self.root.iterdir(), *(path for folder in folders for path in folder.iterdir())):
            if path.is_dir() and path not in kept:
                shutil.rmtree(path)
            elif path not in kept:
                path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove it, with all that is in it."""
        self._own.remove()


class Outbox:
    """What goes out of a scratch zoo while a member is trained there.

    Args:
        workspace: The scratch zoo.
        member: The member.
        send: Takes what is sent; waits where much is on its way.
    """

    def __init__(self, workspace: Workspace, member: MemberId, send: Callable[[Sent], None]):
        self._workspace, self._member, self._send = workspace, member, send
        self._there: dict[str, tuple[int, ...]] = {}  # what the driver has, by path
        self._logged = 0
        if (folder := workspace.work_folder(member)) is not None:
            self._there = {name: _state(path) for name, path in _files(folder, _WORK)}

    def send_epoch(self) -> None:
        """Send what a finished epoch changed."""
        if (folder := self._workspace.work_folder(self._member)) is not None:
            self._send_changed(sorted(_files(folder, _WORK), key=_in_the_order_of_writing))
            self._send(Names(names=frozenset(path.name for path in (folder / "member").iterdir())))
        self._send_beside()

    def send_end(self) -> None:
        """Send what became of the member: its folder, if it is finished, and what was said."""
        if self._workspace.is_done(self._member):
            folder = self._workspace.root / layout.member_folder(self._member)
            files = {f"{_WORK}/member/{path.name}": path for path in folder.iterdir() if path.is_file()}
            self._send_changed(sorted(files.items(), key=_in_the_order_of_writing))
            self._send(Names(names=frozenset(path.name for path in files.values())))
        self._send_beside()

    def _send_changed(self, files: Iterable[tuple[str, Path]]) -> None:
        for name, path in files:
            state = _state(path)
            if self._there.get(name) == state:
                continue
            twin = next((other for other, its in self._there.items() if its == state), None)
            if twin is not None:
                self._send(Link(path=name, target=twin))
            else:
                for part in iter_parts(path, name):
                    self._send(part)
            self._there[name] = state

    def _send_beside(self) -> None:
        self._send_changed(_files(self._workspace.tracking_folder(self._member), _TRACKING))
        log = self._workspace.log_file(self._member)
        if log.exists():
            with open(log, encoding="utf-8", errors="replace", newline="") as file:
                file.seek(self._logged)
                text = file.read()
                self._logged = file.tell()
            if text:
                self._send(Log(text=text))


class Inbox:
    """The driver's side: a member's files as they come, into its work folder in the zoo.

    Args:
        workspace: The zoo.
        work: The member's, held by the driver.
    """

    def __init__(self, workspace: Workspace, work: Work):
        self._work, self._log = work, workspace.log_file(work.member)
        self._folders = {_WORK: work.folder, _TRACKING: workspace.tracking_folder(work.member)}

    def take(self, sent: Sent) -> None:
        """Write what was sent."""
        match sent:
            case Part():
                folder, name = self._place(sent.path)
                write_part(folder, name, sent)
            case Link():
                (folder, name), (of, target) = self._place(sent.path), self._place(sent.target)
                (folder / name).unlink(missing_ok=True)
                try:
                    os.link(of / target, folder / name)
                except OSError:  # a file system without hard links
                    shutil.copyfile(of / target, folder / name)
            case Names():
                for path in self._work.member_folder.iterdir():
                    if path.name not in sent.names:
                        path.unlink()
            case Log():
                with open(self._log, "a", encoding="utf-8", newline="") as file:
                    file.write(sent.text)

    def _place(self, path: str) -> tuple[Path, str]:
        base, _, name = path.partition("/")
        if base == _TRACKING:
            self._folders[base].mkdir(parents=True, exist_ok=True)
        return self._folders[base], name


def parts_to_start_from(workspace: Workspace, work: Work) -> Iterator[Part]:
    """What a machine needs to train a member: its parent, and what was done of it before."""
    parent = work.member.parent_id
    if parent is not None:
        for of in (layout.config_file, layout.weights_file, layout.member_file):
            path = workspace.root / of(parent)
            yield from iter_parts(path, f"{_PARENT}/{path.name}")
    if work.resume_file.exists():
        for name, path in _files(work.folder, _WORK):
            yield from iter_parts(path, name)


def iter_parts(path: Path, name: str) -> Iterator[Part]:
    """A file in parts.

    Args:
        path: The file.
        name: What the parts call it.
    """
    with open(path, "rb") as file:
        size, offset = os.fstat(file.fileno()).st_size, 0
        while True:
            data = file.read(min(PART, size - offset))
            is_last = not data or offset + len(data) >= size
            yield Part(path=name, offset=offset, data=data, is_last=is_last)
            offset += len(data)
            if is_last:
                return


def write_part(folder: Path, name: str, part: Part) -> None:
    """Write a part; the file appears, whole, with the last one.

    Args:
        folder: Where it goes, which must be there: that of a lease that was lost is not.
        name: Of the file, below the folder.
        part: One after the other.
    """
    path = folder / name
    for above in reversed(Path(name).parents[:-1]):
        (folder / above).mkdir(exist_ok=True)
    with open(partial_path(path), "ab" if part.offset else "wb") as file:
        file.write(part.data)
        if part.is_last and part.offset:  # large files are synced one by one: all of them at the end take seconds
            file.flush()
            os.fsync(file.fileno())
    if part.is_last:
        os.replace(partial_path(path), path)


def _files(folder: Path, name: str) -> list[tuple[str, Path]]:
    """The files below a folder, but those that are being written, by what the other side calls them."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(".partial")]
    return [(f"{name}/{path.relative_to(folder).as_posix()}", path) for path in paths]


def _in_the_order_of_writing(file: tuple[str, Path]) -> tuple[bool, bool, str]:
    """Weights, then what says of them, then the resume state, which is not in the member's folder."""
    name = file[0]
    return not name.startswith(f"{_WORK}/member/"), not name.endswith(".safetensors"), name


def _state(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size
