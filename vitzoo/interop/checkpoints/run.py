"""Import a table of checkpoints into a zoo folder: plan, then make members in threads. A later run makes missing ones.

    vitzoo import checkpoints checkpoints.csv ./zoo
    vitzoo import checkpoints --from-folder ./runs          # writes checkpoints.csv, to look through

zoo.json is written first and maps each id to a name of the table, so that an id never changes its member. The first
checkpoint that can be read decides the sizes of all. See `vitzoo.interop.engine` for the run.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vitzoo import records
from vitzoo.errors import CheckpointError, VitZooError, printable
from vitzoo.ids import MemberId
from vitzoo.interop.checkpoints.found import METHOD, find_parents, with_parents
from vitzoo.interop.checkpoints.job import Import
from vitzoo.interop.checkpoints.plan import PlannedMember, Unit, check_unit, plan_table
from vitzoo.interop.checkpoints.ready import open_table
from vitzoo.interop.checkpoints.table import NEVER_KNOWN, OF_IMAGES, OF_TEXT, UNKNOWN
from vitzoo.interop.engine import (
    ImportReport,
    check_writable,
    explain_errors,
    load_earlier_recipe,
    make_members,
    open_import,
)
from vitzoo.records import json_files, layout
from vitzoo.records.members import ONLY_FOR
from vitzoo.sources.folder import FolderSource
from vitzoo.tables.catalogue import Catalogue

RECIPE = "checkpoints"


def plan_checkpoints(job: Import) -> list[PlannedMember]:
    """Return the members that an import would make, by id, and fill its report without writing anything.

    Raises:
        ReleaseError: As `import_checkpoints`.
    """
    planned, _ = _plan(job, {})
    job.report.taken = {str(one.id): one.name for one in planned}
    _finish_report(job.report, planned)
    return planned


def import_checkpoints(job: Import) -> ImportReport:
    r"""Import a table of checkpoints into a zoo folder, or resume an import.

    Args:
        job: The import.

    Returns:
        The job's report. It is also in ``.training/import/report.json`` of the zoo folder.

    Raises:
        ReleaseError: The table cannot be read, no member can be made, or the zoo folder holds something else or cannot
            be written.

    Example:
        >>> from pathlib import Path
        >>> _ = Path("checkpoints.csv").write_text("location,member\nzoo/pt-0,seed-0\n")
        >>> import_checkpoints(Import(table=Path("checkpoints.csv"), root=Path("./imported"))).taken
        {'pt-0': 'seed-0'}
    """
    with explain_errors(job.root):
        check_writable(job.root.absolute())
        parents = find_parents(job, import_all=_import)
    return _import(job, parents)


def _import(job: Import, parents: Mapping[str, str]) -> ImportReport:
    """Import a table, with parents that the table does not name."""
    with explain_errors(job.root):
        planned, unit = _plan(job, parents)
        for name in parents:
            job.report.note(name, f"its parent was found by vitzoo.lineage ({METHOD}); the table names none")
        if not planned:
            reasons = "; ".join(f"{name}: {why}" for name, why in list(job.report.skipped.items())[:3])
            raise CheckpointError(f"{printable(job.table.name)}: no checkpoint of it can be taken: {reasons}")
    from vitzoo.interop.checkpoints.states import allow_arguments  # torch

    with open_import(job.root), allow_arguments():
        zoo = _write_zoo_record(job, planned, unit, parents)
        job.report.read = _make_all(zoo, planned, job)
        names = zoo.record.recipe["members"]
        job.report.taken = {member: names[member] for member in map(str, zoo.member_ids())}
        _finish_report(job.report, planned)
        _note_unknown(zoo, job.report)
        from vitzoo.tables.catalogue import write_tables  # pyarrow

        write_tables(zoo)
        job.report.write(job.root)
        return job.report


def _plan(job: Import, parents: Mapping[str, str]) -> tuple[list[PlannedMember], Unit]:
    recipe: dict[str, Any] | None = load_earlier_recipe(job.root)
    known: dict[str, MemberId] = {}
    if recipe is not None:
        if recipe.get("name") != RECIPE or str(recipe.get("epochs")) != str(job.epochs):
            raise CheckpointError(
                f"{printable(str(job.root))} holds the zoo of the recipe {printable(str(recipe.get('name')))} with "
                f"--epochs {printable(str(recipe.get('epochs')))}",
                expected=f"one that was imported from a table with --epochs {job.epochs}",
                fix="Repeat that choice, or name another folder.",
                path=job.root,
            )
        known = {str(name): MemberId.parse(member) for member, name in recipe["members"].items()}
    planned, unit = plan_table(with_parents(open_table(job.table), parents), job, known)
    if recipe is not None:
        before = records.load_zoo_record(job.root / layout.ZOO_JSON).unit
        check_unit(unit, before, root=printable(str(job.root)))
    return planned, unit


def _note_unknown(zoo: FolderSource, report: ImportReport) -> None:
    """Note the fields of each member that are null because nothing says them."""
    catalogue = Catalogue(zoo)
    for member, name in report.taken.items():
        record = catalogue.member_record(MemberId.parse(member))
        of_others = {name for name, (column, value) in ONLY_FOR.items() if getattr(record, column) != value}
        foreign = OF_IMAGES if record.tokenizer_sha256 or record.head_role == "masked" else OF_TEXT
        missing = [
            field
            for field in UNKNOWN
            if getattr(record, field) is None and field not in {*NEVER_KNOWN, *foreign, *of_others}
        ]
        if missing:
            report.note(name, f"unknown, so null: {', '.join(missing)}")
    report.sort()


def _finish_report(report: ImportReport, planned: Sequence[PlannedMember]) -> None:
    report.checkpoints = sum(len(one.numbers) for one in planned if str(one.id) in report.taken)
    report.sort()


def _write_zoo_record(
    job: Import, planned: Sequence[PlannedMember], unit: Unit, parents: Mapping[str, str]
) -> FolderSource:
    """Write zoo.json, or add new members to it."""
    path = job.root / layout.ZOO_JSON
    before: dict[str, Any] = records.load_zoo_record(path).recipe if path.is_file() else {}
    members = {MemberId.parse(member): name for member, name in before.get("members", {}).items()}
    members |= {one.id: one.name for one in planned}
    first, sizes = (before["first"], before["architecture"]) if before else _read_sizes(job, planned)
    recipe = {
        "name": RECIPE,
        "source": f"checkpoints of {job.table.name}",
        "epochs": str(job.epochs),
        "first": first,
        "architecture": sizes,
        "members": {str(member): members[member] for member in sorted(members)},
    }
    if parents:
        recipe["found_parents"] = dict(parents)
    record = records.ZooRecord(recipe=recipe, recipe_sha256=json_files.json_sha256(recipe), unit=unit)
    json_files.write_json(path, record)
    return FolderSource(job.root)


def _read_sizes(job: Import, planned: Sequence[PlannedMember]) -> tuple[str, dict[str, Any]]:
    """Return the name and the sizes of the first member that can be read."""
    from vitzoo.interop.checkpoints.member import open_checkpoint  # torch

    problem = "there is none"
    for one in planned:
        for number in reversed(one.numbers):
            try:
                model, _, _ = open_checkpoint(one.checkpoints[number], base=job.base)
                return one.name, model.sizes
            except VitZooError as error:
                problem = f"{one.name}: {error}"
    raise CheckpointError(f"No checkpoint of {printable(job.table.name)} can be used: {printable(problem)}")


def _make_all(zoo: FolderSource, planned: Sequence[PlannedMember], job: Import) -> int:
    from vitzoo.interop.checkpoints.member import Zoo, import_member  # torch

    recipe = zoo.record.recipe
    catalogue = Catalogue(zoo)
    made = Zoo(
        source=zoo,
        unit=zoo.record.unit,
        sizes=recipe["architecture"],
        first=recipe["first"],
        release=recipe["source"],
        seen={
            str(catalogue.epoch_records(member)[-1].weights_id): recipe["members"].get(str(member), str(member))
            for member in zoo.member_ids()
        },
    )

    def make(one: PlannedMember, parent: records.MemberRecord | None, count_file: Callable[[int], None]) -> None:
        import_member(one, job, made, parent=parent, count_file=count_file)

    return make_members(zoo, planned, make, jobs=job.jobs, report=job.report, progress=job.progress)
