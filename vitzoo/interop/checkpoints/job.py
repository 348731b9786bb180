"""Describe an import of a table of checkpoints. See `run` for its execution."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vitzoo.interop.engine import ImportReport, Progress
from vitzoo.records.epochs import Epochs


def _silent(work: str, done: int, total: int) -> None:
    del work, done, total


@dataclass(frozen=True, kw_only=True, slots=True)
class Import:
    """Import of a table of checkpoints into a zoo folder.

    Args:
        table: The table, or the name of a ready one (`ready.NAMES`).
        root: The zoo folder: new, empty, or of an earlier import of that table.
        epochs: Checkpoints to keep beside the final ones: ``all``, ``last``, ``every-1000`` or ``0,500``.
        jobs: Members that are made at a time. Each takes a core.
        link: Whether weights files that are already as a zoo has them become hard links, not copies.
        find_parents: Number of families, or ``auto``, for which `vitzoo.lineage` finds parents by the weights, in a
            table that names none. None for no search.
        tokenizer: Folder of the tokenizer of BERTs that have none beside their weights.
        progress: Called with the work, the models or bytes that are done, and their total.
        report: Filled while the import is planned and run.
    """

    table: Path
    root: Path
    epochs: Epochs = field(default_factory=lambda: Epochs("all"))
    jobs: int = 2
    link: bool = False
    find_parents: int | Literal["auto"] | None = None
    tokenizer: Path | None = None
    progress: Progress = _silent
    report: ImportReport = field(default_factory=ImportReport)

    def __post_init__(self) -> None:
        if self.jobs < 1 or (isinstance(self.find_parents, int) and self.find_parents < 1):
            raise ValueError(f"jobs is {self.jobs} and find_parents {self.find_parents}; expected 1 at least")

    @property
    def base(self) -> Path:
        """Folder that relative paths of the table begin at."""
        return self.table.absolute().parent
