"""A third architecture, which lives here alone: a hidden layer over all pixels of an image, and a linear head.

`register_toy` adds it to the library. See docs/guides/architectures.md for how to add one.
"""

import math
import re
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from vitzoo import architectures
from vitzoo.architectures.architecture import Architecture, FirstValue, HeadWidth, Shapes
from vitzoo.architectures.config_json import COMMON_FIELDS, SIZE, check_labels, one_of
from vitzoo.models import registry
from vitzoo.models.config import MemberConfig, label_names
from vitzoo.models.loading import MemberModel
from vitzoo.records.fields import PositiveInt, check_fields

_ORDER = ("toy.pixels.weight", "toy.pixels.bias", "readout.weight", "readout.bias")


@dataclass(frozen=True, kw_only=True, slots=True)
class ToySizes:
    """The sizes of a toy's backbone, and how pixels are normalised."""

    image_size: PositiveInt
    hidden_size: PositiveInt
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        check_fields(self)

    def shape(self, *, outputs: int, head_width: HeadWidth, role: str) -> "ToyShape":
        assert (head_width, role) in ((None, "classifier"), (None, "embedding"))
        return ToyShape(self.image_size, self.hidden_size, outputs)

    def flops(self, *, tokens: int | None = None) -> float:
        return 2 * 3 * self.image_size**2 * self.hidden_size


@dataclass(frozen=True, slots=True)
class ToyShape:
    """The sizes that decide the shapes of a toy's tensors."""

    image_size: int
    hidden_size: int
    num_labels: int

    @property
    def num_tensors(self) -> int:
        return len(_ORDER)

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        weights = ((self.hidden_size, 3 * self.image_size**2), (self.num_labels, self.hidden_size))
        shapes = (weights[0], weights[0][:1], weights[1], weights[1][:1])
        return dict(zip(_ORDER, shapes, strict=True))


class _Toy(Architecture):
    backbone = "toy"
    modality = "images"
    sizes = ToySizes
    classes = {"config": "ToyConfig", "classifier": "ToyModel", "embedding": "ToyModel"}  # noqa: RUF012
    model_types = ("toy",)
    config_fields = COMMON_FIELDS | {
        "model_type": one_of("toy"),
        "architectures": list[str],
        **dict.fromkeys(("image_size", "hidden_size", "num_channels"), SIZE),
    }
    required_fields = ("model_type", "image_size", "hidden_size", "num_channels")
    recipe_keys = ("image_size", "hidden_size")
    shared_keys = ("problem_type",)

    def is_head(self, name: str) -> bool:
        return name.startswith("readout.")

    def layer_name(self, name: str) -> str:
        return re.split(r"\.", name.removeprefix("toy."))[0]

    def network_order(self, names: Iterable[str]) -> list[str]:
        return sorted(names, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))

    def first_value(self, name: str, shapes: Shapes, config: Mapping[str, Any]) -> FirstValue:
        if name not in _ORDER:
            raise ValueError(f"no rule initialises {name}")
        fan_in = shapes[name.replace("bias", "weight")][1]
        return FirstValue("uniform", 1 / math.sqrt(fan_in))

    def check_config(self, path: Path, config: dict[str, Any]) -> None:
        check_labels(path, config)

    def plan_graph(self, plan: Any) -> None:
        stream = plan.add_nodes("embedding", 0, plan.width)
        if _ORDER[0] in plan.shapes:
            stream = plan.linear("mlp_hidden", 0, stream, "toy.pixels")
        if _ORDER[2] in plan.shapes:
            plan.linear("output", 1, stream, "readout")


TOY = _Toy()


@strict
class ToyConfig(MemberConfig, PreTrainedConfig):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Configuration of a toy."""

    model_type = "toy"

    image_size: int = 8
    hidden_size: int = 6
    num_channels: int = 3
    head_type: str = "linear"
    head_width: int | None = None
    head_role: str = "classifier"

    @property
    def shape(self) -> ToyShape:
        return ToyShape(self.image_size, self.hidden_size, self.num_labels or 0)


class ToyBackbone(nn.Module):
    def __init__(self, config: ToyConfig):
        super().__init__()
        self.pixels = nn.Linear(3 * config.image_size**2, config.hidden_size)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.pixels(pixel_values.flatten(1)).relu()


class ToyModel(MemberModel, PreTrainedModel):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A toy with a linear head."""

    architecture = TOY
    roles = ("classifier", "embedding")
    config_class = ToyConfig
    base_model_prefix = "toy"
    main_input_name = "pixel_values"

    def __init__(self, config: ToyConfig):
        super().__init__(config)
        self.toy = ToyBackbone(config)
        self.readout = nn.Linear(config.hidden_size, config.num_labels or 0)
        self.post_init()

    @classmethod
    def config_for(
        cls,
        sizes: ToySizes,
        *,
        outputs: int,
        head_width: HeadWidth = None,
        role: str,
        classes: tuple[str, ...] = (),
        dropout: float = 0.0,
    ) -> ToyConfig:
        labels: dict[str, Any] = label_names(classes) if role == "classifier" else {"num_labels": outputs}
        return ToyConfig(
            image_size=sizes.image_size,
            hidden_size=sizes.hidden_size,
            head_role=role,
            architectures=[cls.__name__],
            dtype="float32",
            **labels,
        )

    def features_and_logits(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        features = self.toy(**inputs)
        return features, self.readout(features)

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        return ImageClassifierOutput(logits=self.readout(self.toy(pixel_values)))


@contextmanager
def register_toy():
    """Register the toy, until the block ends."""
    with (
        patch.dict(architectures.ARCHITECTURES),
        patch.dict(architectures._BY_WORD),
        patch.dict(registry.MODELS),
    ):
        architectures.register(TOY)
        registry.register_model(ToyModel)
        yield
