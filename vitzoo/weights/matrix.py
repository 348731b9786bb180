"""The arrays that weights are read into, and the matrix with its index that a reader gives back.

torch is imported where its tensors are asked for.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vitzoo.errors import WeightsError
from vitzoo.ids import MemberRef
from vitzoo.weights.index import WeightsIndex

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False, slots=True)
class WeightsMatrix:
    """The weights of members as rows.

    Args:
        values: ``[members, params]``, numpy's or torch's.
        index: Where each tensor lies in a row.
        refs: The members.
    """

    values: Any
    index: WeightsIndex
    refs: tuple[MemberRef, ...]

    def state_dict(self, row: int) -> "dict[str, Tensor]":
        """The tensors of a row by their names in a model, views, for ``model.load_state_dict(..., strict=False)``."""
        from vitzoo.weights.tensors import state_dict

        return state_dict(self.index, self.values[row])


def allocated(shape: tuple[int, ...], out: Any, dtype: np.dtype) -> np.ndarray:
    """A new array, or the one that was given.

    Raises:
        WeightsError: It does not fit.
    """
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray):
        raise WeightsError(f"out is a {type(out).__name__}", expected="a numpy array (tensor.numpy())")
    if out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous or not out.flags.writeable:
        raise WeightsError(
            f"out is {out.dtype} {list(out.shape)}", expected=f"a C-contiguous, writable array of {dtype} {list(shape)}"
        )
    return out


def returned(values: np.ndarray, return_tensors: str) -> Any:
    """The array, or for ``pt`` a tensor of its memory."""
    if return_tensors == "np":
        return values
    from vitzoo.weights.tensors import from_numpy

    return from_numpy(values)
