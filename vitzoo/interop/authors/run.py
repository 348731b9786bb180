"""Import the authors' release into a zoo folder: plan, then convert in threads. A later run makes the missing members.

    vitzoo import authors ./dataset ./zoo
    vitzoo import authors ./dataset/language ./zoo --tokenizer ./bert-base-cased

zoo.json is written first and maps each id to a folder of the release, so that an id never changes its model. See
`vitzoo.interop.engine` for the run.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, cast

from vitzoo import records
from vitzoo.errors import ReleaseError, printable
from vitzoo.ids import MemberId
from vitzoo.interop.authors import facts
from vitzoo.interop.authors.job import Import
from vitzoo.interop.authors.plan import PlannedImport, plan_import
from vitzoo.interop.engine import (
    ImportReport,
    check_writable,
    explain_errors,
    load_earlier_recipe,
    make_members,
    open_import,
)
from vitzoo.records import json_files, layout
from vitzoo.sources.folder import FolderSource

RECIPE = "authors"


def plan_release(job: Import) -> list[PlannedImport]:
    """Return the members that an import would make, by id, and fill its report without writing anything.

    Raises:
        ReleaseError: As `import_release`.
    """
    planned = plan_import(job, _known_members(job))
    _fill(job.report, planned, {str(one.id): one.name for one in planned})
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
        >>> from pathlib import Path
        >>> from vitzoo.records.epochs import Epochs
        >>> job = Import(source=Path("./dataset"), root=Path("./imported"), epochs=Epochs("last"))
        >>> import_release(job).taken["pt-0"]
        'pretraining/sl_...'
    """
    with explain_errors(job.root):
        check_writable(job.root.absolute())
        planned = plan_import(job, _known_members(job))
        if not planned:
            reasons = "; ".join(f"{folder}: {why}" for folder, why in list(job.report.skipped.items())[:3])
            raise ReleaseError(f"{printable(str(job.source))}: no model of it can be taken: {reasons}", path=job.source)
    with open_import(job.root):
        zoo = _write_zoo_record(job, planned)
        job.report.read = _convert_all(zoo, planned, job)
        folders = zoo.record.recipe["members"]
        _fill(job.report, planned, {member: folders[member] for member in map(str, zoo.member_ids())})
        from vitzoo.tables.catalogue import write_tables  # pyarrow

        write_tables(zoo)
        if job.check:
            from vitzoo.interop.authors.check import check_logits  # torch

            job.report.checked = check_logits(zoo, [one for one in planned if str(one.id) in job.report.taken], job)
        job.report.write(job.root)
        return job.report


def _fill(report: ImportReport, planned: Sequence[PlannedImport], taken: dict[str, str]) -> None:
    report.taken = taken
    report.checkpoints = sum(len(one.numbers) for one in planned if str(one.id) in taken)
    report.sort()


def _known_members(job: Import) -> dict[str, MemberId]:
    """Return folders with the ids that an earlier import gave them.

    Raises:
        ReleaseError: The zoo folder holds something else.
    """
    root, shown = job.root, printable(str(job.root))
    recipe: dict[str, Any] | None = load_earlier_recipe(root)
    if recipe is None:
        return {}
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
    members |= {one.id: one.name for one in planned}
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


def _convert_all(zoo: FolderSource, planned: Sequence[PlannedImport], job: Import) -> int:
    from vitzoo.interop.authors.member import import_member  # torch

    def make(one: PlannedImport, parent: records.MemberRecord | None, count_file: Callable[[int], None]) -> None:
        import_member(one, job, parent=parent, count_file=count_file)

    return make_members(zoo, planned, make, jobs=job.jobs, report=job.report, progress=job.progress)
