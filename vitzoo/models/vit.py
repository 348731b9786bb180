"""VitZooConfig and VitZooModel: a ViT of a zoo as a transformers config and model.

The network is transformers' own ViT, with the zoo's head. A ViT with a linear head is written as ``model_type: "vit"``,
which any transformers user can load. One with an MLP head is written as ``"vitzoo"``, which the Auto classes refuse if
vitzoo is not imported. Importing this module registers both classes with them.

See `vitzoo.models.loading` for how a member is loaded, and `vitzoo.architectures.vit` for the keys of config.json.
"""

from dataclasses import asdict
from typing import Any

from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping

from vitzoo.architectures.architecture import HeadWidth
from vitzoo.architectures.config_json import HEAD_ROLES, HEAD_TYPES
from vitzoo.architectures.vit import VIT, ViTShape, ViTSizes
from vitzoo.errors import EmbeddingHeadError
from vitzoo.models.config import MemberConfig, label_names
from vitzoo.models.loading import MemberBackbone, MemberModel

# The defaults of a plain ViT's config; VitZooConfig's own are ViT-S/16's.
_VIT_DEFAULTS = {
    name: getattr(ViTConfig, name)
    for name in ("hidden_size", "num_attention_heads", "intermediate_size", "layer_norm_eps")
}


class _NoLabels(dict[int, str]):
    """The ``id2label`` of an embedding head, which has a width and no classes."""

    def __getitem__(self, key: int) -> str:
        raise EmbeddingHeadError(
            f"This model's head is an embedding of width {len(self)}: its outputs name no classes",
            fix="Use a fine-tuned child of it to classify, or give it a new head: "
            "VitZooModel.from_pretrained(..., num_labels=<classes>, ignore_mismatched_sizes=True).",
        )

    def __reduce__(self):
        return (_NoLabels, (dict(self),))


@strict
class VitZooConfig(MemberConfig, ViTConfig):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Configuration of a zoo member: a ViT and its head.

    Args:
        head_type: ``linear`` or ``mlp`` (one hidden layer with ReLU).
        head_width: Width of an MLP head's hidden layer; None for a linear head.
        head_role: ``classifier``, or ``embedding`` for the output of a contrastive parent, which has no class names.
            With class names it means a classifier: plain transformers keeps the word when it fine-tunes an embedding.
        **kwargs: Everything of `transformers.ViTConfig`, but only square images and patches. The defaults are
            ViT-S/16's.

    Raises:
        StrictDataclassError: A value has another type, or the head's fields contradict each other.

    Source: Falk et al. 2025, A Model Zoo of Vision Transformers (arXiv 2504.10231).

    Example:
        >>> VitZooConfig.from_pretrained("zoo/pt-0/ft-0").head_type
        'linear'
    """

    model_type = "vitzoo"

    image_size: int = 224  # pyright: ignore[reportIncompatibleVariableOverride]
    patch_size: int = 16  # pyright: ignore[reportIncompatibleVariableOverride]
    hidden_size: int = 384
    num_attention_heads: int = 6
    intermediate_size: int = 1536
    layer_norm_eps: float = 1e-6
    head_type: str = "linear"
    head_width: int | None = None
    head_role: str = "classifier"

    def __post_init__(self, **kwargs):
        is_embedding = self.head_role == "embedding" and self.id2label is None and not self.label2id
        super().__post_init__(**kwargs)
        if is_embedding:
            self.id2label = _NoLabels({i: f"embedding_{i}" for i in range(self.num_labels or 0)})
            self.head_role, self.label2id = "embedding", None

    def __setattr__(self, key: str, value: Any) -> None:
        """Set an attribute as transformers does; an embedding that is given classes becomes a classifier."""
        if key == "id2label" and isinstance(value, list | tuple):
            value = dict(enumerate(value))
        is_new = key == "id2label" and value is not None and not isinstance(value, _NoLabels)
        if is_new and self.__dict__.get("head_role") == "embedding":
            self.head_role = "classifier"
        super().__setattr__(key, value)

    def validate_head(self):
        """Check that the head's fields agree. Called by ``@strict``."""
        if self.head_type not in HEAD_TYPES:
            raise ValueError(f"head_type is {self.head_type!r}; expected one of {HEAD_TYPES}.")
        if self.head_role not in HEAD_ROLES:
            raise ValueError(f"head_role is {self.head_role!r}; expected one of {HEAD_ROLES}.")
        if (self.head_type == "mlp") != (self.head_width is not None):
            raise ValueError(
                f"head_type is {self.head_type!r} and head_width {self.head_width}; expected a width for an MLP head "
                "alone."
            )
        if self.head_width is not None and self.head_width < 1:
            raise ValueError(f"head_width is {self.head_width}; expected at least 1.")

    def validate_sizes(self):
        """Check that the sizes agree, as `vitzoo.architectures.vit` assumes. Called by ``@strict``."""
        heads, hidden = self.num_attention_heads, self.hidden_size
        if heads < 1 or hidden < 1 or hidden % heads:
            raise ValueError(
                f"hidden_size is {hidden} and num_attention_heads {heads}; expected a multiple of the heads."
            )
        if not 1 <= self.patch_size <= self.image_size:
            raise ValueError(
                f"patch_size is {self.patch_size} and image_size {self.image_size}; expected a patch within the image."
            )

    @property
    def shape(self) -> ViTShape:
        """The sizes that decide the shapes of the model's tensors."""
        return ViTShape(
            image_size=self.image_size,
            patch_size=self.patch_size,
            num_channels=self.num_channels,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            intermediate_size=self.intermediate_size,
            qkv_bias=self.qkv_bias,
            num_labels=self.num_labels or 0,
            head_width=self.head_width,
        )

    @classmethod
    def plain_defaults(cls) -> dict[str, Any]:
        """Return the defaults of a plain ViT's config."""
        return _VIT_DEFAULTS

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON: that of a plain ViT for a linear head, and without class names for an embedding."""
        written = super().to_dict()
        if self.head_role == "embedding":
            del written["id2label"], written["label2id"]
            written["num_labels"] = self.num_labels
        else:
            del written["head_role"]
        if self.head_type == "linear":
            del written["head_type"], written["head_width"]
            written["model_type"] = "vit"
            if written["architectures"]:
                written["architectures"] = ["ViTForImageClassification"]
        return written


class VitZooMLPHead(nn.Module):
    """A head with one hidden layer of width ``head_width``: linear, ReLU, linear."""

    def __init__(self, *, hidden_size: int, head_width: int, num_labels: int):
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, head_width)
        self.activation = nn.ReLU()
        self.fc2 = nn.Linear(head_width, num_labels)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Map ``[batch, hidden_size]`` to ``[batch, num_labels]``."""
        return self.fc2(self.activation(self.fc1(hidden_states)))


class VitZooModel(MemberModel, ViTForImageClassification):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A member of a zoo: a ViT with a linear or an MLP head, a real `transformers.PreTrainedModel`.

    Args:
        config: Sizes of the network, and the head.

    Source: Falk et al. 2025, A Model Zoo of Vision Transformers (arXiv 2504.10231); Dosovitskiy et al. 2021.

    Example:
        >>> import torch
        >>> model = VitZooModel.from_pretrained("zoo/pt-0/ft-0")
        >>> model(pixel_values=torch.zeros(1, 3, 8, 8)).logits.shape
        torch.Size([1, 4])
    """

    architecture = VIT
    roles = ("classifier", "embedding")
    config_class = VitZooConfig
    config: VitZooConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, config: VitZooConfig):
        super().__init__(config)
        if config.head_width is not None:
            self.classifier = VitZooMLPHead(
                hidden_size=config.hidden_size, head_width=config.head_width, num_labels=config.num_labels or 0
            )
            self.post_init()
        self.loss_type = "ForImageClassification"  # transformers guesses it from the class's name, which fails here

    @classmethod
    def config_for(
        cls,
        sizes: ViTSizes,
        *,
        outputs: int,
        head_width: HeadWidth = None,
        role: str,
        classes: tuple[str, ...] = (),
        dropout: float = 0.0,
    ) -> VitZooConfig:
        """Make the config of a planned member. See `MemberModel.config_for`."""
        shape = sizes.shape(outputs=outputs, head_width=head_width, role=role)
        values: dict[str, Any] = asdict(shape) | {"num_attention_heads": sizes.num_attention_heads}
        if role == "classifier":
            del values["num_labels"]
            values |= label_names(classes)
        return VitZooConfig(
            **values,
            head_type="linear" if shape.head_width is None else "mlp",
            head_role=role,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            architectures=[cls.__name__],
            dtype="float32",
        )

    @property
    def layers(self) -> dict[str, nn.Module]:
        """The modules of the layers. See `MemberModel.layers`."""
        blocks = {f"layer.{number}": block for number, block in enumerate(self.vit.layers)}
        return {"embeddings": self.vit.embeddings} | blocks | {"layernorm": self.vit.layernorm}

    def features_and_logits(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the CLS token after the last norm, and the logits. See `MemberModel.features_and_logits`."""
        features = self.vit(**inputs).last_hidden_state[:, 0]
        return features, self.classifier(features)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, **kwargs: Any):  # type: ignore[override]
        """Compute logits, and the loss if labels are given.

        Args:
            pixel_values: Images, float ``[batch, num_channels, image_size, image_size]``, normalised.
            labels: Class indices, int ``[batch]``.
            **kwargs: As `transformers.ViTForImageClassification.forward`.

        Returns:
            `transformers.modeling_outputs.ImageClassifierOutput`; ``logits`` of an embedding head are the embedding.

        Raises:
            EmbeddingHeadError: Labels were given to an embedding head.
        """
        if labels is not None and self.config.head_role == "embedding":
            raise EmbeddingHeadError(
                f"labels were given to an embedding head of width {self.config.num_labels}, which has no classes",
                fix="Load it with num_labels=<classes> and ignore_mismatched_sizes=True to fine-tune it.",
            )
        return super().forward(pixel_values, labels=labels, **kwargs)


class VitZooBackbone(MemberBackbone, ViTModel):
    """A member without its head, as ``AutoModel`` loads it: `transformers.ViTModel`."""

    architecture = VIT
    config_class = VitZooConfig


AutoConfig.register("vitzoo", VitZooConfig)
# transformers translates the names on disk of the classes that it knows by their names.
register_checkpoint_conversion_mapping(
    "VitZooBackbone", get_checkpoint_conversion_mapping("ViTModel") or [], overwrite=True
)
AutoModel.register(VitZooConfig, VitZooBackbone)
AutoModelForImageClassification.register(VitZooConfig, VitZooModel)
