"""Which model a child was fine-tuned from, and what the numbers of checkpoints count: told by the weights.

A number counts finished epochs, so that 0 is before the first step, where Ray Tune wrote it; or epochs from 0, so that
0 is after the first. Before its first step a child has the backbone of its parent, and every linear layer of a parent
has the biases that their code begins with.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vitzoo.errors import WeightsError
from vitzoo.interop.authors.checkpoints import have_equal_backbones, is_untrained
from vitzoo.interop.authors.layout import FoundModel
from vitzoo.interop.authors.settings import Settings

Load = Callable[[Path, Settings], dict[str, Tensor]]


class LineageError(Exception):
    """Why a child's parent cannot be told, in words."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Model:
    """A model with its settings.

    Args:
        found: Its folder.
        settings: How it was trained.
    """

    found: FoundModel
    settings: Settings

    @property
    def last_number(self) -> int:
        """Of its checkpoints."""
        return max(self.found.checkpoints)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Start:
    """What a child starts from.

    Args:
        parent: The model.
        number: Of its checkpoint.
        is_seen: Whether the child's weights before its first step show it; otherwise names alone do.
    """

    parent: Model
    number: int
    is_seen: bool


def first_epoch(model: Model, *, starts_untrained: bool | None, notes: list[str]) -> int:
    """How many epochs are finished at checkpoint 0.

    Args:
        model: The model.
        starts_untrained: Whether its checkpoint 0 is before the first step; None where that cannot be seen.
        notes: Told where nothing decides.

    Returns:
        0 or 1.
    """
    last, epochs = model.last_number, model.settings.epochs
    if starts_untrained is False and last < epochs:
        return 1
    if starts_untrained is None and last < epochs:
        notes.append(
            f"no weights show what checkpoint numbers count, {last} the last of {epochs} epochs: taken as finished "
            "epochs, as Ray Tune writes them"
        )
    return 0


def parent_starts_untrained(model: Model, load: Load) -> bool | None:
    """Whether a parent's checkpoint 0 is before its first step; None where there is none that can be read."""
    if 0 not in model.found.checkpoints:
        return None
    try:
        return is_untrained(load(model.found.checkpoints[0], model.settings))
    except WeightsError:
        return None


def find_start(child: Model, parents: Mapping[str, Model], *, load: Load, notes: list[str]) -> Start:
    """What a child was fine-tuned from: by its folder and its config, and shown by its weights before the first step.

    Args:
        child: The child.
        parents: Names to the models that are taken.
        load: Reads a checkpoint.
        notes: Told what contradicts, and what could not be compared.

    Raises:
        LineageError: Its parent is not there, or the names contradict each other or the weights.
    """
    folder, named = child.found.parent_name or "", child.settings.named_parent
    candidates = [parents[name] for name in dict.fromkeys((named, folder)) if name is not None and name in parents]
    if not candidates:
        raise LineageError(
            f"its parent {folder} is not taken: expected a model pretraining/{folder}. Add it, and import again"
        )
    first = _first_weights(child, load)
    match = None if first is None else _match(child, candidates, first, load)
    agree = named in (None, folder)
    if match is not None:
        if not agree:
            notes.append(f"lies under {folder}, its config names {named}: it starts with the weights of "
                         f"{match.parent.found.name}")  # fmt: skip
        return match
    if first is not None and _must_be_untrained(child, first):
        others = [model for model in parents.values() if model not in candidates]
        whose = _match(child, others, first, load)
        told = f"those of {whose.parent.found.name}" if whose is not None else "those of no model that is taken"
        raise LineageError(
            f"its weights before the first step are {told}, while its folder or its config says "
            f"{' or '.join(its.found.name for its in candidates)}. Mend what is wrong"
        )
    if not agree:
        raise LineageError(
            f"lies under {folder}, but its config names {named}, and no weights of before its first step show which. "
            "Mend the wrong one"
        )
    parent = candidates[0]
    number = parent.last_number if child.settings.named_checkpoint is None else child.settings.named_checkpoint
    if number not in parent.found.checkpoints:
        raise LineageError(f"starts from checkpoint {number} of {folder}, which is not there. Add it")
    notes.append(f"parent {folder} by folder and config alone: there are no weights of before the first step")
    return Start(parent=parent, number=number, is_seen=False)


def _first_weights(child: Model, load: Load) -> dict[str, Tensor] | None:
    """The weights at checkpoint 0; None where there is none that can be read."""
    if 0 not in child.found.checkpoints:
        return None
    try:
        return load(child.found.checkpoints[0], child.settings)
    except WeightsError:
        return None


def _match(child: Model, models: Iterable[Model], first: dict[str, Tensor], load: Load) -> Start | None:
    """The checkpoint among those of some models whose backbone a child has."""
    for model in models:
        for number in _likely_first(model, child.settings.named_checkpoint):
            try:
                weights = load(model.found.checkpoints[number], model.settings)
            except WeightsError:
                continue
            if have_equal_backbones(first, weights):
                return Start(parent=model, number=number, is_seen=True)
    return None


def _likely_first(model: Model, named: int | None) -> Iterator[int]:
    """A model's checkpoints: the named one, then the last, then those before."""
    if named in model.found.checkpoints:
        yield named
    yield from (number for number in reversed(model.found.checkpoints) if number != named)


def _must_be_untrained(child: Model, first: dict[str, Tensor]) -> bool:
    """Whether checkpoint 0 cannot be after the first epoch."""
    head = {name: tensor for name, tensor in first.items() if name.startswith("classifier.")}
    fresh_head = "classifier.bias" in head and is_untrained(head)
    return fresh_head or child.last_number >= child.settings.epochs
