"""Plan an import before a weight is written: models, ids and epochs.

A whole release of the paper's grid has the ids of the recipe ``paper``, and one of language models those of
``language``. Parents are sorted by objective (supervised first), start (scratch last), seed, batch size, learning rate
(larger first), weight decay, folder name. Children are sorted by seed, head (linear first, then narrower), optimizer,
learning rate (larger first), weight decay, momentum, folder name. A folder keeps the id that the zoo has for it; new
folders come after. A missing setting is sorted as 0 or below.

See `release` for models and their settings, and `lineage` for parents and epochs.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitzoo.architectures import hidden_widths
from vitzoo.ids import MemberId
from vitzoo.interop.authors.job import Import
from vitzoo.interop.authors.release import Model, find_models


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PlannedImport:
    """A model that becomes a member.

    Args:
        id: Its id.
        model: The model.
        keep: Epochs to keep beside the final weights.
        replicate: Number of the repetition of its cell of the grid, from 0.
    """

    id: MemberId
    model: Model
    keep: tuple[int, ...]
    replicate: int = 0

    @property
    def name(self) -> str:
        """Its place in the release."""
        return self.model.place

    @property
    def checkpoints(self) -> dict[int, Path]:
        """Finished epochs to files of weights, ascending."""
        return self.model.checkpoints

    @property
    def numbers(self) -> set[int]:
        """Epochs whose weights are read."""
        return {*self.keep, max(self.checkpoints)}

    @property
    def bytes(self) -> int:
        """Size of the checkpoints that are read."""
        return sum(self.checkpoints[epoch].stat().st_size for epoch in self.numbers)

    @property
    def parent_epoch(self) -> int | None:
        """Finished epochs of the parent at the child's start."""
        start = self.model.start
        return None if start is None else self.model.start_number + start.first_epoch

    @property
    def init_seed(self) -> int:
        """Seed of the backbone's initialisation: a child has its parent's."""
        return (self.model.start or self.model).settings.seed


def plan_import(job: Import, known: Mapping[str, MemberId]) -> list[PlannedImport]:
    """Plan an import without writing anything, and report the models that are not taken.

    Args:
        job: The import.
        known: Folders to the ids that the zoo has for them.

    Returns:
        Members, by id.

    Raises:
        ReleaseError: The release's folder has another shape.
    """
    models = find_models(job)
    if not models:
        return []
    from vitzoo.interop.authors.lineage import Lineage, drop_copies  # torch: not for a release that is refused

    models = drop_copies(models, job)
    if any(model.settings.is_language for model in models):
        job.load_tokenizer()  # raises ReleaseError without one
    lineage = Lineage(job, models)
    parents: list[Model] = []
    children: dict[str, list[Model]] = defaultdict(list)
    for count, model in enumerate(models, start=1):  # parents come first
        job.progress("looking at models", count, len(models))
        if lineage.resolve(model):
            (parents if model.start is None else children[model.start.name]).append(model)
    planned = []
    parent_numbers = {folder: member.parent for folder, member in known.items()}
    for number, parent in _numbered(sorted(parents, key=_parent_order), parent_numbers):
        family = sorted(children[parent.name], key=_child_order)
        starts = {child.start_number + parent.first_epoch for child in family}
        starts -= {max(parent.checkpoints)}  # those are the final weights
        planned.append(PlannedImport(id=MemberId(number), model=parent, keep=_kept(parent, job, starts)))
        replicates: dict[tuple, int] = defaultdict(int)
        own = {
            folder: member.child
            for folder, member in known.items()
            if member.parent == number and member.child is not None
        }
        for place, child in _numbered(family, own):
            cell = _child_order(child)[1:-1]
            planned.append(
                PlannedImport(
                    id=MemberId(number, place), model=child, keep=_kept(child, job), replicate=replicates[cell]
                )
            )
            replicates[cell] += 1
    return sorted(planned, key=lambda one: one.id)


def _kept(model: Model, job: Import, starts: Iterable[int] = ()) -> tuple[int, ...]:
    return tuple(sorted({*(epoch for epoch in job.epochs.of(model.checkpoints) if epoch is not None), *starts}))


def _numbered(models: Sequence[Model], taken: Mapping[str, int]) -> list[tuple[int, Model]]:
    """Return models with their numbers: the zoo's own by folder, then the next ones."""
    following = max(taken.values(), default=-1) + 1
    new = [model.place for model in models if model.place not in taken]
    numbers = {**taken, **{place: following + count for count, place in enumerate(new)}}
    return [(numbers[model.place], model) for model in models]


def _parent_order(model: Model) -> tuple:
    settings = model.settings
    return (
        settings.objective == "contrastive",
        settings.case == "scratch",
        settings.seed,
        settings.batch_size or 0,
        -(settings.learning_rate or 0),
        _or_first(settings.weight_decay),
        model.place,
    )


def _child_order(model: Model) -> tuple:
    """Return the sort key of a parent's children: seed, cell of the grid, folder."""
    settings = model.settings
    return (
        settings.seed,
        hidden_widths(model.head_width),
        settings.optimizer or "",
        -(settings.learning_rate or 0),
        _or_first(settings.weight_decay),
        _or_first(settings.momentum),
        model.place,
    )


def _or_first(value: float | None) -> float:
    return -1.0 if value is None else value
