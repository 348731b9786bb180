"""Behaviour: what the members of a selection answer on one test set, computed once and then compared as matrices.

    b = behaviour(zoo.select(stage="finetuning"), part="test")
    b.predictions                # [checkpoints, samples]
    b.pairs("error_consistency").values

Outputs are kept in a cache outside the zoo, a safetensors file a checkpoint, so a second call runs no model.
"""

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Bool, Float, Float32, Int64, UInt16
from rich.console import Console
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

import vitzoo
from vitzoo.analysis.behaviour import pairs
from vitzoo.analysis.behaviour.cka import cka
from vitzoo.architectures import load_config_json
from vitzoo.data.cache import cache_folder
from vitzoo.errors import DatasetError, SelectionError, did_you_mean, shown
from vitzoo.ids import MemberId, MemberRef
from vitzoo.models.evaluation import EVALUATED_ROWS
from vitzoo.models.layers import POOLS, pooled_layers
from vitzoo.notebook import Shown
from vitzoo.progress import ByteProgress
from vitzoo.records import layout
from vitzoo.records.files import write_atomically
from vitzoo.text.batches import evaluation_batches
from vitzoo.text.splits import TextSplit
from vitzoo.weights.population import PopulationWeights
from vitzoo.zoo.member import Member
from vitzoo.zoo.selection import Selection, check_selection

_MEASURES = ("agreement", "kappa", "error_consistency", "capa", "hellinger")
_KEPT = ("predictions", "logits", "features")


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Pairs(Shown):
    """A measure of all pairs of checkpoints.

    Args:
        values: ``[checkpoints, checkpoints]``, symmetric; NaN where the measure is undefined.
        refs: The checkpoints.
        measure: The measure.
        samples: Number of samples that it is of.
    """

    values: Float[np.ndarray, "checkpoints checkpoints"]
    refs: tuple[MemberRef, ...]
    measure: str
    samples: int

    def __repr__(self) -> str:
        return f"Pairs({self.measure} of {len(self.refs)} checkpoints on {self.samples} samples)"

    def _facts(self) -> dict[str, Any]:
        above = self.values[np.triu_indices(len(self.refs), 1)]
        known = above[~np.isnan(above)]
        facts: dict[str, Any] = {"measure": self.measure, "checkpoints": len(self.refs), "samples": self.samples}
        if len(known):
            facts |= {"mean of pairs": float(known.mean()), "range": f"{known.min():.4g} to {known.max():.4g}"}
        return facts


@dataclass(frozen=True, eq=False, repr=False)
class Behaviour(Shown):
    """Outputs of checkpoints for the same samples. Made by `behaviour`.

    Args:
        refs: The checkpoints.
        classes: Names of the classes; none for embeddings.
        labels: True class of each sample.
        part: The part of the data set.
        kept: What was computed.
        files: Outputs of each checkpoint, in the cache.
    """

    refs: tuple[MemberRef, ...]
    classes: tuple[str, ...]
    labels: Int64[np.ndarray, " samples"]
    part: str
    kept: frozenset[str]
    files: tuple[Path, ...]
    _arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.refs)

    def __repr__(self) -> str:
        kept = ", ".join(sorted(self.kept))
        return f"Behaviour({len(self)} checkpoints on {len(self.labels)} samples of {self.part}: {kept})"

    def _facts(self) -> dict[str, Any]:
        kept = ", ".join(sorted(self.kept))
        numbers = {"checkpoints": len(self), "samples": len(self.labels), "classes": len(self.classes)}
        return {"part": self.part, "kept": kept} | numbers

    def _table_rows(self) -> list[dict[str, Any]]:
        accuracies = self.accuracy.tolist() if self.classes else [None] * len(self)
        return [{"checkpoint": ref, "accuracy": share} for ref, share in zip(self.refs, accuracies, strict=True)]

    @property
    def predictions(self) -> UInt16[np.ndarray, "checkpoints samples"]:
        """The class with the largest logit."""
        if not self.classes:
            raise SelectionError(
                f"{self.refs[0].member} has an embedding head, which predicts no class",
                fix="Compare features: behaviour(..., keep=('features',)).cka(...).",
                value=str(self.refs[0].member),
            )
        return self._read("predictions")

    @property
    def correct(self) -> Bool[np.ndarray, "checkpoints samples"]:
        """True where the prediction is the true class."""
        return self.predictions == self.labels

    @property
    def accuracy(self) -> Float[np.ndarray, " checkpoints"]:
        """The share of correct predictions of each checkpoint."""
        return self.correct.mean(axis=1)

    @property
    def logits(self) -> Float32[np.ndarray, "checkpoints samples outputs"]:
        """The outputs of the head."""
        self._check_kept("logits")
        return self._read("logits")

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that `features` takes, in the order of the network."""
        self._check_kept("features")
        with safe_open(self.files[0], framework="numpy") as opened:
            names = [name.removesuffix(".cls") for name in opened.keys() if name.endswith(".cls")]  # noqa: SIM118
        return tuple(sorted(names, key=_place_of_layer))

    def features(self, layer: str, *, pool: str = "cls") -> Float32[np.ndarray, "checkpoints samples hidden"]:
        """Return the outputs of a layer.

        Args:
            layer: One of `layers`.
            pool: ``cls`` for the first token, ``mean`` for the mean of the patches or of the other tokens.

        Raises:
            SelectionError: Features were not kept, or there is no such layer or pool.
        """
        if pool not in POOLS:
            raise SelectionError(f'pool is "{pool}"', expected=" or ".join(POOLS), value=pool)
        if layer not in self.layers:
            raise SelectionError(f'There is no layer "{layer}"', fix=did_you_mean(layer, self.layers), value=layer)
        return self._read(f"{layer}.{pool}")

    def pairs(self, measure: str) -> Pairs:
        """Compare all pairs of checkpoints. See `vitzoo.analysis.behaviour.pairs` for the measures.

        Raises:
            SelectionError: The measure is unknown, needs logits that were not kept, or heads are embeddings.
        """
        if measure not in _MEASURES:
            raise SelectionError(f'measure is "{measure}"', fix=did_you_mean(measure, _MEASURES), value=measure)
        if measure == "agreement":
            values = pairs.agreement(self.predictions)
        elif measure == "kappa":
            values = pairs.kappa(self.predictions, classes=len(self.classes))
        elif measure == "error_consistency":
            values = pairs.error_consistency(self.correct)
        elif measure == "capa":
            values = pairs.capa(self._class_logits(), self.labels)
        else:
            values = pairs.hellinger(self._class_logits())
        return Pairs(values, self.refs, measure, len(self.labels))

    def cka(self, layer: str, *, pool: str = "cls") -> Pairs:
        """Compare the features of all pairs by `vitzoo.analysis.behaviour.cka.cka`; arguments as `features`."""
        return Pairs(cka(self.features(layer, pool=pool)), self.refs, f"CKA of {layer} ({pool})", len(self.labels))

    def group(self, measure: str) -> float:
        """Compute a measure of all checkpoints together: ``krippendorff`` is alpha of the predictions."""
        if measure != "krippendorff":
            raise SelectionError(f'measure is "{measure}"', expected="krippendorff", value=measure)
        if len(self) < 2:
            raise SelectionError(f"{len(self)} checkpoint", expected="2 or more", value=len(self))
        return pairs.krippendorff(self.predictions, classes=len(self.classes))

    def _class_logits(self) -> Float32[np.ndarray, "checkpoints samples classes"]:
        _ = self.predictions  # refuses embeddings
        return self.logits

    def _check_kept(self, what: str) -> None:
        if what not in self.kept:
            kept = (*sorted(self.kept), what)
            raise SelectionError(f"{what} were not kept", fix=f"Compute them: behaviour(..., keep={kept}).", value=what)

    def _read(self, name: str) -> Any:
        if name not in self._arrays:
            arrays = []
            for file in self.files:
                with safe_open(file, framework="numpy") as opened:
                    arrays.append(opened.get_tensor(name))
            self._arrays[name] = np.stack(arrays)
        return self._arrays[name]


def _place_of_layer(name: str) -> tuple[int, int, str]:
    """Return the place of a layer in the network: embeddings, blocks, and what follows."""
    kind, _, number = name.partition(".")
    return ({"embeddings": 0, "layer": 1}.get(kind, 2), int(number or 0), name)


def behaviour(
    selection: Selection,
    *,
    part: str = "test",
    keep: Collection[str] = ("logits",),
    data: Mapping[str, str | PathLike[str]] | None = None,
    batch_size: int = EVALUATED_ROWS,
    device: str | torch.device = "cpu",
    cache: str | PathLike[str] | None = None,
    progress: bool = True,
) -> Behaviour:
    """Run each checkpoint once on its own data, and return the outputs. Repeated calls read them from a cache.

    Args:
        selection: Checkpoints of members with one data set and the same classes.
        part: ``test``, ``val``, or ``train``: the training samples that the train metrics are of.
        keep: What to keep besides predictions: ``logits``, or ``features`` of all layers with the logits.
        data: Local folders of data sets by name, as `vitzoo.images.load_images` takes them.
        batch_size: Samples in a forward pass; it changes the last bits of the outputs. The default gives the recorded
            metrics.
        device: Where the models run. In processes that `accelerate launch` started, each uses its own GPU and runs its
            share of the checkpoints.
        cache: A folder for the outputs; None for ``behaviour`` in vitzoo's cache. It may be deleted at any time.
        progress: Whether to show progress on standard error.

    Raises:
        SelectionError: The selection is empty, ``keep`` has an unknown word, or members have different data or classes.
        DatasetError: The data are not available, a model is a masked one, or its outputs are not finite.

    Example:
        >>> from vitzoo import Zoo
        >>> selection = Zoo("zoo").select(stage="finetuning")
        >>> behaviour(selection, part="test").pairs("kappa").values.shape == (len(selection), len(selection))
        True
    """
    for word in keep:
        if word not in _KEPT:
            raise SelectionError(f'keep has "{word}"', fix=did_you_mean(word, _KEPT), value=word)
    check_selection(selection)
    kept = frozenset(keep) | {"predictions"}
    if "features" in kept:
        kept |= {"logits"}
    first = Member(selection.catalogue, selection[0].member)
    classes = _check_same_data(selection)
    split = first.load_part(part, data=data)
    folder = Path(cache).expanduser() if cache is not None else cache_folder() / "behaviour"
    folder.mkdir(parents=True, exist_ok=True)
    keys = _keys(selection, split, part=part, batch_size=batch_size)
    files = [folder / f"{key}.safetensors" for key in keys]
    missing = [place for place, file in enumerate(files) if not kept <= _content(file)]
    if missing or _processes() > 1:  # all processes meet at its end
        _run(selection, missing, files, split, kept, batch_size=batch_size, device=device, progress=progress)
    return Behaviour(
        refs=selection.refs,
        classes=classes,
        labels=split.labels,
        part=part,
        kept=kept,
        files=tuple(files),
    )


def _check_same_data(selection: Selection) -> tuple[str, ...]:
    """Return the names of the classes; raise SelectionError if members differ in data, classes or kind of head."""
    columns = ("dataset", "dataset_fingerprint", "n_test", "head_role")
    rows = selection.members_table.select(["id", *columns]).to_pylist()
    if rows[0]["head_role"] == "masked":
        raise DatasetError(
            f"{rows[0]['id']} is a masked model, which answers no class for a text",
            fix='Take classifiers: zoo.select(head_role="classifier").',
        )
    for row in rows[1:]:
        for column in columns:
            if row[column] != rows[0][column]:
                raise SelectionError(
                    f"{rows[0]['id']} has {column} {shown(rows[0][column])}, and {row['id']} {shown(row[column])}",
                    expected="members with the same data and head role, since outputs are compared sample by sample",
                    fix=f"Select one kind of them, as with {column}=....",
                    value=row["id"],
                )
    names: dict[tuple[str, ...], MemberId] = {}
    for member in selection.ids:
        config = load_config_json(selection.catalogue.source.path(layout.config_file(member)))
        names.setdefault(tuple((config.get("id2label") or {}).values()), member)
    (classes, one), *others = names.items()
    if others:
        raise SelectionError(
            f"{one} and {others[0][1]} have other classes: {shown(classes)} and {shown(others[0][0])}",
            expected="members with the same classes",
            value=str(one),
        )
    return classes


def _keys(selection: Selection, split: Any, *, part: str, batch_size: int) -> list[str]:
    """Return the name of each checkpoint's file in the cache: a digest of all that its outputs depend on."""
    digest = hashlib.sha256()
    split.update(digest)
    shared = {
        "samples": digest.hexdigest(),
        "part": part,
        "batch_size": batch_size,
        "versions": [vitzoo.__version__, torch.__version__, transformers.__version__],
    }
    configs: dict[Any, str] = {}
    keys = []
    for ref, weights in zip(selection, selection.epochs_table.column("weights_id").to_pylist(), strict=True):
        if weights is None:
            raise SelectionError(f"{ref.member} has no weights_id", expected="a digest in its metrics", value=str(ref))
        if ref.member not in configs:
            member = Member(selection.catalogue, ref.member)
            paths = [layout.config_file(ref.member), *selection.catalogue.processor_files(ref.member)]
            contents = [selection.catalogue.source.path(path).read_bytes() for path in paths]
            own = [hashlib.sha256(content).hexdigest() for content in contents]
            configs[ref.member] = json.dumps([*own, member.record.precision])
        text = json.dumps({**shared, "weights": weights, "config": configs[ref.member]}, sort_keys=True)
        keys.append(hashlib.sha256(text.encode()).hexdigest())
    return keys


def _content(file: Path) -> set[str]:
    """Return what a file of the cache has: nothing if it was cut short or does not exist."""
    try:
        with safe_open(file, framework="numpy") as opened:
            return {name if name in _KEPT else "features" for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return set()


def _processes() -> int:
    """Return the number of processes that `accelerate launch` started together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _run(
    selection: Selection,
    places: Sequence[int],
    files: Sequence[Path],
    split: Any,
    kept: frozenset[str],
    *,
    batch_size: int,
    device: str | torch.device,
    progress: bool,
) -> None:
    """Run the checkpoints at these places and write their outputs; of several processes, each runs a share."""
    state = None
    if _processes() > 1:
        from accelerate import PartialState

        state = PartialState()
        # By place in the selection: another process may have written files before this one listed the missing ones.
        places = [place for place in places if place % state.num_processes == state.process_index]
        device = state.device or device
    device, sizes, members = torch.device(device), selection.sizes, {}
    total, done = sum(sizes[place] for place in places), 0
    weights = PopulationWeights(selection.catalogue, [selection[place] for place in places])
    with ByteProgress("running", console=Console(stderr=True, quiet=not progress)) as bar:
        for place, (ref, model) in zip(places, weights.iter_models(progress=False), strict=True):
            member = members.setdefault(ref.member, Member(selection.catalogue, ref.member))
            if model.device != device:
                model.to(device)  # pyright: ignore[reportArgumentType]
            content = save(_outputs(member, model, split, kept, batch_size))
            write_atomically(files[place], content, sync=False)  # `_content` notices a short file
            done += sizes[place]
            bar.update(done, total)
    if state is not None:
        state.wait_for_everyone()


def _outputs(member: Member, model: Any, split: Any, kept: frozenset[str], batch_size: int) -> dict[str, np.ndarray]:
    """Run one checkpoint."""
    arrays: dict[str, np.ndarray] = {}
    if "features" in kept:
        with pooled_layers(model) as pooled:
            evaluation = member.evaluate_model(model, split, batch_size=batch_size)
        order = np.arange(len(split))
        if isinstance(split, TextSplit):  # rows of similar lengths ran together
            order = np.concatenate(evaluation_batches(split, batch_size)).argsort()
        for (layer, pool), values in pooled.outputs().items():
            arrays[f"{layer}.{pool}"] = values.numpy()[order]
    else:
        evaluation = member.evaluate_model(model, split, batch_size=batch_size)
    logits = evaluation.logits.numpy()
    if not np.isfinite(logits).all():
        raise DatasetError(
            f"The outputs of {member.id} are not finite",
            expected="numbers",
            fix='Leave it out, as zoo.select(status="completed") does.',
        )
    arrays["predictions"] = logits.argmax(axis=1).astype(np.uint16)
    if "logits" in kept:
        arrays["logits"] = logits
    return arrays
