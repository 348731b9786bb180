"""Measure what a group of checkpoints gives without merging them: the baselines of merged models.

- ``best``: the checkpoint with the best validation accuracy (ties: lower validation loss, then id, then epoch).
- ``mean``: the mean accuracy of the checkpoints.
- ``last``: the latest checkpoint, if all are of one member.
- ``ensemble``: the class with the largest mean probability over the checkpoints. It costs a forward pass of each.

Validation data choose, and the other parts report.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vitzoo.analysis.behaviour.pairs import softmax
from vitzoo.errors import DatasetError
from vitzoo.zoo.selection import Selection

if TYPE_CHECKING:
    from vitzoo.analysis.behaviour.behaviour import Behaviour


def baselines(selection: Selection, *, part: str, **options: Any) -> dict[str, float]:
    """Return the accuracies of the baselines of one group, by name; options as `compare_soups`."""
    from vitzoo.analysis.behaviour.behaviour import behaviour  # torch

    return baseline_accuracies(selection, behaviour(selection, part=part, **options), range(len(selection)))


def baseline_accuracies(group: Selection, outputs: "Behaviour", places: Sequence[int]) -> dict[str, float]:
    """Return the accuracies of the baselines of a group, whose checkpoints have these places in a behaviour."""
    accuracy = outputs.accuracy[list(places)]
    found = {"best": float(accuracy[order_by_validation(group)[0]]), "mean": float(accuracy.mean())}
    if len(group.ids) == 1:
        found["last"] = float(accuracy[int(np.argmax(group.epochs_table.column("epoch").to_numpy()))])
    probabilities = softmax(outputs.logits[list(places)].astype(np.float64)).mean(axis=0)
    return found | {"ensemble": float((probabilities.argmax(axis=1) == outputs.labels).mean())}


def order_by_validation(selection: Selection) -> list[int]:
    """Return the rows of a selection by falling validation accuracy, then rising loss, then id and epoch."""
    table = selection.epochs_table
    accuracies, losses = (table.column(name).to_pylist() for name in ("val_accuracy", "val_loss"))
    for ref, accuracy, loss in zip(selection, accuracies, losses, strict=True):
        if accuracy is None or loss is None:
            raise DatasetError(
                f"{ref.member} has no validation accuracy",
                expected="one, by which greedy soups choose",
                fix="Take classifiers that were trained with a validation split, or another method.",
            )
    epochs = table.column("epoch").to_pylist()
    return sorted(range(len(selection)), key=lambda i: (-accuracies[i], losses[i], selection[i].member, epochs[i]))
