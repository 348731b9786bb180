"""Weights of a selection as features, with a target and groups, for scikit-learn. See `vitzoo.zoo.selection`."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from vitzoo.errors import RepresentationError, SelectionError
from vitzoo.ids import MemberRef
from vitzoo.notebook import Shown
from vitzoo.tables.catalogue import Catalogue
from vitzoo.weights.learning.dataset import NO_CLASS, WeightsDataset
from vitzoo.weights.population import Part, PopulationWeights

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class FeaturesAndTarget(Shown):
    """Features, target, groups and ids of checkpoints; ``X, y, groups, ids = ...`` unpacks them.

    Args:
        X: Features of each checkpoint.
        y: The target: numbers, or texts of a column of texts.
        groups: First member of each checkpoint's init group, such as ``pt-0``, which no split may divide.
        ids: The checkpoints, such as ``pt-12/ft-3@7``.
    """

    X: Float[np.ndarray, "checkpoints features"]
    y: Shaped[np.ndarray, " checkpoints"]
    groups: Shaped[np.ndarray, " checkpoints"]
    ids: Shaped[np.ndarray, " checkpoints"]

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.X, self.y, self.groups, self.ids))


def features_and_target(
    catalogue: Catalogue,
    refs: Sequence[MemberRef],
    target: str,
    *,
    representation: str,
    part: Part,
    missing: str,
) -> FeaturesAndTarget:
    """Read features and a target, as `vitzoo.Selection.to_xy` does."""
    if missing not in ("refuse", "drop"):
        raise SelectionError(f'missing is "{missing}"', expected="refuse or drop", value=missing)
    if representation not in ("flat", "statistics"):
        raise RepresentationError(
            f'representation is "{representation}"',
            expected="flat or statistics, which have a row of features",
            fix="Use vitzoo.weights.learning.dataset.WeightsDataset for others.",
            value=representation,
        )
    data = WeightsDataset(PopulationWeights(catalogue, refs), representation, part=part, targets=target)
    values, names = data.targets[target].numpy(), data.classes.get(target)
    known = values != NO_CLASS if names is not None else ~np.isnan(values.astype(np.float64))
    rows = np.flatnonzero(known)
    if len(rows) < len(values):
        first = refs[int(np.flatnonzero(~known)[0])].member
        counts = f"{len(values) - len(rows)} of {len(values)} checkpoints have no {target}"
        if missing == "refuse" or not len(rows):
            raise SelectionError(
                f"{counts}, such as those of {first}",
                fix='Select members that have it, as with head_role="classifier", or give missing="drop".',
                value=target,
            )
        _log.warning("%s and are dropped, such as those of %s.", counts, first)
    families = catalogue.init_families
    chosen: list[dict[str, Any]] = [data[row] for row in rows.tolist()]
    return FeaturesAndTarget(
        X=np.stack([item["weights"].numpy() for item in chosen]),
        y=values[rows] if names is None else np.array(names)[values[rows]],
        groups=np.array([families[str(refs[row].member)] for row in rows.tolist()]),
        ids=np.array([item["ref"] for item in chosen]),
    )
