"""Trajectory: one member's weights over its epochs, as arrays."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from vitzoo.ids import MemberId

if TYPE_CHECKING:
    from vitzoo.weights.population import Framework, Part, PopulationWeights, WeightsMatrix


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A member's weights at the selected epochs, ascending.

    Args:
        member: Whose they are.
        weights: Its checkpoints.
    """

    member: MemberId
    weights: "PopulationWeights" = field(repr=False)

    def __len__(self) -> int:
        return len(self.weights)

    @cached_property
    def epochs(self) -> Int[np.ndarray, "epochs"]:
        """Finished epochs, the final weights' too."""
        return self.weights.selection.epochs_table["epoch"].to_numpy()

    @cached_property
    def steps(self) -> Int[np.ndarray, "epochs"]:
        """Finished optimizer steps."""
        return self.weights.selection.epochs_table["step"].to_numpy()

    def tensor(self, name: str, *, dtype: Any = None, return_tensors: "Framework" = "np") -> Shaped[Any, "epochs ..."]:
        """One tensor at every epoch. As `PopulationWeights.tensor`."""
        return self.weights.tensor(name, dtype=dtype, return_tensors=return_tensors)

    def matrix(self, *, part: "Part" = "all", dtype: Any = None, return_tensors: "Framework" = "np") -> "WeightsMatrix":
        """The weights, ``[epochs, params]``. As `PopulationWeights.matrix`, but with the head, which is one's own."""
        return self.weights.matrix(part=part, dtype=dtype, return_tensors=return_tensors)

    def norms(self, *, part: "Part" = "all") -> Float[np.ndarray, "epochs"]:
        """L2 norm of the weights at each epoch."""
        return np.array([np.linalg.norm(vector) for _, vector in self._vectors(part)])

    def step_norms(self, *, part: "Part" = "all") -> Float[np.ndarray, "steps"]:
        """L2 norm of each move from one selected epoch to the next; one less than there are epochs."""
        before, norms = None, []
        for _, vector in self._vectors(part):
            if before is not None:
                norms.append(np.linalg.norm(vector - before))
            before = vector
        return np.array(norms)

    def _vectors(self, part: "Part"):
        return self.weights.iter_vectors(part=part, dtype="float64")


def trajectories(weights: "PopulationWeights") -> Iterator[Trajectory]:
    """See `PopulationWeights.trajectories`."""
    selection = weights.selection
    ascending = sorted(selection.refs, key=lambda ref: (ref.epoch is None, ref.epoch))
    for member in selection.ids:
        its = tuple(ref for ref in ascending if ref.member == member)
        yield Trajectory(member, type(weights)(replace(selection, refs=its)))
