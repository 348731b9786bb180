"""Run an import into a zoo folder: one lock, members made in threads and parents first, a report. It can be resumed.

Threads suffice, because hashing, reading and writing release Python's lock. One thread makes a whole member, in a
folder below ``.training/import``, and the member appears by one rename. See `vitzoo.interop.authors` for the authors'
release and `vitzoo.interop.checkpoints` for tables of checkpoints.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from filelock import FileLock, Timeout

from vitzoo import records
from vitzoo.architectures import is_head
from vitzoo.errors import ReleaseError, VitZooError, printable
from vitzoo.ids import MemberId
from vitzoo.progress import ByteCount
from vitzoo.records import json_files, layout
from vitzoo.sources.folder import FolderSource
from vitzoo.tables.catalogue import Catalogue
from vitzoo.tensors.content import WeightsContent, write_content
from vitzoo.tensors.dtypes import SAFETENSORS

if TYPE_CHECKING:
    from torch import Tensor

WORK = layout.TRAINING / "import"  # in the zoo: the report, the lock, and unfinished members
REPORT = WORK / "report.json"

Progress = Callable[[str, int, int], None]


@dataclass(kw_only=True, slots=True)
class ImportReport:
    """Result of an import. Threads add to it, each for models of its own.

    Args:
        taken: Ids of the zoo's members to their names in the source.
        checkpoints: Number of their weights files, final ones not counted twice.
        skipped: Names of the models that were not taken, to the reason.
        notes: Names to notes on missing, doubtful and ignored parts.
        read: Bytes of checkpoints that this call read.
        checked: Ids of compared members to the largest difference of logits before and after.
    """

    taken: dict[str, str] = field(default_factory=dict)
    checkpoints: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    read: int = 0
    checked: dict[str, float] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """True if every model was taken."""
        return not self.skipped

    def skip(self, name: str, why: object) -> None:
        """Record that a model is not taken."""
        self.skipped[printable(name)] = printable(str(why).rstrip("."))

    def note(self, name: str, text: str) -> None:
        """Record a note on a model, once."""
        lines = self.notes.setdefault(printable(name), [])
        if printable(text) not in lines:
            lines.append(printable(text))

    def sort(self) -> None:
        """Sort by name: threads end in any order."""
        self.skipped, self.notes = dict(sorted(self.skipped.items())), dict(sorted(self.notes.items()))

    def write(self, root: Path) -> None:
        """Write the report into a zoo folder."""
        json_files.write_atomically(root / REPORT, (json.dumps(asdict(self), indent=1) + "\n").encode())


@runtime_checkable
class Planned(Protocol):
    """A model that becomes a member."""

    @property
    def id(self) -> MemberId:
        """Its id."""
        ...

    @property
    def name(self) -> str:
        """Its name in the source and in the report."""
        ...

    @property
    def bytes(self) -> int:
        """Size of the checkpoints that are read."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """A weights file that was written, its content, and the digest of its checkpoint.

    Args:
        path: The file.
        content: Digests and norms of its tensors.
        source_sha256: Digest of the file that it was made of.
    """

    path: Path
    content: WeightsContent
    source_sha256: str

    def record(self, epoch: int | None) -> records.WeightsRecord:
        """Return the record of the file as the weights of an epoch."""
        return records.WeightsRecord(epoch=epoch, size=self.path.stat().st_size, sha256=self.content.sha256)


MEASURED = ("weight_norm", "distance_from_start", "weights_id", "backbone_id")  # fields of an epoch, from its weights
P = TypeVar("P", bound=Planned)
Make = Callable[[P, records.MemberRecord | None, Callable[[int], None]], None]


def write_weights(path: Path, weights: "Mapping[str, Tensor]", *, start: Path | None = None) -> WeightsContent:
    """Write weights under their names on disk as a safetensors file, and measure them. See `write_content`."""
    import torch

    content = {}
    for name, tensor in weights.items():
        data: Any = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        content[name] = SAFETENSORS[str(tensor.dtype).removeprefix("torch.")], tuple(tensor.shape), memoryview(data)
    return write_content(path, content, is_head=is_head, start=start)


@contextmanager
def open_import(root: Path) -> Iterator[None]:
    """Create the zoo's folder for unfinished members, and keep other imports out of it.

    Raises:
        ReleaseError: Another import is running, or the zoo folder cannot be written.
    """
    shown = printable(str(root))
    with explain_errors(root):
        (root / WORK).mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(root / WORK / "lock", timeout=0):
                yield
        except Timeout:
            raise ReleaseError(f"Another import into {shown} is running", fix="Wait for it.", path=root) from None


@contextmanager
def explain_errors(root: Path) -> Iterator[None]:
    """Turn the system's errors about a zoo folder into a ReleaseError, such as a full disk."""
    try:
        yield
    except OSError as error:
        if isinstance(error, VitZooError):
            raise
        reason, fix = error.strerror or error, "Fix that and repeat the command: it resumes."
        raise ReleaseError(f"{printable(str(root))} cannot be written: {reason}", fix=fix, path=root) from error


def check_writable(root: Path) -> None:
    """Raise an OSError for a zoo folder that cannot be made, before checkpoints are read."""
    nearest = next(path for path in (root, *root.parents) if path.exists())
    if nearest != root and not nearest.is_dir():
        raise NotADirectoryError(0, "Not a directory")
    if nearest.is_dir() and not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(0, "Permission denied")


def load_earlier_recipe(root: Path) -> dict[str, object] | None:
    """Return the recipe of a zoo folder; None for a new one.

    Raises:
        ReleaseError: The folder is not empty, and not a zoo's.
    """
    shown = printable(str(root))
    if (root / layout.ZOO_JSON).is_file():
        return records.load_zoo_record(root / layout.ZOO_JSON).recipe
    is_full = root.is_dir() and any(path.name != layout.TRAINING.name for path in root.iterdir())
    if is_full or (root.exists() and not root.is_dir()):
        what = "is not empty" if is_full else "is a file"
        raise ReleaseError(f"{shown} {what}", fix="Name a new folder for the zoo.", path=root)
    return None


def make_members(
    zoo: FolderSource,
    planned: Sequence[P],
    make: "Make[P]",
    *,
    jobs: int,
    report: ImportReport,
    progress: Progress,
) -> int:
    """Make the missing members, parents first, and return the bytes of checkpoints that were read.

    Args:
        zoo: The zoo.
        planned: Its members.
        make: Makes one. It gets the parent's record, and a function to call with the bytes of each read checkpoint,
            whose error ends the import. Its own `ReleaseError` means that the model is not taken.
        jobs: Members that are made at a time.
        report: Gets the models that are not taken.
        progress: Called with "importing", the read bytes and their total.
    """
    for path in (zoo.root / WORK).iterdir():  # unfinished members of an import that was killed
        if path.is_dir():
            shutil.rmtree(path)
    done, stop = set(zoo.member_ids()), Event()
    missing = [one for one in planned if one.id not in done]
    count = ByteCount(sum(one.bytes for one in missing), partial(progress, "importing"))

    def count_file(size: int) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        count.add(size)

    def make_one(one: P) -> None:
        parent = None
        try:
            if one.id.parent_id is not None:
                if not (zoo.root / layout.member_file(one.id.parent_id)).is_file():
                    raise ReleaseError(f"its parent {one.id.parent_id} was not taken")
                parent = Catalogue(zoo).member_record(one.id.parent_id)
            make(one, parent, count_file)
        except ReleaseError as error:
            report.skip(one.name, error)
        except BaseException:
            stop.set()  # here, since this thread may start the next model at once
            raise

    for of_parents in (True, False):
        with _one_thread_each(), ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(make_one, one) for one in missing if one.id.is_parent == of_parents]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                stop.set()  # each thread ends after the current checkpoint
                pool.shutdown(cancel_futures=True)
                raise
    return count.bytes


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Give each job one core: jobs that use all cores wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
