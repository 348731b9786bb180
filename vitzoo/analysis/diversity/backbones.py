"""Compare backbones by layer: their distances, their moves from the parent, their norms and spectra.

Distances are streamed by `vitzoo.weights.distances`, with the starting weights of the members among the checkpoints.
Products of two moves follow from those distances. Norms and spectra take one member at a time. No head is read,
because heads of different members have different shapes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64

from vitzoo.errors import SelectionError
from vitzoo.ids import MemberRef
from vitzoo.tables.catalogue import Catalogue
from vitzoo.weights.index import IndexEntry
from vitzoo.weights.population import PopulationWeights

WHOLE = ""  # the layer's name of the whole backbone


@dataclass(frozen=True, eq=False)
class Backbones:
    """Measures of the backbones of some checkpoints. Made by `compare_backbones`.

    Args:
        layers: The whole backbone, ``""``, and its layers.
        squares: Squared L2 distances ``[layers, members + starts, members + starts]``.
        starts: Row of each member's starting weights in ``squares``; -1 if they do not exist.
        norms: L2 norms.
        spectral_norms: Mean of the largest singular values of the layer's matrices; NaN for a layer without matrices.
        stable_ranks: Mean of the matrices' stable ranks: squared Frobenius norm over squared spectral norm, from 1.
    """

    layers: tuple[str, ...]
    squares: Float64[np.ndarray, "layers rows rows"]
    starts: tuple[int, ...]
    norms: Float64[np.ndarray, "layers members"]
    spectral_norms: Float64[np.ndarray, "layers members"]
    stable_ranks: Float64[np.ndarray, "layers members"]

    @cached_property
    def moves(self) -> Float64[np.ndarray, "layers members"]:
        """The L2 distance of each member from its starting weights; NaN if they do not exist."""
        return np.stack([_move_squares(squares, self.starts) for squares in self.squares]) ** 0.5

    def iter_pairs(self) -> Iterator[tuple[str, str, Float64[np.ndarray, "members members"]]]:
        """Iterate over the measures of pairs, with their layer.

        - ``l2``: L2 distance of the weights, from 0.
        - ``relative_l2``: that distance over the mean of both norms, 0 to 2.
        - ``cosine``: one minus the cosine of the weights, 0 to 2; larger is less alike.
        - ``move_l2``: L2 distance of both moves from the starting weights; inside a family it is ``l2``.
        - ``move_cosine``: cosine of both moves, -1 to 1; larger is more alike.
        - ``norm_gap``, ``move_gap``, ``spectral_norm_gap``, ``stable_rank_gap``: absolute differences of `norms`,
          `moves`, `spectral_norms` and `stable_ranks`.
        """
        count = len(self.starts)
        for place, layer in enumerate(self.layers):
            between, norms = self.squares[place, :count, :count], self.norms[place]
            l2 = np.sqrt(between)
            yield "l2", layer, l2
            yield "relative_l2", layer, _divide(l2, (norms[:, None] + norms) / 2)
            gaps = norms[:, None] - norms
            # |a - b|^2 = (|a| - |b|)^2 + 2 |a| |b| (1 - cos), without the cancellation of 1 - cos.
            cosine = _divide(between - gaps**2, 2 * norms[:, None] * norms)
            yield "cosine", layer, np.clip(cosine, 0, 2)
            yield from self._iter_moves(place, layer, l2)
            for name, values in (
                ("norm_gap", norms),
                ("move_gap", self.moves[place]),
                ("spectral_norm_gap", self.spectral_norms[place]),
                ("stable_rank_gap", self.stable_ranks[place]),
            ):
                if not np.isnan(values).all():
                    yield name, layer, np.abs(values[:, None] - values)

    def _iter_moves(
        self, place: int, layer: str, l2: Float64[np.ndarray, "members members"]
    ) -> Iterator[tuple[str, str, Float64[np.ndarray, "members members"]]]:
        starts, squares, own = np.array(self.starts), self.squares[place], self.moves[place] ** 2
        if (starts < 0).all():
            return
        count = len(starts)
        cross = squares[:count][:, starts]
        # <a - s, b - t> = (|a - t|^2 + |s - b|^2 - |a - b|^2 - |s - t|^2) / 2
        products = (cross + cross.T - l2**2 - squares[np.ix_(starts, starts)]) / 2
        products[starts < 0] = products[:, starts < 0] = np.nan
        apart = np.sqrt(np.maximum(own[:, None] + own - 2 * products, 0))
        yield "move_l2", layer, np.where((starts[:, None] == starts) & (starts >= 0), l2, apart)
        lengths = np.sqrt(own)
        yield "move_cosine", layer, np.clip(_divide(products, lengths[:, None] * lengths), -1, 1)


def compare_backbones(catalogue: Catalogue, refs: Sequence[MemberRef]) -> Backbones:
    """Read backbones and compare them. Starting weights are read, too.

    Of a Hub zoo, the weights files of the checkpoints and of their starts are downloaded. The start of a child is its
    parent's file with the digest in the child's record, or else the file of the child's epoch 0.

    Args:
        catalogue: The zoo's records and files.
        refs: The checkpoints, one a member.

    Raises:
        WeightsError: Two backbones have different tensors, or a file is damaged.
    """
    starts = [find_start(catalogue, ref) for ref in refs]
    rows = list(dict.fromkeys([*refs, *(start for start in starts if start is not None)]))
    distances = PopulationWeights(catalogue, rows).distances("l2", by="layer")
    squares = np.concatenate([np.empty((1, len(rows), len(rows))), distances.values**2])
    squares[0] = squares[1:].sum(axis=0)
    weights = PopulationWeights(catalogue, refs)
    layers = weights.index().layers
    measured = np.full((3, 1 + len(layers), len(refs)), np.nan)
    for number, (_, vector) in enumerate(weights.iter_vectors(dtype="float64")):
        measured[:, :, number] = _measure(vector, list(layers.values()))
    return Backbones(
        layers=(WHOLE, *layers),
        squares=squares,
        starts=tuple(-1 if start is None else rows.index(start) for start in starts),
        norms=measured[0],
        spectral_norms=measured[1],
        stable_ranks=measured[2],
    )


def find_start(catalogue: Catalogue, ref: MemberRef) -> MemberRef | None:
    """Find the weights that a member started from; None if no file has them."""
    member, parent = ref.member, ref.member.parent_id
    if parent in catalogue.member_ids:
        digest = catalogue.member_record(member).parent_sha256
        saved = catalogue.saved_epochs(parent)
        for weights in reversed(catalogue.member_record(parent).weights):  # the final ones first
            if weights.sha256 == digest and weights.epoch in saved:
                return MemberRef(parent, ref.zoo, weights.epoch)
    return MemberRef(member, ref.zoo, 0) if 0 in catalogue.saved_epochs(member) else None


def read_starts(catalogue: Catalogue, refs: Sequence[MemberRef]) -> tuple[PopulationWeights, list[int]]:
    """Return the starting weights of checkpoints, and the row of each checkpoint's start among them.

    Raises:
        SelectionError: The zoo has no weights that a checkpoint started from.
    """
    starts: dict[MemberRef, int] = {}
    rows = []
    for ref in refs:
        start = find_start(catalogue, ref)
        if start is None:
            raise SelectionError(
                f"The zoo has no weights that {ref} started from",
                fix=catalogue.source.how_to_widen([ref.member], epochs=0)
                or "Select children, and get their parents or their epoch 0.",
                value=str(ref),
            )
        rows.append(starts.setdefault(start, len(starts)))
    return PopulationWeights(catalogue, list(starts)), rows


def _measure(
    vector: Float64[np.ndarray, " params"], layers: Sequence[Sequence[IndexEntry]]
) -> Float64[np.ndarray, "measures layers"]:
    """Compute norm, mean spectral norm and mean stable rank of the whole backbone and of each layer."""
    squares = [sum(_square(vector[entry.span]) for entry in entries) for entries in layers]
    spectra = [[spectrum(vector, entry) for entry in entries if is_matrix(entry)] for entries in layers]
    whole = [spectrum for of_layer in spectra for spectrum in of_layer]
    means = [np.mean(of_layer, axis=0) if of_layer else (np.nan, np.nan) for of_layer in (whole, *spectra)]
    return np.vstack([np.sqrt([sum(squares), *squares]), np.transpose(means)])


def _square(values: Float64[np.ndarray, " numbers"]) -> float:
    return float(values @ values)


def is_matrix(entry: IndexEntry) -> bool:
    """Return whether a tensor is a linear map or a table of vectors; a convolution is one of its patches."""
    return entry.name.endswith(".weight") and len(entry.shape) >= 2


def spectrum(vector: Float64[np.ndarray, " params"], entry: IndexEntry) -> tuple[float, float]:
    """Compute the spectral norm and the stable rank of a matrix, from the smaller Gram matrix."""
    matrix = vector[entry.span].reshape(entry.shape[0], -1)
    if not np.isfinite(matrix).all():
        return np.nan, np.nan
    gram = matrix @ matrix.T if len(matrix) < matrix.shape[1] else matrix.T @ matrix
    largest = max(float(np.linalg.eigvalsh(gram)[-1]), 0.0)
    return largest**0.5, float(gram.trace()) / largest if largest else np.nan


def _move_squares(squares: Float64[np.ndarray, "rows rows"], starts: Sequence[int]) -> Float64[np.ndarray, " members"]:
    return np.array([squares[row, start] if start >= 0 else np.nan for row, start in enumerate(starts)])


def _divide(
    values: Float64[np.ndarray, "members members"], by: Float64[np.ndarray, "members members"]
) -> Float64[np.ndarray, "members members"]:
    """Divide, with NaN where the divisor is 0."""
    return values / np.where(by > 0, by, np.nan)
