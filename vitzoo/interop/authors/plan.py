"""What an import does, decided before a weight is written: which models, under which ids, at which epochs.

Ids are given in this order, so that a whole release of the paper's grid has those of the recipe ``paper``. Parents:
supervised before contrastive, then by seed, batch size, learning rate (larger first), weight decay, folder name.
Children of each: by seed, then head (linear before MLP, narrower first), optimizer (adamw before sgd), learning rate
(larger first), weight decay, momentum, folder name. A folder that a zoo has an id for keeps it, others come after.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vitzoo.errors import WeightsError, did_you_mean, shown
from vitzoo.ids import MemberId
from vitzoo.interop.authors import checkpoints as files
from vitzoo.interop.authors.checkpoints import Backbone
from vitzoo.interop.authors.layout import RESULT, FoundModel, find_models
from vitzoo.interop.authors.lineage import (
    LineageError,
    Model,
    Start,
    find_start,
    first_epoch,
    parent_starts_untrained,
)
from vitzoo.interop.authors.report import Findings
from vitzoo.interop.authors.results import Results, read_results
from vitzoo.interop.authors.settings import Settings, SettingsError, read_settings
from vitzoo.records.epochs import Epochs

_OPEN = 3  # checkpoints: pages that were compared count as memory while their file is mapped


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PlannedImport:
    """A model that becomes a member.

    Args:
        id: Its id.
        model: The model.
        results: Its figures.
        head_width: Hidden width of an MLP head; None for a linear head.
        checkpoints: Finished epochs to files, ascending.
        keep: Epochs whose weights are kept beside the final ones.
        parent: Id of the member that it starts from; None of a parent.
        parent_epoch: Finished epochs of that member's weights.
        replicate: Which repetition of its cell of the grid, from 0.
        init_seed: Of its backbone's initialisation: a child has its parent's.
    """

    id: MemberId
    model: Model
    results: Results
    head_width: int | None
    checkpoints: dict[int, Path]
    keep: tuple[int, ...]
    parent: MemberId | None
    parent_epoch: int | None
    replicate: int
    init_seed: int

    @property
    def folder(self) -> str:
        """Its place in the release."""
        return self.model.found.folder

    @property
    def bytes(self) -> int:
        """Of the checkpoints that are read."""
        chosen = {*self.keep, max(self.checkpoints)}
        return sum(self.checkpoints[epoch].stat().st_size for epoch in chosen)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Numbered:
    """A model whose checkpoints are counted."""

    model: Model
    results: Results
    head_width: int | None
    first: int
    start: Start | None

    @property
    def checkpoints(self) -> dict[int, Path]:
        return {number + self.first: path for number, path in self.model.found.checkpoints.items()}


def plan_import(
    root: Path,
    *,
    epochs: Epochs,
    model_types: Mapping[str, Backbone],
    known: Mapping[str, MemberId],
    findings: Findings,
    report: Callable[[int, int], None],
) -> list[PlannedImport]:
    """Look at a release without writing anything.

    Args:
        root: The release's folder.
        epochs: Which weights are kept beside the final ones.
        model_types: Sizes by ``model::type``.
        known: Folders to the ids that the zoo has for them.
        findings: Told what is not taken, and why.
        report: Called with how many models were looked at, and how many there are.

    Returns:
        Members, parents before their children, by id.

    Raises:
        ReleaseError: The folder has another shape.
    """
    found = _without_twins(find_models(root, findings), findings)
    looker = _Looker(model_types, findings)
    parents: dict[str, _Numbered] = {}
    children: dict[str, list[_Numbered]] = defaultdict(list)
    for count, one in enumerate(found, start=1):  # parents come first
        report(count, len(found))
        numbered = looker.look_at(one, {name: its.model for name, its in parents.items()})
        if numbered is None:
            continue
        if numbered.start is None:
            parents[one.name] = numbered
        else:
            children[numbered.start.parent.found.name].append(numbered)
    planned = []
    ordered = sorted(parents.values(), key=_parent_order)
    for number, parent in _numbers(ordered, known, lambda member: member.parent):
        family = sorted(children[parent.model.found.name], key=_child_order)
        starts = {its.start.number + parent.first for its in family if its.start is not None}
        starts -= {max(parent.checkpoints)}  # those are the final weights
        planned.append(_planned(MemberId(number), parent, _kept(parent, epochs) | starts))
        replicates: dict[tuple, int] = defaultdict(int)
        under = {folder: member for folder, member in known.items() if member.parent == number}
        for place, child in _numbers(family, under, lambda member: member.child):
            cell = _child_order(child)[1:-1]
            planned.append(
                _planned(
                    MemberId(number, place), child, _kept(child, epochs), parent=parent, replicate=replicates[cell]
                )
            )
            replicates[cell] += 1
    return sorted(planned, key=lambda one: one.id)


class _Looker:
    """Looks at one model after another; a parent's checkpoints stay open for its children."""

    def __init__(self, model_types: Mapping[str, Backbone], findings: Findings):
        self._types, self._findings = model_types, findings
        self._open: dict[Path, dict[str, Tensor]] = {}

    def look_at(self, found: FoundModel, parents: Mapping[str, Model]) -> _Numbered | None:
        """A model's settings, figures, parent and numbers; None, and said so, where it cannot be taken."""
        notes: list[str] = []
        results = Results()
        try:
            is_child = found.parent_name is not None
            results = read_results(found.file(RESULT))
            settings, notes = read_settings(found.name, found.file("config.json"), results.config, is_child=is_child)
            if settings.model_type not in self._types:
                raise SettingsError(
                    f"model::type is {shown(settings.model_type)}.{did_you_mean(settings.model_type, self._types)}"
                )
            model = Model(found=found, settings=settings)
            start = find_start(model, parents, load=self._load, notes=notes) if is_child else None
            untrained = parent_starts_untrained(model, self._load) if start is None else _seen(model, start)
            first = first_epoch(model, starts_untrained=untrained, notes=notes)
            return _Numbered(model=model, results=results, head_width=self._head_width(model), first=first, start=start)
        except (SettingsError, LineageError, WeightsError) as error:
            self._findings.skip(found.folder, str(error).rstrip("."))
            return None
        finally:
            for note in (*results.problems, *notes):
                self._findings.note(found.folder, note)

    def _head_width(self, model: Model) -> int | None:
        """Of the first checkpoint that can be read, from the end."""
        error: WeightsError | None = None
        for path in reversed(model.found.checkpoints.values()):
            try:
                return files.head_width(self._load(path, model.settings))
            except WeightsError as its:
                error = error or its
        raise WeightsError(f"none of its checkpoints can be read: {error}", path=model.found.file(""))

    def _load(self, path: Path, settings: Settings) -> dict[str, Tensor]:
        weights = self._open.pop(path, None)
        if weights is None:
            weights = files.load_checkpoint(path, self._types[settings.model_type], outputs=settings.outputs)
        self._open[path] = weights  # the last asked for, such as a parent's with many children, go last
        while len(self._open) > _OPEN:
            del self._open[next(iter(self._open))]
        return weights


def _seen(model: Model, start: Start) -> bool | None:
    """Whether a child's checkpoint 0 is before its first step: it is, where it has its parent's backbone."""
    if start.is_seen:
        return True
    return False if 0 in model.found.checkpoints else None


def _without_twins(found: Sequence[FoundModel], findings: Findings) -> list[FoundModel]:
    """The models but for copies: those whose last weights another one has, too.

    Of equal ones that is kept under whose name children lie, else the one with the shortest name.
    """
    families = {model.parent_name for model in found}
    groups: dict[object, list[FoundModel]] = defaultdict(list)
    for model in found:
        last = model.checkpoints[max(model.checkpoints)]
        groups[files.content_mark(last) or last].append(model)
    copies = set()
    for twins in groups.values():
        kept = min(twins, key=lambda its: (its.parent_name is not None or its.name not in families, len(its.name)))
        for model in twins:
            if model is not kept and files.have_equal_weights(*(its.checkpoints[max(its.checkpoints)]
                                                                for its in (model, kept))):  # fmt: skip
                copies.add(model.folder)
                findings.skip(model.folder, f"is a copy: its last weights are those of {kept.folder}. Take one away")
    return [model for model in found if model.folder not in copies]


def _planned(
    member: MemberId, one: _Numbered, keep: set[int], *, parent: _Numbered | None = None, replicate: int = 0
) -> PlannedImport:
    start = one.start
    return PlannedImport(
        id=member,
        model=one.model,
        results=one.results,
        head_width=one.head_width,
        checkpoints=one.checkpoints,
        keep=tuple(sorted(keep)),
        parent=member.parent_id,
        parent_epoch=None if parent is None or start is None else start.number + parent.first,
        replicate=replicate,
        init_seed=(one if parent is None else parent).model.settings.seed,
    )


def _kept(one: _Numbered, epochs: Epochs) -> set[int]:
    return {epoch for epoch in epochs.of(one.checkpoints) if epoch is not None}


def _numbers(ordered: Sequence[_Numbered], known: Mapping[str, MemberId], number: Callable[[MemberId], int | None]):
    """Models with their numbers: those that they have, then the next ones."""
    taken = [its for member in known.values() if (its := number(member)) is not None]
    following = max(taken, default=-1) + 1
    numbered = []
    for one in ordered:
        member = known.get(one.model.found.folder)
        its = None if member is None else number(member)
        if its is None:
            its, following = following, following + 1
        numbered.append((its, one))
    return numbered


def _parent_order(one: _Numbered) -> tuple:
    its = one.model.settings
    return (
        its.objective != "supervised",
        its.seed,
        its.batch_size,
        -its.learning_rate,
        its.weight_decay,
        one.model.found.folder,
    )


def _child_order(one: _Numbered) -> tuple:
    """By which the children of a parent are sorted: the seed, the cell of the grid, the folder."""
    its = one.model.settings
    return (
        its.seed,
        one.head_width or 0,
        its.optimizer,
        -its.learning_rate,
        its.weight_decay,
        its.momentum or 0.0,
        one.model.found.folder,
    )
