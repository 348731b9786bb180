"""Manage the trainer's part of a zoo folder: unfinished members, and the one rename that finishes each.

    zoo.json                               written first; holds the recipe
    pt-3/ft-1/                             a finished member: it appears by one rename, complete
    .training/work/pt-3.ft-1@5f3a.../      an unfinished member, owned by the lease with that nonce:
        member/                            the member's folder
        resume.safetensors                 the state to resume from (`training.member.checkpoint`)
    .training/leases/pt-3.ft-1.000001      held while a process trains the member (`training.lease`)
    .training/leases/run-9f86d081.000001   held while a run trains members
    .training/attempts/pt-3.ft-1.jsonl     failed attempts (`training.attempts`)
    .training/logs/pt-3.ft-1.log           messages of the training
    .training/tracking/pt-3.ft-1/          files of trackers (`training.member.execution`)

Disk is the truth: no other state exists. Any number of processes may work in one zoo. A process that takes over a
member renames its work folder to the nonce of its own lease. A former holder that wakes up then finds no folder to
write into, and nothing to publish.
"""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from training import lease
from training.lease import Lease, LeaseLost
from training.recipes.plan import PlannedMember
from training.recipes.recipe import Recipe, parse_recipe
from vitzoo import records
from vitzoo.errors import RecordError, TrainingError
from vitzoo.ids import MemberId
from vitzoo.records import json_files, layout
from vitzoo.records.files import is_partial
from vitzoo.records.writer import MemberWriter
from vitzoo.sources.folder import FolderSource, is_zoo_folder
from vitzoo.tables.catalogue import Catalogue

RESUME = "resume.safetensors"
RUN = "run-"  # begins the name of a run's lease
_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """An unfinished member that this process holds.

    Args:
        member: The member's id.
        folder: Folder of its files until it is finished.
        lease: Lease of this process.
    """

    member: MemberId
    folder: Path
    lease: Lease

    @property
    def member_folder(self) -> Path:
        """The future folder of the member."""
        return self.folder / "member"

    @property
    def resume_file(self) -> Path:
        """The state from which its training resumes."""
        return self.folder / RESUME

    def check(self) -> None:
        """Check that this process still holds the member.

        Raises:
            LeaseLost: Another process took over.
        """
        self.lease.check()
        if not self.folder.is_dir():
            raise LeaseLost(f"{self.member}: another process took over; {self.folder} is gone", fix="Nothing was lost.")


class Workspace:
    """A zoo folder in which a recipe's members are trained.

    Args:
        root: The folder; it is created, with its zoo.json, if it does not exist.
        recipe: Recipe of the zoo.

    Raises:
        TrainingError: The folder holds another recipe's zoo, or other files.
    """

    def __init__(self, root: str | os.PathLike[str], recipe: Recipe):
        self.root, self.recipe = Path(root), recipe
        self._work, self._leases = work_root(self.root), leases_root(self.root)
        check_folder(self.root, recipe)
        if not is_zoo_folder(self.root):
            plain = json_files.as_json(recipe)
            self._begin(records.ZooRecord(recipe=plain, recipe_sha256=json_files.json_sha256(plain)))
        self.source = FolderSource(self.root)
        check_recipe(self.source, recipe)  # another start may have written zoo.json
        for folder in (self._work, self._leases, self.root / layout.TRAINING / "logs"):
            folder.mkdir(parents=True, exist_ok=True)
        if self._work.stat().st_dev != self.root.stat().st_dev:
            raise TrainingError(
                f"{self._work} is on another file system than {self.root}: no rename can finish a member",
                fix="Make it a folder on the zoo's own disk.",
            )

    @property
    def catalogue(self) -> Catalogue:
        """The records of the members that are finished now."""
        return Catalogue(self.source)

    def _begin(self, record: records.ZooRecord) -> None:
        """Write zoo.json. An interrupted start, or another at the same moment, does no harm."""
        partial = [path for path in self.root.iterdir() if _is_partial_start(path)] if self.root.is_dir() else []
        try:
            self._leases.mkdir(parents=True, exist_ok=True)
            with lease.acquire(self._leases, "zoo.json", patience=60):
                if not is_zoo_folder(self.root):
                    json_files.write_json(self.root / layout.ZOO_JSON, record)
                    for path in partial:
                        path.unlink(missing_ok=True)
        except OSError as error:
            raise TrainingError(
                f"{self.root}: {error}", fix="Name a folder with --out that you may write to."
            ) from error

    def check_exists(self) -> None:
        """Check that the leases still exist in a zoo that can be read.

        Raises:
            TrainingError: They were deleted, so no worker can finish a member.
        """
        with contextlib.suppress(OSError):  # a file server may come back
            if layout.TRAINING.name not in os.listdir(self.root) and is_zoo_folder(self.root):
                raise TrainingError(
                    f"{self.root / layout.TRAINING} was deleted while members were trained",
                    fix="Run the same command again; finished members are kept.",
                )

    def tracking_folder(self, member: MemberId) -> Path:
        """Return the folder of a member's tracked metrics."""
        return self.root / layout.TRAINING / "tracking" / str(member)

    def is_done(self, member: MemberId, *, refresh: bool = False) -> bool:
        """Return whether a member is finished in the zoo.

        Args:
            member: The member's id.
            refresh: Ask the file server. NFS caches "not found" for up to a minute; listing the parent folder forces a
                new lookup.
        """
        path = self.root / layout.member_file(member)
        if refresh:
            for folder in (self.root, path.parents[1]):
                if folder.is_dir():
                    os.listdir(folder)
        return path.is_file()

    def holder(self, member: MemberId) -> lease.Holder | None:
        """Return the living process that trains a member, on any machine; None without one."""
        return lease.holder_of(self._leases, flat(member))

    def _work_folders(self, member: MemberId) -> list[Path]:
        return sorted(self._work.glob(f"{flat(member)}@*"), key=resume_order)

    @contextlib.contextmanager
    def hold(self, member: MemberId, *, patience: float = 10.0) -> Iterator[Work]:
        """Hold a member, with its unfinished work.

        Args:
            member: The member's id.
            patience: Seconds to wait for another process; a worker whose driver was killed ends within moments.

        Raises:
            LeaseHeld: Another process holds it.
            LeaseLost: Another process took over while it was held.
        """
        with lease.acquire(self._leases, flat(member), patience=patience) as own_lease:
            folder = self._work / f"{flat(member)}@{own_lease.holder.nonce}"
            earlier = self._work_folders(member)
            with contextlib.suppress(FileNotFoundError):  # a process that just finished the member deletes them
                if earlier:
                    earlier.pop().rename(folder)
            folder.mkdir(exist_ok=True)
            for other in earlier:
                shutil.rmtree(other, ignore_errors=True)
            work = Work(member=member, folder=folder, lease=own_lease)
            try:
                yield work
            except OSError:
                work.check()  # another process took over, which explains missing files better
                raise

    @contextlib.contextmanager
    def hold_run(self) -> Iterator[str]:
        """Show other processes that a run trains members here, and return the name of its lease."""
        for name in lease.newest_files(self._leases):
            if name.startswith(RUN):
                lease.clear(self._leases, name)  # of a killed run
        name = f"{RUN}{secrets.token_hex(4)}"
        with lease.acquire(self._leases, name):
            yield name

    def hold_tables(self) -> Lease:
        """Hold the tables: of two runs that end together, the second lists the members of the first."""
        return lease.acquire(self._leases, "tables", patience=600)

    def publish(self, work: Work) -> None:
        """Make a trained member appear in the zoo: sync its files, then rename its folder.

        Raises:
            LeaseLost: Another process took over.
            TrainingError: Other files are in the member's place.
        """
        folder, target = work.member_folder, self.root / layout.member_folder(work.member)
        try:
            MemberWriter(folder, work.member).publish(self.root, check=work.check)
        except OSError as error:
            work.check()
            if not self.is_done(work.member, refresh=True):  # else another machine finished it, with the same bytes
                fix = f"Move {target} away." if error.errno in _OCCUPIED else "Fix that; nothing was lost."
                raise TrainingError(
                    f"{folder} is finished but cannot be renamed to {target}: {error.strerror}", fix=fix
                ) from error
        shutil.rmtree(work.folder, ignore_errors=True)

    def discard(self, member: MemberId) -> None:
        """Delete the unfinished work of a member that is done."""
        for folder in self._work_folders(member):
            shutil.rmtree(folder, ignore_errors=True)
        lease.clear(self._leases, flat(member))


def check_folder(root: Path, recipe: Recipe) -> None:
    """Check, without writing, that a folder holds a recipe's zoo, is empty, or does not exist.

    Raises:
        TrainingError: It is a file, or holds another recipe's zoo or other files.
    """
    if is_zoo_folder(root):
        check_recipe(FolderSource(root), recipe)
        return
    is_file = root.exists() and not root.is_dir()  # another start may make the folder between the two
    known = (layout.TRAINING.name, layout.ZOO_JSON.name)
    others = [path for path in root.iterdir() if path.name not in known] if root.is_dir() else []
    if is_file or not all(_is_partial_start(path) for path in others):
        raise TrainingError(f"{root} exists and is not a zoo", fix="Name an empty or a new folder with --out.")


def _is_partial_start(path: Path) -> bool:
    """Tell whether a file is the unfinished zoo.json of a start, which may have been killed."""
    return is_partial(path, of=layout.ZOO_JSON.name)


def finished_members(root: Path, planned: Iterable[PlannedMember]) -> set[MemberId]:
    """Return the planned members that are finished in a zoo folder, which need not exist."""
    return {member.id for member in planned if (root / layout.member_file(member.id)).is_file()}


def check_recipe(source: FolderSource, recipe: Recipe) -> None:
    """Check that a zoo folder holds a recipe's zoo.

    Raises:
        TrainingError: It holds another recipe's zoo; the message names the fields.
    """
    plain = json_files.as_json(recipe)
    if source.record.recipe != plain and not _parses_to(source, recipe):
        differences = _differences(source.record.recipe, plain)
        more = f"; and {len(differences) - 5} more" if len(differences) > 5 else ""
        raise TrainingError(
            f"{source.root} holds the zoo of another recipe than {recipe.name}: {'; '.join(differences[:5])}{more}",
            fix="Name another folder with --out, or use the zoo's own recipe.",
        )


def _parses_to(source: FolderSource, recipe: Recipe) -> bool:
    """Return whether a zoo's recipe, with defaults for fields that it was written without, equals a recipe."""
    with contextlib.suppress(RecordError):
        return parse_recipe(source.record.recipe, source.root / layout.ZOO_JSON) == recipe
    return False


def flat(member: MemberId) -> str:
    """Return a member's id as a file name."""
    return str(member).replace("/", ".")


def parse_flat(name: str) -> MemberId | None:
    """Parse a file name of `flat`; return None for another name."""
    return MemberId.match(name.replace(".", "/"))


def work_root(root: Path) -> Path:
    """Return the folder of a zoo's unfinished members."""
    return root / layout.TRAINING / "work"


def texts_root(root: Path) -> Path:
    """Return the folder of a zoo's encoded texts."""
    return root / layout.TRAINING / "texts"


def leases_root(root: Path) -> Path:
    """Return the folder of a zoo's leases."""
    return root / layout.TRAINING / "leases"


def log_file(root: Path, member: MemberId) -> Path:
    """Return the log of a member's training."""
    return root / layout.TRAINING / "logs" / f"{flat(member)}.log"


def attempts_file(root: Path, member: MemberId) -> Path:
    """Return the file of a member's failed attempts."""
    return root / layout.TRAINING / "attempts" / f"{flat(member)}.jsonl"


def resume_order(folder: Path) -> tuple[float, str]:
    """Return a key that sorts work folders by the time of their resume state, those without one first."""
    with contextlib.suppress(OSError):
        return (folder / RESUME).stat().st_mtime, folder.name
    return 0.0, folder.name


def _differences(old: object, new: object, where: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        pairs = [(old.get(key), new.get(key), f"{where}.{key}" if where else key) for key in keys]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(*pair, f"{where}[{i}]") for i, pair in enumerate(zip(old, new, strict=True))]
    else:
        return [] if old == new else [f"{where} is {old!r:.60} there, {new!r:.60} here"]
    return [difference for pair in pairs for difference in _differences(*pair)]
