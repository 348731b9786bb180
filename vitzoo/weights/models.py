"""Reuse one module for many models: for members, or for flat vectors.

`iter_models` makes the parameters views of each member's memory-mapped file. No byte is copied. The file is mapped
privately, so writes to a parameter stay in this process. `ReusedModel` copies flat vectors into its parameters. See
`vitzoo.VitZooModel` for loading one model.
"""

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from vitzoo.architectures import describe_misfit, disk_name, memory_name
from vitzoo.errors import WeightsError
from vitzoo.ids import MemberRef
from vitzoo.models.loading import MemberModel, name_model
from vitzoo.models.registry import assemble_model, build_model, load_member_config
from vitzoo.records import layout
from vitzoo.tensors.header import TensorEntry
from vitzoo.weights.files import WeightsFiles
from vitzoo.weights.index import WeightsIndex
from vitzoo.weights.tensors import from_numpy, view_tensor


def iter_models(files: WeightsFiles) -> Iterator[tuple[MemberRef, MemberModel]]:
    """Iterate over models. See `vitzoo.weights.population.PopulationWeights.iter_models`."""
    files.fetch()
    modules: dict[bytes, _Module] = {}
    for row, ref in enumerate(files.refs):
        path = files.source.path(layout.config_file(ref.member))
        config = path.read_bytes()
        if config not in modules or not modules[config].is_whole:
            modules[config] = _Module(path)
        with files.open(row) as reader:
            memory = reader.map()
            if files.source.digest is not None:  # the bytes that are hashed are the ones that are used
                memory = bytearray(memory)
                files.source.compare_with_manifest(
                    layout.weights_file(ref.member, ref.epoch), reader.path, content=memory
                )
            model = modules[config].with_weights(memory, reader.entries, path=reader.path)
        yield ref, name_model(model, files.source, ref)


class ReusedModel:
    """A model whose parameters are views of one flat tensor, which takes one vector after the other.

    Args:
        config_file: config.json of a member.
        index: All tensors of the model.
        dtype: Type of the parameters, numpy's or torch's.
        device: Where the model is.

    Raises:
        WeightsError: The config and the index have different tensors.
    """

    @torch.inference_mode(False)
    def __init__(self, config_file: Path, index: WeightsIndex, *, dtype: Any, device: Any = "cpu"):
        config = load_member_config(config_file)
        problem = describe_misfit(config.shape, index.shapes)
        if problem is not None:
            raise WeightsError(
                f"{index} does not hold what {config_file} says: {problem}",
                fix='Read whole models: matrix(part="all").',
                path=config_file,
            )
        kind = dtype if isinstance(dtype, torch.dtype) else getattr(torch, np.dtype(dtype).name)
        config.dtype, self._index = kind, index
        self._flat = torch.empty(index.size, dtype=kind, device=device)
        self._model = assemble_model(config, index.unflatten(self._flat)).to(device)

    @torch.inference_mode(False)
    def with_vector(self, vector: Float[Any, "params"]) -> MemberModel:
        """Copy a vector, numpy's or torch's, into the model and return it, in evaluation mode.

        Raises:
            WeightsError: The vector has another size.
        """
        self._index.unflatten(vector)  # checks the size
        self._flat.copy_(from_numpy(vector) if isinstance(vector, np.ndarray) else vector)
        return self._model.eval()


class _Module:
    """The module of one config."""

    @torch.inference_mode(False)  # as `MemberModel.from_source`
    def __init__(self, config_file: Path):
        self._config_file = config_file
        self._config = load_member_config(config_file)
        self._model = build_model(self._config)
        self._parameters: dict[str, torch.nn.Parameter] = {}
        self._modules: list[torch.nn.Module] = []  # keeps their identities from being reused
        self._parts: list[tuple[int, ...]] = []
        self._fitting: Mapping[str, TensorEntry] | None = None

    @property
    def is_whole(self) -> bool:
        """True if nobody replaced a module or a parameter since the last member."""
        return self._parts == _identities(self._model)

    @torch.inference_mode(False)
    def with_weights(
        self, memory: mmap.mmap | bytearray, entries: Mapping[str, TensorEntry], *, path: Path
    ) -> MemberModel:
        if entries != self._fitting:
            problem = describe_misfit(self._config.shape, {name: entry.shape for name, entry in entries.items()})
            if problem is not None:
                raise WeightsError(
                    f"{path} does not hold what {self._config_file} says: {problem}",
                    fix="Get both files again.",
                    path=path,
                )
            self._fitting = entries
        tensors = {name: view_tensor(memory, entry, offset=entry.start) for name, entry in entries.items()}
        if self._config.dtype is not None:  # as transformers loads them; it copies only what has another type
            tensors = {name: tensor.to(self._config.dtype) for name, tensor in tensors.items()}
        if not self._parameters:
            self._model.load_state_dict({memory_name(name): tensor for name, tensor in tensors.items()}, assign=True)
            self._parameters = {disk_name(name): parameter for name, parameter in self._model.named_parameters()}
            self._modules, self._parts = list(self._model.modules()), _identities(self._model)
        for name, parameter in self._parameters.items():
            parameter.data, parameter.grad = tensors[name], None
            parameter.requires_grad_()
        if any(module.training for module in self._modules):
            self._model.eval()
        return self._model


def _identities(model: torch.nn.Module) -> list[tuple[int, ...]]:
    """Return the identity of each module and of its own parameters."""
    return [(id(module), *map(id, module._parameters.values())) for module in model.modules()]
