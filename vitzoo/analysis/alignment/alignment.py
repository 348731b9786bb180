"""Align a model with another one by exact symmetries, so that their weights come as near as this search finds.

    alignment = align(zoo["pt-2"].load(), zoo["pt-3"].load(), group="rotation")
    alignment.distances         # L2 distance of the backbones before, and after each sweep

The search changes one group of units at a time, to the best place given all others. A sweep changes every group once.
The distance never rises, but the search may end in a local optimum. See `vitzoo.analysis.alignment.symmetries` for the
changes.

Source: Ainsworth et al. 2023, Git Re-Basin, section 3.2 (weight matching); Theus et al. 2025, Generalized Linear Mode
    Connectivity for Transformers (rotations of the residual stream).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from vitzoo.analysis.alignment.symmetries import State, canonical, load_state, num_heads, symmetry_of, with_state
from vitzoo.architectures import describe_mismatch
from vitzoo.architectures.symmetry import STREAM, Block, Symmetry
from vitzoo.errors import ConfigError, MissingPackageError, WeightsError
from vitzoo.models.loading import MemberModel
from vitzoo.notebook import Shown

_ENOUGH = 1e-3  # share of the distance that a sweep must gain; the assignments of a ViT-S take 11 s a sweep


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Alignment(Shown):
    """A model that was aligned with a reference. Made by `align`.

    Args:
        reference: The reference; in its canonical form if the group is ``rotation``.
        model: The aligned model, which has the outputs of the original.
        group: ``permutation`` or ``rotation``.
        distances: L2 distance of both backbones, of canonical ones for a rotation: before, and after each sweep.
        permutations: Place in the original of each unit, by group: ``units.3`` of an MLP, ``heads.3``, and for
            permutations also ``stream``, ``query_key.3`` and ``values.3``.
        rotation: Orthogonal matrix that maps the canonical original's stream to the aligned one's; None for
            permutations.
    """

    reference: MemberModel
    model: MemberModel
    group: str
    distances: tuple[float, ...]
    permutations: Mapping[str, Int[np.ndarray, " units"]]
    rotation: Float64[np.ndarray, "hidden hidden"] | None
    _original: MemberModel

    def _facts(self) -> dict[str, Any]:
        return {"group": self.group, "distance": self.distance, "before": self.distances[0], "sweeps": self.sweeps}

    @property
    def distance(self) -> float:
        """The L2 distance of both backbones after alignment."""
        return self.distances[-1]

    @property
    def sweeps(self) -> int:
        """The number of sweeps."""
        return len(self.distances) - 1

    def check(self, inputs: Tensor | Mapping[str, Tensor]) -> float:
        """Return the largest change of a logit that the alignment made, which is by rounding alone.

        Args:
            inputs: Pixels ``[images, channels, height, width]``, or the inputs of a language model by name.
        """
        named = {"pixel_values": inputs} if isinstance(inputs, Tensor) else dict(inputs)
        with torch.inference_mode():
            before, after = (model.eval()(**named).logits for model in (self._original, self.model))
        return float((after - before).abs().max())


def align(reference: MemberModel, model: MemberModel, *, group: str = "permutation", sweeps: int = 20) -> Alignment:
    """Change a model by exact symmetries so that its backbone is near to a reference's.

    Only distances are promised to fall. The loss on the straight line between both models may stay high: measure it
    with `vitzoo.path`. Heads follow their inputs, and are not compared.

    Args:
        reference: A ViT or BERT, such as ``zoo["pt-2"].load()``.
        model: A model with the same backbone. It is not changed.
        group: ``permutation`` of the stream's channels, of MLP units, of heads, and of the channels inside a head.
            ``rotation`` brings both models to their canonical form, then rotates the stream and the channels inside a
            head, and permutes MLP units and heads; not for a BERT.
        sweeps: Largest number of sweeps, from 1.

    Raises:
        ConfigError: The group is unknown, or the network cannot be rotated.
        WeightsError: The backbones have other tensors, or a weight is NaN or infinite.
        MissingPackageError: scipy is not installed.

    Example:
        >>> from vitzoo import Zoo
        >>> zoo = Zoo("zoo")
        >>> align(zoo["pt-0"].load(), zoo["pt-2"].load(), group="rotation")
        Alignment(group=rotation, distance=..., before=..., sweeps=...)
    """
    if group not in ("permutation", "rotation"):
        raise ConfigError(f'group is "{group}"', expected="permutation or rotation", key="group")
    if sweeps < 1:
        raise ConfigError(f"sweeps is {sweeps}", expected="1 or more", key="sweeps")
    if find_spec("scipy") is None:
        raise MissingPackageError(
            "scipy, which aligns models, is not installed", fix="Run: pip install scipy.", package="scipy"
        )
    one, two = (canonical(each) if group == "rotation" else each for each in (reference, model))
    target, state = load_state(one), load_state(two)
    target = {name: values for name, values in target.items() if not model.architecture.is_head(name)}
    misfit = describe_mismatch(
        {name: values.shape for name, values in target.items()},
        {name: values.shape for name, values in state.items() if not model.architecture.is_head(name)},
        of="reference's backbone",
        says="the reference",
    )
    if misfit is not None:
        raise WeightsError(f"The backbones differ: {misfit}", expected="the same tensors")
    search = _Search(target, state, symmetry_of(model), heads=num_heads(model), rotates=group == "rotation")
    distances = [search.distance]
    search.start()
    distances.append(search.distance)
    for _ in range(sweeps - 1):
        search.sweep()
        distances.append(search.distance)
        if distances[-2] - distances[-1] <= _ENOUGH * distances[-2]:
            break
    return Alignment(
        reference=one,
        model=with_state(two, search.state),
        group=group,
        distances=tuple(distances),
        permutations=search.permutations,
        rotation=search.rotation,
        _original=model,
    )


class _Search:
    """Coordinate descent over the groups of units."""

    def __init__(self, target: State, state: State, symmetry: Symmetry, *, heads: int, rotates: bool):
        self.target, self.state, self._symmetry = target, state, symmetry
        self._heads, self._rotates = heads, rotates
        self._places: dict[str, list[tuple[str, int]]] = {}
        for name, axes in symmetry.axes.items():
            for axis, label in enumerate(axes):
                if label is not None:
                    self._places.setdefault(label, []).append((name, axis))
        hidden = self._size(STREAM)
        self.rotation: Float64[np.ndarray, "hidden hidden"] | None = np.eye(hidden) if rotates else None
        self.permutations: dict[str, Int[np.ndarray, " units"]] = {} if rotates else {STREAM: np.arange(hidden)}
        for block in symmetry.blocks:
            self.permutations[_heads_of(block)] = np.arange(heads)
            for label in (block.units,) if rotates else (block.units, block.query_key, block.values):
                self.permutations[label] = np.arange(self._size(label))

    def _size(self, label: str) -> int:
        name, axis = self._places[label][0]
        return self.state[name].shape[axis]

    @property
    def distance(self) -> float:
        """The L2 distance of the backbones."""
        return float(np.sqrt(sum(((self.state[name] - values) ** 2).sum() for name, values in self.target.items())))

    def start(self) -> None:
        """Do a first sweep from two starts, and keep the better one.

        One start is the present order. The other matches the stream by the embeddings and final norm alone, which no
        other group changes: a planted change is found so.
        """
        kept = self._copy()
        self.sweep()
        without, found = self.distance, self._copy()
        self._restore(kept)
        blocks = set(self._in_blocks())
        first = [place for place in self._places[STREAM] if place[0] in self.target and place[0] not in blocks]
        self._move_stream(first)
        self.sweep()
        if self.distance >= without:
            self._restore(found)

    def _in_blocks(self) -> list[str]:
        """Return the tensors that another group changes, too."""
        return [name for name, axes in self._symmetry.axes.items() if any(axis not in (None, STREAM) for axis in axes)]

    def _copy(self) -> tuple[Any, ...]:
        state = {name: values.copy() for name, values in self.state.items()}
        return state, dict(self.permutations), self.rotation

    def _restore(self, kept: tuple[Any, ...]) -> None:
        self.state, self.permutations, self.rotation = kept

    def sweep(self) -> None:
        """Move every group to its best place, given the others."""
        for block in self._symmetry.blocks:
            self._permute(block.units, _assign(self._products(block.units)))
            self._move_heads(block)
        self._move_stream([place for place in self._places[STREAM] if place[0] in self.target])

    def _products(self, label: str, places: list[tuple[str, int]] | None = None) -> Float64[np.ndarray, "units units"]:
        """Return the inner product of each unit's weights in the target with each unit's of the state."""
        total = np.zeros((self._size(label),) * 2)
        for name, axis in self._places[label] if places is None else places:
            if name in self.target:
                one, two = (
                    np.moveaxis(each[name], axis, 0).reshape(len(total), -1) for each in (self.target, self.state)
                )
                total += one @ two.T
        return total

    def _move_stream(self, places: list[tuple[str, int]]) -> None:
        products = self._products(STREAM, places)
        if not self._rotates:
            self._permute(STREAM, _assign(products))
            return
        # The canonical stream has no mean, so the vector of ones is free: it must be mapped to itself.
        products += np.abs(products).sum() / len(products)
        turn = _turn(products)
        self._rotate(STREAM, turn)
        self.rotation = turn @ self.rotation

    def _move_heads(self, block: Block) -> None:
        """Match heads, each pair by the best change of its channels."""
        count, labels = self._heads, (block.query_key, block.values)
        width = self._size(block.values) // count
        products = [self._products(label).reshape(count, width, count, width) for label in labels]
        gains = np.zeros((count, count))
        for one in range(count):
            for two in range(count):
                gains[one, two] = sum(self._gain(each[one, :, two]) for each in products)
        order = _assign(gains)
        self.permutations[_heads_of(block)] = self.permutations[_heads_of(block)][order]
        for label, each in zip(labels, products, strict=True):
            channels = np.concatenate([two * width + np.arange(width) for two in order])
            if self._rotates:
                self._take(label, channels)
                turn = np.zeros((count * width,) * 2)
                for one, two in enumerate(order):
                    rows = slice(one * width, (one + 1) * width)
                    turn[rows, rows] = _turn(each[one, :, two])
                self._rotate(label, turn)
            else:
                inside = [two * width + _assign(each[one, :, two]) for one, two in enumerate(order)]
                self._permute(label, np.concatenate(inside))

    def _gain(self, products: Float64[np.ndarray, "channels channels"]) -> float:
        if self._rotates:
            return float(np.linalg.svd(products, compute_uv=False).sum())
        return float(products[np.arange(len(products)), _assign(products)].sum())

    def _permute(self, label: str, order: Int[np.ndarray, " units"]) -> None:
        self._take(label, order)
        self.permutations[label] = self.permutations[label][order]

    def _take(self, label: str, order: Int[np.ndarray, " units"]) -> None:
        if (order == np.arange(len(order))).all():
            return
        for name, axis in self._places[label]:
            self.state[name] = self.state[name].take(order, axis=axis)

    def _rotate(self, label: str, turn: Float64[np.ndarray, "units units"]) -> None:
        norms = {f"{norm}.{part}" for norm in self._symmetry.readers or () for part in ("weight", "bias")}
        for name, axis in self._places[label]:
            if name not in norms:  # gains of 1, as every canonical model has
                self.state[name] = np.moveaxis(np.tensordot(turn, self.state[name], (1, axis)), 0, axis)


def _heads_of(block: Block) -> str:
    return block.values.replace("values", "heads")


def _assign(products: Float64[np.ndarray, "units units"]) -> Int[np.ndarray, " units"]:
    """Return the column of each row with the largest sum; the present order if none is better."""
    from scipy.optimize import linear_sum_assignment

    order = linear_sum_assignment(products, maximize=True)[1]
    present = np.arange(len(order))
    better = products[present, order].sum() > products.trace() + 1e-12 * np.abs(products).sum()
    return order if better else present


def _turn(products: Float64[np.ndarray, "units units"]) -> Float64[np.ndarray, "units units"]:
    """Return the orthogonal matrix with the largest inner product with a matrix.

    Source: Schönemann 1966, A Generalized Solution of the Orthogonal Procrustes Problem.
    """
    left, _, right = np.linalg.svd(products)
    return left @ right
