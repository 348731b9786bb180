"""The trainer's side of a zoo folder: what is done, what is under way, and the one rename between the two.

    zoo.json                               written first; says which recipe's zoo this is
    pt-3/ft-1/                             a finished member: it appears by one rename, whole
    .training/members/pt-3.ft-1/           the same folder while it is trained
    .training/resume/pt-3.ft-1.safetensors where to go on (`training.member.checkpoint`)
    .training/logs/pt-3.ft-1.log           what was said
    .training/tracking/pt-3.ft-1/          what trackers keep (`training.member.tracking`)
    .training/locks/pt-3.ft-1.lock         held while a process trains the member; run.lock by a whole run

Disk is the truth: nothing else remembers what was done.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from training.recipes.recipe import Recipe
from vitzoo import json_files, layout, records
from vitzoo.errors import TrainingError
from vitzoo.folder import FolderSource, is_zoo_folder
from vitzoo.ids import MemberId
from vitzoo.json_files import partial_path


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
        for name in ("members", "resume", "logs", "locks"):
            (self._training / name).mkdir(parents=True, exist_ok=True)

    def _begin(self, record: records.ZooRecord) -> None:
        """Write zoo.json. A start that was ended while it did so, or does so at the same moment, is no obstacle."""
        ours = {layout.TRAINING.name, layout.ZOO_JSON.name, f".{layout.ZOO_JSON.name}.partial"}
        if self.root.exists() and not (self.root.is_dir() and {path.name for path in self.root.iterdir()} <= ours):
            raise TrainingError(
                f"{self.root} is there already and is no zoo. Name an empty or a new folder with --out."
            )
        locks = self._training / "locks"
        try:
            locks.mkdir(parents=True, exist_ok=True)
            with FileLock(locks / "zoo.json.lock"):
                if not is_zoo_folder(self.root):
                    json_files.write_json(self.root / layout.ZOO_JSON, record)
        except OSError as error:
            raise TrainingError(
                f"{self.root} cannot be made a zoo: {error}. Name a folder with --out that can be written to."
            ) from error

    @property
    def _training(self) -> Path:
        return self.root / layout.TRAINING

    def unfinished(self, member: MemberId) -> Path:
        """The folder of a member while it is trained."""
        return self._training / "members" / _flat(member)

    def resume_file(self, member: MemberId) -> Path:
        """Where a member's resume state lies."""
        return self._training / "resume" / f"{_flat(member)}.safetensors"

    def log_file(self, member: MemberId) -> Path:
        """What was said while a member was trained."""
        return self._training / "logs" / f"{_flat(member)}.log"

    def tracking_folder(self, member: MemberId) -> Path:
        """Where trackers on this machine keep a member's figures."""
        return self._training / "tracking" / _flat(member)

    def is_done(self, member: MemberId) -> bool:
        """Whether a member stands finished in the zoo."""
        return (self.root / layout.member_file(member)).is_file()

    @contextmanager
    def lock(self, member: MemberId | None = None) -> Iterator[None]:
        """Hold a member, or the whole run for None; released when the process ends, however it ends.

        Raises:
            TrainingError: Another process holds it.
        """
        name = "run" if member is None else _flat(member)
        lock = FileLock(self._training / "locks" / f"{name}.lock")
        try:
            lock.acquire(timeout=0 if member is None else 10)  # a worker whose driver was killed ends within moments
        except Timeout:
            what = "Another run is at work on" if member is None else f"Another process is training {member} in"
            raise TrainingError(f"{what} {self.root}. Wait for it to end, or end it; nothing was changed.") from None
        try:
            yield
        finally:
            lock.release()

    def publish(self, member: MemberId) -> None:
        """Make a member that was trained to its end appear in the zoo: sync its files, then one rename."""
        folder, target = self.unfinished(member), self.root / layout.member_folder(member)
        for path in (*folder.iterdir(), folder):
            _sync(path)
        try:
            os.rename(folder, target)
        except OSError as error:
            raise TrainingError(
                f"{folder} is finished but cannot become {target}: {error.strerror}. Move away what stands there."
            ) from error
        _sync(target.parent)
        self.discard(member)

    def discard(self, member: MemberId) -> None:
        """Remove what is left of a member's training."""
        state = self.resume_file(member)
        for path in (state, partial_path(state)):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.unfinished(member), ignore_errors=True)


def check_recipe(source: FolderSource, recipe: Recipe) -> None:
    """Check that a zoo folder holds a recipe's zoo.

    Raises:
        TrainingError: It holds another recipe's; the message names the fields.
    """
    plain = json_files.as_json(recipe)
    if source.record.recipe != plain:
        differences = _differences(source.record.recipe, plain)
        raise TrainingError(
            f"{source.root} holds the zoo of another recipe than {recipe.name}: {'; '.join(differences[:5])}"
            f"{f'; and {len(differences) - 5} more' if len(differences) > 5 else ''}. "
            "Name another folder with --out, or go on with the recipe that it was begun with."
        )


def _flat(member: MemberId) -> str:
    return str(member).replace("/", ".")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _differences(found: object, wanted: object, where: str = "") -> list[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = list(dict.fromkeys([*found, *wanted]))
        below = [_differences(found.get(key), wanted.get(key), f"{where}.{key}" if where else key) for key in keys]
        return [difference for differences in below for difference in differences]
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        below = [_differences(*pair, f"{where}[{i}]") for i, pair in enumerate(zip(found, wanted, strict=True))]
        return [difference for differences in below for difference in differences]
    return [] if found == wanted else [f"{where} is {found!r:.60} there, {wanted!r:.60} here"]
