"""A population as a torch data set: a representation of its weights, with metrics and factors as targets.

Members are read on demand, from files that each worker opens and closes itself: a `torch.utils.data.DataLoader` with
workers keeps only its batches in memory. See `vitzoo.tables.columns` for the columns that targets come from.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from operator import index as as_int
from typing import Any, SupportsIndex

import numpy as np
import pyarrow as pa
import torch
import torch.utils.data
from torch import Tensor

from vitzoo.architectures import find_architecture, load_config_json
from vitzoo.errors import ConflictingArgumentsError, RepresentationError, SelectionError, WeightsError, did_you_mean
from vitzoo.ids import MemberId, MemberRef
from vitzoo.notebook import Shown
from vitzoo.records import layout
from vitzoo.tables.catalogue import Catalogue
from vitzoo.weights.learning.scaling import Scaling
from vitzoo.weights.population import Part, PopulationWeights
from vitzoo.weights.representations.representation import representation as make_representation
from vitzoo.weights.representations.statistics import LayerStatistics
from vitzoo.weights.shared import fits
from vitzoo.weights.tensors import state_dict, structure_tensors

NO_CLASS = -100  # torch's losses ignore it


class WeightsDataset(Shown, torch.utils.data.Dataset):
    """Checkpoints as items: ``{"weights": ..., <target>: ..., "ref": "pt-12/ft-3@7"}``.

    ``weights`` is a tensor, or a dict of tensors if the representation has several arrays, of the files' dtype or of
    the given one. Statistics are float64 for float64 weights, else float32. Arrays that are the same for all members,
    such as masks and edges, are in `structure`. ``ref`` is the checkpoint as in the zoo's tables and splits, without
    the zoo. Targets are as `read_target` returns them.

    Items have numbers, from the end if negative. ``torch.utils.data.Subset(data, rows)`` takes some of them.

    Making a data set of a Hub zoo downloads all missing files: workers never need the network.

    Args:
        weights: The checkpoints, from `Zoo.weights`.
        representation: ``flat``, ``statistics``, ``tokens`` or ``graph``
            (`vitzoo.weights.representations.representation`).
        part: As `PopulationWeights.matrix`.
        dtype: As `PopulationWeights.matrix`: None for the files' own, which must be one, or float32 and bfloat16.
        targets: Columns of the zoo's tables, or ``gap``.
        scaling: Fitted on the training members alone (`vitzoo.weights.learning.scaling.fit_scaling`), or None.
        **options: Options of the representation: ``token_size`` for tokens. A graph takes ``num_heads`` from the
            members' configs.

    Attributes:
        dtype: Type of the weights, as numpy's.
        targets: Each target of all checkpoints, in their order, available without reading weights.
        classes: The texts of each target of texts, for the whole zoo: a value is a place in them.

    Raises:
        RepresentationError: There is no such representation or option, or the numbers of attention heads differ.
        SelectionError: A target is unknown.
        WeightsError: There are no checkpoints, they have different tensors or dtypes, or the scaling was
            fitted for other tensors.
    """

    def __init__(
        self,
        weights: PopulationWeights,
        representation: str = "flat",
        *,
        part: Part = "backbone",
        dtype: Any = None,
        targets: str | Sequence[str] = ("test_accuracy",),
        scaling: Scaling | None = None,
        **options: Any,
    ):
        self.weights = weights
        self.targets: dict[str, Tensor] = {}
        self.classes: dict[str, list[str]] = {}
        for name in [targets] if isinstance(targets, str) else targets:
            self.targets[name], classes = read_target(weights.catalogue, weights.refs, name)
            if classes is not None:
                self.classes[name] = classes
        index = weights.index(part)  # from the headers alone: errors come before a download
        self.dtype: np.dtype = weights.dtype(part=part, dtype=dtype)
        self._is_converted = dtype is not None
        if representation == "graph":
            weights.files.fetch()  # the configs too
            options["num_heads"] = _find_heads(weights, options.get("num_heads"))
        encoder = self.representation = make_representation(representation, index, **options)
        self.scaling = scaling
        if scaling is not None:
            scaling.check_fits(encoder if isinstance(encoder, LayerStatistics) else encoder.index)
        weights.files.fetch()
        encoder.structure()  # large for a graph: forked workers share it

    def __len__(self) -> int:
        return len(self.weights)

    def _facts(self) -> dict[str, Any]:
        name = type(self.representation).__name__
        return {"items": len(self), "representation": name, "dtype": self.dtype, "targets": ", ".join(self.targets)}

    def __getitem__(self, row: SupportsIndex) -> dict[str, Any]:
        number = as_int(row)
        if not -len(self) <= number < len(self):
            raise IndexError(f"There is no item {number} in {len(self)} checkpoints")
        number %= len(self)
        return {
            "weights": _as_tensors(self._encode(self._read(number))),
            **{name: values[number] for name, values in self.targets.items()},
            "ref": str(replace(self.weights.refs[number], zoo=None)),
        }

    @property
    def structure(self) -> dict[str, Tensor]:
        """Copies of the arrays that all members share: masks and positions, or edges; integers are int64."""
        return structure_tensors(self.representation.structure())

    def state_dict(self, weights: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Decode an item's ``weights`` for ``model.load_state_dict(..., strict=False)``.

        Without scaling or conversion the result is the member's own weights bit for bit, with scaling to rounding.

        Args:
            weights: Weights of one item, without a batch axis, or a network's output of that form on any device.
                bfloat16 becomes float32, and so does float16 if the items have another dtype.

        Raises:
            RepresentationError: The weights have another shape, or are statistics, which cannot be decoded.
        """
        vector = self.representation.decode(self._as_arrays(weights))
        return state_dict(self.representation.index, vector if self.scaling is None else self.scaling.unscale(vector))

    def _read(self, row: int) -> np.ndarray:
        """Read a vector as `PopulationWeights.vector` does, without the headers of other files."""
        index = self.representation.index
        vector = np.empty(index.size, self.dtype)
        with self.weights.files.open(row) as reader:
            for name, entry in index.items():
                current = reader.entries.get(name)
                same = current is not None and current.shape == entry.shape
                if current is None or not same or not (self._is_converted or fits(current, self.dtype)):
                    raise WeightsError(
                        f"{reader.path} changed while it was in use",
                        expected=f"{name} of shape {list(entry.shape)} and dtype {self.dtype}",
                        fix="Restart.",
                        path=reader.path,
                    )
            reader.read([(reader.entries[name], vector[entry.span]) for name, entry in index.items()])
        return vector

    def _encode(self, vector: np.ndarray) -> Any:
        encoder = self.representation
        if not isinstance(encoder, LayerStatistics):
            return encoder.encode(vector if self.scaling is None else self.scaling.scale(vector))
        features = encoder.encode(vector)
        with np.errstate(over="ignore"):  # of a diverged member, as in torch
            scaled = features if self.scaling is None else self.scaling.scale(features)
            return scaled.astype(np.promote_types(self.dtype, np.float32))

    def _as_arrays(self, weights: Tensor | Mapping[str, Tensor]) -> Any:
        if isinstance(weights, Mapping):
            return {name: self._as_arrays(tensor) for name, tensor in weights.items()}
        numbers = weights.detach().cpu()
        is_own = str(numbers.dtype) == f"torch.{self.dtype}"
        return (numbers if numbers.itemsize >= 4 or is_own else numbers.float()).numpy()  # numpy has no bfloat16


class IterableWeightsDataset(torch.utils.data.IterableDataset):
    """The items of a `WeightsDataset` in turn, each on one rank and in one worker.

    The order is that of the selection, or random by the seed and the epoch. Rank r takes every ``world_size``-th item
    from number r. Workers take turns by whole batches, so a loader of this ``batch_size`` returns the same batches in
    the same order with any number of workers.

    Args:
        dataset: The items.
        seed: Seed of the order, from 0 and the same on all ranks; each epoch has another order (`set_epoch`). None for
            the selection's order.
        batch_size: Batch size of the loader. If the loader has another, workers may return several short batches.
        drop_last: Whether to leave the last items out if ranks would get different numbers of items, which could make
            one wait for another that has ended. By default each item comes once, and ranks differ by at most one.
        rank: Number of this process; by default torch.distributed's once it is initialised, else 0.
        world_size: Number of processes; given with ``rank``.

    Raises:
        ConflictingArgumentsError: Only one of rank and world size is given.
        SelectionError: A number is out of range.
    """

    def __init__(
        self,
        dataset: WeightsDataset,
        *,
        seed: int | None = None,
        batch_size: int = 1,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
    ):
        if (rank is None) != (world_size is None):
            raise ConflictingArgumentsError(f"rank is {rank} and world_size {world_size}", expected="both, or neither")
        if rank is not None and world_size is not None and not 0 <= rank < world_size:
            raise SelectionError(f"rank is {rank}", expected=f"0 to {world_size - 1}", value=rank)
        if batch_size < 1:
            raise SelectionError(f"batch_size is {batch_size}", expected="a number from 1", value=batch_size)
        if seed is not None and seed < 0:
            raise SelectionError(f"seed is {seed}", expected="a number from 0, or None", value=seed)
        self.dataset = dataset
        self._seed, self._batch_size, self._drop_last = seed, batch_size, drop_last
        self._is_given = rank is not None
        self._place = (rank or 0, world_size or 1)
        # Shared with the running workers of a loader with persistent_workers.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch, from 0; call it before each epoch, on all ranks."""
        if epoch < 0:
            raise SelectionError(f"epoch is {epoch}", expected="a number from 0", value=epoch)
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self._own_rows())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        rows, worker = self._own_rows(), torch.utils.data.get_worker_info()
        if worker is not None:
            rows = rows[np.arange(len(rows)) // self._batch_size % worker.num_workers == worker.id]
        return map(self.dataset.__getitem__, rows.tolist())

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with the rank of this process, which a worker of it cannot find."""
        return {**vars(self), "_place": self._find_place()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._epoch.share_memory_()

    def _find_place(self) -> tuple[int, int]:
        distributed = torch.distributed
        if self._is_given or not distributed.is_available() or not distributed.is_initialized():
            return self._place
        return distributed.get_rank(), distributed.get_world_size()

    def _own_rows(self) -> np.ndarray:
        rank, world = self._find_place()
        order = np.arange(len(self.dataset))
        if self._seed is not None:
            order = np.random.default_rng((self._seed, int(self._epoch))).permutation(order)
        return order[: len(order) // world * world if self._drop_last else None][rank::world]


def _as_tensors(encoded: Any) -> Any:
    if isinstance(encoded, dict):
        return {name: torch.from_numpy(array) for name, array in encoded.items()}
    return torch.from_numpy(encoded)


def _find_heads(weights: PopulationWeights, given: object) -> int:
    """Return the attention heads in the members' configs; raise if they differ, or are not the given number."""
    source, members = weights.catalogue.source, {}
    for member in dict.fromkeys(ref.member for ref in weights.refs):
        config = load_config_json(source.path(layout.config_file(member)))
        members.setdefault(find_architecture(config["model_type"]).num_heads(config), member)
    heads, *others = members
    if others:
        raise RepresentationError(
            f"{members[heads]} has {heads} attention heads and {members[others[0]]} {others[0]}: no graph fits both",
            fix="Select members of one architecture.",
            value=others[0],
        )
    if given is not None and given != heads:
        raise RepresentationError(
            f"num_heads is {given!r}", expected=f"{heads}, as in the members' configs", fix="Leave it out.", value=given
        )
    return heads


def read_target(catalogue: Catalogue, refs: Sequence[MemberRef], name: str) -> tuple[Tensor, list[str] | None]:
    """Read a column's value for each checkpoint of a selection.

    Columns are found as in `Zoo.select`: first in ``members``, where ``objective`` is that of the pre-training, then in
    ``epochs`` at the checkpoint's epoch. ``gap`` is the checkpoint's train accuracy - test accuracy.

    Args:
        catalogue: The zoo's records.
        refs: The checkpoints.
        name: The column.

    Returns:
        Values and classes. Fractional numbers are float32 with NaN for none. Whole numbers are int64, or float64 with
        NaN if a value is missing. Texts are int64 places in the classes, a list of all values in the zoo, with
        `NO_CLASS` for none. Numbers have no classes.

    Raises:
        SelectionError: There is no such column, or it has lists.
    """
    if name == "gap":
        train, test = (_floats(catalogue.epoch_rows(refs)[column]) for column in ("train_accuracy", "test_accuracy"))
        return torch.from_numpy(train - test).float(), None
    column = "pretraining_objective" if name == "objective" else name
    members, epochs = catalogue.table("members"), catalogue.table("epochs")
    of_members = column in members.column_names
    if not of_members and column not in epochs.column_names:
        known = dict.fromkeys([*members.column_names, *epochs.column_names])
        raise SelectionError(f'The target "{name}" is not a column', fix=did_you_mean(name, known), value=name)
    table = catalogue.member_rows([ref.member for ref in refs]) if of_members else catalogue.epoch_rows(refs)
    if pa.types.is_list(table.schema.field(column).type):
        raise SelectionError(f'The target "{name}" is a column of lists', expected="numbers or texts", value=name)
    values = table[column]
    if not pa.types.is_string(values.type):
        return _numbers(values), None
    texts = {text for text in (members if of_members else epochs)[column].to_pylist() if text is not None}
    classes = sorted(texts, key=_order)
    places = {value: place for place, value in enumerate(classes)}
    return torch.tensor([places.get(value, NO_CLASS) for value in values.to_pylist()], dtype=torch.int64), classes


def _floats(values: pa.ChunkedArray) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values.to_pylist()], np.float64)


def _numbers(values: pa.ChunkedArray) -> Tensor:
    """Keep whole numbers exact: float32 cannot represent odd seeds above 2 ** 24."""
    if not pa.types.is_integer(values.type):
        return torch.from_numpy(_floats(values)).float()
    if values.null_count:
        return torch.from_numpy(_floats(values))
    return torch.tensor(values.to_pylist(), dtype=torch.int64)


def _order(text: str) -> tuple[bool, Any]:
    """Return a key that sorts ids by their numbers, before other texts."""
    member = MemberId.match(text)
    return (member is None, text if member is None else member)
