"""A small data set in the layout of the zoo's authors, true to the format of every file, from code written here.

```
pretraining/<model>/config.json                     flat `section::key`
pretraining/<model>/result.json                     a JSON line an iteration, 0 is the untrained model; private fields
pretraining/<model>/checkpoint_*/checkpoints        a state dict, saved from a GPU
pretraining/<model>/checkpoint_*/optimizer          never needed
pretraining/<model>/checkpoint_*/.tune_metadata     Ray's own pickle, where Ray spelt the folder's name (six digits)
finetuning/<parent>/<model>/...                     the same
```
The network is `tests.interop.authors_vit`'s, what configs and results say `tests.interop.release_records`'s, and what
can be wrong with a release is done by `tests.interop.damage`. Nothing here depends on clock, machine or order.
"""

import json
import pickle
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.interop.authors_vit import TINY, AuthorsViT, Size, initialise
from tests.interop.release_records import Child, Parent, child_config, parent_config, result_rows

FAMILIES = (
    Parent(mode="sl", seed=6312, epochs=3, digits=6),
    Parent(  # as the one whose children's configs end in `checkpoint_89` of 90 epochs
        mode="sl",
        seed=42,
        epochs=4,
        digits=1,
        numbering="from first epoch",
        children=(
            Child(optimizer="adamw", learning_rate=1e-3),
            Child(optimizer="sgd", learning_rate=3e-3, digits=1, absent_keys=("optim::lr", "optim::wd", "seed")),
            Child(optimizer="adamw", learning_rate=1e-3, head_width=16, digits=4),
            Child(optimizer="sgd", learning_rate=3e-3, head_width=16, validated=True),
        ),
    ),
    Parent(
        mode="cl",
        seed=42,
        batch_size=96,
        epochs=2,
        digits=4,
        children=(
            Child(optimizer="adamw", learning_rate=3e-3, digits=4),
            Child(optimizer="sgd", learning_rate=1e-3, digits=4),
            Child(optimizer="adamw", learning_rate=1e-3, head_width=16, digits=4),
            Child(optimizer="sgd", learning_rate=3e-3, head_width=16, digits=4, seed=7, epochs=3),
        ),
    ),
)


@dataclass(frozen=True, kw_only=True)
class ReleasedModel:
    """A model as it was written, for comparison with the imported one.

    ``checkpoints`` and ``states`` go by finished epochs (0: untrained), whatever the folders are numbered by, and have
    the written epochs only. ``rows`` are those of result.json, whose number is the iteration. ``start`` is the state
    before the first step, written or not.
    """

    spec: Parent | Child
    folder: Path
    parent: str | None
    config: dict[str, Any]
    rows: tuple[dict[str, Any], ...]
    start: dict[str, Tensor]
    checkpoints: dict[int, Path] = field(default_factory=dict)
    states: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def config_json(self) -> Path:
        return self.folder / "config.json"

    @property
    def result_json(self) -> Path:
        return self.folder / "result.json"

    def metrics(self, epoch: int) -> dict[str, float]:
        """Losses and accuracies after ``epoch`` epochs."""
        return {name: value for name, value in self.rows[epoch].items() if name.endswith(("_loss", "_acc"))}


@dataclass(frozen=True, kw_only=True)
class Release:
    """A data set in the authors' layout. Models are in the order they were asked for."""

    root: Path
    size: Size
    parents: tuple[ReleasedModel, ...]
    children: tuple[ReleasedModel, ...]

    @property
    def models(self) -> tuple[ReleasedModel, ...]:
        return self.parents + self.children

    def children_of(self, parent: ReleasedModel) -> tuple[ReleasedModel, ...]:
        return tuple(child for child in self.children if child.parent == parent.name)


def write_release(
    root: Path,
    *,
    families: Sequence[Parent] = FAMILIES,
    size: Size = TINY,
    optimizers: bool = True,
    keep_states: bool = True,
) -> Release:
    """Write a data set in the authors' layout.

    Args:
        root: Where: becomes the folder that holds ``pretraining`` and ``finetuning``.
        families: The parents, each with its children.
        size: Of all models.
        optimizers: Whether the file ``optimizer`` (twice the size of the weights) is written with the checkpoints.
        keep_states: Whether the result holds all tensors, for comparison; of a large one they do not fit.
    """
    parents: list[ReleasedModel] = []
    children: list[ReleasedModel] = []
    for parent in families:
        folder = root / "pretraining" / parent.name
        written = ReleasedModel(
            spec=parent,
            folder=folder,
            parent=None,
            config=parent_config(parent, size),
            rows=result_rows(parent, parent_config(parent, size), identity=parent.name),
            start={},
        )
        parents.append(written)
        reached = _train(written, _parent_network(parent, size), size, optimizers=optimizers, keep_states=keep_states)
        for child in parent.children:
            config = child_config(child, parent, size)
            child_folder = root / "finetuning" / parent.name / child.name_under(parent)
            written = ReleasedModel(
                spec=child,
                folder=child_folder,
                parent=parent.name,
                config=config,
                rows=result_rows(child, config, identity=f"{parent.name}/{child_folder.name}"),
                start={},
            )
            children.append(written)
            start = reached[parent.epochs if child.from_epoch is None else child.from_epoch]
            network = _child_network(child, start, size)
            _train(written, network, size, optimizers=optimizers, keep_states=keep_states)
    return Release(root=root, size=size, parents=tuple(parents), children=tuple(children))


def save_from_gpu(value: Any, path: Path) -> None:
    """`torch.save`, as of tensors on a GPU: a machine without one must say where to load them."""
    with patch("torch.serialization.location_tag", lambda storage: "cuda:0"):
        torch.save(value, path)


def _parent_network(parent: Parent, size: Size) -> AuthorsViT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(parent.seed)
        network = AuthorsViT(size, outputs=parent.outputs)
        initialise(network)
    return network


def _child_network(child: Child, start: Mapping[str, Tensor], size: Size) -> AuthorsViT:
    """The parent's backbone under a fresh head, which children of one seed and one kind of head share."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(child.seed)
        network = AuthorsViT(size, outputs=child.classes, head_width=child.head_width)
        if child.head_width is None:
            initialise(network.vit.head)  # the authors' function passes over an MLP, which keeps PyTorch's default
    network.load_state_dict({name: t for name, t in start.items() if not name.startswith("vit.head.")}, strict=False)
    return network


def _train(
    model: ReleasedModel, network: AuthorsViT, size: Size, *, optimizers: bool, keep_states: bool
) -> dict[int, dict[str, Tensor]]:
    """Train for a step an epoch and write everything. The states that children may begin from come back."""
    spec = model.spec
    model.folder.mkdir(parents=True)
    model.config_json.write_text(json.dumps(model.config, indent=4))
    model.result_json.write_text("".join(json.dumps(row) + "\n" for row in model.rows))
    optimizer = _optimizer(spec, network)
    # By its name too: two parents of one seed start equal, and part.
    generator = torch.Generator().manual_seed(zlib.crc32(f"{spec.seed} {model.folder.name}".encode()))
    begun_from = {spec.epochs, *(child.from_epoch for child in getattr(spec, "children", ()))}
    reached = {}
    for epoch in range(spec.epochs + 1):
        if epoch > 0:
            _step(network, optimizer, size, generator)
        if epoch == 0 and keep_states:
            model.start.update(_copy(network))
        if epoch in begun_from:
            reached[epoch] = _copy(network)
        number = spec.checkpoint_number(epoch)
        if number is not None:
            folder = model.folder / f"checkpoint_{number:0{spec.digits}}"
            _write_checkpoint(folder, network, optimizer if optimizers else None, row=model.rows[epoch])
            model.checkpoints[epoch] = folder / "checkpoints"
            if keep_states:
                model.states[epoch] = _copy(network)
    return reached


def _write_checkpoint(
    folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer | None, *, row: dict[str, Any]
) -> None:
    folder.mkdir()
    save_from_gpu(network.state_dict(), folder / "checkpoints")
    if optimizer is not None:
        save_from_gpu(optimizer.state_dict(), folder / "optimizer")
    if len(folder.name) == len("checkpoint_000000"):
        (folder / ".is_checkpoint").touch()
        metadata = {"iteration": row["training_iteration"], "last_result": row, "ray_version": "2.5.1"}
        (folder / ".tune_metadata").write_bytes(pickle.dumps(metadata))


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, size: Size, generator: torch.Generator) -> None:
    images = torch.randn(2, 3, size.image, size.image, generator=generator)
    outputs = network(images)
    labels = torch.randint(outputs.shape[1], (2,), generator=generator)
    optimizer.zero_grad()
    F.cross_entropy(outputs, labels).backward()
    optimizer.step()


def _optimizer(spec: Parent | Child, network: nn.Module) -> torch.optim.Optimizer:
    if spec.optimizer == "adamw":
        return torch.optim.AdamW(network.parameters(), lr=spec.learning_rate, weight_decay=spec.weight_decay)
    return torch.optim.SGD(
        network.parameters(), lr=spec.learning_rate, momentum=spec.momentum, weight_decay=spec.weight_decay
    )


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}
