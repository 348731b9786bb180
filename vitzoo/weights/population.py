"""PopulationWeights: the weights of many checkpoints as arrays, read at the speed of memory without building a module.

    weights = zoo.weights(zoo.select(stage="finetuning"))
    weights.tensor("vit.layernorm.weight")    # [members, 384]
    weights.matrix().values                   # [members, params]

A row is a checkpoint of the selection, in its order. See `vitzoo.weights.files` for the files and
`vitzoo.weights.distances` for distances. torch is imported only for torch tensors.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float, Int, Shaped

from vitzoo.architectures import disk_name, is_head
from vitzoo.errors import WeightsError, did_you_mean
from vitzoo.ids import MemberId, MemberRef
from vitzoo.tables.catalogue import Catalogue
from vitzoo.tensors.header import TensorEntry
from vitzoo.weights.distances import Distances, compute_distances
from vitzoo.weights.files import WeightsFiles
from vitzoo.weights.index import WeightsIndex
from vitzoo.weights.matrix import WeightsMatrix, allocated, returned
from vitzoo.weights.reader import WeightsReader
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

if TYPE_CHECKING:
    from vitzoo.models.loading import MemberModel

Part = Literal["backbone", "head", "all"]
Framework = Literal["np", "pt"]


class PopulationWeights:
    """The weights of checkpoints. Made by `Zoo.weights`; nothing is read before it is needed.

    Files that are not on this machine are read in part (`tensor`), or downloaded when whole models are needed.

    Args:
        catalogue: The zoo's records and files.
        refs: The checkpoints, in their order.
    """

    def __init__(self, catalogue: Catalogue, refs: Sequence[MemberRef]):
        self.catalogue = catalogue
        self.files = WeightsFiles(catalogue.source, refs)
        self._indices: dict[str, WeightsIndex] = {}

    def __repr__(self) -> str:
        return f"PopulationWeights({len(self)} checkpoints of {self.catalogue.source.name!r})"

    def __reduce__(self):  # another process reads the headers again
        return (PopulationWeights, (self.catalogue, self.refs))

    def __len__(self) -> int:
        return len(self.refs)

    __iter__ = None  # ambiguous: use `iter_vectors`, `iter_models` or `trajectories`

    def __getitem__(self, rows: slice) -> "PopulationWeights":
        """Return the weights of some of the checkpoints.

        Raises:
            TypeError: For a number: `vector` returns the weights of one checkpoint.
        """
        if not isinstance(rows, slice):
            raise TypeError(
                f"weights[{rows!r}]: expected a slice, such as weights[3:7]; vector(3) reads one checkpoint."
            )
        return PopulationWeights(self.catalogue, self.refs[rows])

    @property
    def refs(self) -> tuple[MemberRef, ...]:
        """The checkpoints."""
        return self.files.refs

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
        self.files.refuse_empty()
        with self.files.open(0, whole=False) as reader:
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

        self.files.for_each(read, whole=False, size=values[0].nbytes)
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
        self.files.for_each(lambda row, reader: _read_vector(reader, index, values[row]))
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
        with self.files.open(row, whole=True) as reader:
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
        from vitzoo.weights.models import iter_models  # torch and transformers

        return iter_models(self.files)

    def trajectories(self) -> "Iterator[Trajectory]":
        """The selected checkpoints by member, epochs ascending: ``[epochs, ...]``.

        Yields:
            A `Trajectory` for each member.
        """
        ascending = sorted(self.refs, key=lambda ref: (ref.epoch is None, ref.epoch))
        for member in dict.fromkeys(ref.member for ref in self.refs):
            refs = [ref for ref in ascending if ref.member == member]
            yield Trajectory(member, PopulationWeights(self.catalogue, refs))

    def distances(
        self,
        metric: Literal["l2", "cosine"] = "l2",
        *,
        by: Literal["model", "layer", "tensor"] = "model",
        part: Part = "backbone",
    ) -> Distances:
        """How far each checkpoint lies from each other one, read piece by piece: twins too, to six digits.

        Args:
            metric: ``l2``: the norm of the difference; ``cosine``: one minus the cosine.
            by: Over whole models, each layer, or each tensor.
            part: As `matrix`.

        Returns:
            A `vitzoo.weights.distances.Distances`: ``[members, members]``, or one such matrix a layer or tensor.
        """
        return compute_distances(self.files, self.index(part), metric, by=by)

    @cached_property
    def _distinct(self) -> list[tuple[MemberRef, Header]]:
        return distinct_headers(self.refs, self.files.headers)

    def _check_roles(self, names: Iterable[str]) -> None:
        """Heads of different roles do not become one array, whatever their shapes."""
        heads = [name for name in names if is_head(name)]
        if heads:
            table = self.catalogue.member_rows(list(dict.fromkeys(ref.member for ref in self.refs)))
            check_roles(zip(table["id"].to_pylist(), table["head_role"].to_pylist(), strict=True), heads)

    def _entry(self, row: int, reader: WeightsReader, name: str) -> TensorEntry:
        entry = reader.entries.get(disk_name(name))
        if entry is None:
            raise WeightsError(
                f'{self.refs[row]} has no tensor "{name}".{did_you_mean(disk_name(name), reader.entries)}',
                path=reader.path,
            )
        return entry


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A member's weights at the selected epochs, ascending.

    Args:
        member: Whose they are.
        weights: Its checkpoints.
    """

    member: MemberId
    weights: PopulationWeights = field(repr=False)

    def __len__(self) -> int:
        return len(self.weights)

    @cached_property
    def _rows(self) -> Any:
        return self.weights.catalogue.epoch_rows(self.weights.refs)

    @cached_property
    def epochs(self) -> Int[np.ndarray, "epochs"]:
        """Finished epochs, the final weights' too."""
        return self._rows["epoch"].to_numpy()

    @cached_property
    def steps(self) -> Int[np.ndarray, "epochs"]:
        """Finished optimizer steps."""
        return self._rows["step"].to_numpy()

    def tensor(self, name: str, *, dtype: Any = None, return_tensors: Framework = "np") -> Shaped[Any, "epochs ..."]:
        """One tensor at every epoch. As `PopulationWeights.tensor`."""
        return self.weights.tensor(name, dtype=dtype, return_tensors=return_tensors)

    def matrix(self, *, part: Part = "all", dtype: Any = None, return_tensors: Framework = "np") -> WeightsMatrix:
        """The weights, ``[epochs, params]``. As `PopulationWeights.matrix`, but with the head, which is one's own."""
        return self.weights.matrix(part=part, dtype=dtype, return_tensors=return_tensors)

    def norms(self, *, part: Part = "all") -> Float[np.ndarray, "epochs"]:
        """L2 norm of the weights at each epoch."""
        return np.array([np.linalg.norm(vector) for _, vector in self._vectors(part)])

    def step_norms(self, *, part: Part = "all") -> Float[np.ndarray, "steps"]:
        """L2 norm of each move from one selected epoch to the next; one less than there are epochs."""
        before, norms = None, []
        for _, vector in self._vectors(part):
            if before is not None:
                norms.append(np.linalg.norm(vector - before))
            before = vector
        return np.array(norms)

    def _vectors(self, part: Part):
        return self.weights.iter_vectors(part=part, dtype="float64")


def _read_vector(reader: WeightsReader, index: WeightsIndex, out: np.ndarray) -> None:
    reader.read([(reader.entries[name], out[entry.span]) for name, entry in index.items()])
