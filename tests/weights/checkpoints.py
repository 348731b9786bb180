"""Select and change the weights files of a zoo in tests."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from vitzoo import Zoo
from vitzoo.weights.population import PopulationWeights

Tensors = dict[str, torch.Tensor]


def weights_of(root: Path, **conditions: object) -> PopulationWeights:
    zoo = Zoo(root)
    return zoo.weights(zoo.select(**conditions))  # pyright: ignore[reportArgumentType]


def rewrite(member: Path, change: Callable[[Tensors], Tensors]) -> None:
    """Replace the final weights of a member in a new file, so that a hard link keeps the old ones."""
    file = member / "model.safetensors"
    tensors = change(load_file(file))
    file.unlink()
    save_file(tensors, file, metadata={"format": "pt"})


def map_tensors(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: change(tensor) for name, tensor in tensors.items()}
