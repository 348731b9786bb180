"""Find the parents of a table's members by their weights, with `vitzoo.lineage`, and say that they are found.

The final weights of all members are first imported as parents into a folder of their own, below ``.training``. The
parents are written into zoo.json before the zoo is made, so that a later run finds the same.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace

from vitzoo import records
from vitzoo.errors import CheckpointError
from vitzoo.interop.checkpoints.job import Import
from vitzoo.interop.checkpoints.ready import open_table
from vitzoo.interop.checkpoints.table import Table
from vitzoo.interop.engine import ImportReport
from vitzoo.records import layout
from vitzoo.records.epochs import Epochs

STAGING = layout.TRAINING / "found"
FOUND_BY = "found_by"  # column of the tables: empty for a parent that the table names
METHOD = "cluster-root-star"


def find_parents(job: Import, *, import_all: Callable[[Import, Mapping[str, str]], ImportReport]) -> dict[str, str]:
    """Return the found parents of members by name; none if the job does not ask for them.

    Args:
        job: The import.
        import_all: Imports a table with given parents.

    Raises:
        CheckpointError: The table names parents itself.
    """
    path = job.root / layout.ZOO_JSON
    recipe = records.load_zoo_record(path).recipe if path.is_file() else {}
    before: dict[str, str] = recipe.get("found_parents", {})
    if job.find_parents is None or (recipe and not _has_new_members(job, recipe)):
        return before
    if any(row.parent is not None for row in open_table(job.table).rows):
        raise CheckpointError(
            "The table names parents, and --find-parents was asked for",
            fix="Leave --find-parents out, or delete the column parent.",
        )
    staging = replace(
        job,
        root=job.root / STAGING,
        epochs=Epochs("last"),
        link=True,
        find_parents=None,
        report=ImportReport(),
    )
    report = import_all(staging, {})
    from vitzoo.analysis.lineage.lineage import lineage  # pandas
    from vitzoo.zoo.zoo import Zoo

    families = None if job.find_parents == "auto" else job.find_parents
    selection = Zoo(staging.root).select()
    edges = lineage(selection, method=METHOD, families=families).edges if len(selection) > 1 else None
    names = {} if edges is None else dict(zip(edges["child"], edges["parent"], strict=True))
    found = {report.taken[child]: report.taken[parent] for child, parent in names.items()}
    shutil.rmtree(staging.root)
    return {name: parent for name, parent in (found | before).items() if parent not in found or parent in before}


def with_parents(table: Table, parents: Mapping[str, str]) -> Table:
    """Return a table with found parents, and a column that says so."""
    if not parents:
        return table
    rows = [
        replace(
            row,
            parent=parents[row.member],
            member_extra=row.member_extra | {FOUND_BY: f"vitzoo.lineage, {METHOD}"},
        )
        if row.member in parents
        else row
        for row in table.rows
    ]
    return replace(table, rows=rows)


def _has_new_members(job: Import, recipe: Mapping[str, dict[str, str]]) -> bool:
    names = set(recipe["members"].values())
    return any(row.member not in names for row in open_table(job.table).rows)
