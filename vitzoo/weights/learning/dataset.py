"""A population as a torch data set: any representation of its weights, with figures and factors as targets.

Members are read when they are asked for, from files that each worker opens and closes itself: a
`torch.utils.data.DataLoader` with workers holds no more of the population than its batches. What targets are is
`vitzoo.weights.learning.targets`' business.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from operator import index as as_int
from typing import Any, SupportsIndex

import numpy as np
import torch
import torch.utils.data
from torch import Tensor

from vitzoo.architectures import find_architecture, load_config_json
from vitzoo.errors import ConflictingArgumentsError, RepresentationError, SelectionError, WeightsError
from vitzoo.ids import MemberRef
from vitzoo.records import layout
from vitzoo.tensors.dtypes import NUMPY
from vitzoo.weights.learning.scaling import Scaling
from vitzoo.weights.learning.targets import read_target
from vitzoo.weights.population import Part, PopulationWeights
from vitzoo.weights.representations.representation import Invertible, Representation
from vitzoo.weights.representations.representation import representation as make_representation
from vitzoo.weights.representations.statistics import LayerStatistics
from vitzoo.weights.tensors import state_dict, structure_tensors


class WeightsDataset(torch.utils.data.Dataset):
    """Checkpoints as items: ``{"weights": ..., <target>: ..., "ref": "pt-12/ft-3@7"}``.

    ``weights`` is a tensor of the files' dtype, or of the one asked for, or a dict of such where the representation has
    several; statistics are float64 of float64's weights, else float32. What is the same for all members, as masks and
    edges, is `structure`. ``ref`` is the checkpoint as the tables of the zoo and its splits call it, without the zoo.
    Targets are as `vitzoo.weights.learning.targets.read_target` has them: whole numbers are int64, others float32,
    nan where
    there is none; texts are places in `classes`, -100 where there is none.

    An item has a number, from the end where it is negative. Of several, ``torch.utils.data.Subset(data, rows)`` is a
    data set, or one of ``weights[start:stop]``.

    Of a Hub zoo everything that is not here is downloaded when this is made: workers never ask the network.

    Args:
        weights: The checkpoints, from `Zoo.weights`.
        representation: ``flat``, ``statistics``, ``tokens`` or ``graph``
            (`vitzoo.weights.representations.representation`).
        part: As `PopulationWeights.matrix`.
        dtype: As `PopulationWeights.matrix`: None for the files' own, which must be one, and not bfloat16.
        targets: Columns of the zoo's tables; ``gap`` is the checkpoint's own.
        scaling: Fitted on the training members alone (`vitzoo.weights.learning.scaling.fit_scaling`); None for none.
        **options: The representation's: ``token_size`` of tokens; ``num_heads`` of a graph is that of the members'
            configs, and need not be said.

    Attributes:
        dtype: Of the weights, as numpy's.
        targets: Each target of all checkpoints, in their order: to be looked at without reading weights.
        classes: The texts of each target that has texts, by their places: those of the whole zoo.

    Raises:
        RepresentationError: There is no such representation or option; the members have other attention heads.
        SelectionError: A target is unknown.
        WeightsError: There are no checkpoints; they have different tensors, several dtypes or bfloat16; the scaling is
            of other ones.

    Example:
        >>> data = WeightsDataset(zoo.weights(train), "tokens", token_size=129, targets=("test_accuracy", "parent"))
        ... # doctest: +SKIP
        >>> loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True, num_workers=2)  # doctest: +SKIP
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
        index = weights.index(part)
        if representation == "graph":
            options["num_heads"] = _find_heads(weights, weights.refs[:1], options.get("num_heads"))
        self.representation = make_representation(representation, index, **options)
        self.scaling = scaling
        if scaling is not None:
            made = self.representation
            scaling.check_fits(made if isinstance(made, LayerStatistics) else made.index)
        self.dtype: np.dtype = weights.dtype(part=part, dtype=dtype)
        self._is_converted = dtype is not None
        weights.files.fetch()
        if representation == "graph":  # of all now, whose configs are here
            _find_heads(weights, weights.refs, options["num_heads"])
        self.representation.structure()  # of a graph large: forked workers share it

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, row: SupportsIndex) -> dict[str, Any]:
        number = as_int(row)
        if not -len(self) <= number < len(self):
            raise IndexError(f"There is no item {number} among {len(self)} checkpoints.")
        number %= len(self)
        return {
            "weights": _as_tensors(self._encode(self._read(number))),
            **{name: values[number] for name, values in self.targets.items()},
            "ref": str(replace(self.weights.refs[number], zoo=None)),
        }

    @property
    def structure(self) -> dict[str, Tensor]:
        """What the representation has once for all members: masks and positions, or edges; integers are int64.

        Copies, of a graph large ones: take them once.
        """
        return structure_tensors(self.representation.structure())

    def state_dict(self, weights: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of an item's ``weights``, for ``model.load_state_dict(..., strict=False)``.

        Without scaling or conversion they are the member's own bit for bit, with scaling to rounding.

        Args:
            weights: One item's, without a batch axis; or an output of that form, on any device and of any float type.
                float16 and bfloat16 become float32, but for float16 where the items have it.

        Raises:
            WeightsError: There is no way back from statistics.
            VitZooError: They are of another shape.
        """
        if not isinstance(self.representation, Invertible):
            raise WeightsError("There is no way back from statistics to weights", fix="Use another representation.")
        vector = self.representation.decode(self._as_arrays(weights))
        return state_dict(self.representation.index, vector if self.scaling is None else self.scaling.unscale(vector))

    def _read(self, row: int) -> np.ndarray:
        """As `PopulationWeights.vector`, but by this file alone: a spawned worker reads no other's header."""
        index = self.representation.index
        vector = np.empty(index.size, self.dtype)
        with self.weights.files.open(row, whole=False) as reader:
            for name, entry in index.items():
                if name not in reader.entries or reader.entries[name].shape != entry.shape:
                    raise WeightsError(
                        f"{reader.path} was changed while it was in use: {name} is not {list(entry.shape)} any more",
                        fix="Start again.",
                        path=reader.path,
                    )
                found = reader.entries[name].dtype
                if not self._is_converted and NUMPY[found] != self.dtype:
                    raise WeightsError(
                        f"{reader.path} was changed while it was in use: {name} is {found}, no {self.dtype} any more",
                        fix="Start again.",
                        path=reader.path,
                    )
            reader.read([(reader.entries[name], vector[entry.span]) for name, entry in index.items()])
        return vector

    def _encode(self, vector: np.ndarray) -> Any:
        made: Representation = self.representation
        if not isinstance(made, LayerStatistics):
            return made.encode(vector if self.scaling is None else self.scaling.scale(vector))
        features = made.encode(vector)
        with np.errstate(over="ignore"):  # of a diverged member, as torch has it
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

    The order is that of the selection, or drawn from the seed and the epoch; rank r takes every ``world_size``-th item
    from the r-th on. Workers take turns by whole batches, so a loader of this ``batch_size`` gives the same batches in
    the same order with any number of workers.

    Args:
        dataset: What to read.
        seed: Of the order, the same on all ranks; it is another one each epoch (`set_epoch`). None for the
            selection's order.
        batch_size: The loader's. With another one there, workers may give several short batches.
        drop_last: Whether the last items are left out where the ranks would not get equally many, which would let
            one wait for another that has ended. By default each item comes once, and ranks differ by one at most.
        rank: Which process this is; by default what torch.distributed says once it is initialised, else 0.
        world_size: How many processes there are; given with ``rank``.

    Raises:
        ConflictingArgumentsError: One of rank and world size is given alone.
        SelectionError: A number is out of range.

    Example:
        >>> items = IterableWeightsDataset(data, seed=0, batch_size=8)  # doctest: +SKIP
        >>> loader = torch.utils.data.DataLoader(items, batch_size=8, num_workers=2)  # doctest: +SKIP
        >>> for epoch in range(10):  # doctest: +SKIP
        ...     items.set_epoch(epoch)
        ...     for batch in loader: ...
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
            raise ConflictingArgumentsError(f"rank is {rank} and world_size {world_size}: give both, or neither.")
        if rank is not None and world_size is not None and not 0 <= rank < world_size:
            raise SelectionError(f"rank is {rank} of {world_size}", expected="one from 0 and below it", value=rank)
        if batch_size < 1:
            raise SelectionError(f"batch_size is {batch_size}", expected="a number from 1", value=batch_size)
        if seed is not None and seed < 0:
            raise SelectionError(f"seed is {seed}", expected="a number from 0, or None", value=seed)
        self.dataset = dataset
        self._seed, self._batch_size, self._drop_last = seed, batch_size, drop_last
        self._is_given = rank is not None
        self._place = (rank or 0, world_size or 1)
        # Shared with workers that are running already: those of a loader with persistent_workers.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; call it before each, on all ranks. Persistent workers follow.

        Args:
            epoch: Its number, from 0.

        Raises:
            SelectionError: It is less than 0.
        """
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
        """With the rank of the process that starts a worker, which the worker cannot ask for."""
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


def _find_heads(weights: PopulationWeights, refs: Sequence[MemberRef], given: object) -> int:
    """The attention heads of some of the members, by their configs.

    Raises:
        RepresentationError: They differ, or are not those given.
    """
    source, found = weights.catalogue.source, {}
    for member in dict.fromkeys(ref.member for ref in refs):
        config = load_config_json(source.path(layout.config_file(member)))
        found.setdefault(find_architecture(config["model_type"]).num_heads(config), member)
    heads, *others = found
    if others:
        raise RepresentationError(
            f"{found[heads]} has {heads} attention heads, {found[others[0]]} has {others[0]}: their "
            "tensors of one shape mean different things, and no graph is both's",
            fix="Select members of one architecture.",
            value=others[0],
        )
    if given is not None and given != heads:
        raise RepresentationError(
            f"num_heads is {given!r}, but {found[heads]} has {heads} attention heads by its config",
            fix="Leave it out.",
            value=given,
        )
    return heads
