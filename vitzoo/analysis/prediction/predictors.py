"""Entries that predict from the weights of backbones alone: ridge regression on features, and two small networks.

    entry = predict(task, "moves")
    task.score({"moves": entry})

    statistics    seven numbers of each tensor (`vitzoo.weights.representations.statistics`)
    moves         logarithm of the L2 norm of each tensor's move from the starting weights
    spectra       logarithms of spectral norm and stable rank of each matrix
    probex        ProbeX on one matrix, which inner folds choose (`vitzoo.analysis.prediction.networks`)
    transformer   a small transformer on 64 tokens of the move from the starting weights

See `vitzoo.analysis.prediction.prediction` for the task and its folds. Weights of a Hub zoo are downloaded; moves need
the parents', too.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from vitzoo.analysis.diversity.backbones import is_matrix, read_starts, spectrum
from vitzoo.analysis.prediction.networks import fit_probex, fit_transformer
from vitzoo.analysis.prediction.prediction import PredictionTask
from vitzoo.analysis.prediction.submissions import Entry
from vitzoo.errors import SelectionError, did_you_mean
from vitzoo.weights.population import PopulationWeights
from vitzoo.weights.representations.statistics import LayerStatistics
from vitzoo.zoo.selection import Selection

_SHORTEST_MOVE = 1e-12
Features = Float64[np.ndarray, "checkpoints features"]


def predict(task: PredictionTask, name: str) -> Entry:
    """Fit an entry to the train of each fold, and predict its test.

    Args:
        task: The target and the folds.
        name: One of `ENTRIES`.

    Raises:
        SelectionError: There is no such entry, a checkpoint has NaN or infinite weights, or lacks starting weights.
        WeightsError: Checkpoints have different tensors, or a file is damaged.
    """
    if name not in ENTRIES:
        raise SelectionError(f'There is no entry "{name}"', fix=did_you_mean(name, ENTRIES), value=name)
    return ENTRIES[name](task)


def read_statistics(selection: Selection) -> Features:
    """Read seven statistics of each tensor of each checkpoint.

    Source: Unterthiner et al. 2020, Predicting Neural Network Accuracy from Weights (arXiv 2002.11448), section 3.
    """
    weights = PopulationWeights(selection.catalogue, selection.refs)
    encoder = LayerStatistics(weights.index())
    return np.stack([encoder.encode(vector) for _, vector in weights.iter_vectors(dtype="float32")])


def read_moves(selection: Selection) -> Features:
    """Read the natural logarithm of the L2 norm of each tensor's move from the checkpoint's starting weights.

    The start of a child is its parent's weights. Norms below 1e-12 count as that, so a tensor that did not move has a
    finite logarithm.

    Raises:
        SelectionError: A checkpoint has no starting weights in the zoo.
    """
    before, starts = read_starts(selection.catalogue, selection.refs)
    weights = PopulationWeights(selection.catalogue, selection.refs)
    entries, rows, last = weights.index().values(), [], (-1, np.empty(0))
    for (_, vector), start in zip(weights.iter_vectors(dtype="float64"), starts, strict=True):
        if last[0] != start:
            last = start, before.vector(start, dtype="float64")
        move = vector - last[1]
        rows.append([np.linalg.norm(move[entry.span]) for entry in entries])
    return np.log(np.maximum(rows, _SHORTEST_MOVE))


def read_spectra(selection: Selection) -> Features:
    """Read the natural logarithms of the spectral norm and of the stable rank of each matrix.

    A convolution is a matrix of its patches. A matrix of zeros has no stable rank: NaN.
    """
    weights = PopulationWeights(selection.catalogue, selection.refs)
    matrices = [entry for entry in weights.index().values() if is_matrix(entry)]
    vectors = weights.iter_vectors(dtype="float64")
    with np.errstate(divide="ignore"):
        return np.log([[value for entry in matrices for value in spectrum(vector, entry)] for _, vector in vectors])


def _ridge_on(read: Callable[[Selection], Features]) -> Callable[[PredictionTask], Entry]:
    def fit(task: PredictionTask) -> Entry:
        start = time.perf_counter()
        entry = task.fit_ridge(read(task.selection))
        return replace(entry, seconds=time.perf_counter() - start)

    return fit


ENTRIES: dict[str, Callable[[PredictionTask], Entry]] = {
    "statistics": _ridge_on(read_statistics),
    "moves": _ridge_on(read_moves),
    "spectra": _ridge_on(read_spectra),
    "probex": fit_probex,
    "transformer": fit_transformer,
}
