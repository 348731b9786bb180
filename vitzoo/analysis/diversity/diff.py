"""Compare two checkpoints: their records, their weights by layer, and their predictions on shared test data.

    print(diff(zoo["pt-12/ft-3"], zoo["pt-12/ft-4"]).layers)

See `vitzoo.analysis.behaviour.behaviour` and `vitzoo.weights.distances` for many checkpoints.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from jaxtyping import Float64

from vitzoo.analysis.behaviour import pairs
from vitzoo.analysis.behaviour.behaviour import Behaviour, behaviour
from vitzoo.architectures import of_tensors
from vitzoo.errors import DatasetError, MissingPackageError, SelectionError, shown
from vitzoo.ids import MemberRef
from vitzoo.notebook import Shown
from vitzoo.weights.population import PopulationWeights
from vitzoo.zoo.member import Member
from vitzoo.zoo.selection import Selection

_NOT_COMPARED = ("format", "id", "weights", "extra")  # of a record


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class LayerDifference(Shown):
    """Difference of the tensors of a layer that both checkpoints have, in float64.

    Args:
        layer: Name of the layer; ``all`` for the whole.
        parameters: Number of compared weights.
        l2: Norm of the difference, from 0.
        relative_l2: The same, divided by the norm of the first checkpoint's weights; NaN if that is 0.
        cosine: Cosine of the weights, -1 to 1; larger is more alike; NaN if one of them is 0.
    """

    layer: str
    parameters: int
    l2: float
    relative_l2: float
    cosine: float


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class PredictionDifference(Shown):
    """Comparison of the predictions of two checkpoints for the same samples.

    Args:
        dataset: Name of the data set, whose test part was predicted.
        samples: Number of samples.
        accuracies: Accuracy of both, 0 to 1.
        agreement: Share of equal predictions, 0 to 1.
        kappa: Cohen's kappa of the predictions; NaN if chance explains all.
        error_consistency: Cohen's kappa of right and wrong; NaN likewise.
    """

    dataset: str
    samples: int
    accuracies: tuple[float, float]
    agreement: float
    kappa: float
    error_consistency: float


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Difference(Shown):
    """Difference of two checkpoints. Made by `diff`.

    Args:
        refs: The checkpoints.
        records: Fields of the members' records that differ, with both values: factors, lineage, provenance.
        metrics: Fields of the epochs' records that differ, likewise.
        layers: The compared weights by layer, ``all`` last; none if no tensor has one name and shape in both.
        unmatched: Tensors that one of them lacks or has in another shape.
        predictions: Comparison of the predictions; None if there is none.
        reason: Reason why predictions were not compared; None if they were.
    """

    refs: tuple[MemberRef, MemberRef]
    records: Mapping[str, tuple[Any, Any]]
    metrics: Mapping[str, tuple[Any, Any]]
    layers: tuple[LayerDifference, ...]
    unmatched: tuple[str, ...]
    predictions: PredictionDifference | None
    reason: str | None

    def _table_rows(self) -> list[dict[str, Any]]:
        differing = [*self.records.items(), *self.metrics.items()]
        rows = [{"": name, "first": one, "second": two} for name, (one, two) in differing]
        return rows + [{"": each.layer, "first": "l2", "second": each.l2} for each in self.layers]


def diff(
    first: Member,
    second: Member,
    *,
    epochs: tuple[int | None, int | None] = (None, None),
    data: Mapping[str, str | PathLike[str]] | None = None,
    cache: str | PathLike[str] | None = None,
) -> Difference:
    """Compare two checkpoints, of one zoo or of two.

    Args:
        first: A member.
        second: Another member, or the same one.
        epochs: Finished epochs of each; None for the final weights.
        data: Local folders of data sets by name, as `vitzoo.images.load_images` takes them.
        cache: As `vitzoo.analysis.behaviour.behaviour.behaviour`.

    Returns:
        The difference. Predictions are compared if both are classifiers of the same test samples and classes.

    Raises:
        EpochNotFoundError: A member has no weights of its epoch.
        WeightsError, RecordError, HubError: A file is damaged, or the Hub cannot be reached.

    Example:
        >>> from vitzoo import Zoo
        >>> member = Zoo("zoo")["pt-0/ft-0"]
        >>> 0 <= diff(member, member, epochs=(None, 1)).predictions.agreement <= 1
        True
    """
    members = (first, second)
    for member, epoch in zip(members, epochs, strict=True):
        if epoch not in member.catalogue.saved_epochs(member.id):
            raise member.catalogue.no_epoch(member.id, epoch)
    one, two = (
        MemberRef(member.id, member.catalogue.source.name, epoch) for member, epoch in zip(members, epochs, strict=True)
    )
    layers, unmatched = _compare_weights(*(_read(member, ref) for member, ref in ((first, one), (second, two))))
    predictions, reason = None, None
    try:
        predictions = _compare_predictions(members, (one, two), data=data, cache=cache)
    except (SelectionError, DatasetError, MissingPackageError) as error:
        reason = error.problem
    return Difference(
        refs=(one, two),
        records=_differing(*(_fields(member.record) | member.record.extra for member in members)),
        metrics=_differing(
            *(_fields(record) | record.extra for record in (first.metrics_at(one.epoch), second.metrics_at(two.epoch)))
        ),
        layers=layers,
        unmatched=unmatched,
        predictions=predictions,
        reason=reason,
    )


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__ if name not in _NOT_COMPARED}


def _differing(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the values that differ, by name; None where one record has no such name."""
    names = dict.fromkeys([*one, *two])
    return {name: (one.get(name), two.get(name)) for name in names if one.get(name) != two.get(name)}


def _read(member: Member, ref: MemberRef) -> dict[str, Float64[np.ndarray, "..."]]:
    """Read all tensors of a checkpoint in float64, by their names on disk."""
    weights = PopulationWeights(member.catalogue, [ref])
    return weights.index("all").unflatten(weights.vector(0, part="all", dtype="float64"))


def _compare_weights(
    one: Mapping[str, np.ndarray], two: Mapping[str, np.ndarray]
) -> tuple[tuple[LayerDifference, ...], tuple[str, ...]]:
    """Return the differences by layer, and the tensors that were not compared."""
    shared = [name for name in one if name in two and one[name].shape == two[name].shape]
    layers: dict[str, list[str]] = {}
    for name in shared:
        layers.setdefault(of_tensors(one).layer_name(name), []).append(name)
    if shared:
        layers["all"] = shared
    return (
        tuple(_compare_layer(layer, names, one, two) for layer, names in layers.items()),
        tuple(name for name in dict.fromkeys([*one, *two]) if name not in set(shared)),
    )


def _compare_layer(
    layer: str, names: list[str], one: Mapping[str, np.ndarray], two: Mapping[str, np.ndarray]
) -> LayerDifference:
    left, right = (np.concatenate([tensors[name].ravel() for name in names]) for tensors in (one, two))
    l2, norm, other = (float(np.linalg.norm(vector)) for vector in (left - right, left, right))
    return LayerDifference(
        layer=layer,
        parameters=len(left),
        l2=l2,
        relative_l2=l2 / norm if norm else float("nan"),
        cosine=float(np.clip(left / norm @ (right / other), -1, 1)) if norm and other else float("nan"),
    )


def _compare_predictions(
    members: tuple[Member, Member], refs: tuple[MemberRef, MemberRef], **options: Any
) -> PredictionDifference:
    """Compare predictions on the test data.

    Raises:
        SelectionError, DatasetError: The checkpoints cannot be compared; the message says why.
    """
    for name in ("dataset", "dataset_fingerprint"):
        values = [getattr(member.record, name) for member in members]
        if values[0] != values[1]:
            raise SelectionError(
                f"They have other test data: {name} is {shown(values[0])} and {shown(values[1])}", value=values[1]
            )
    roots = {os.path.realpath(member.catalogue.source.root) for member in members}
    groups = [refs] if len(roots) == 1 else [(ref,) for ref in refs]
    found: list[Behaviour] = []
    for member, group in zip(members, groups, strict=False):
        selection = Selection(catalogue=member.catalogue, refs=tuple(group), left_out={})
        found.append(behaviour(selection, keep=(), progress=False, **options))
    classes = {each.classes for each in found}
    if len(classes) > 1:
        raise SelectionError("They have other classes", expected="the same", value=classes)
    predictions = np.concatenate([each.predictions for each in found])
    correct = predictions == found[0].labels
    return PredictionDifference(
        dataset=str(members[0].record.dataset),
        samples=predictions.shape[1],
        accuracies=(float(correct[0].mean()), float(correct[1].mean())),
        agreement=float(pairs.agreement(predictions)[0, 1]),
        kappa=float(pairs.kappa(predictions, classes=len(found[0].classes))[0, 1]),
        error_consistency=float(pairs.error_consistency(correct)[0, 1]),
    )
