"""Models one after the other on one module: its parameters become views of each member's mapped file.

No byte is copied: the file is mapped privately, so that what is written into a parameter stays in this process. A model
of its own is `vitzoo.VitZooModel.from_pretrained`'s business.
"""

import mmap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch

from vitzoo.architectures import describe_misfit, disk_name, memory_name
from vitzoo.errors import WeightsError
from vitzoo.ids import MemberRef
from vitzoo.models.loading import MemberModel
from vitzoo.models.registry import build_model, load_member_config
from vitzoo.records import layout
from vitzoo.tensors.header import TensorEntry
from vitzoo.weights.files import WeightsFiles
from vitzoo.weights.tensors import view_tensor

if TYPE_CHECKING:
    from pathlib import Path


def iter_models(files: WeightsFiles) -> Iterator[tuple[MemberRef, MemberModel]]:
    """Iterate over models. See `vitzoo.weights.population.PopulationWeights.iter_models`."""
    files.fetch()
    modules: dict[bytes, _Module] = {}
    for row, ref in enumerate(files.refs):
        path = files.source.path(layout.config_file(ref.member))
        config = path.read_bytes()
        if config not in modules:
            modules[config] = _Module(path)
        with files.open(row, whole=False) as reader:
            if not modules[config].is_whole:
                modules[config] = _Module(path)
            model = modules[config].with_weights(reader.map(), reader.entries, path=reader.path)
        model.config.name_or_path = str(ref)
        yield ref, model


class _Module:
    """The module of one config."""

    def __init__(self, config_file: "Path"):
        self._config_file = config_file
        self._config = load_member_config(config_file)
        with torch.device("meta"):
            self._model = build_model(self._config)
        self._parameters: dict[str, torch.nn.Parameter] | None = None
        self._fitting: Mapping[str, TensorEntry] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether its parameters are still those that it was made with."""
        if self._parameters is None:
            return True
        found = {disk_name(name): parameter for name, parameter in self._model.named_parameters()}
        return found.keys() == self._parameters.keys() and all(
            found[name] is parameter for name, parameter in self._parameters.items()
        )

    def with_weights(self, memory: mmap.mmap, entries: Mapping[str, TensorEntry], *, path: "Path") -> MemberModel:
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
        if self._parameters is None:
            self._model.load_state_dict({memory_name(name): tensor for name, tensor in tensors.items()}, assign=True)
            self._parameters = {disk_name(name): parameter for name, parameter in self._model.named_parameters()}
        for name, parameter in self._parameters.items():
            parameter.data, parameter.grad = tensors[name], None
            parameter.requires_grad_()
        return self._model.eval()
