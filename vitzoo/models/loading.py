"""Load a member of a zoo as a transformers model: the base of every architecture's model class.

A member's files are not trusted. The config is read and validated once, and its tensors are compared with the header of
the weights file before anything is built. Sizes and headers are checked at every load, hashes on request. A zoo that
agrees with itself may still be another zoo: see rule 6 of docs/decisions.md.

Plain loads build the model here, without transformers' loader: see `_assemble`. Other arguments (a device map, a dtype,
another head, ...) go through transformers. See `vitzoo.models.config` for configs and arguments, and
`vitzoo.models.registry` for the classes.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import torch
from safetensors.torch import load, load_file
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.distributed.fsdp import is_fsdp_enabled
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.monkey_patching import get_patch_mapping
from transformers.utils.logging import set_tqdm_hook

from vitzoo.architectures import (
    Architecture,
    describe_misfit,
    find_architecture,
    load_config_json,
    of_tensors,
)
from vitzoo.architectures.architecture import HeadWidth
from vitzoo.errors import ConfigError, ConflictingArgumentsError, WeightsError, printable
from vitzoo.ids import MemberRef
from vitzoo.models.config import MemberConfig, locate_member, refuse_arguments
from vitzoo.models.pushing import Origin, complete_push
from vitzoo.records import layout
from vitzoo.records.files import check_file, reading
from vitzoo.sources.folder import FolderSource
from vitzoo.sources.locate import Name, expand_home
from vitzoo.sources.source import ZooSource
from vitzoo.tables.catalogue import Catalogue, MemberFiles
from vitzoo.tensors.header import TensorEntry, load_header, read_header

_DIGITS = re.compile(r"\d+")
ModelT = TypeVar("ModelT", bound="MemberModel")

if TYPE_CHECKING:  # a mixin, so that transformers sees its own class alone
    _Model = PreTrainedModel
else:
    _Model = object


# The member that transformers' loader builds in this thread or task.
_LOADING: ContextVar[str | None] = ContextVar("member", default=None)


def _hide_bar(make_bar: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Make transformers' progress bars, but none for a member: a loop over a zoo would print one each."""
    if _LOADING.get() is not None:
        kwargs = kwargs | {"disable": True}
    return make_bar(*args, **kwargs) if _OTHER_HOOK is None else _OTHER_HOOK(make_bar, args, kwargs)


_OTHER_HOOK = set_tqdm_hook(_hide_bar)


def name_model(model: ModelT, source: ZooSource, ref: MemberRef) -> ModelT:
    """Set a model's ``origin``, and the names that Trainer and PEFT write into cards and adapters.

    A Hub zoo's member is named by the repo's id, and a folder's member by the absolute path of its folder. The name of
    the model, by which PEFT loads the base weights again, also has the epoch, and of the demo zoo no path.
    """
    model.origin = Origin(replace(ref, zoo=source.name), getattr(source, "commit", None))
    model.name_or_path = model.config.name_or_path = source.name
    if isinstance(source, FolderSource):
        model.config.name_or_path = str(source.root / layout.member_folder(ref.member))
        model.name_or_path = str(model.origin.ref)
    return model


class MemberModel(_Model):
    """Base of an architecture's model class: loads a member by its id.

    Attributes:
        architecture: Names and shapes of the tensors.
        roles: Roles of the heads that the class computes.
        config_class: Class of the config.
        origin: The member that the model was loaded from.
    """

    architecture: Architecture
    roles: ClassVar[tuple[str, ...]]
    origin: Origin | None = None
    config_class: type[MemberConfig]  # pyright: ignore[reportIncompatibleVariableOverride]

    @classmethod
    def config_for(
        cls,
        sizes: Any,
        *,
        outputs: int,
        head_width: HeadWidth = None,
        role: str,
        classes: tuple[str, ...] = (),
        dropout: float = 0.0,
    ) -> MemberConfig:
        """Make the config of a planned member in float32.

        Args:
            sizes: Sizes of the backbone, of the architecture's ``sizes``.
            outputs: Classes, or the width of an embedding.
            head_width: Widths of the head's hidden layers, or the width of one; None for a linear head.
            role: Role of the head, one of ``roles``.
            classes: Names of a classifier's classes; none for other roles.
            dropout: Probability of dropout in the backbone, 0 to 1.
        """
        raise NotImplementedError

    @property
    def layers(self) -> dict[str, nn.Module]:
        """The modules of the embeddings, of each block and of a last norm, by the names of `WeightsIndex.layers`."""
        raise NotImplementedError

    def features_and_logits(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the features of a batch, ``[batch, hidden_size]``, and the output of the head, ``[batch, outputs]``.

        Args:
            **inputs: Arguments of the backbone, without labels.
        """
        raise NotImplementedError

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: Name | None,
        *model_args: Any,
        config: PreTrainedConfig | str | os.PathLike[str] | None = None,
        epoch: int | None = None,
        verify: bool = False,
        mmap: bool = True,
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
                downloaded for it). The model is built from the bytes that were compared, as with ``mmap=False``.
            mmap: Whether the weights stay memory-mapped. Writes to them never reach the file, but overwriting the file
                in place changes them, and truncating it ends the process. False reads the file into memory.
            **kwargs: As `transformers.PreTrainedModel.from_pretrained`: ``dtype``, ``device_map``,
                ``attn_implementation``, ``num_labels`` with ``ignore_mismatched_sizes``, ...; for a Hub repo
                ``revision``, ``token``, ``cache_dir``, ``local_files_only``, ``force_download``. With
                ``ignore_mismatched_sizes=True`` the layers of the head whose sizes differ are new, and the others stay.

        Returns:
            The model, in evaluation mode; with ``output_loading_info=True`` also transformers' report, as a pair.

        Raises:
            VitZooError: The id is malformed, there is no such member, a file is damaged, altered, or differs from
                its config, or a tensor would be random. See `vitzoo.errors` for the classes.
        """
        located = locate_member(pretrained_model_name_or_path, epoch, kwargs)
        if located is None:
            if verify:
                raise ConflictingArgumentsError(
                    f'verify=True was asked of "{pretrained_model_name_or_path}"',
                    expected="a member of a zoo, which has a record to compare with",
                )
            name: Any = expand_home(pretrained_model_name_or_path)
            kwargs |= {} if mmap else {"disable_mmap": True}
            if epoch is not None:  # a member's folder outside of a zoo, in which `locate` found the weights
                kwargs |= {"variant": layout.variant_name(epoch), "use_safetensors": True}
            what = "The state dict" if name is None else str(name)
            return cls._load_whole(name, *model_args, config=config, what=what, **kwargs)
        ref, source = located
        return cls.from_source(source, ref, *model_args, config=config, verify=verify, mmap=mmap, **kwargs)

    @classmethod
    @torch.inference_mode(False)  # parameters that are made in inference mode can never be trained
    def from_source(
        cls,
        source: ZooSource,
        ref: MemberRef,
        *model_args: Any,
        config: PreTrainedConfig | str | os.PathLike[str] | None = None,
        verify: bool = False,
        mmap: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Load a member of a zoo that is already open, with the other arguments and errors of `from_pretrained`."""
        refuse_arguments(kwargs)
        verify = verify or source.digest is not None
        if kwargs.pop("disable_mmap", None):  # transformers' name for mmap=False
            mmap = False
        files = Catalogue(source).member_files(ref, verify=verify)
        header, tensors = _load_weights(files, verify=verify, mmap=mmap)
        shapes = {name: entry.shape for name, entry in header.items()}
        changed = bool(config is not None or kwargs)
        if not isinstance(config, PreTrainedConfig):
            values = load_config_json(files.config, content=files.config_content)
            values = cls._check_class(files, values, new_head=kwargs.get("ignore_mismatched_sizes", False))
            dtype = {name: kwargs.pop(name) for name in ("dtype", "torch_dtype") if name in kwargs}
            if config is None and not kwargs:
                config = cls.config_class.from_member(files.config, values=values)
            elif config is None:
                config, kwargs = cls.config_class.from_member(
                    files.config, values=values, return_unused_kwargs=True, **kwargs
                )
            else:
                config, kwargs = cls.config_class.from_pretrained(config, return_unused_kwargs=True, **kwargs)
            kwargs |= dtype
        cls._check_shapes(files, config, shapes, changed=changed, new_head=kwargs.get("ignore_mismatched_sizes", False))
        if not (changed or model_args) and (model := cls._assemble(cast(MemberConfig, config), tensors)) is not None:
            return name_model(model, source, ref)
        wants_info = kwargs.pop("output_loading_info", False)
        loading = _LOADING.set(str(ref))
        try:
            model, info = cls._load_whole(
                None,
                *model_args,
                config=config,
                state_dict=tensors,
                what=str(files.ref),
                output_loading_info=True,
                **kwargs,
            )
        finally:
            _LOADING.reset(loading)
        name_model(model, source, ref)
        return (model, info) if wants_info else model

    @staticmethod
    def _finalize_model_loading(model: Any, load_config: Any, loading_info: Any) -> Any:
        """Finish as transformers does, with the member's name in its report."""
        if (member := _LOADING.get()) is not None:
            load_config = replace(load_config, pretrained_model_name_or_path=member)
        return PreTrainedModel._finalize_model_loading(model, load_config, loading_info)

    def _upload_modified_files(self, working_dir: str | os.PathLike[str], repo_id: str, *args: Any, **kwargs: Any):
        """Upload as transformers does, with the image processor and a card of the member that was loaded."""
        if self.origin is not None:
            complete_push(
                self.config.to_dict(), self.origin, Path(working_dir), repo=repo_id, token=kwargs.get("token")
            )
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)

    @classmethod
    def _load_whole(
        cls, name: Any, *model_args: Any, what: str, output_loading_info: bool = False, **kwargs: Any
    ) -> Any:
        """Load by transformers, and refuse random tensors, except for the head if the arguments ask for a new one."""
        loaded: Any = super().from_pretrained(name, *model_args, output_loading_info=True, **kwargs)
        model, info = loaded
        cls._check_tied(model, what=what)
        new_head = cls.architecture.is_head if kwargs.get("ignore_mismatched_sizes", False) else None
        _refuse_random(cls.architecture, info, name, what=what, ignored=new_head)
        return (model, info) if output_loading_info else model

    @classmethod
    def _check_tied(cls, model: Any, *, what: str) -> None:
        """Raise WeightsError if transformers left a tensor untied because a file has two values of it."""
        for target, source in (getattr(cls, "_tied_weights_keys", None) or {}).items():
            if target not in model.all_tied_weights_keys:
                raise two_values(target, source, what=what)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Rename on-disk names before torch compares them, because only ``from_pretrained`` of transformers does."""
        _rename_tensors(self.architecture, state_dict, prefix)
        self._tie_state_dict(state_dict, prefix, assign=args[0].get("assign_to_params_buffers", False))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _tie_state_dict(self, state_dict: dict[str, Any], prefix: str, *, assign: bool) -> None:
        """Give tied tensors both of their names, because a file has one.

        Raises:
            WeightsError: A tied tensor has two values.
        """
        for target, source in self.all_tied_weights_keys.items():
            found = [state_dict[prefix + name] for name in (source, target) if prefix + name in state_dict]
            if len(found) == 2 and not found[0].is_meta and not torch.equal(*found):
                raise two_values(target, source, what="The state dict")
            if found:
                value = found[0]
                if assign and not isinstance(value, torch.nn.Parameter):  # the same object stays tied
                    value = torch.nn.Parameter(value)
                state_dict[prefix + source] = state_dict[prefix + target] = value

    @classmethod
    def from_tensors(cls, config: MemberConfig, tensors: dict[str, torch.Tensor]) -> Any:
        """Build a model around all of its tensors, by names on disk, without copying them if transformers allows it."""
        model = cls._assemble(config, tensors)
        return (
            cls._load_whole(None, config=config, state_dict=tensors, what="The state dict") if model is None else model
        )

    @classmethod
    def build_empty(cls, config: MemberConfig) -> Any:
        """Build a model whose parameters have shapes and no memory; its buffers are whole."""
        with torch.device("meta"), _NoInitialisation():
            model = cls(config)
        for module in model.modules():
            if module._buffers:
                for name, buffer in module._buffers.items():
                    module._buffers[name] = None if buffer is None else torch.empty_like(buffer, device="cpu")
                model._init_weights(module)
        return model

    @classmethod
    def _assemble(cls, config: MemberConfig, tensors: dict[str, torch.Tensor]) -> Any:
        """Build a model around tensors, equal in every attribute to the one that transformers' loader builds.

        transformers renames each tensor by regular expressions and initialises parameters that it then overwrites:
        three quarters of its time. No global state is changed here, so threads may load at the same time.

        Returns:
            The model; None if transformers' loader does more: for tensors of another dtype, on another device, under
            FSDP, DeepSpeed or patched classes.
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
        model = cls.build_empty(config)
        tied = model.all_tied_weights_keys
        parameters: dict[str, Any] = {
            cls.architecture.memory_name(name): torch.nn.Parameter(tensor) for name, tensor in tensors.items()
        }
        for parameter in parameters.values():
            parameter._is_hf_initialized = True
        for prefix, module in model.named_modules():
            for name in [name for name, empty in module._parameters.items() if empty is not None]:
                full = f"{prefix}.{name}"
                setattr(module, name, parameters[tied.get(full, full)])
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
    def _check_class(cls, files: MemberFiles, values: dict[str, Any], *, new_head: bool) -> dict[str, Any]:
        """Return a member's config for this class, or raise ConfigError if the member is of another class.

        A new head makes a member of one role of the architecture a model of another.
        """
        architecture = find_architecture(values["model_type"])
        role, is_ours = architecture.head_role(values), architecture is cls.architecture
        if is_ours and role in cls.roles:
            return values
        if is_ours and new_head:
            return {key: value for key, value in values.items() if key != "architectures"} | {"head_role": cls.roles[0]}
        right = architecture.classes.get(role, "ZooModel")
        raise ConfigError(
            f"{files.ref} is not a {cls.__name__}: its config says {architecture.backbone}, with a {role} head",
            expected=f"a member of architecture {cls.architecture.backbone}, with a {' or '.join(cls.roles)} head",
            fix=f"Use {right}.from_pretrained, or ZooModel.from_pretrained, which finds the class.",
            path=files.config,
            key="model_type",
        )

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
        if problem is not None:
            found = of_tensors(shapes)
            reasons = [reason for name in shapes if (reason := found.describe_stranger(name)) is not None][:3]
            if found is not cls.architecture:
                reasons = [f"the tensors are of architecture {found.backbone}, not {cls.architecture.backbone}"]
            problem = "; ".join([*reasons, problem])
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


class MemberBackbone(_Model):
    """Base of an architecture's model class without a head, as ``AutoModel`` loads it.

    Attributes:
        architecture: Names of the tensors.
    """

    architecture: Architecture

    @classmethod
    def from_pretrained(cls, name: Any, *model_args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """Load as transformers does, and refuse random tensors, except for the pooler, which most members lack.

        Raises:
            WeightsError: A tensor would be random.
        """
        loaded: Any = super().from_pretrained(name, *model_args, output_loading_info=True, **kwargs)
        model, info = loaded
        _refuse_random(
            cls.architecture,
            info,
            name,
            what=str(name),
            prefix=f"{cls.architecture.backbone}.",
            ignored=lambda key: ".pooler." in key,
        )
        return (model, info) if output_loading_info else model

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Rename on-disk names as `MemberModel` does."""
        _rename_tensors(self.architecture, state_dict, prefix, inner=f"{self.architecture.backbone}.")
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _rename_tensors(architecture: Architecture, state_dict: dict[str, Any], prefix: str, *, inner: str = "") -> None:
    """Replace on-disk names by a module's, in place.

    An on-disk name wins over the same tensor's name in memory: torch.distributed fills in the model's own tensors
    for names that it misses in a file.

    Args:
        architecture: Names of the tensors.
        state_dict: Tensors by name.
        prefix: Start of the names of the module in ``state_dict``.
        inner: Start of the module's names in a member, which ``state_dict`` lacks.
    """
    for name in [name for name in state_dict if name.startswith(prefix)]:
        renamed = architecture.memory_name(inner + name.removeprefix(prefix)).removeprefix(inner)
        if prefix + renamed != name:
            state_dict[prefix + renamed] = state_dict.pop(name)


def _refuse_random(
    architecture: Architecture,
    info: Mapping[str, Any],
    name: Any,
    *,
    what: str,
    prefix: str = "",
    ignored: Callable[[str], bool] | None = None,
) -> None:
    """Raise WeightsError if transformers' report of loading names a tensor that the files do not have.

    Args:
        architecture: Names of the tensors.
        info: The report.
        name: The folder, a repo or None.
        what: Name of the model in the error.
        prefix: Start of the names in a member, which the report lacks.
        ignored: Returns whether a tensor may be random.
    """
    empty = [*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]
    missing = [architecture.disk_name(prefix + key) for key in empty if not (ignored and ignored(prefix + key))]
    if missing:
        missing = architecture.network_order(missing)
        raise WeightsError(
            f"{what} has no fitting tensor for {', '.join(missing[:3])}"
            f"{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}",
            expected="all tensors of the model, because none is made random",
            fix=_describe_prefix(empty, info["unexpected_keys"])
            or "For a new head add ignore_mismatched_sizes=True; the backbone must be whole.",
            path=Path(name) if name is not None and os.path.isdir(name) else None,
            missing=tuple(missing),
        )


def two_values(target: str, source: str, *, what: str) -> WeightsError:
    """Return the error for a tied tensor with two values."""
    return WeightsError(
        f"{what} has {target} and {source}, which differ",
        expected="one tensor of both names, as in a member of a zoo",
        fix=f"Remove {target}, if the model was trained with tied weights.",
    )


class _NoInitialisation(TorchFunctionMode):
    """Skip `torch.nn.init`, in this thread alone."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _describe_prefix(missing: Iterable[str], unexpected: Iterable[str]) -> str | None:
    """Say how to remove the prefix that a wrapper gives to all names; None if the names have none."""
    for found in sorted(unexpected)[:1]:
        for name in missing:
            if found.endswith(f".{name}"):
                prefix = printable(found.removesuffix(name))
                return (
                    f'The names in the file begin with "{prefix}", as those of a wrapped model (torch.compile, '
                    f"DataParallel). Save the model inside, model.{prefix}save_pretrained(...), or rename the tensors: "
                    f'name.removeprefix("{prefix}").'
                )
    return None


def _load_weights(
    files: MemberFiles, *, verify: bool, mmap: bool
) -> tuple[Mapping[str, TensorEntry], dict[str, torch.Tensor]]:
    """Read a member's header and tensors: memory-mapped, or from bytes in memory, which are hashed with ``verify``."""
    path, by = files.weights, f"the record of {files.ref.member}"
    if files.weights_record is not None:  # the size, before anything is read
        check_file(path, files.weights_record, by=by, error=WeightsError, hashed=False)
    if mmap and not verify:
        return load_header(path), load_file(path)
    with reading(path):
        content = path.read_bytes()
    if verify and files.weights_record is not None:
        check_file(path, files.weights_record, by=by, error=WeightsError, content=content)
    header = read_header(lambda start, stop: (content[start:stop], len(content)), path=path)
    return header, load(content)
