"""The import of the authors' release into a zoo folder: planned, then done by some threads, resumed where it ended.

    vitzoo import authors ./dataset ./zoo

Threads do, for hashing, reading and writing leave Python to the others; a model is one's from start to end. What is in
zoo.json, with the folder behind each id, is written first: an id never changes its model.
"""

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from vitzoo import records
from vitzoo.errors import ReleaseError, VitZooError, printable
from vitzoo.ids import MemberId
from vitzoo.interop.authors.check import check_logits
from vitzoo.interop.authors.checkpoints import MODEL_TYPES, Backbone
from vitzoo.interop.authors.images import MEAN, STD
from vitzoo.interop.authors.member import RELEASE, Conversion, NotTakenError, StoppedError, import_member
from vitzoo.interop.authors.plan import PlannedImport, plan_import
from vitzoo.interop.authors.report import Findings, ImportReport
from vitzoo.records import json_files, layout
from vitzoo.records.epochs import Epochs
from vitzoo.records.files import write_atomically
from vitzoo.sources.folder import FolderSource
from vitzoo.tables.catalogue import Catalogue, write_tables

RECIPE = "authors"
_WORK = layout.TRAINING / "import"
REPORT = _WORK / "report.json"


def plan_release(
    source: str | Path,
    root: str | Path,
    *,
    epochs: str = "all",
    model_types: Mapping[str, Backbone] = MODEL_TYPES,
    report: Callable[[str, int, int], None] | None = None,
) -> tuple[list[PlannedImport], ImportReport]:
    """Look at what an import would do; nothing is written.

    Args:
        source: The release's folder.
        root: The zoo folder, which need not be there.
        epochs: As `import_release`.
        model_types: As `import_release`.
        report: As `import_release`.

    Returns:
        The members, by id, and what is known of the release before its weights are read.

    Raises:
        ReleaseError: As `import_release`.
    """
    findings, source, root = Findings(), Path(source), Path(root)
    planned = _plan(source, root, Epochs(epochs), model_types, findings, report or _silent)
    return planned, _report(findings, {str(one.id): one.folder for one in planned}, planned, read=0, checked={})


def import_release(
    source: str | Path,
    root: str | Path,
    *,
    epochs: str = "all",
    jobs: int = 2,
    check: int = 0,
    model_types: Mapping[str, Backbone] = MODEL_TYPES,
    report: Callable[[str, int, int], None] | None = None,
) -> ImportReport:
    """Import the authors' release into a zoo folder, or go on where an import ended.

    Args:
        source: The release's folder, with ``pretraining/`` and ``finetuning/``.
        root: The zoo folder: new, empty, or of an earlier import of that release with the same epochs.
        epochs: Weights that are kept beside the final ones: ``all``, ``last`` (none), ``every-10`` or ``0,10``. Those
            that a child starts from are always kept.
        jobs: Models converted at a time; each takes a core and, mapped, three checkpoints of memory.
        check: How many members, evenly spaced, have their logits compared with those of the original checkpoint.
        model_types: Sizes by ``model::type``, for models that were trained by their code with others than ViT-S/16's.
        report: Called with what is done, how much of it (models, bytes) is, and how much there is.

    Returns:
        What was taken, what was not and why, and what should be known; it stands in ``.training/import/report.json``
        of the zoo folder as well.

    Raises:
        ReleaseError: ``source`` has another shape, ``root`` holds something else, or cannot be written.
        SelectionError: ``epochs`` is no choice of epochs.
        ValueError: ``jobs`` is below 1 or ``check`` below 0.

    Source: github.com/ModelZoos/ViTModelZoo at 2eb7441.

    Example:
        >>> import_release("./dataset", "./zoo", epochs="every-10").taken["pt-0"]  # doctest: +SKIP
        'pretraining/sl_vit_s_16_224_seed_42_bs_256_lr_0.001_wd_0.0001_me_90'
    """
    if jobs < 1 or check < 0:
        raise ValueError(f"jobs is {jobs} and check {check}; expected 1 and 0 at least")
    findings, source, root, tell = Findings(), Path(source), Path(root), report or _silent
    chosen = Epochs(epochs)
    planned = _plan(source, root, chosen, model_types, findings, tell)
    if not planned:
        why = "; ".join(f"{folder}: {reason}" for folder, reason in list(findings.skipped.items())[:3])
        raise ReleaseError(f"{printable(str(source))}: no model of it can be taken: {why}.", path=source)
    try:
        (root / _WORK).mkdir(parents=True, exist_ok=True)
        with FileLock(root / _WORK / "lock", timeout=0):
            zoo = _write_zoo_record(root, planned, chosen, model_types)
            read = _convert_all(zoo, planned, jobs=jobs, model_types=model_types, findings=findings, report=tell)
            taken = {str(member): zoo_folder(zoo, member) for member in zoo.member_ids()}
            write_tables(zoo)
            done = [one for one in planned if str(one.id) in taken]
            checked = check_logits(zoo, done, count=check, model_types=model_types, report=tell)
            its = _report(findings, taken, planned, read=read, checked=checked)
            text = json.dumps(asdict(its), indent=1) + "\n"
            write_atomically(root / REPORT, text.encode())
            return its
    except Timeout:
        raise ReleaseError(f"Another import into {printable(str(root))} is running. Wait for it.", path=root) from None
    except OSError as error:
        if isinstance(error, VitZooError):
            raise
        raise ReleaseError(
            f"{printable(str(root))} cannot be written: {error.strerror or error}. Mend that; the same command goes "
            "on.",
            path=root,
        ) from error


def zoo_folder(zoo: FolderSource, member: MemberId) -> str:
    """Where a member of an imported zoo lies in the release."""
    return str(zoo.record.recipe["members"][str(member)])


def _silent(what: str, done: int, total: int) -> None:
    """Report nothing."""


def _report(
    findings: Findings, taken: dict[str, str], planned: Sequence[PlannedImport], *, read: int, checked: dict[str, float]
) -> ImportReport:
    return ImportReport(
        taken=taken,
        checkpoints=sum(len({*one.keep, max(one.checkpoints)}) for one in planned if str(one.id) in taken),
        skipped=dict(sorted(findings.skipped.items())),
        notes={folder: tuple(lines) for folder, lines in sorted(findings.notes.items())},
        read=read,
        checked=checked,
    )


def _plan(
    source: Path,
    root: Path,
    epochs: Epochs,
    model_types: Mapping[str, Backbone],
    findings: Findings,
    report: Callable[[str, int, int], None],
) -> list[PlannedImport]:
    known = _known_members(root, epochs)
    return plan_import(
        source,
        epochs=epochs,
        model_types=model_types,
        known=known,
        findings=findings,
        report=lambda done, total: report("looking at models", done, total),
    )


def _known_members(root: Path, epochs: Epochs) -> dict[str, MemberId]:
    """Folders to the ids that an earlier import gave them.

    Raises:
        ReleaseError: The folder holds something else.
    """
    if not (root / layout.ZOO_JSON).is_file():
        if root.is_dir() and any(path.name != layout.TRAINING.name for path in root.iterdir()):
            raise ReleaseError(f"{printable(str(root))} is not empty. Name a new folder for the zoo.", path=root)
        if root.exists() and not root.is_dir():
            raise ReleaseError(f"{printable(str(root))} is a file. Name a new folder for the zoo.", path=root)
        return {}
    recipe = records.load_zoo_record(root / layout.ZOO_JSON).recipe
    if recipe.get("name") != RECIPE or not isinstance(recipe.get("members"), dict):
        raise ReleaseError(
            f"{printable(str(root))} holds the zoo of the recipe {printable(str(recipe.get('name')))}, which was not "
            "imported. Name another folder.",
            path=root,
        )
    if recipe.get("epochs") != str(epochs):
        raise ReleaseError(
            f"{printable(str(root))} was imported with --epochs {recipe.get('epochs')}, not {epochs}. Go on with "
            "those, or name another folder.",
            path=root,
        )
    return {str(folder): MemberId.parse(member) for member, folder in recipe["members"].items()}


def _write_zoo_record(
    root: Path, planned: Sequence[PlannedImport], epochs: Epochs, model_types: Mapping[str, Backbone]
) -> FolderSource:
    """Write zoo.json, or add to it the models that the release did not have before."""
    members = {member: folder for folder, member in _known_members(root, epochs).items()}
    members |= {one.id: one.folder for one in planned}
    types = dict.fromkeys(one.model.settings.model_type for one in planned)
    recipe = {
        "name": RECIPE,
        "source": f"{RELEASE}, as released",
        "epochs": str(epochs),
        "members": {str(member): members[member] for member in sorted(members)},
    }
    if len(types) == 1:
        recipe["architecture"] = asdict(model_types[next(iter(types))]) | {"mean": list(MEAN), "std": list(STD)}
    record = records.ZooRecord(recipe=recipe, recipe_sha256=json_files.json_sha256(recipe))
    json_files.write_json(root / layout.ZOO_JSON, record)
    return FolderSource(root)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Jobs share the cores; were each of them to use all, they would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _convert_all(
    zoo: FolderSource,
    planned: Sequence[PlannedImport],
    *,
    jobs: int,
    model_types: Mapping[str, Backbone],
    findings: Findings,
    report: Callable[[str, int, int], None],
) -> int:
    """Make members of all that are not there yet, parents first; returns the bytes of checkpoints read."""
    done = set(zoo.member_ids())
    for member in done:  # an import may have ended right after its member appeared
        shutil.rmtree(zoo.root / _WORK / str(member).replace("/", "."), ignore_errors=True)
    missing = [one for one in planned if one.id not in done]
    total, done_with, read = sum(one.bytes for one in missing), 0, 0
    lock, stop = threading.Lock(), threading.Event()

    def count(size: int, of_them_read: int) -> None:
        nonlocal done_with, read
        with lock:
            done_with, read = done_with + size, read + of_them_read
            report("importing", min(done_with, total), total)

    conversion = Conversion(
        root=zoo.root, model_types=dict(model_types), note=findings.note, count=count, is_stopped=stop.is_set
    )

    def make(one: PlannedImport) -> None:
        parent = None
        try:
            if one.parent is not None:
                if not (zoo.root / layout.member_file(one.parent)).is_file():
                    raise NotTakenError(f"its parent {one.parent} was not taken")
                parent = Catalogue(zoo).member_record(one.parent)
            import_member(one, conversion, parent=parent)
        except NotTakenError as error:
            findings.skip(one.folder, str(error))
        except BaseException:
            stop.set()  # at once: this thread would begin with the next
            raise

    for of_parents in (True, False):
        with _one_thread_each(), ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(make, one) for one in missing if one.id.is_parent == of_parents]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException as error:
                stop.set()  # each thread ends after the checkpoint under way
                pool.shutdown(cancel_futures=True)
                if isinstance(error, StoppedError):
                    raise KeyboardInterrupt from None
                raise
    return read
