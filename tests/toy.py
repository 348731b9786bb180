"""A third architecture, which lives here alone: a network of two layers on flattened images.

It is the example of docs/guides/architectures.md. `register_toy` makes vitzoo and training know it.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from tests.tiny import FINE_TUNING, SUPERVISED
from training.recipes.recipe import Children, Head, Parent, Recipe, Seeds
from training.recipes.training import Optimizer
from vitzoo import architectures
from vitzoo.architectures import Architecture, FirstValue
from vitzoo.architectures.config_json import COMMON_FIELDS, SIZE, check_labels, one_of
from vitzoo.models import registry
from vitzoo.models.loading import MemberConfig, MemberModel, label_names
from vitzoo.records.fields import PositiveInt

_ORDER = ("toy.pixels.weight", "toy.pixels.bias", "toy.norm.weight", "toy.norm.bias", "head.weight", "head.bias")


@dataclass(frozen=True, kw_only=True, slots=True)
class ToySizes:
    """The sizes that a recipe declares; every architecture of images has image_size, mean and std."""

    image_size: PositiveInt
    hidden_size: PositiveInt
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def shape(self, *, outputs: int, head_width: Any, role: str) -> "ToyShape":
        assert head_width is None
        assert role == "classifier"
        return ToyShape(image_size=self.image_size, hidden_size=self.hidden_size, num_labels=outputs)

    def flops(self, *, tokens: int | None = None) -> float:
        return 2 * 3 * self.image_size**2 * self.hidden_size


@dataclass(frozen=True, kw_only=True, slots=True)
class ToyShape:
    """The sizes that decide the shapes of the tensors."""

    image_size: int
    hidden_size: int
    num_labels: int
    num_tensors: int = len(_ORDER)

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        hidden, labels = self.hidden_size, self.num_labels
        shapes = [(hidden, 3 * self.image_size**2), (hidden,), (hidden,), (hidden,), (labels, hidden), (labels,)]
        return dict(zip(_ORDER, shapes, strict=True))


class _Toy(Architecture):
    backbone, modality, sizes = "toy", "images", ToySizes
    model_types = ("toy",)
    config_fields = COMMON_FIELDS | {
        "model_type": one_of("toy"),
        "architectures": list[str],
        **dict.fromkeys(("image_size", "num_channels", "hidden_size"), SIZE),
    }
    required_fields = ("model_type", "image_size", "hidden_size")
    recipe_keys = ("image_size", "hidden_size")
    shared_keys = ()

    def is_head(self, name: str) -> bool:
        return name.startswith("head.")

    def layer_name(self, name: str) -> str:
        return name.removeprefix("toy.").partition(".")[0]

    def network_order(self, names: Iterable[str]) -> list[str]:
        return sorted(names, key=_ORDER.index)

    def first_value(self, name: str, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> FirstValue:
        if name.endswith(".bias"):
            return FirstValue("constant", 0.0)
        return FirstValue("constant", 1.0) if "norm" in name else FirstValue("normal", shapes[name][1] ** -0.5)

    def check_config(self, path: Path, config: dict[str, Any]) -> None:
        check_labels(path, config)

    def num_heads(self, config: Mapping[str, Any]) -> int:
        return 1


TOY = _Toy()


@strict
class ToyConfig(MemberConfig, PreTrainedConfig):
    """Sizes of the network."""

    model_type = "toy"

    image_size: int = 8
    num_channels: int = 3
    hidden_size: int = 16
    head_role: str = "classifier"
    head_type: str = "linear"
    head_width: int | None = None

    @property
    def shape(self) -> ToyShape:
        return ToyShape(image_size=self.image_size, hidden_size=self.hidden_size, num_labels=self.num_labels or 0)

    def to_dict(self) -> dict[str, Any]:
        written = super().to_dict()
        return {name: value for name, value in written.items() if name != "head_width"}


class ToyBackbone(nn.Module):
    """Pixels to features."""

    def __init__(self, config: ToyConfig):
        super().__init__()
        self.pixels = nn.Linear(3 * config.image_size**2, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.norm(self.pixels(pixel_values.flatten(1)).relu())


class ToyModel(MemberModel, PreTrainedModel):
    """The network and its head."""

    architecture, roles, config_class, base_model_prefix = TOY, ("classifier",), ToyConfig, "toy"

    def __init__(self, config: ToyConfig):
        super().__init__(config)
        self.toy, self.head = ToyBackbone(config), nn.Linear(config.hidden_size, config.num_labels or 0)
        self.post_init()

    @classmethod
    def config_for(cls, sizes: ToySizes, *, classes: tuple[str, ...] = (), **head: Any) -> ToyConfig:
        return ToyConfig(
            image_size=sizes.image_size,
            hidden_size=sizes.hidden_size,
            architectures=["ToyModel"],
            dtype="float32",
            **label_names(classes),
        )

    def features_and_logits(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        features = self.toy(**inputs)
        return features, self.head(features)

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> ImageClassifierOutput:
        return ImageClassifierOutput(logits=self.head(self.toy(pixel_values)))


@contextmanager
def registered_toy() -> Iterator[None]:
    """Register the architecture and its model, and forget them again."""
    known = dict(architectures.ARCHITECTURES), dict(architectures._BY_WORD), dict(registry.MODELS)
    architectures.register(TOY)
    registry.register_model(ToyModel)
    AutoConfig.register("toy", ToyConfig, exist_ok=True)
    try:
        yield
    finally:
        for registered, before in zip(
            (architectures.ARCHITECTURES, architectures._BY_WORD, registry.MODELS), known, strict=True
        ):
            registered.clear()
            registered.update(before)


def toy() -> Recipe:
    """Make a recipe of 2 parents and 4 children, with two epochs each."""
    training = replace(SUPERVISED, epochs=2)
    return Recipe(
        name="toy",
        source="tests",
        architecture=ToySizes(image_size=8, hidden_size=16),
        parents=tuple(
            Parent(training=training, head=Head(outputs=6), seeds=Seeds.same(seed), replicates=1) for seed in (0, 1)
        ),
        children=Children(
            training=replace(FINE_TUNING, epochs=2),
            heads=(Head(outputs=4),),
            optimizers=(Optimizer(name="adamw", learning_rate=3e-3), Optimizer(name="adamw", learning_rate=1e-3)),
            seeds=(7,),
        ),
    )
