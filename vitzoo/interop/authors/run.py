"""Import the authors' release into a zoo folder: plan, then convert in threads. A later run makes the missing members.

    vitzoo import authors ./dataset ./zoo
    vitzoo import authors ./dataset/language ./zoo --tokenizer ./bert-base-cased

Threads suffice, because hashing, reading and writing release Python's lock. One thread makes a whole member. zoo.json
is written first and maps each id to a folder of the release, so that an id never changes its model.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, cast

from filelock import FileLock, Timeout

from vitzoo import records
from vitzoo.errors import ReleaseError, VitZooError, printable
from vitzoo.ids import MemberId
from vitzoo.interop.authors import facts
from vitzoo.interop.authors.job import WORK, Import, ImportReport
from vitzoo.interop.authors.plan import PlannedImport, plan_import
from vitzoo.progress import ByteCount
from vitzoo.records import json_files, layout
from vitzoo.sources.folder import FolderSource
from vitzoo.tables.catalogue import Catalogue

RECIPE = "authors"
REPORT = WORK / "report.json"


def plan_release(job: Import) -> list[PlannedImport]:
    """Return the members that an import would make, by id, and fill its report without writing anything.

    Raises:
        ReleaseError: As `import_release`.
    """
    planned = plan_import(job, _known_members(job))
    _fill(job.report, planned, {str(one.id): one.folder for one in planned})
    return planned


def import_release(job: Import) -> ImportReport:
    """Import the authors' release into a zoo folder, or resume an import.

    Args:
        job: The import.

    Returns:
        The job's report. It is also in ``.training/import/report.json`` of the zoo folder.

    Raises:
        ReleaseError: The release has another shape, or the zoo folder holds something else or cannot be written.

    Source: github.com/ModelZoos/ViTModelZoo at 2eb7441.

    Example:
        >>> from vitzoo.records.epochs import Epochs
        >>> job = Import(source=Path("./dataset"), root=Path("./imported"), epochs=Epochs("last"))
        >>> import_release(job).taken["pt-0"]
        'pretraining/sl_...'
    """
    shown = printable(str(job.root))
    try:
        _check_writable(job.root.absolute())
        planned = plan_import(job, _known_members(job))
        if not planned:
            reasons = "; ".join(f"{folder}: {why}" for folder, why in list(job.report.skipped.items())[:3])
            raise ReleaseError(f"{printable(str(job.source))}: no model of it can be taken: {reasons}", path=job.source)
        (job.root / WORK).mkdir(parents=True, exist_ok=True)
        with FileLock(job.root / WORK / "lock", timeout=0):
            zoo = _write_zoo_record(job, planned)
            job.report.read = _convert_all(zoo, planned, job)
            folders = zoo.record.recipe["members"]
            _fill(job.report, planned, {member: folders[member] for member in map(str, zoo.member_ids())})
            from vitzoo.tables.catalogue import write_tables  # pyarrow

            write_tables(zoo)
            if job.check:
                from vitzoo.interop.authors.check import check_logits  # torch

                job.report.checked = check_logits(zoo, [one for one in planned if str(one.id) in job.report.taken], job)
            text = json.dumps(asdict(job.report), indent=1) + "\n"
            json_files.write_atomically(job.root / REPORT, text.encode())
            return job.report
    except Timeout:
        raise ReleaseError(f"Another import into {shown} is running", fix="Wait for it.", path=job.root) from None
    except OSError as error:
        if isinstance(error, VitZooError):
            raise
        reason, fix = error.strerror or error, "Fix that and repeat the command: it resumes."
        raise ReleaseError(f"{shown} cannot be written: {reason}", fix=fix, path=job.root) from error


def _fill(report: ImportReport, planned: Sequence[PlannedImport], taken: dict[str, str]) -> None:
    report.taken = taken
    report.checkpoints = sum(len(one.epochs) for one in planned if str(one.id) in taken)
    report.sort()


def _check_writable(root: Path) -> None:
    """Raise an OSError for a zoo folder that cannot be made, before checkpoints are read."""
    nearest = next(path for path in (root, *root.parents) if path.exists())
    if nearest != root and not nearest.is_dir():
        raise NotADirectoryError(0, "Not a directory")
    if nearest.is_dir() and not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(0, "Permission denied")


def _known_members(job: Import) -> dict[str, MemberId]:
    """Return folders with the ids that an earlier import gave them.

    Raises:
        ReleaseError: The zoo folder holds something else.
    """
    root, shown = job.root, printable(str(job.root))
    if not (root / layout.ZOO_JSON).is_file():
        is_full = root.is_dir() and any(path.name != layout.TRAINING.name for path in root.iterdir())
        if is_full or (root.exists() and not root.is_dir()):
            what = "is not empty" if is_full else "is a file"
            raise ReleaseError(f"{shown} {what}", fix="Name a new folder for the zoo.", path=root)
        return {}
    recipe = records.load_zoo_record(root / layout.ZOO_JSON).recipe
    name, epochs = recipe.get("name"), str(recipe.get("epochs"))
    if recipe.get("tokenizer_sha256") is not None and job.load_tokenizer().sha256 != recipe["tokenizer_sha256"]:
        raise ReleaseError(
            f"{shown} was imported with the tokenizer {printable(str(recipe['tokenizer_sha256']))[:16]}...",
            expected=f"{job.load_tokenizer().sha256[:16]}..., of {printable(str(job.tokenizer))}",
            fix="Name the same tokenizer, or another folder.",
            path=root,
        )
    if (name, epochs) != (RECIPE, str(job.epochs)) or not isinstance(recipe.get("members"), dict):
        raise ReleaseError(
            f"{shown} holds the zoo of the recipe {printable(str(name))} with --epochs {printable(epochs)}",
            expected=f"one that was imported with --epochs {job.epochs}",
            fix="Repeat that choice, or name another folder.",
            path=root,
        )
    return {str(folder): MemberId.parse(member) for member, folder in recipe["members"].items()}


def _write_zoo_record(job: Import, planned: Sequence[PlannedImport]) -> FolderSource:
    """Write zoo.json, or add new models to it."""
    members = {member: folder for folder, member in _known_members(job).items()}
    members |= {one.id: one.folder for one in planned}
    sizes = {one.model.sizes for one in planned}
    is_language = any(one.model.settings.is_language for one in planned)
    recipe = {
        "name": RECIPE,
        "source": f"{facts.LANGUAGE_RELEASE if is_language else facts.RELEASE}, as released",
        "epochs": str(job.epochs),
        "members": {str(member): members[member] for member in sorted(members)},
    }
    if is_language:
        recipe["tokenizer_sha256"] = job.load_tokenizer().sha256
    if len(sizes) == 1:
        pixels = {} if is_language else {"mean": list(facts.MEAN), "std": list(facts.STD)}
        recipe["architecture"] = asdict(cast(Any, sizes.pop())) | pixels
    record = records.ZooRecord(recipe=recipe, recipe_sha256=json_files.json_sha256(recipe))
    json_files.write_json(job.root / layout.ZOO_JSON, record)
    return FolderSource(job.root)


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


def _convert_all(zoo: FolderSource, planned: Sequence[PlannedImport], job: Import) -> int:
    """Make the missing members, parents first, and return the bytes of checkpoints that were read."""
    from vitzoo.interop.authors.member import import_member  # torch

    for path in (zoo.root / WORK).iterdir():  # unfinished members of an import that was killed
        if path.is_dir():
            shutil.rmtree(path)
    done, stop = set(zoo.member_ids()), Event()
    missing = [one for one in planned if one.id not in done]
    count = ByteCount(sum(one.bytes for one in missing), partial(job.progress, "importing"))

    def count_file(size: int) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        count.add(size)

    def make(one: PlannedImport) -> None:
        parent = None
        try:
            if one.id.parent_id is not None:
                if not (zoo.root / layout.member_file(one.id.parent_id)).is_file():
                    raise ReleaseError(f"its parent {one.id.parent_id} was not taken")
                parent = Catalogue(zoo).member_record(one.id.parent_id)
            import_member(one, job, parent=parent, count_file=count_file)
        except ReleaseError as error:
            job.report.skip(one.folder, error)
        except BaseException:
            stop.set()  # here, since this thread may start the next model at once
            raise

    for of_parents in (True, False):
        with _one_thread_each(), ThreadPoolExecutor(job.jobs) as pool:
            futures = [pool.submit(make, one) for one in missing if one.id.is_parent == of_parents]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                stop.set()  # each thread ends after the current checkpoint
                pool.shutdown(cancel_futures=True)
                raise
    return count.bytes
