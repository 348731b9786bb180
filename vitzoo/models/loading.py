"""Load a member of a zoo as a transformers model: the base of every architecture's config and model class.

A member's files are not trusted. The config is read and validated once, and its tensors are compared with the header of
the weights file before anything is built. Sizes and headers are checked at every load, hashes on request. A zoo that
agrees with itself may still be another zoo: see rule 6 of docs/decisions.md.

Plain loads build the model here, without transformers' loader: see `_assemble`. Other arguments (a device map, a dtype,
another head, ...) go through transformers. See `vitzoo.models.registry` for the classes.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.distributed.fsdp import is_fsdp_enabled
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.monkey_patching import get_patch_mapping

from vitzoo.architectures import Architecture, ModelShape, describe_misfit, load_config_json
from vitzoo.errors import ConfigError, ConflictingArgumentsError, WeightsError
from vitzoo.ids import MemberRef
from vitzoo.records import layout
from vitzoo.records.files import check_file
from vitzoo.sources.locate import Name, locate
from vitzoo.sources.source import HubOptions, ZooSource
from vitzoo.tables.catalogue import Catalogue, MemberFiles
from vitzoo.tensors.header import load_header

_DIGITS = re.compile(r"\d+")
# The arguments that locate a member or download it; transformers gets none of them.
_LOCATING_ARGUMENTS = (
    *("subfolder", "variant", "revision"),
    *("cache_dir", "force_download", "local_files_only", "token", "proxies"),
)
# The arguments that would run code, read pickles or give other weights.
_REFUSED_ARGUMENTS = ("trust_remote_code", "state_dict", "key_mapping", "gguf_file", "quantization_config")

if TYPE_CHECKING:  # mixins, so that transformers sees its own classes alone
    _Config, _Model = PreTrainedConfig, PreTrainedModel
else:
    _Config, _Model = object, object


class MemberConfig(_Config):
    """Base of an architecture's config class: loads a member's config.json by the member's id."""

    @property
    def shape(self) -> ModelShape:
        """The sizes that decide the shapes of the model's tensors."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: Name, *, epoch: int | None = None, **kwargs: Any
    ) -> Any:
        """Load the config of a member, or of any model that transformers loads.

        Args:
            pretrained_model_name_or_path: A member id (``"zoo/pt-12/ft-3"``), a zoo with ``subfolder=``, or anything
                that transformers loads.
            epoch: Finished epochs, accepted so that model and config take the same arguments; all share one config.
            **kwargs: As `transformers.PreTrainedConfig.from_pretrained`.

        Raises:
            VitZooError: The id is malformed, there is no such member, or its config is not valid for a member.
        """
        located = _locate(pretrained_model_name_or_path, epoch, kwargs)
        if located is None:
            name: Any = pretrained_model_name_or_path
            return super().from_pretrained(name, **kwargs)
        _refuse_arguments(kwargs)
        ref, source = located
        return cls.from_member(Catalogue(source).config_file(ref), **kwargs)

    @classmethod
    def from_member(cls, path: Path, *, values: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        """Read a member's config.json, which is not trusted, or take its values from `load_config_json`.

        Args:
            path: The file.
            values: Content of the file, if it was read before.
            **kwargs: As ``from_dict``.

        Raises:
            ConfigError: The file has a key or value that no member may have, or its values contradict each other.
        """
        values = (load_config_json(path) if values is None else values) | {"model_type": cls.model_type}
        try:
            return cls.from_dict(values, **kwargs) if kwargs else cls(**values)
        except (ValueError, TypeError, AttributeError, StrictDataclassError) as error:
            arguments = f" with {', '.join(kwargs)}=" if kwargs else ""
            raise ConfigError(f"{path} is not a valid config{arguments}: {error}", path=path) from error


class MemberModel(_Model):
    """Base of an architecture's model class: loads a member by its id."""

    architecture: Architecture
    config_class: type[MemberConfig]  # pyright: ignore[reportIncompatibleVariableOverride]

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: Name | None,
        *model_args: Any,
        config: PreTrainedConfig | str | os.PathLike[str] | None = None,
        epoch: int | None = None,
        verify: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Load a member by its id, or any model of this architecture that transformers loads.

        A member's config and weights are compared with each other before anything is built. Only safetensors are read.

        Args:
            pretrained_model_name_or_path: A member id (``"zoo/pt-12/ft-3"``, ``"pt-12/ft-3@7"``, ``"./zoo/pt-0"``,
                ``"org/name/pt-0"`` of a Hub repo, a path), a zoo with ``subfolder="pt-12/ft-3"``, or anything that
                transformers loads.
            *model_args: As in transformers.
            config: A config to use instead of the member's own.
            epoch: Finished epochs of training, from 0; None for the final weights. The same as ``@7`` in the id and as
                ``variant="epoch-07"``. It also works for a member's folder outside of a zoo.
            verify: Also compare the file's sha256 with the member's record (about .6 ms a MB; a Hub repo's record is
                downloaded for it).
            **kwargs: As `transformers.PreTrainedModel.from_pretrained`: ``dtype``, ``device_map``,
                ``attn_implementation``, ``num_labels`` with ``ignore_mismatched_sizes``, ...; for a Hub repo
                ``revision``, ``token``, ``cache_dir``, ``local_files_only``, ``force_download``.

        Returns:
            The model, in evaluation mode; with ``output_loading_info=True`` also transformers' report, as a pair.

        Raises:
            VitZooError: The id is malformed, there is no such member, or a file is damaged, altered, or differs from
                its config. See `vitzoo.errors` for the classes.
        """
        located = _locate(pretrained_model_name_or_path, epoch, kwargs)
        if located is None:
            if verify:
                raise ConflictingArgumentsError(
                    f'verify=True was asked of "{pretrained_model_name_or_path}"',
                    expected="a member of a zoo, which has a record to compare with",
                )
            if epoch is not None:  # a member's folder outside of a zoo, in which `locate` found the weights
                kwargs |= {"variant": layout.variant_name(epoch), "use_safetensors": True}
            name: Any = pretrained_model_name_or_path
            return super().from_pretrained(name, *model_args, config=config, **kwargs)
        ref, source = located
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
    ) -> Any:
        """Load a member of a zoo that is already open, with the other arguments and errors of `from_pretrained`."""
        _refuse_arguments(kwargs)
        files = Catalogue(source).member_files(ref, verify=verify)
        if files.weights_record is not None:
            by = f"the record of {ref.member}"
            check_file(files.weights, files.weights_record, by=by, error=WeightsError, hashed=verify)
        shapes = {name: entry.shape for name, entry in load_header(files.weights).items()}
        changed = bool(config is not None or kwargs)
        if not isinstance(config, PreTrainedConfig):
            dtype = {name: kwargs.pop(name) for name in ("dtype", "torch_dtype") if name in kwargs}
            if config is None and not kwargs:
                config = cls.config_class.from_member(files.config)
            elif config is None:
                config, kwargs = cls.config_class.from_member(files.config, return_unused_kwargs=True, **kwargs)
            else:
                config, kwargs = cls.config_class.from_pretrained(config, return_unused_kwargs=True, **kwargs)
            kwargs |= dtype
        cls._check_shapes(files, config, shapes, changed=changed, new_head=kwargs.get("ignore_mismatched_sizes", False))
        tensors = load_file(files.weights)
        if not (changed or model_args) and (model := cls._assemble(cast(MemberConfig, config), tensors)) is not None:
            model.name_or_path = model.config.name_or_path = str(ref)
            return model
        wants_info = kwargs.pop("output_loading_info", False)
        loaded: Any = super().from_pretrained(
            None, *model_args, config=config, state_dict=tensors, output_loading_info=True, **kwargs
        )
        model, info = loaded
        random = [name for name in info["missing_keys"] if not cls.architecture.is_head(name)]
        if random:
            raise WeightsError(f"The arguments given for {files.ref} leave {random[0]} random", path=files.weights)
        model.name_or_path = model.config.name_or_path = str(ref)
        return (model, info) if wants_info else model

    @classmethod
    def _assemble(cls, config: MemberConfig, tensors: dict[str, torch.Tensor]) -> Any:
        """Build a model around tensors, equal in every attribute to the one that transformers' loader builds.

        transformers renames each tensor by regular expressions and initialises parameters that it then overwrites:
        three quarters of its time. No global state is changed here, so threads may load at the same time.

        Returns:
            The model; None if transformers' loader does more: for tensors of another dtype, on another device, under
            FSDP, DeepSpeed or patched classes, or with buffers and tied weights.
        """
        dtypes = {tensor.dtype for tensor in tensors.values()}
        dtype = config.dtype if config.dtype is not None else next(iter(dtypes))
        if (
            dtypes != {dtype}
            or torch.empty(0).device.type != "cpu"
            or is_fsdp_enabled()
            or is_deepspeed_zero3_enabled()
            or get_patch_mapping()
        ):
            return None
        config.dtype, config.name_or_path = dtype, None  # pyright: ignore[reportAttributeAccessIssue]
        with torch.device("meta"), _NoInitialisation():
            model = cls(config)
        if model.all_tied_weights_keys or next(model.buffers(), None) is not None:
            return None
        by_name = {cls.architecture.memory_name(name): tensor for name, tensor in tensors.items()}
        for prefix, module in model.named_modules():
            for name in [name for name, empty in module._parameters.items() if empty is not None]:
                parameter: Any = torch.nn.Parameter(by_name[f"{prefix}.{name}"])
                parameter._is_hf_initialized = True
                setattr(module, name, parameter)
            module._is_hf_initialized = True  # pyright: ignore[reportArgumentType]
        conversions = get_model_conversion_mapping(model)
        for name in {_DIGITS.sub("0", name): name for name in tensors}.values():  # one block stands for all
            for conversion in conversions:
                name, _ = conversion.rename_source_key(name)
        used: Any = [conversion for conversion in conversions if conversion.was_used()]
        model._weight_conversions = used
        model.set_use_kernels(False)
        return model.eval()

    @classmethod
    def _check_shapes(
        cls, files: MemberFiles, config: object, shapes: dict[str, tuple[int, ...]], *, changed: bool, new_head: bool
    ) -> None:
        """Compare the config with the tensors of the file, without the head if the arguments ask for a new one."""
        if not isinstance(config, cls.config_class):
            raise ConfigError(
                f"The config given for {files.ref} is a {type(config).__name__}",
                expected=f"a {cls.config_class.__name__}",
            )
        problem = describe_misfit(config.shape, shapes, ignored=cls.architecture.is_head if new_head else None)
        if problem is not None and changed:
            raise WeightsError(
                f"{files.weights} does not fit the arguments given: {problem}",
                fix="For a new head of another size add ignore_mismatched_sizes=True; the backbone must stay as it is.",
                path=files.weights,
            )
        if problem is not None:
            raise WeightsError(
                f"{files.weights} does not hold what {files.config} says: {problem}",
                fix="Get both files again.",
                path=files.weights,
            )


class _NoInitialisation(TorchFunctionMode):
    """Skip `torch.nn.init`, in this thread alone."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _refuse_arguments(arguments: dict[str, Any]) -> None:
    """Raise ConflictingArgumentsError if an argument would run code, read pickles or give a member other weights."""
    values = {name: arguments.pop(name, None) for name in _REFUSED_ARGUMENTS}
    refused = [name for name, value in values.items() if value is not None and value is not False]
    if arguments.pop("use_safetensors", None) is False:
        refused.append("use_safetensors")
    if refused:
        raise ConflictingArgumentsError(
            f"{refused[0]}= was given for a zoo member",
            expected="a member loaded whole, from safetensors and without code of its own",
            fix="Leave it out, or save the member with save_pretrained and load that.",
        )


def _locate(name: Name | None, epoch: int | None, arguments: dict[str, Any]) -> tuple[MemberRef, ZooSource] | None:
    """Find the member of a name, and remove the arguments that locate it."""
    located = locate(
        name,
        subfolder=arguments.get("subfolder"),
        variant=arguments.get("variant"),
        epoch=epoch,
        options=HubOptions.of(arguments),
    )
    if located is not None:
        for argument in _LOCATING_ARGUMENTS:
            arguments.pop(argument, None)
    return located
