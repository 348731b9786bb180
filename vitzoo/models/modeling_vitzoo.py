"""VitZooModel: a zoo member as a transformers model, loaded by its id.

The network is transformers' own ViT; here is only the MLP head, and a ``from_pretrained`` that knows zoos. Importing
this module registers both classes with transformers' Auto classes.
"""

import os
from typing import Any, cast

from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedConfig, ViTForImageClassification

from vitzoo.architectures.vit import describe_misfit, describe_mismatch, is_head, tensor_shapes
from vitzoo.errors import ConfigError, ConflictingArgumentsError, EmbeddingHeadError, WeightsError
from vitzoo.ids import MemberRef
from vitzoo.models.configuration_vitzoo import LOCATING_ARGUMENTS, VitZooConfig, load_member_config, refuse_code
from vitzoo.models.integrity import check_unaltered, check_whole
from vitzoo.sources.locate import Name, locate
from vitzoo.sources.source import HubOptions, ZooSource
from vitzoo.tables.catalogue import Catalogue, MemberFiles


class VitZooMLPHead(nn.Module):
    """A head with one hidden layer: linear, ReLU, linear.

    Args:
        hidden_size: Width of the CLS token.
        head_width: Width of the hidden layer.
        num_labels: Width of the output.
    """

    def __init__(self, *, hidden_size: int, head_width: int, num_labels: int):
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, head_width)
        self.activation = nn.ReLU()
        self.fc2 = nn.Linear(head_width, num_labels)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """``[batch, hidden_size]`` -> ``[batch, num_labels]``."""
        return self.fc2(self.activation(self.fc1(hidden_states)))


class VitZooModel(ViTForImageClassification):
    """A member of a zoo: a ViT with a linear or an MLP head, a real `transformers.PreTrainedModel`.

    Args:
        config: Its architecture and head.

    Source: Falk et al. 2025, A Model Zoo of Vision Transformers (arXiv 2504.10231); Dosovitskiy et al. 2021.

    Example:
        >>> model = VitZooModel.from_pretrained("zoo/pt-12/ft-3")  # doctest: +SKIP
        >>> model(pixel_values=images).logits.shape  # doctest: +SKIP
        torch.Size([145, 4])
    """

    config_class = VitZooConfig
    config: VitZooConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, config: VitZooConfig):
        super().__init__(config)
        if config.head_width is not None:
            self.classifier = VitZooMLPHead(
                hidden_size=config.hidden_size, head_width=config.head_width, num_labels=config.num_labels or 0
            )
            self.post_init()
        self.loss_type = "ForImageClassification"  # transformers would guess from the class's name, and find none

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, **kwargs: Any):  # type: ignore[override]
        """Logits, and a loss where labels are given.

        Args:
            pixel_values: Images, float ``[batch, num_channels, image_size, image_size]``, normalised.
            labels: Class indices, int ``[batch]``.
            **kwargs: As `transformers.ViTForImageClassification.forward`, ``output_hidden_states`` among them.

        Returns:
            `transformers.modeling_outputs.ImageClassifierOutput`; of an embedding head, ``logits`` is the embedding.

        Raises:
            EmbeddingHeadError: Labels were given to an embedding head.
        """
        if labels is not None and self.config.head_role == "embedding":
            raise EmbeddingHeadError(
                f"labels were given to a model whose head is an embedding of width {self.config.num_labels}: it has no "
                "classes. Load it with num_labels=<classes> and ignore_mismatched_sizes=True to fine-tune it."
            )
        return super().forward(pixel_values, labels=labels, **kwargs)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: Name | None,
        *model_args: Any,
        config: PreTrainedConfig | str | os.PathLike[str] | None = None,
        epoch: int | None = None,
        verify: bool = False,
        **kwargs: Any,
    ) -> "VitZooModel":
        """Load a member by its id, or any ViT that transformers loads.

        A member's config and weights are checked against each other before anything is built, and only
        safetensors are read.

        Args:
            pretrained_model_name_or_path: A member id (``"zoo/pt-12/ft-3"``, ``"pt-12/ft-3@7"``, ``"./zoo/pt-0"``,
                ``"org/name/pt-0"`` of a Hub repo, a path), a zoo with ``subfolder="pt-12/ft-3"``, or anything that
                transformers loads.
            *model_args: As in transformers.
            config: A config to use instead of the member's own.
            epoch: Finished epochs of training, from 0; None for the final weights. The same as ``@7`` in the id and as
                ``variant="epoch-07"``.
            verify: Also compare the file's sha256 with the member's record (about .6 ms a MB; of a Hub repo it
                downloads the record).
            **kwargs: As `transformers.PreTrainedModel.from_pretrained`: ``dtype``, ``device_map``,
                ``attn_implementation``, ``num_labels`` with ``ignore_mismatched_sizes``, ...; of a Hub repo
                ``revision``, ``token``, ``cache_dir``, ``local_files_only``, ``force_download``.

        Returns:
            The model, in evaluation mode; with ``output_loading_info=True`` a pair of it and transformers' report.

        Raises:
            VitZooError: The id is malformed or leads nowhere; a file is damaged, altered, or not what its
                config says. `vitzoo.errors` draws the tree.
        """
        found = locate(
            pretrained_model_name_or_path,
            subfolder=kwargs.get("subfolder"),
            variant=kwargs.get("variant"),
            epoch=epoch,
            options=HubOptions.of(kwargs),
        )
        if found is None:
            if verify:
                raise ConflictingArgumentsError(
                    f'verify=True was asked of "{pretrained_model_name_or_path}", which is no member of a zoo: only '
                    "members have a record to compare with."
                )
            name: Any = pretrained_model_name_or_path
            return cast(VitZooModel, super().from_pretrained(name, *model_args, config=config, **kwargs))
        for argument in LOCATING_ARGUMENTS:
            kwargs.pop(argument, None)
        ref, source = found
        return cls.from_source(source, ref, *model_args, config=config, verify=verify, **kwargs)

    @classmethod
    def from_source(
        cls,
        source: ZooSource,
        ref: MemberRef,
        *model_args: Any,
        config: PreTrainedConfig | str | os.PathLike[str] | None = None,
        verify: bool = False,
        **kwargs: Any,
    ) -> "VitZooModel":
        """Load a member of a zoo that is open already.

        Args:
            source: The zoo.
            ref: The member and the epoch.
            *model_args: As `from_pretrained`, as are ``config``, ``verify`` and the rest.
            config: A config to use instead of the member's own.
            verify: Also compare the file's sha256 with the member's record.
            **kwargs: What transformers takes, without what says where the member is.

        Raises:
            VitZooError: As `from_pretrained`.
        """
        refuse_code(kwargs)
        files = Catalogue(source).member_files(ref, verify=verify)
        own_config = load_member_config(files.config)
        found = {name: entry.shape for name, entry in check_whole(files).items()}
        _check_shapes(files, VitZooConfig.from_dict(own_config), found)
        if verify:
            check_unaltered(files)
        if not isinstance(config, PreTrainedConfig):
            loading = {name: kwargs.pop(name) for name in ("dtype", "torch_dtype") if name in kwargs}
            if config is None:
                config, unused = VitZooConfig.from_dict(own_config, return_unused_kwargs=True, **kwargs)
            else:
                config, unused = VitZooConfig.from_pretrained(config, return_unused_kwargs=True, **kwargs)
            kwargs = unused | loading
        _check_override(files, config, found, new_head=kwargs.get("ignore_mismatched_sizes", False))
        wants_info = kwargs.pop("output_loading_info", False)
        loaded: Any = super().from_pretrained(
            None, *model_args, config=config, state_dict=load_file(files.weights), output_loading_info=True, **kwargs
        )
        model, info = loaded
        random = [name for name in info["missing_keys"] if not is_head(name)]
        if random:
            raise WeightsError(f"{files.ref} was given arguments that leave {random[0]} random.", path=files.weights)
        model.config.name_or_path = str(files.ref)
        return cast(VitZooModel, (model, info) if wants_info else model)


def _check_shapes(files: MemberFiles, config: VitZooConfig, found: dict[str, tuple[int, ...]]) -> None:
    problem = describe_misfit(config.shape, found)
    if problem is not None:
        raise WeightsError(
            f"{files.weights} does not hold what {files.config} says: {problem}. "
            "Nothing was loaded: get both files again.",
            path=files.weights,
        )


def _check_override(files: MemberFiles, config: object, found: dict[str, tuple[int, ...]], *, new_head: bool) -> None:
    """Arguments may change the head, when asked to; they never leave a weight of the backbone random."""
    if not isinstance(config, VitZooConfig):
        raise ConfigError(
            f"The config given for {files.ref} is a {type(config).__name__}; expected a VitZooConfig.",
            path=None,
            key=None,
        )
    expected = tensor_shapes(config.shape)
    if new_head:
        expected = {name: shape for name, shape in expected.items() if not is_head(name)}
        found = {name: shape for name, shape in found.items() if not is_head(name)}
    problem = describe_mismatch(expected, found)
    if problem is not None:
        raise WeightsError(
            f"{files.weights} does not fit the arguments given: {problem}. A new head of another size needs "
            "ignore_mismatched_sizes=True; the backbone must stay as it is.",
            path=files.weights,
        )


AutoConfig.register("vitzoo", VitZooConfig)
AutoModelForImageClassification.register(VitZooConfig, VitZooModel)
