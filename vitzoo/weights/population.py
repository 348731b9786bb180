"""PopulationWeights: read the weights of many checkpoints as arrays, at the speed of memory, without building modules.

    weights = zoo.weights(zoo.select(stage="finetuning"))
    weights.tensor("vit.layernorm.weight")    # [members, 384]
    weights.matrix().values                   # [members, params]

A row is a checkpoint of the selection, in its order. See `vitzoo.weights.files` for the files and
`vitzoo.weights.distances` for distances. torch is imported only for torch tensors.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float, Int, Shaped

from vitzoo.architectures import disk_name, is_head
from vitzoo.errors import WeightsError, did_you_mean
from vitzoo.ids import MemberId, MemberRef
from vitzoo.notebook import Shown, brief
from vitzoo.progress import with_bar
from vitzoo.tables.catalogue import Catalogue
from vitzoo.tensors.header import TensorEntry
from vitzoo.weights import shared
from vitzoo.weights.distances import Distances, compute_distances
from vitzoo.weights.files import WeightsFiles
from vitzoo.weights.index import WeightsIndex
from vitzoo.weights.reader import WeightsReader
from vitzoo.weights.shared import Header

if TYPE_CHECKING:
    from torch import Tensor

    from vitzoo.models.loading import MemberModel

Part = Literal["backbone", "head", "all"]
Framework = Literal["np", "pt"]


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class WeightsMatrix(Shown):
    """The weights of checkpoints as rows.

    Args:
        values: ``[members, params]``, numpy's or torch's.
        index: Names, shapes and offsets of the tensors in a row.
        refs: The checkpoints.
        catalogue: The zoo's records and files.
    """

    values: Any
    index: WeightsIndex
    refs: tuple[MemberRef, ...]
    catalogue: Catalogue

    def state_dict(self, row: Any) -> "dict[str, Tensor]":
        """Return views of a row's tensors by their names in a model, for ``load_state_dict(..., strict=False)``.

        Args:
            row: Number of the row, or a flat vector laid out like one, such as a mean of rows.

        Raises:
            WeightsError: A vector has another size.
            IndexError: There is no such row.
        """
        from vitzoo.weights.tensors import state_dict

        return state_dict(self.index, self.values[int(row)] if _is_number(row) else row)

    def to_model(self, row: Any) -> "MemberModel":
        """Build the model of a row, on the CPU, in evaluation mode, from a copy of the numbers and in their dtype.

        Args:
            row: Number of the row, or a flat vector laid out like one, such as a mean of rows. The vector gets the
                config of the first checkpoint.

        Raises:
            WeightsError: A vector has another size, or the matrix lacks a part of the model: read ``part="all"``.
            IndexError: There is no such row.
        """
        from vitzoo.weights.models import ReusedModel  # torch and transformers

        number = int(row) if _is_number(row) else 0
        vector = self.values[number] if _is_number(row) else row
        config_file = self.catalogue.config_file(self.refs[number])
        return ReusedModel(config_file, self.index, dtype=vector.dtype).with_vector(vector)


class PopulationWeights(Shown):
    """The weights of checkpoints, as `Zoo.weights` returns them. Nothing is read before it is needed.

    Files of a Hub zoo are read in part (`tensor`), or downloaded when whole models are needed.

    Args:
        catalogue: The zoo's records and files.
        refs: The checkpoints, in their order.
    """

    def __init__(self, catalogue: Catalogue, refs: Sequence[MemberRef]):
        self.catalogue = catalogue
        self.files = WeightsFiles(catalogue.source, refs)
        self._indices: dict[str, WeightsIndex] = {}

    def __repr__(self) -> str:
        return f"PopulationWeights({len(self)} checkpoints of {brief(self.catalogue.source.name)!r})"

    def _facts(self) -> dict[str, Any]:
        return {"zoo": self.catalogue.source.name, "checkpoints": len(self)}

    def __reduce__(self):  # another process reads the headers again
        return (PopulationWeights, (self.catalogue, self.refs))

    def __len__(self) -> int:
        return len(self.refs)

    __iter__ = None  # ambiguous: use `iter_vectors`, `iter_models` or `trajectories`

    def __getitem__(self, rows: slice) -> "PopulationWeights":
        """Return the weights of some of the checkpoints; `vector` reads one."""
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
        """Index the tensors that the checkpoints share.

        Args:
            part: The ``backbone``, the ``head``, or ``all``.

        Raises:
            WeightsError: Two members have different tensors, or heads of different roles.
        """
        if part not in self._indices:
            index = shared.shared_index(self._distinct, part)
            self._check_roles(index)
            self._indices[part] = index
        return self._indices[part]

    def dtype(self, *, part: Part = "backbone", dtype: Any = None) -> np.dtype:
        """Return the type of the arrays that `matrix` reads with these arguments; raise as `matrix`."""
        return shared.shared_dtype(self._distinct, part, dtype, "np")

    def tensor(
        self,
        name: str,
        *,
        dtype: Any = None,
        out: Shaped[np.ndarray, "members ..."] | None = None,
        return_tensors: Framework = "np",
    ) -> Shaped[Any, "members ..."]:
        """Read one tensor of every checkpoint.

        Args:
            name: Name on disk or in memory.
            dtype: ``float16``, ``float32`` or ``float64``; None for the files' own, float32 for bfloat16.
            out: As `matrix`.
            return_tensors: ``np`` for numpy, ``pt`` for torch.

        Raises:
            WeightsError: A checkpoint has no such tensor, or one of another shape or dtype.
        """
        key = disk_name(name)
        self.files.refuse_empty()
        with self.files.open(0) as reader:
            first = self._entry(0, reader, name)
        numpy_dtype = shared.array_dtype(first, dtype, return_tensors)
        values = _check_out((len(self), *first.shape), out, numpy_dtype)

        def read(row: int, reader: WeightsReader) -> None:
            entry = self._entry(row, reader, name)
            if entry.shape != first.shape:
                raise shared.differ(self.refs[0], self.refs[row], {key: first.shape}, {key: entry.shape})
            if dtype is None and not shared.fits(entry, numpy_dtype):
                raise shared.mixed(self.refs[0], first, self.refs[row], key, entry)
            reader.read([(entry, values[row])])

        self.files.for_each(read, size=values[0].nbytes)
        self._check_roles([key])
        return _as_framework(values, return_tensors)

    def matrix(
        self,
        *,
        part: Part = "backbone",
        dtype: Any = None,
        out: Shaped[np.ndarray, "members params"] | None = None,
        return_tensors: Framework = "np",
    ) -> WeightsMatrix:
        """Read the weights into one matrix with a row for each checkpoint.

        Args:
            part: The ``backbone``, the ``head``, or ``all``.
            dtype: ``float16``, ``float32`` or ``float64``; None for the files' own, float32 for bfloat16.
            out: C-contiguous array of that shape and dtype to write to, half written after an error. A new matrix
                costs its page faults, a quarter of the time. A `numpy.memmap` may be larger than memory.
            return_tensors: ``np`` for numpy, ``pt`` for torch.

        Raises:
            WeightsError: Members have different tensors, dtypes or roles of heads, or ``out`` does not fit.
        """
        index = self.index(part)
        values = _check_out(
            (len(self), index.size), out, shared.shared_dtype(self._distinct, part, dtype, return_tensors)
        )
        self.files.fetch()
        self.files.for_each(lambda row, reader: _read_vector(reader, index, values[row]))
        return WeightsMatrix(_as_framework(values, return_tensors), index, self.refs, self.catalogue)

    def iter_vectors(
        self, *, part: Part = "backbone", dtype: Any = None
    ) -> Iterator[tuple[MemberRef, Float[np.ndarray, "params"]]]:
        """Iterate over each checkpoint with its weights as a flat vector, with the arguments of `vector`."""
        for row, ref in enumerate(self.refs):
            yield ref, self.vector(row, part=part, dtype=dtype)

    def vector(self, row: int, *, part: Part = "backbone", dtype: Any = None) -> Float[np.ndarray, "params"]:
        """Read the weights of checkpoint number ``row``, from 0, into a flat vector, laid out by `index`."""
        index = self.index(part)
        vector = np.empty(index.size, self.dtype(part=part, dtype=dtype))
        self.files.fetch()
        with self.files.open(row) as reader:
            _read_vector(reader, index, vector)
        return vector

    def iter_models(self, *, progress: bool = True) -> "Iterator[tuple[MemberRef, MemberModel]]":
        """Iterate over the models, on one module for all members with the same config.

        Args:
            progress: Whether to show one bar in a terminal or a notebook. transformers' ``disable_progress_bar`` turns
                it off, too.

        Yields:
            A checkpoint and the model, in evaluation mode, on the CPU and of its config's dtype. Use the model before
            the next one replaces its weights, or `copy.deepcopy` it. The weights are the file, mapped privately, or a
            copy if the file has another dtype: writes to them stay in this process, and truncating the file while you
            read ends the process. Added hooks stay on the module. After you replace parameters or modules, the next
            member gets a new module.
        """
        from vitzoo.weights.models import iter_models  # torch and transformers

        return with_bar(iter_models(self.files), total=len(self), show=progress)

    def trajectories(self) -> "Iterator[Trajectory]":
        """Iterate over the members, each with its selected checkpoints by ascending epoch."""
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
        """Compute the distances between all checkpoints in slices, to six digits between near duplicates too.

        Args:
            metric: ``l2``: the norm of the difference; ``cosine``: one minus the cosine.
            by: Over whole models, each layer, or each tensor.
            part: As `matrix`.

        Returns:
            A `vitzoo.weights.distances.Distances`: ``[members, members]``, or one such matrix for each layer or tensor.
        """
        return compute_distances(self.files, self.index(part), metric, by=by)

    @cached_property
    def _distinct(self) -> list[tuple[MemberRef, Header]]:
        return shared.distinct_headers(self.refs, self.files.headers)

    def _check_roles(self, names: Iterable[str]) -> None:
        """Raise WeightsError if heads differ in role: a classifier and an embedding may have equal shapes."""
        heads = [name for name in names if is_head(name)]
        if not heads:
            return
        table = self.catalogue.member_rows(list(dict.fromkeys(ref.member for ref in self.refs)))
        (first, role), *others = zip(table["id"].to_pylist(), table["head_role"].to_pylist(), strict=True)
        for member, other in others:
            if other != role:
                raise WeightsError(
                    f"The head of {first} is a {role} head and that of {member} {other}: their tensors "
                    f"{', '.join(heads)} have different meanings",
                    fix='Choose part="backbone", or select(head_role=...).',
                )

    def _entry(self, row: int, reader: WeightsReader, name: str) -> TensorEntry:
        entry = reader.entries.get(disk_name(name))
        if entry is None:
            raise WeightsError(
                f'{self.refs[row]} has no tensor "{name}"',
                fix=did_you_mean(disk_name(name), reader.entries),
                path=reader.path,
            )
        return entry


@dataclass(frozen=True, eq=False, repr=False)
class Trajectory(Shown):
    """The weights of a member at the selected epochs, ascending."""

    member: MemberId
    weights: PopulationWeights

    def _facts(self) -> dict[str, Any]:
        return {"member": self.member, "epochs": len(self)}

    def _table_rows(self) -> list[dict[str, Any]]:
        return self._rows.select(["epoch", "step", "train_loss", "val_accuracy", "test_accuracy"]).to_pylist()

    def __len__(self) -> int:
        return len(self.weights)

    @cached_property
    def _rows(self) -> Any:
        return self.weights.catalogue.epoch_rows(self.weights.refs)

    @cached_property
    def epochs(self) -> Int[np.ndarray, "epochs"]:
        """Finished epochs of each checkpoint, the final weights included."""
        return self._rows["epoch"].to_numpy()

    @cached_property
    def steps(self) -> Int[np.ndarray, "epochs"]:
        """Finished optimizer steps of each checkpoint."""
        return self._rows["step"].to_numpy()

    def norms(self, *, part: Part = "all") -> Float[np.ndarray, "epochs"]:
        """Compute the L2 norm of the weights at each epoch."""
        return np.array([np.linalg.norm(vector) for _, vector in self._vectors(part)])

    def step_norms(self, *, part: Part = "all") -> Float[np.ndarray, "steps"]:
        """Compute the L2 norm of the difference between each two successive epochs."""
        before, norms = None, []
        for _, vector in self._vectors(part):
            if before is not None:
                norms.append(np.linalg.norm(vector - before))
            before = vector
        return np.array(norms)

    def _vectors(self, part: Part):
        return self.weights.iter_vectors(part=part, dtype="float64")


def _is_number(row: Any) -> bool:
    return getattr(row, "ndim", 0) == 0 and hasattr(row, "__index__")


def _read_vector(reader: WeightsReader, index: WeightsIndex, out: np.ndarray) -> None:
    reader.read([(reader.entries[name], out[entry.span]) for name, entry in index.items()])


def _check_out(shape: tuple[int, ...], out: Any, dtype: np.dtype) -> np.ndarray:
    """Return the given array, or a new one for None; raise WeightsError if the given one does not fit."""
    if out is None:
        return np.empty(shape, dtype)
    expected = f"a C-contiguous, writable array of {dtype} {list(shape)}"
    if not isinstance(out, np.ndarray):
        raise WeightsError(f"out is a {type(out).__name__}", expected=expected)
    if out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous or not out.flags.writeable:
        raise WeightsError(f"out is {out.dtype} {list(out.shape)}", expected=expected)
    return out


def _as_framework(values: np.ndarray, return_tensors: str) -> Any:
    if return_tensors == "np":
        return values
    from vitzoo.weights.tensors import from_numpy

    return from_numpy(values)
