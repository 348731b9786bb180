"""WeightsIndex: lay a member's tensors out in one flat vector, and split the vector into tensors again.

The order is the network's: embeddings, blocks by number, final norm, head, and each weight before its bias. See
`vitzoo.tensors.header` for offsets in a file, and `vitzoo.architectures` for the order. numpy only.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from jaxtyping import Shaped

from vitzoo.architectures import describe_mismatch, disk_name, is_head, of_tensors
from vitzoo.errors import WeightsError, did_you_mean
from vitzoo.tensors.dtypes import float_array


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """Name on disk and shape of a tensor, and the offset of its first number in a flat vector."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """The number of its values."""
        return prod(self.shape)

    @property
    def span(self) -> slice:
        """The slice of its values in the flat vector."""
        return slice(self.offset, self.offset + self.size)


class WeightsIndex(Mapping[str, IndexEntry]):
    """Names, shapes and offsets of tensors that follow each other in a flat vector.

    A mapping from names on disk to entries; a look-up takes names in memory too.

    Args:
        shapes: Names on disk or in memory to shapes, in any order.

    Example:
        >>> index = WeightsIndex({"classifier.bias": (4,), "classifier.weight": (4, 8)})
        >>> [(entry.name, entry.offset) for entry in index.values()], index.size
        ([('classifier.weight', 0), ('classifier.bias', 32)], 36)
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]):
        self.architecture = of_tensors(shapes)
        shapes = {self.architecture.disk_name(name): shape for name, shape in shapes.items()}
        self._entries: dict[str, IndexEntry] = {}
        offset = 0
        for name in self.architecture.network_order(shapes):
            entry = self._entries[name] = IndexEntry(name, tuple(shapes[name]), offset)
            offset += entry.size
        self.size = offset

    def __repr__(self) -> str:
        return f"WeightsIndex({len(self)} tensors, {self.size:,} parameters)"

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and disk_name(name) in self._entries

    def __getitem__(self, name: str) -> IndexEntry:
        entry = self._entries.get(disk_name(name))
        if entry is None:
            raise WeightsError(f'There is no tensor "{name}"', fix=did_you_mean(name, self._entries))
        return entry

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._entries)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the entry of a tensor, or the default if there is none."""
        return self._entries.get(disk_name(name), default)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WeightsIndex) and self._entries == other._entries

    def __hash__(self) -> int:
        return hash(tuple(self._entries.items()))

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names to shapes, in order of the vector."""
        return {name: entry.shape for name, entry in self._entries.items()}

    @cached_property
    def layers(self) -> dict[str, list[IndexEntry]]:
        """Entries by layer: ``embeddings``, ``layer.0`` and on, then final norm or pooler, and head."""
        return self._grouped(self.architecture.layer_name)

    @cached_property
    def modules(self) -> dict[str, list[IndexEntry]]:
        """Entries by module: a weight with its bias."""
        return self._grouped(self.architecture.module_name)

    def flatten(self, tensors: Mapping[str, Any]) -> Shaped[np.ndarray, "params"]:
        """Concatenate tensors into a flat vector.

        Args:
            tensors: Exactly the tensors of this index, of one dtype: arrays of floats, or torch tensors on the CPU, by
                name on disk or in memory. Tied names of a state dict are left out.

        Raises:
            WeightsError: A tensor is missing, duplicate, unknown or of another shape; or there are several dtypes.
            RepresentationError: A tensor is not of floats that numpy has.
        """
        tensors = {name: tensor for name, tensor in tensors.items() if name not in self.architecture.tied}
        arrays = {disk_name(name): float_array(tensor) for name, tensor in tensors.items()}
        problem = describe_mismatch(
            self.shapes, {name: array.shape for name, array in arrays.items()}, of="index", says="the index says"
        )
        dtypes = {array.dtype for array in arrays.values()}
        if len(arrays) < len(tensors):
            problem = "some are given by both of their names"
        elif len(dtypes) > 1:
            problem = f"they are of several dtypes, {', '.join(sorted(map(str, dtypes)))}"
        if problem:
            raise WeightsError(f"The tensors do not fit {self}: {problem}")
        return np.concatenate([arrays[name].ravel() for name in self]) if arrays else np.empty(0, np.float32)

    def unflatten(self, vector: Any) -> dict[str, Any]:
        """Split a flat vector, numpy's or torch's, into views by name on disk; raise WeightsError for another size."""
        shape = tuple(getattr(vector, "shape", ()))
        if shape != (self.size,):
            raise WeightsError(f"A {type(vector).__name__} of shape {list(shape)} does not fit {self}")
        return {name: vector[entry.span].reshape(entry.shape) for name, entry in self._entries.items()}

    def _grouped(self, label: Callable[[str], str]) -> dict[str, list[IndexEntry]]:
        groups: dict[str, list[IndexEntry]] = {}
        for entry in self._entries.values():
            groups.setdefault(label(entry.name), []).append(entry)
        return groups


PARTS = ("backbone", "head", "all")


def is_in_part(name: str, part: str) -> bool:
    """Return whether a tensor belongs to the ``backbone``, to the ``head`` or to ``all``; raise for other parts."""
    if part not in PARTS:
        raise WeightsError(f'There is no part "{part}" of a model', fix=did_you_mean(part, PARTS))
    return part == "all" or is_head(name) == (part == "head")
