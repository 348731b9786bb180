"""Compare the features of members by centred kernel alignment (CKA), without the bias of few samples."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Float64

from vitzoo.errors import DatasetError

FEWEST_SAMPLES = 4  # the estimator divides by n (n - 3)
_BLOCK = 2**16  # pairs of samples at once: sums of float32 products stay exact to seven digits


def cka(features: Iterable[Float[np.ndarray, "_ _"]]) -> Float64[np.ndarray, "members members"]:
    """Compute debiased linear CKA of all pairs of members, up to 1; larger is more alike.

    Unrelated features have a value near 0, which may be slightly negative. A rotation and a scale of one member's
    features change nothing. A member with constant features has NaN.

    Args:
        features: ``[samples, hidden]`` of each member, of the same samples in the same order; widths may differ. They
            are read one after the other, so they may be a generator. Half of a ``[samples, samples]`` matrix is kept of
            each.

    Returns:
        A symmetric matrix, 1 on the diagonal.

    Raises:
        DatasetError: There are fewer than 4 samples, or members have different numbers of them.

    Source: Song et al. 2007, Supervised Feature Selection via Dependence Estimation, equation 4; Kornblith et al. 2019,
        Similarity of Neural Network Representations Revisited, section 3.
    """
    rows: list[np.ndarray] = []
    samples = None
    for member in features:
        if len(member) < FEWEST_SAMPLES:
            raise DatasetError(f"CKA of {len(member)} samples", expected=f"{FEWEST_SAMPLES} or more")
        if samples is not None and len(member) != samples:
            raise DatasetError(f"Features of {len(member)} and of {samples} samples", expected="the same samples")
        samples = len(member)
        rows.append(_unit_gram(member))
    if not rows:
        return np.empty((0, 0))
    stacked = np.stack(rows)
    values = np.zeros((len(rows), len(rows)))
    for start in range(0, stacked.shape[1], _BLOCK):
        block = stacked[:, start : start + _BLOCK]
        values += block @ block.T
    values[np.diag_indices_from(values)] = np.where(np.isnan(values.diagonal()), np.nan, 1.0)
    return values


def _unit_gram(features: Float[np.ndarray, "samples hidden"]) -> Float[np.ndarray, " pairs"]:
    """Return the U-centred Gram matrix above the diagonal at norm 1, in the features' precision; NaN if it is 0."""
    precision = np.float64 if features.dtype == np.float64 else np.float32
    above = np.triu_indices(len(features), 1)
    if not np.ptp(features, axis=0).any():
        return np.full(len(above[0]), np.nan, dtype=precision)
    # Centre before the product: a large mean would take the product's digits.
    centred = (features - features.mean(axis=0, dtype=np.float64)).astype(precision)
    gram = (centred @ centred.T).astype(np.float64)
    count = len(gram)
    np.fill_diagonal(gram, 0.0)
    means = gram.sum(axis=0) / (count - 2)
    gram -= means
    gram -= means[:, None]
    gram += means.sum() / (count - 1)
    packed = gram[above]
    return (packed / np.linalg.norm(packed)).astype(precision)
