"""VitZooConfig: transformers' ViT config and what a zoo adds to it, the head.

A linear head is a plain ViT: it is written as ``model_type: "vit"``, which any transformers user loads. An MLP head
is written as ``"vitzoo"``, which the Auto classes refuse where vitzoo is not imported. What a member's config.json may
say is listed in `vitzoo.architectures.member_json`; everything else in it is refused before anything is built.
"""

from pathlib import Path
from typing import Any

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import ViTConfig

from vitzoo.architectures.member_json import HEAD_ROLES, HEAD_TYPES, MAX_LABELS, load_config_json
from vitzoo.architectures.vit import ViTShape
from vitzoo.errors import ConfigError, ConflictingArgumentsError, EmbeddingHeadError
from vitzoo.sources.locate import Name, locate
from vitzoo.sources.source import HubOptions
from vitzoo.tables.catalogue import Catalogue

# What a plain ViT's config means by leaving these out; VitZooConfig's own defaults are another model's.
_VIT_DEFAULTS = {
    name: getattr(ViTConfig, name)
    for name in ("hidden_size", "num_attention_heads", "intermediate_size", "layer_norm_eps")
}


class _NoLabels(dict[int, str]):
    """The ``id2label`` of an embedding: its width is known, its entries are no classes."""

    def __getitem__(self, key: int) -> str:
        raise EmbeddingHeadError(
            f"This model's head is an embedding of width {len(self)}: its outputs are features for contrastive "
            "learning and name no classes. Use a fine-tuned child of it to classify, or give it a new head: "
            "VitZooModel.from_pretrained(..., num_labels=<classes>, ignore_mismatched_sizes=True)."
        )

    def __reduce__(self):
        return (_NoLabels, (dict(self),))


@strict
class VitZooConfig(ViTConfig):
    """Configuration of a zoo member: a ViT and its head.

    Args:
        head_type: ``linear`` or ``mlp`` (one hidden layer with ReLU).
        head_width: Width of an MLP head's hidden layer; None for a linear head.
        head_role: ``classifier``, or ``embedding`` for the output of a contrastive parent, which has no class names.
        **kwargs: Everything of `transformers.ViTConfig`. The defaults are ViT-S/16's.

    Raises:
        StrictDataclassError: A value has another type, or the head's fields contradict each other.

    Source: Falk et al. 2025, A Model Zoo of Vision Transformers (arXiv 2504.10231).

    Example:
        >>> VitZooConfig.from_pretrained("zoo/pt-12/ft-3").head_type  # doctest: +SKIP
        'linear'
    """

    model_type = "vitzoo"

    hidden_size: int = 384
    num_attention_heads: int = 6
    intermediate_size: int = 1536
    layer_norm_eps: float = 1e-6
    head_type: str = "linear"
    head_width: int | None = None
    head_role: str = "classifier"

    def __post_init__(self, **kwargs):
        labels = kwargs.get("num_labels")
        if labels is not None and not (type(labels) is int and 0 < labels <= MAX_LABELS):
            # before transformers makes up a name for each
            raise ConfigError(f"num_labels is {labels!r}; expected 1 to {MAX_LABELS}.", path=None, key="num_labels")
        super().__post_init__(**kwargs)
        if self.head_role == "embedding" and self.id2label is not None:
            self.id2label = _NoLabels({i: f"embedding_{i}" for i in range(len(self.id2label))})
            self.label2id = None

    def validate_head(self):
        """The head's fields fit together. Called by ``@strict``."""
        if self.head_type not in HEAD_TYPES:
            raise ValueError(f"head_type is {self.head_type!r}; expected one of {HEAD_TYPES}.")
        if self.head_role not in HEAD_ROLES:
            raise ValueError(f"head_role is {self.head_role!r}; expected one of {HEAD_ROLES}.")
        if (self.head_type == "mlp") != (self.head_width is not None):
            raise ValueError(
                f"head_type is {self.head_type!r} and head_width {self.head_width}; an MLP head has a width, "
                "a linear head has none."
            )
        if self.head_width is not None and self.head_width < 1:
            raise ValueError(f"head_width is {self.head_width}; expected 1 at least.")

    def validate_sizes(self):
        """The sizes fit together, as `vitzoo.architectures.vit` takes them to. Called by ``@strict``."""
        heads, hidden = self.num_attention_heads, self.hidden_size
        if heads < 1 or hidden < 1 or hidden % heads:
            raise ValueError(
                f"hidden_size is {hidden} and num_attention_heads {heads}; expected a multiple of the heads."
            )
        for image, patch in zip(_pair(self.image_size), _pair(self.patch_size), strict=True):
            if not 1 <= patch <= image:
                raise ValueError(f"patch_size is {patch} and image_size {image}; expected a patch that fits the image.")

    @property
    def shape(self) -> ViTShape:
        """What decides the shapes of the model's tensors."""
        return ViTShape(
            image_size=_side(self.image_size),
            patch_size=_side(self.patch_size),
            num_channels=self.num_channels,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            intermediate_size=self.intermediate_size,
            qkv_bias=self.qkv_bias,
            num_labels=self.num_labels or 0,
            head_width=self.head_width,
        )

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: Name, *, epoch: int | None = None, **kwargs: Any
    ) -> Any:
        """Load the config of a member, or of any ViT.

        Args:
            pretrained_model_name_or_path: A member id (``"zoo/pt-12/ft-3"``), a zoo with ``subfolder=``, or anything
                that transformers loads.
            epoch: Accepted so that one set of arguments serves model and config; all epochs share one config.
            **kwargs: As `transformers.PreTrainedConfig.from_pretrained`.

        Raises:
            VitZooError: The id is malformed, leads nowhere, or its config says what no member may say.
        """
        found = locate(
            pretrained_model_name_or_path,
            subfolder=kwargs.get("subfolder"),
            variant=kwargs.get("variant"),
            epoch=epoch,
            options=HubOptions.of(kwargs),
        )
        if found is None:
            name: Any = pretrained_model_name_or_path
            return super().from_pretrained(name, **kwargs)
        for argument in LOCATING_ARGUMENTS:
            kwargs.pop(argument, None)
        refuse_code(kwargs)
        ref, source = found
        return cls.from_dict(load_member_config(Catalogue(source).config_file(ref.member)), **kwargs)

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        """As in transformers; a plain ViT is read as the linear head that it is."""
        config, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if config.get("model_type") == "vit":
            config = _VIT_DEFAULTS | config | {"model_type": cls.model_type}
        return config, kwargs

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers; an embedding that is given labels becomes a classifier."""
        names = ("num_labels", "id2label", "label2id")
        kwargs = {key: value for key, value in kwargs.items() if key not in names or value is not None}
        is_embedding = config_dict.get("head_role") == "embedding"
        if not is_embedding and kwargs.get("num_labels") == len(config_dict.get("id2label") or ()):
            del kwargs["num_labels"]  # as many as there are: they keep their names
        if kwargs.keys() & {"num_labels", "id2label"}:
            given = {name: kwargs.pop(name) for name in names if name in kwargs}
            kept = {key: value for key, value in config_dict.items() if key not in names}
            config_dict = kept | {"head_role": "classifier"} | given
        made = super().from_dict(dict(config_dict), **kwargs)
        (made[0] if isinstance(made, tuple) else made).validate()  # transformers sets overrides unchecked
        return made

    def to_dict(self) -> dict[str, Any]:
        """As in transformers; a linear head is written as the plain ViT that it is, an embedding has no class names."""
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


# What `locate` has used up, and what only a download needs: none of it reaches transformers for a member.
LOCATING_ARGUMENTS = (
    *("subfolder", "variant", "revision"),
    *("cache_dir", "force_download", "local_files_only", "token", "proxies"),
)


def load_member_config(path: Path) -> dict[str, Any]:
    """Read a member's config.json, of which nothing is believed.

    Args:
        path: The file.

    Returns:
        The config as plain JSON with ``model_type: "vitzoo"``, ready for `VitZooConfig.from_dict`.

    Raises:
        ConfigError: It says what no member may say (`vitzoo.architectures.member_json`), or its values do not fit
            together.
    """
    config = load_config_json(path) | {"model_type": VitZooConfig.model_type}
    try:
        VitZooConfig.from_dict(config)
    except (ValueError, TypeError, AttributeError, StrictDataclassError) as error:  # how values fit together
        raise ConfigError(f"{path} is no valid config: {error}", path=path, key=None) from error
    return config


def refuse_code(arguments: dict[str, Any]) -> None:
    """Take what would run code or read pickles out of the arguments of a member's ``from_pretrained``.

    Raises:
        ConflictingArgumentsError: It was asked for.
    """
    if arguments.pop("trust_remote_code", None):
        raise ConflictingArgumentsError(
            "trust_remote_code=True was asked of a zoo member. Members run no code of their own: leave it out."
        )
    for name in ("state_dict", "key_mapping", "gguf_file", "quantization_config"):
        if arguments.get(name) is not None:
            raise ConflictingArgumentsError(
                f"{name}= was given for a zoo member. A member is loaded whole and as it is: leave it out, or save the "
                "member with save_pretrained and load that."
            )
    if arguments.pop("use_safetensors", None) is False:
        raise ConflictingArgumentsError(
            "use_safetensors=False was asked of a zoo member. Members are read from safetensors only: leave it out."
        )


def _pair(size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    height, width = size
    return height, width


def _side(size: int | list[int] | tuple[int, int]) -> int:
    height, width = _pair(size)
    if height != width:
        raise ConfigError(
            f"Sizes are {height} x {width}; a zoo member's images and patches are square.", path=None, key=None
        )
    return height
