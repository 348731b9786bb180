"""The trainer's side of a zoo folder: what is done, what is under way, and the one rename between the two.

    zoo.json                               written first; says which recipe's zoo this is
    pt-3/ft-1/                             a finished member: it appears by one rename, whole
    .training/work/pt-3.ft-1@5f3a.../      while it is trained, by the lease of that nonce:
        member/                            the folder that the zoo will have
        resume.safetensors                 where to go on (`training.member.checkpoint`)
    .training/leases/pt-3.ft-1.000001      held while a process trains the member (`training.lease`)
    .training/leases/run-9f86d081.000001   held while a run trains members
    .training/attempts/pt-3.ft-1.jsonl     how attempts ended that failed (`training.attempts`)
    .training/logs/pt-3.ft-1.log           what was said
    .training/tracking/pt-3.ft-1/          what trackers keep (`training.member.execution`)

Disk is the truth: nothing else remembers what was done. Any number of processes may work in one zoo. Who takes over a
member renames its work to the nonce of the own lease: a holder that was taken for dead and wakes up finds no folder to
write into, and nothing to publish.
"""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training import lease
from training.lease import Lease, LeaseLost
from training.recipes.recipe import Recipe
from vitzoo import records
from vitzoo.errors import TrainingError
from vitzoo.ids import MemberId
from vitzoo.records import json_files, layout
from vitzoo.records.files import is_partial
from vitzoo.records.writer import MemberWriter
from vitzoo.sources.folder import FolderSource, is_zoo_folder
from vitzoo.tables.catalogue import Catalogue

RESUME = "resume.safetensors"
RUN = "run-"  # begins the name of a run's lease
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """A member under way, held by this process.

    Args:
        member: Which.
        folder: Where everything of it lies until it is done.
        lease: This process's.
    """

    member: MemberId
    folder: Path
    lease: Lease

    @property
    def member_folder(self) -> Path:
        """The folder that the zoo will have."""
        return self.folder / "member"

    @property
    def resume_file(self) -> Path:
        """Where its training goes on."""
        return self.folder / RESUME

    def check(self) -> None:
        """See to it that the member is still this process's.

        Raises:
            LeaseLost: Another one took over.
        """
        self.lease.check()
        if not self.folder.is_dir():
            raise LeaseLost(f"{self.member}: its work was taken over; {self.folder} is gone. Nothing was lost.")


class Workspace:
    """A zoo folder that a recipe's members are trained into.

    Args:
        root: The folder; made, with its zoo.json, where it is not there yet.
        recipe: Whose zoo it is.

    Raises:
        TrainingError: The folder holds another recipe's zoo, or something else.
    """

    def __init__(self, root: str | os.PathLike[str], recipe: Recipe):
        self.root, self.recipe = Path(root), recipe
        if not is_zoo_folder(self.root):
            plain = json_files.as_json(recipe)
            self._begin(records.ZooRecord(recipe=plain, recipe_sha256=json_files.json_sha256(plain)))
        self.source = FolderSource(self.root)
        check_recipe(self.source, recipe)
        for folder in (self._work, self._leases, self._training / "logs"):
            folder.mkdir(parents=True, exist_ok=True)
        if self._work.stat().st_dev != self.root.stat().st_dev:
            raise TrainingError(
                f"{self._work} is on another file system than {self.root}: finished members could not be "
                "moved there by one rename",
                fix="Make it a folder of the zoo's own disk.",
            )

    @property
    def catalogue(self) -> Catalogue:
        """The records of the members that are finished now."""
        return Catalogue(self.source)

    def _begin(self, record: records.ZooRecord) -> None:
        """Write zoo.json. A start that was ended while it did so, or does so at the same moment, is no obstacle."""
        name = layout.ZOO_JSON.name
        is_file = self.root.exists() and not self.root.is_dir()  # another start may make the folder between the two
        others = list(self.root.iterdir()) if self.root.is_dir() else []
        partial = [path for path in others if is_partial(path, of=name)]  # of a start that was killed
        if is_file or any(path not in partial and path.name not in (layout.TRAINING.name, name) for path in others):
            raise TrainingError(
                f"{self.root} is there already and is no zoo", fix="Name an empty or a new folder with --out."
            )
        try:
            self._leases.mkdir(parents=True, exist_ok=True)
            with self._held("zoo.json", patience=60):
                if not is_zoo_folder(self.root):
                    json_files.write_json(self.root / layout.ZOO_JSON, record)
                    for path in partial:
                        path.unlink(missing_ok=True)
        except OSError as error:
            raise TrainingError(
                f"{self.root} cannot be made a zoo: {error}", fix="Name a folder with --out that can be written to."
            ) from error

    @property
    def _training(self) -> Path:
        return self.root / layout.TRAINING

    @property
    def _work(self) -> Path:
        return work_root(self.root)

    @property
    def _leases(self) -> Path:
        return leases_root(self.root)

    def log_file(self, member: MemberId) -> Path:
        """What was said while a member was trained."""
        return log_path(self.root, member)

    def attempts_file(self, member: MemberId) -> Path:
        """How attempts at a member ended that did not finish it."""
        return attempts_path(self.root, member)

    def tracking_folder(self, member: MemberId) -> Path:
        """Where trackers on this machine keep a member's figures."""
        return self._training / "tracking" / flat(member)

    def look_again(self, member: MemberId) -> bool:
        """Whether a member stands finished in the zoo, also where another machine of a network file system said so.

        What was not there a moment ago is taken for absent for up to a minute; that a folder is opened asks the server.
        """
        for folder in (self.root, (self.root / layout.member_folder(member)).parent):
            if folder.is_dir():
                os.listdir(folder)
        return self.is_done(member)

    def is_done(self, member: MemberId) -> bool:
        """Whether a member stands finished in the zoo."""
        return (self.root / layout.member_file(member)).is_file()

    def holder(self, member: MemberId) -> lease.Holder | None:
        """The process that trains a member now, on whatever machine; None where none does that lives."""
        return lease.holder_of(self._leases, flat(member))

    def work_folder(self, member: MemberId) -> Path | None:
        """Where a member's work lies, whoever does it; None where it has not begun."""
        return next(reversed(self._begun(member)), None)

    def _begun(self, member: MemberId) -> list[Path]:
        """The folders of a member's work, the one to go on from last."""
        folders = self._work.glob(f"{flat(member)}@*")
        return sorted(folders, key=_last_written)

    @contextlib.contextmanager
    def hold(self, member: MemberId, *, patience: float = 10.0) -> Iterator[Work]:
        """Hold a member, with all that was done of it.

        Args:
            member: Which.
            patience: Seconds to wait for another process: a worker whose driver was killed ends within moments.

        Raises:
            LeaseHeld: Another process holds it.
        """
        with self._held(flat(member), patience=patience) as held:
            folder = self._work / f"{flat(member)}@{held.nonce}"
            begun = self._begun(member)
            with contextlib.suppress(FileNotFoundError):  # who finished the member a moment ago clears away
                if begun:
                    begun.pop().rename(folder)
            folder.mkdir(exist_ok=True)
            for other in begun:
                shutil.rmtree(other, ignore_errors=True)
            yield Work(member=member, folder=folder, lease=held)

    @contextlib.contextmanager
    def hold_run(self) -> Iterator[str]:
        """Show other processes that a run trains members here, between two members as well; give the lease's name."""
        for name in lease.newest_files(self._leases):
            if name.startswith(RUN):
                lease.clear(self._leases, name)  # a killed run's
        name = f"{RUN}{secrets.token_hex(4)}"
        with self._held(name, patience=0.0):
            yield name

    @contextlib.contextmanager
    def hold_tables(self) -> Iterator[None]:
        """Hold the tables: of two runs that end together, the second sees what the first did."""
        with self._held("tables", patience=600):
            yield

    @contextlib.contextmanager
    def _held(self, name: str, *, patience: float) -> Iterator[Lease]:
        held = lease.acquire(self._leases, name, patience=patience)
        try:
            yield held
        finally:
            held.release()

    def publish(self, work: Work) -> None:
        """Make a member that was trained to its end appear in the zoo: sync its files, then one rename.

        Raises:
            LeaseLost: Another process took over.
            TrainingError: Something else stands where the member should.
        """
        folder, target = work.member_folder, self.root / layout.member_folder(work.member)
        try:
            MemberWriter(folder, work.member).publish(self.root, check=work.check)
        except OSError as error:
            work.check()
            if not self.look_again(work.member):  # by another machine, which was not seen in time: the same bytes
                cure = "Move away what stands there." if error.errno in _TAKEN else "Mend that; nothing was lost."
                raise TrainingError(
                    f"{folder} is finished but cannot become {target}: {error.strerror}. {cure}"
                ) from error
        shutil.rmtree(work.folder, ignore_errors=True)

    def discard(self, member: MemberId) -> None:
        """Remove what is left of the training of a member that is done."""
        for folder in self._begun(member):
            shutil.rmtree(folder, ignore_errors=True)
        lease.clear(self._leases, flat(member))


def check_recipe(source: FolderSource, recipe: Recipe) -> None:
    """Check that a zoo folder holds a recipe's zoo.

    Raises:
        TrainingError: It holds another recipe's; the message names the fields.
    """
    plain = json_files.as_json(recipe)
    if source.record.recipe != plain:
        differences = _differences(source.record.recipe, plain)
        raise TrainingError(
            f"{source.root} holds the zoo of another recipe than {recipe.name}: "
            f"{'; '.join(differences[:5])}"
            f"{(f'; and {len(differences) - 5} more' if len(differences) > 5 else '')}",
            fix="Name another folder with --out, or go on with the recipe that it was begun with.",
        )


def flat(member: MemberId) -> str:
    """A member's id as the name of a file."""
    return str(member).replace("/", ".")


def parse_flat(name: str) -> MemberId | None:
    """The inverse of `flat`; None for what names no member."""
    return MemberId.match(name.replace(".", "/"))


def work_root(root: Path) -> Path:
    """Where members of a zoo folder lie while they are trained."""
    return root / layout.TRAINING / "work"


def leases_root(root: Path) -> Path:
    """Where a zoo folder's leases lie."""
    return root / layout.TRAINING / "leases"


def log_path(root: Path, member: MemberId) -> Path:
    """Where a member's log lies in a zoo folder."""
    return root / layout.TRAINING / "logs" / f"{flat(member)}.log"


def attempts_path(root: Path, member: MemberId) -> Path:
    """Where a member's failed attempts lie in a zoo folder."""
    return root / layout.TRAINING / "attempts" / f"{flat(member)}.jsonl"


def _last_written(folder: Path) -> tuple[float, str]:
    """Sorts folders of work by the time of their resume state; those without one come first."""
    with contextlib.suppress(FileNotFoundError):
        return (folder / RESUME).stat().st_mtime, folder.name
    return 0.0, folder.name


def _differences(found: object, wanted: object, where: str = "") -> list[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = list(dict.fromkeys([*found, *wanted]))
        below = [_differences(found.get(key), wanted.get(key), f"{where}.{key}" if where else key) for key in keys]
        return [difference for differences in below for difference in differences]
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        below = [_differences(*pair, f"{where}[{i}]") for i, pair in enumerate(zip(found, wanted, strict=True))]
        return [difference for differences in below for difference in differences]
    return [] if found == wanted else [f"{where} is {found!r:.60} there, {wanted!r:.60} here"]
