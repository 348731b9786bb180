"""Merge checkpoints into one model: soups, averages over epochs, Model Stock and task arithmetic.

    soup = merge(zoo.select("id=pt-4/ft-0|pt-4/ft-1"), method="greedy")
    soup.evaluate(part="test").accuracy
    soup.save_pretrained("soup")          # a folder for transformers, with a card

Sums are in float64, streamed from the files, and rounded once to the files' dtype (see `vitzoo.weights.combine`). Every
tensor is merged, the head and the positions too. See `vitzoo.analysis.merging.merged` for the result, and
`vitzoo.analysis.merging.soups` for comparisons over many groups.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64

from vitzoo.analysis.merging.baselines import order_by_validation
from vitzoo.analysis.merging.compatible import check_compatible, check_one_data_set, warn_of_heads
from vitzoo.analysis.merging.merged import Merged
from vitzoo.errors import SelectionError, did_you_mean
from vitzoo.ids import MemberRef
from vitzoo.tables.catalogue import Catalogue
from vitzoo.weights.combine import combine
from vitzoo.weights.index import WeightsIndex
from vitzoo.weights.population import PopulationWeights
from vitzoo.zoo.member import Member
from vitzoo.zoo.selection import Selection, check_selection

_METHODS = ("uniform", "weighted", "greedy", "greedy-strict", "stock", "epochs", "task-arithmetic")
_OPTIONS = {"weights": "weighted", "last": "epochs", "scale": "task-arithmetic"}


def merge(
    selection: Selection,
    *,
    method: str | None = None,
    weights: Sequence[float] | None = None,
    last: int | None = None,
    scale: float | None = None,
    data: Mapping[str, str | PathLike[str]] | None = None,
    device: Any = "cpu",
) -> Merged:
    """Merge checkpoints of one architecture, with equal heads and classes, into one model.

    Of a Hub zoo, the weights of the ingredients and of their common epoch 0, if it is used, are downloaded.

    Args:
        selection: The checkpoints.
        method: How to merge, ``uniform`` by default, or ``weighted`` if there are weights:

            - ``uniform``: their mean.
            - ``weighted``: their mean with ``weights``.
            - ``greedy``: candidates by falling validation accuracy, then rising validation loss, then id; each is kept
              if the validation accuracy of the mean does not fall (the rule of the paper). Test data are not read.
            - ``greedy-strict``: kept only if it rises (the rule of the published code).
            - ``stock``: Model Stock, between their common epoch 0 and their mean, by tensor.
            - ``epochs``: the mean of one member's ``last`` epochs, up to the selected checkpoint.
            - ``task-arithmetic``: their common epoch 0, and ``scale`` times the sum of their moves from it.
        weights: Weight of each checkpoint in the selection's order; they are divided by their sum.
        last: Number of epochs.
        scale: Scale of the moves.
        data: Local folders of data sets by name, which greedy soups need for validation.
        device: Where greedy soups are evaluated.

    Raises:
        SelectionError: The selection is empty, names a checkpoint twice, or mixes networks, roles of heads, orders of
            classes, image sizes or preparations of inputs; an option is missing or does not fit the method; weights sum
            to 0; or there is no common epoch 0.
        EpochNotFoundError: An epoch was not saved.
        WeightsError: A weight is NaN or infinite.
        DatasetError: A greedy soup has no validation data.

    Source: Wortsman et al. 2022, Model Soups, section 2 and recipe 1 (uniform, greedy) with its repository
        mlfoundations/model-soups (greedy-strict); Jang et al. 2024, Model Stock: All We Need Is
        Just a Few Fine-Tuned Models, section 4; Ilharco et al. 2023, Editing
        Models with Task Arithmetic, section 2.

    Example:
        >>> from vitzoo import Zoo
        >>> merge(Zoo("zoo").select(id="pt-0/ft-0"), method="epochs", last=2)
        Merged(method=epochs, ingredients=..., parameters=...)
    """
    method = _parse_method(method, {"weights": weights, "last": last, "scale": scale})
    check_selection(selection, each="checkpoint")
    refs, catalogue = selection.refs, selection.catalogue
    if method == "epochs":
        refs = _last_epochs(selection, last)
    check_compatible(catalogue, refs)
    warn_of_heads(catalogue, refs, stacklevel=3)
    if method in ("greedy", "greedy-strict"):
        return _merge_greedily(selection, method, data=data, device=device)
    if method == "stock":
        return _merge_to_stock(catalogue, refs)
    if method == "task-arithmetic":
        if scale is None or not np.isfinite(scale):
            raise SelectionError(f"scale is {scale}", expected="a finite number", value=scale)
        shares, rest = np.full(len(refs), float(scale)), 1 - float(scale) * len(refs)
        return _merge_linearly(catalogue, refs, method, shares, anchor=find_anchor(catalogue, refs), rest=rest)
    shares = np.ones(len(refs)) if weights is None else _parse_weights(weights, refs)
    return _merge_linearly(catalogue, refs, method, shares, divisor=float(shares.sum()))


def find_anchor(catalogue: Catalogue, refs: Sequence[MemberRef]) -> MemberRef:
    """Return epoch 0 of the first member, if all members started from its weights, head included.

    Raises:
        SelectionError: They did not.
        EpochNotFoundError: Epoch 0 was not saved.
    """
    starts = [MemberRef(member, refs[0].zoo, 0) for member in dict.fromkeys(ref.member for ref in refs)]
    for start in starts:
        if 0 not in catalogue.saved_epochs(start.member):
            raise catalogue.no_epoch(start.member, 0)
    digests = catalogue.epoch_rows(starts).column("weights_id").to_pylist()
    for start, digest in zip(starts, digests, strict=True):
        if digest is None or digest != digests[0]:
            raise SelectionError(
                f"{starts[0].member} and {start.member} did not start from the same weights",
                expected="one common epoch 0, with its head",
                fix="Select children of one parent with one head_type and one head_seed.",
                value=str(start.member),
            )
    return starts[0]


def _parse_method(method: str | None, options: Mapping[str, object]) -> str:
    if method is None:
        method = "uniform" if options["weights"] is None else "weighted"
    if method not in _METHODS:
        raise SelectionError(f'method is "{method}"', fix=did_you_mean(method, _METHODS), value=method)
    for name, value in options.items():
        needed = method == _OPTIONS[name]
        if needed and value is None:
            raise SelectionError(f'The method "{method}" was given no {name}', fix=f"Give {name}=.", value=method)
        if not needed and value is not None:
            raise SelectionError(
                f'The method "{method}" was given {name}',
                expected=f"{name} for the method {_OPTIONS[name]} alone",
                fix=f"Leave out {name}, or choose that method.",
                value=value,
            )
    return method


def _last_epochs(selection: Selection, last: int | None) -> tuple[MemberRef, ...]:
    """Return the last epochs of a selection's only member, up to its last selected checkpoint."""
    if len(selection.ids) != 1:
        raise SelectionError(
            f"The selection has {len(selection.ids)} members", expected="one, for the method epochs", value=selection
        )
    end = max(selection.epochs_table.column("epoch").to_pylist())
    if isinstance(last, bool) or not isinstance(last, int) or not 1 <= last <= end + 1:
        raise SelectionError(f"last is {last}", expected=f"1 to {end + 1}, the epochs up to {end}", value=last)
    catalogue, member, saved = selection.catalogue, selection.ids[0], selection.catalogue.saved_epochs
    final = max(catalogue.epoch_places[member])
    refs = []
    for epoch in range(end - last + 1, end + 1):
        if epoch not in saved(member) and not (epoch == final and None in saved(member)):
            raise catalogue.no_epoch(member, epoch)
        refs.append(MemberRef(member, selection[0].zoo, epoch if epoch in saved(member) else None))
    return tuple(refs)


def _parse_weights(weights: Sequence[float], refs: Sequence[MemberRef]) -> Float64[np.ndarray, " members"]:
    shares = np.asarray(weights, np.float64)
    if shares.shape != (len(refs),):
        raise SelectionError(f"weights has shape {list(shares.shape)}", expected=f"{len(refs)} numbers", value=weights)
    total = shares.sum()
    if not np.isfinite(total) or abs(total) <= 1e-12 * np.abs(shares).sum():
        raise SelectionError(
            f"weights sum to {total:g}", expected="finite numbers whose sum is not 0", value=list(weights)
        )
    return shares


def _merge_linearly(
    catalogue: Catalogue,
    refs: Sequence[MemberRef],
    method: str,
    shares: Float64[np.ndarray, " members"],
    *,
    divisor: float = 1.0,
    anchor: MemberRef | None = None,
    rest: float = 0.0,
) -> Merged:
    """Merge by one coefficient for each ingredient, and ``rest`` for the anchor."""
    files = refs if anchor is None else (*refs, anchor)
    coefficients = shares if anchor is None else np.append(shares, rest)
    index, vector = _combine(catalogue, files, lambda index: np.tile(coefficients, (len(index), 1)), divisor=divisor)
    return Merged(
        method=method,
        candidates=tuple(refs),
        ingredients=tuple(refs),
        anchor=anchor,
        shares=tuple((shares / divisor).tolist()),
        details=pd.DataFrame(_named(catalogue, refs)).assign(share=shares / divisor),
        vector=vector,
        index=index,
        catalogue=catalogue,
    )


def _combine(
    catalogue: Catalogue,
    refs: Sequence[MemberRef],
    coefficients: Callable[[WeightsIndex], Float64[np.ndarray, "tensors members"]],
    *,
    divisor: float = 1.0,
) -> tuple[WeightsIndex, Float[np.ndarray, " params"]]:
    weights = PopulationWeights(catalogue, refs)
    index = weights.index("all")
    dtype = weights.dtype(part="all")
    return index, combine(weights.files, index, coefficients(index), divisor=divisor, dtype=dtype)


def _named(catalogue: Catalogue, refs: Sequence[MemberRef]) -> dict[str, list[Any]]:
    epochs = catalogue.epoch_rows(refs).column("epoch").to_pylist()
    return {"id": [str(ref.member) for ref in refs], "epoch": epochs}


def _merge_greedily(
    selection: Selection, method: str, *, data: Mapping[str, str | PathLike[str]] | None, device: Any
) -> Merged:
    """Add one candidate after the other, and keep it by the validation accuracy of the mean."""
    from vitzoo.weights.models import ReusedModel  # torch and transformers

    catalogue = selection.catalogue
    check_one_data_set(catalogue, selection.refs)
    order = order_by_validation(selection)
    member = Member(catalogue, selection[0].member)
    split = member.load_part("val", data=data)
    weights = PopulationWeights(catalogue, selection.refs)
    index, dtype = weights.index("all"), weights.dtype(part="all")
    reused = ReusedModel(catalogue.config_file(selection[0]), index, dtype=dtype, device=device)
    kept: list[int] = []
    best, merged, accuracies = -1.0, np.empty(0, dtype), []
    for row in order:
        coefficients = np.zeros((len(index), len(selection)))
        coefficients[:, [*kept, row]] = 1.0
        trial = combine(weights.files, index, coefficients, divisor=len(kept) + 1.0, dtype=dtype)
        accuracy = member.evaluate_model(reused.with_vector(trial), split).accuracy
        is_kept = accuracy > best if method == "greedy-strict" else accuracy >= best
        if is_kept:
            kept, best, merged = [*kept, row], accuracy, trial
        accuracies.append((accuracy, is_kept))
    rows = catalogue.epoch_rows([selection[row] for row in order])
    return Merged(
        method=method,
        candidates=selection.refs,
        ingredients=tuple(selection[row] for row in kept),
        anchor=None,
        shares=(1 / len(kept),) * len(kept),
        details=pd.DataFrame(
            {
                "id": rows.column("id").to_pylist(),
                "epoch": rows.column("epoch").to_pylist(),
                "val_accuracy": rows.column("val_accuracy").to_pylist(),
                "soup_val_accuracy": [accuracy for accuracy, _ in accuracies],
                "kept": [is_kept for _, is_kept in accuracies],
            }
        ),
        vector=merged,
        index=index,
        catalogue=catalogue,
    )


def _merge_to_stock(catalogue: Catalogue, refs: Sequence[MemberRef]) -> Merged:
    """Merge by Model Stock: by tensor, anchor + t (mean - anchor) with t = k cos / ((k - 1) cos + 1)."""
    anchor, count = find_anchor(catalogue, refs), len(refs)
    weights = PopulationWeights(catalogue, [*refs, anchor])
    names = list(weights.index("all"))
    cosines = np.full(len(names), np.nan)
    if count > 1:
        squares = weights.distances(by="tensor", part="all").values ** 2
        moves = squares[:, :count, count]
        products = (moves[:, :, None] + moves[:, None, :] - squares[:, :count, :count]) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            matrices = products / np.sqrt(moves[:, :, None] * moves[:, None, :])
        cosines = matrices[:, *np.triu_indices(count, 1)].mean(axis=1)
    # A tensor that did not move in one of them has no cosine: its mean is taken.
    with np.errstate(divide="ignore", invalid="ignore"):
        unclipped = np.where(np.isnan(cosines), 1.0, count * cosines / ((count - 1) * cosines + 1))
    ratios = np.clip(np.where(cosines < 0, 0.0, unclipped), 0.0, 1.0)
    clipped = cosines < 0
    if clipped.any():
        warnings.warn(
            f"{int(clipped.sum())} of {len(names)} tensors have moves with a negative cosine: they stay at epoch 0.",
            stacklevel=3,
        )

    def coefficients(index: WeightsIndex) -> Float64[np.ndarray, "tensors members"]:
        return np.hstack([np.tile(ratios[:, None] / count, (1, count)), 1 - ratios[:, None]])

    index, vector = _combine(catalogue, (*refs, anchor), coefficients)
    sizes = np.array([entry.size for entry in index.values()])
    return Merged(
        method="stock",
        candidates=tuple(refs),
        ingredients=tuple(refs),
        anchor=anchor,
        shares=(float(ratios @ sizes / sizes.sum()) / count,) * count,
        details=pd.DataFrame({"tensor": names, "cosine": cosines, "ratio": ratios, "clipped": clipped}),
        vector=vector,
        index=index,
        catalogue=catalogue,
    )
