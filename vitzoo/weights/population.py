"""PopulationWeights: the weights of many members as arrays, read at the speed of memory, no module built.

    weights = zoo.weights(zoo.select(stage="finetuning"))
    weights.tensor("vit.layernorm.weight")    # [members, 384]
    weights.matrix().values                   # [members, params]

A row is a checkpoint of the selection, in its order. One file is `vitzoo.weights.reader`'s business, distances
`vitzoo.weights.distances`', models `vitzoo.weights.models`'. torch is imported where a torch tensor is asked for.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float, Shaped

from vitzoo.architectures import disk_name, is_head
from vitzoo.errors import WeightsError, did_you_mean
from vitzoo.ids import MemberId, MemberRef
from vitzoo.records import layout
from vitzoo.tensors.header import TensorEntry
from vitzoo.weights.index import WeightsIndex
from vitzoo.weights.matrix import WeightsMatrix, allocated, returned
from vitzoo.weights.reader import KnownHeader, WeightsReader
from vitzoo.weights.shared import (
    Header,
    array_dtype,
    check_roles,
    differ,
    distinct_headers,
    mixed,
    shared_dtype,
    shared_index,
)  # fmt: skip
from vitzoo.zoo.member import Member
from vitzoo.zoo.selection import Selection

if TYPE_CHECKING:
    from vitzoo.models.loading import MemberModel
    from vitzoo.weights.distances import Distances
    from vitzoo.weights.trajectory import Trajectory

Part = Literal["backbone", "head", "all"]
Framework = Literal["np", "pt"]
_WORKERS = min(4, os.cpu_count() or 1)  # more do not read faster from memory
_REQUESTS = 8  # at once, of a Hub


class PopulationWeights:
    """The weights of a selection's checkpoints; made by `Zoo.weights`. Nothing is read before it is asked for.

    Files that are not here are read in part (`tensor`), or downloaded when whole models are asked for.

    Args:
        selection: Which checkpoints, in their order.
    """

    def __init__(self, selection: Selection):
        self.selection = selection
        self._members: dict[MemberId, Member] = {}
        self._known: dict[int, KnownHeader] = {}
        self._indices: dict[str, WeightsIndex] = {}
        self._is_here = False

    def __repr__(self) -> str:
        return f"PopulationWeights({len(self)} checkpoints of {self.selection.zoo.source.name!r})"

    def __reduce__(self):  # what was read of the files is read again where it is needed
        return (PopulationWeights, (self.selection,))

    def __len__(self) -> int:
        return len(self.selection)

    __iter__ = None  # over what? over `iter_vectors`, `iter_models` or `trajectories`

    def __getitem__(self, rows: slice) -> "PopulationWeights":
        """The weights of some of the checkpoints.

        Raises:
            TypeError: Of one number: `vector` gives the weights of one checkpoint.
        """
        if not isinstance(rows, slice):
            raise TypeError(
                f"weights[{rows!r}]: expected a slice, such as weights[3:7]; vector(3) reads one checkpoint."
            )
        return PopulationWeights(self.selection[rows])

    @property
    def refs(self) -> tuple[MemberRef, ...]:
        """The checkpoints."""
        return self.selection.refs

    def index(self, part: Part = "backbone") -> WeightsIndex:
        """Names, shapes and offsets of the tensors that the checkpoints share.

        Args:
            part: The ``backbone``, the ``head``, or ``all``.

        Raises:
            WeightsError: Members have different tensors, or heads of different roles; the message says which.
        """
        if part not in self._indices:
            index = shared_index(self._distinct, part)
            self._check_roles(index)
            self._indices[part] = index
        return self._indices[part]

    def dtype(self, *, part: Part = "backbone", dtype: Any = None) -> np.dtype:
        """The type of the arrays that a part is read into.

        Args:
            part: As `matrix`.
            dtype: What it is converted to; None for the files' own.

        Raises:
            WeightsError: The files are of several dtypes, or of bfloat16, and no conversion is asked for.
        """
        return shared_dtype(self._distinct, part, dtype, "np")

    def tensor(
        self,
        name: str,
        *,
        dtype: Any = None,
        out: Shaped[np.ndarray, "members ..."] | None = None,
        return_tensors: Framework = "np",
    ) -> Shaped[Any, "members ..."]:
        """One tensor of every checkpoint.

        Args:
            name: As on disk or in memory.
            dtype: ``float16``, ``float32`` or ``float64``; None for the files' own.
            out: As `matrix`.
            return_tensors: ``np`` for numpy, ``pt`` for torch.

        Raises:
            WeightsError: Some member has no such tensor, or one of another shape or dtype.
        """
        key = disk_name(name)
        self._refuse_nothing()
        with self.open(0, whole=False) as reader:
            first = self._entry(0, reader, name)
        numpy_dtype = array_dtype(first, self.refs[0], dtype, return_tensors)
        values = allocated((len(self), *first.shape), out, numpy_dtype)

        def read(row: int, reader: WeightsReader) -> None:
            entry = self._entry(row, reader, name)
            if entry.shape != first.shape:
                raise differ(self.refs[0], self.refs[row], {key: first.shape}, {key: entry.shape})
            if dtype is None and entry.dtype != first.dtype:
                raise mixed(self.refs[0], first, self.refs[row], key, entry)
            reader.read([(entry, values[row])])

        self._each(read, whole=False)
        self._check_roles([key])
        return returned(values, return_tensors)

    def matrix(
        self,
        *,
        part: Part = "backbone",
        dtype: Any = None,
        out: Shaped[np.ndarray, "members params"] | None = None,
        return_tensors: Framework = "np",
    ) -> WeightsMatrix:
        """The weights as one matrix, a row a checkpoint.

        Args:
            part: The ``backbone``, the ``head``, or ``all``.
            dtype: ``float16``, ``float32`` or ``float64``; None for the files' own.
            out: Where to write it: C-contiguous, of that shape and dtype; half written after an error. A new matrix
                costs its page faults, a quarter of the time; a `numpy.memmap` takes what memory does not.
            return_tensors: ``np`` for numpy, ``pt`` for torch.

        Raises:
            WeightsError: Members have different tensors, dtypes or roles of heads; ``out`` does not fit.
        """
        index = self.index(part)
        values = allocated((len(self), index.size), out, shared_dtype(self._distinct, part, dtype, return_tensors))
        self._each(lambda row, reader: _read_vector(reader, index, values[row]))
        return WeightsMatrix(returned(values, return_tensors), index, self.refs)

    def iter_vectors(
        self, *, part: Part = "backbone", dtype: Any = None
    ) -> Iterator[tuple[MemberRef, Float[np.ndarray, "params"]]]:
        """The weights one checkpoint at a time: a population that memory does not hold.

        Args:
            part: As `matrix`.
            dtype: As `matrix`.

        Yields:
            A checkpoint and its weights, laid out by `index`.
        """
        for row, ref in enumerate(self.refs):
            yield ref, self.vector(row, part=part, dtype=dtype)

    def vector(self, row: int, *, part: Part = "backbone", dtype: Any = None) -> Float[np.ndarray, "params"]:
        """The weights of one checkpoint.

        Args:
            row: Which, as it is counted in the selection.
            part: As `matrix`.
            dtype: As `matrix`.
        """
        index = self.index(part)
        vector = np.empty(index.size, self.dtype(part=part, dtype=dtype))
        with self.open(row, whole=True) as reader:
            _read_vector(reader, index, vector)
        return vector

    def iter_models(self) -> "Iterator[tuple[MemberRef, MemberModel]]":
        """The models one at a time, on one module that is used again.

        Yields:
            A checkpoint and the model, in evaluation mode, on the CPU and of the file's dtype. The next one takes its
            weights away: use it at once, or `copy.deepcopy` it. Its weights are the file itself, mapped privately: what
            you write to them stays in this process, and who cuts the file while you read ends the process. Hooks and
            the like that you add stay on the module; where you replaced parameters or modules, the next member gets
            a new one. (Members of another architecture have a module of their own.)
        """
        from vitzoo.weights.models import iter_models

        return iter_models(self)

    def trajectories(self) -> "Iterator[Trajectory]":
        """The selected checkpoints by member, epochs ascending: ``[epochs, ...]``.

        Yields:
            A `vitzoo.weights.trajectory.Trajectory` a member.
        """
        from vitzoo.weights.trajectory import trajectories

        return trajectories(self)

    def distances(
        self,
        metric: Literal["l2", "cosine"] = "l2",
        *,
        by: Literal["model", "layer", "tensor"] = "model",
        part: Part = "backbone",
    ) -> "Distances":
        """How far each checkpoint lies from each other one, read piece by piece: twins too, to six digits.

        Args:
            metric: ``l2``: the norm of the difference; ``cosine``: one minus the cosine.
            by: Over whole models, each layer, or each tensor.
            part: As `matrix`.

        Returns:
            A `vitzoo.weights.distances.Distances`: ``[members, members]``, or one such matrix a layer or tensor.
        """
        from vitzoo.weights.distances import compute_distances

        return compute_distances(self, metric, by=by, part=part)

    def open(self, row: int, *, whole: bool) -> WeightsReader:
        """The file of a checkpoint; `whole`: it is downloaded where it is not here."""
        ref = self.refs[row]
        if whole:
            self.fetch()
        if ref.member not in self._members:
            self._members[ref.member] = self.selection.zoo[ref.member]
        reader = WeightsReader(self._members[ref.member], ref.epoch, known=self._known.get(row))
        self._known[row] = reader.header
        return reader

    def fetch(self) -> None:
        """Download what is not here, of a Hub zoo."""
        if self._is_here:
            return
        source = self.selection.zoo.source
        absent = [ref for ref in self.refs if source.local_file(layout.weights_file(ref.member, ref.epoch)) is None]
        if absent:
            replace(self.selection, refs=tuple(absent)).download()
        self._is_here = True

    @cached_property
    def _headers(self) -> list[Header]:
        self._refuse_nothing()
        self._each(lambda row, reader: None, whole=False)
        return [self._known[row].entries for row in range(len(self))]

    def _each(self, work: Callable[[int, WeightsReader], None], *, whole: bool = True) -> None:
        """Do something with each file, several at once."""
        if whole:
            self.fetch()

        def one(row: int) -> None:
            with self.open(row, whole=False) as reader:
                work(row, reader)

        with ThreadPoolExecutor(_WORKERS if whole or self._is_here else _REQUESTS) as pool:
            try:
                list(pool.map(one, range(len(self))))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    @cached_property
    def _distinct(self) -> list[tuple[MemberRef, Header]]:
        return distinct_headers(self.refs, self._headers)

    def _refuse_nothing(self) -> None:
        if not self.refs:
            raise WeightsError("There are no checkpoints to read: the selection is empty.", path=None)

    def _check_roles(self, names: Iterable[str]) -> None:
        """Heads of different roles do not become one array, whatever their shapes."""
        table, heads = self.selection.members_table, [name for name in names if is_head(name)]
        if heads:
            check_roles(zip(table["id"].to_pylist(), table["head_role"].to_pylist(), strict=True), heads)

    def _entry(self, row: int, reader: WeightsReader, name: str) -> TensorEntry:
        entry = reader.entries.get(disk_name(name))
        if entry is None:
            raise WeightsError(
                f'{self.refs[row]} has no tensor "{name}".{did_you_mean(disk_name(name), reader.entries)}',
                path=reader.path,
            )
        return entry


def _read_vector(reader: WeightsReader, index: WeightsIndex, out: np.ndarray) -> None:
    reader.read([(reader.entries[name], out[entry.span]) for name, entry in index.items()])
