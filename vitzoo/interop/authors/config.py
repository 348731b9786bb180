"""Read the ``section::key`` configs of the zoo's authors. A key's type, range and default are declared here alone.

`read_settings` checks plain values. `read_released` takes the settings of a released model from its config.json, its
result.json and its name. See `training.recipes.authors_json` for recipes from configs, and for grids.

Source: github.com/ModelZoos/ViTModelZoo at 2eb7441: README, ``example_configs`` and ``experiment_runner``; for language
models github.com/ModelZoos/TransformerModelZooDataset at ee70028, the same folders.
"""

import errno
import json
import re
import stat
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec import Meta, field

from vitzoo.errors import VitZooError, printable, shown
from vitzoo.interop.authors import facts

_MAX_BYTES = 4 * 2**20
_LARGE = 1e6  # JSON has Infinity

Text = Annotated[str, Meta(description="text")]
Seed = Annotated[int, Meta(ge=0, lt=2**32, description="a seed from 0 to 2^32 - 1")]
Count = Annotated[int, Meta(ge=1, lt=2**31, description="a whole number from 1")]
EpochCount = Annotated[int, Meta(ge=1, le=facts.MAX_EPOCHS, description=f"a whole number from 1 to {facts.MAX_EPOCHS}")]
Above0 = Annotated[float, Meta(gt=0, lt=_LARGE, description="a number above 0")]
From0 = Annotated[float, Meta(ge=0, lt=_LARGE, description="a number from 0")]
Below1 = Annotated[float, Meta(ge=0, lt=1, description="a number from 0 to below 1")]
Probability = Annotated[float, Meta(ge=0, le=1, description="a probability from 0 to 1")]
Loss = Literal["stce", "ce", "info_nce"]
Mode = Literal["sl", "cl"]
ModelType = Literal["vit_s_16", "bert"]
Optimizer = Literal["adamw", "sgd", "adam"]
Case = Literal["continued", "scratch"]
Scheduler = Literal["OneCycleLR"]

# README, configs and code differ: the first is another spelling of the second.
ALIASES = {
    "optim::weight_decay": "optim::wd",
    "training::random_erase": "training::randerase",
    "trainloader::workers": "trainloader::num_workers",
    "testloader::workers": "testloader::num_workers",
    "pretrained::model": "pretraining::model",
    "pretrained::model::path": "pretraining::model::path",
    "pretrained::seed": "pretraining::seed",
    "pretrained::mode": "pretraining::mode",
    "pretrained::loss": "pretraining::loss",
    "pretraininig::case": "pretraining::case",  # as their configs spell it
    "training::warump_ratio": "training::warmup_ratio",  # likewise
}
# Keys with one meaningful value: the values that are allowed, and the reason.
FIXED: dict[str, tuple[tuple[object, ...], str]] = {
    "model::channels_in": ((3,), "images have three channels"),
    "model::patch_size": ((16,), "vit_s_16 has patches of 16 pixels"),
    "model::init_type": (("kaiming_normal",), "it is the only initialisation here"),
    "model::nlin": (("gelu", None), "vit_s_16 has GELU"),
    "model::head::nlin": (("relu", None), "an MLP head has ReLU, as in the authors' code"),
    "optim::nesterov": ((False, None), "momentum is plain here"),
    "training::task": (("classification", None), "it is the only task here"),
    "training::start_epoch": ((0, None), "a training starts at its beginning"),
}
# Keys of `FIXED` that have no meaning for a language model.
OF_IMAGES = tuple(key for key in FIXED if key.startswith("model::"))
# A released model has the allowed value of these keys too: no column and no tensor would show another one.
_UNSEEN = ("optim::nesterov",)
# Keys that a released model may lack, and the values of its record then.
_MISSING = {
    "dataset::name": "dataset is null, its classes are numbered, images are resized as ImageNet's",
    "model::o_dim": "the head's width is taken from its last weights",
    "seed": f"{facts.SEED}, the released code's default",
    "training::loss": "objective is null, its head is taken as a classifier",
    "optim::optimizer": "optimizer and momentum are null",
    "optim::lr": "learning_rate is null",
    "optim::wd": "weight_decay is null",
    "training::batchsize": "batch_size and numbers of steps are null",
    "training::epochs_train": "epochs are taken from its last weights",
}


class SettingsError(VitZooError):
    """A config cannot be used."""

    @classmethod
    def of(cls, key: str, values: Mapping[str, Any], expected: str) -> "SettingsError":
        """Return the error that a key is missing or has another value than expected."""
        return cls(f"{key} is {shown(values[key]) if key in values else 'missing'}", expected=expected)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Training of one model as its config says it, by the authors' keys. Weights can be read without most of them.

    Raises:
        SettingsError: The data set is unknown, or values contradict each other.
    """

    model_type: Text = field(name="model::type", default=facts.VISION)
    dataset_name: Text | None = field(name="dataset::name", default=None)
    outputs: Count | None = field(name="model::o_dim", default=None)
    seed: Seed = field(name="seed", default=facts.SEED)
    loss: Loss | None = field(name="training::loss", default=None)
    optimizer: Optimizer | None = field(name="optim::optimizer", default=None)
    learning_rate: Above0 | None = field(name="optim::lr", default=None)
    weight_decay: From0 | None = field(name="optim::wd", default=None)
    momentum: Below1 | None = field(name="optim::momentum", default=None)
    batch_size: Count | None = field(name="training::batchsize", default=None)
    epochs: EpochCount | None = field(name="training::epochs_train", default=None)
    mixup: From0 = field(name="training::mixup", default=0.0)
    cutmix: From0 = field(name="training::cutmix", default=0.0)
    label_smoothing: Below1 = field(name="training::label_smoothing", default=0.0)
    random_erasing: Probability = field(name="training::randerase", default=0.0)
    dropout: Below1 = field(name="model::dropout", default=0.0)
    attention_dropout: Below1 | None = field(name="model::attn_dropout", default=None)
    scheduler: Scheduler | None = field(name="optim::scheduler", default=None)
    case: Case | None = field(name="pretraining::case", default=None)
    warmup_ratio: Below1 = field(name="training::warmup_ratio", default=0.0)

    def __post_init__(self) -> None:
        kind = facts.AuthorsTexts if self.is_language else facts.AuthorsDataset
        if self.dataset_name is not None and not isinstance(self.dataset, kind):
            raise self.refuse(
                "dataset_name", '"openweb" or "sst"' if self.is_language else '"ImageNet1K" or "CIFAR100"'
            )
        if self.optimizer == "adam" and not self.is_language:
            raise self.refuse("optimizer", '"adamw" or "sgd"')
        if self.is_language and self.loss == "info_nce":
            raise self.refuse("loss", '"ce" or "stce" of a language model')
        if self.objective == "supervised" and self.dataset is not None:
            classes = len(self.dataset.classes)
            if self.outputs not in (None, classes):
                raise self.refuse("outputs", f"{classes}, the classes of {self.dataset.name}")
            msgspec.structs.force_setattr(self, "outputs", classes)
        if self.optimizer != "sgd":
            msgspec.structs.force_setattr(self, "momentum", None)  # configs have one, which means nothing

    def refuse(self, name: str, expected: str) -> SettingsError:
        """Return the error that a field has another value than expected."""
        key = next(info.encode_name for info in msgspec.structs.fields(self) if info.name == name)
        value = getattr(self, name)
        return SettingsError.of(key, {} if value is None else {key: value}, expected)

    @property
    def is_language(self) -> bool:
        """True for a language model."""
        return self.model_type.startswith(facts.LANGUAGE)

    @property
    def objective(self) -> Literal["supervised", "contrastive", "masked"] | None:
        """Objective of the loss; of a language model, of its data set."""
        if self.is_language:
            return None if self.dataset is None else "supervised" if self.dataset.classes else "masked"
        return None if self.loss is None else "contrastive" if self.loss == "info_nce" else "supervised"

    @property
    def images(self) -> facts.AuthorsDataset | None:
        """Images that the model was trained on; None for texts and for unknown ones."""
        return self.dataset if isinstance(self.dataset, facts.AuthorsDataset) else None

    @property
    def dataset(self) -> facts.AuthorsDataset | facts.AuthorsTexts | None:
        """Data set that the model was trained on."""
        return None if self.dataset_name is None else facts.find_dataset(self.dataset_name)

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimizer steps an epoch: the authors' loader drops the last smaller batch."""
        n_train = self.dataset and self.dataset.n_train
        return n_train // self.batch_size if n_train and self.batch_size else None


class RecipeSettings(Settings, frozen=True, kw_only=True):
    """Settings of a model that is to be trained: most are required, and some are a recipe's alone."""

    model_type: ModelType = field(name="model::type", default=facts.VISION)
    dataset_name: Text = field(name="dataset::name")
    outputs: Count | None = field(name="model::o_dim", default=None)
    loss: Loss = field(name="training::loss")
    optimizer: Optimizer = field(name="optim::optimizer")
    learning_rate: Above0 = field(name="optim::lr")
    weight_decay: From0 = field(name="optim::wd")
    batch_size: Count = field(name="training::batchsize")
    epochs: EpochCount = field(name="training::epochs_train")
    mode: Mode | None = field(name="training::mode", default=None)
    validation_loss: Loss | None = field(name="validation::loss", default=None)
    temperature: From0 | None = field(name="training::temperature", default=None)
    mlp: bool = field(name="model::head::mlp", default=False)
    head_width: Count | None = field(name="model::head::hidden_dim", default=None)
    head_seed: Seed | None = field(name="model::head::seed", default=None)
    freeze_encoder: bool = field(name="model::freeze_encoder", default=False)

    def __post_init__(self) -> None:
        if self.outputs is None and not self.is_language:
            raise self.refuse("outputs", "a whole number from 1")
        super().__post_init__()
        if self.optimizer == "sgd" and self.momentum is None:
            raise self.refuse("momentum", "a number from 0 to below 1 with sgd")


PRETRAINING = tuple(f"pretraining::{name}" for name in ("model", "model::path", "seed", "mode", "loss"))
# Of the children of language models. A parent's own case has the same key as the case of a child's parent.
TEXT_PRETRAINING = tuple(f"pretraining::{name}" for name in ("case", "optim::optimizer", "optim::lr", "optim::wd"))
S = TypeVar("S", bound=Settings)


def read_settings(cls: type[S], values: Mapping[str, Any]) -> S:
    """Check a config's values by key and return them as settings. Keys without a field are ignored.

    Raises:
        SettingsError: A required key is missing, or a value is of another type or out of range.
    """
    read = {}
    for info in msgspec.structs.fields(cls):
        value = values.get(info.encode_name)
        if value is None and not info.required:
            continue
        try:
            read[info.name] = msgspec.convert(value, info.type)
        except msgspec.ValidationError:
            expected = _expected(info.type) + ("" if info.required else " or null")
            raise SettingsError.of(info.encode_name, values, expected) from None
    return cls(**read)


def _expected(hint: Any) -> str:
    """Return the words for the values of a field's type."""
    if get_origin(hint) is Annotated:
        return hint.__metadata__[0].description
    if get_origin(hint) is Literal:
        return " or ".join(f'"{word}"' for word in get_args(hint))
    if hint is bool:
        return "true or false"
    return _expected(next(one for one in get_args(hint) if one is not NoneType))


def check_fixed(key: str, value: object) -> None:
    """Raise a SettingsError for a value of a `FIXED` key that is not allowed. False is not 0."""
    allowed, why = FIXED[key]
    if not any(_equal(value, other) for other in allowed):
        raise SettingsError(f"{key} is {shown(value)}", expected=f"{' or '.join(map(json.dumps, allowed))}: {why}")


def check_regular(path: Path, *, most: int) -> None:
    """Raise an OSError for a file that is missing, larger than a number of bytes, or not regular, such as a pipe."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file")
    if state.st_size > most:
        raise OSError(errno.EFBIG, f"File of over {most} bytes")


def load_config(path: Path) -> dict[str, Any]:
    """Load a config file, or raise a SettingsError that begins with a verb."""
    try:
        check_regular(path, most=_MAX_BYTES)
        values = json.loads(path.read_bytes(), object_pairs_hook=_unique)
    except OSError as error:
        raise SettingsError(f"cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise SettingsError(f"holds {shown(values)}", expected="an object of section::key names")
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise ValueError(f'"{printable(name)}" is there twice')
    return dict(pairs)


# sl_vit_s_16_224_seed_6312_bs_256_lr_0.001_wd_0.0001_me_90
# sl_ft_SD_42_LR_0.001_WD_0_OM_adamw_HD_NA_FZ_False_FCMLP_False
_IN_NAMES = {
    "seed": ("seed", int),
    "SD": ("seed", int),
    "bs": ("training::batchsize", int),
    "lr": ("optim::lr", float),
    "LR": ("optim::lr", float),
    "wd": ("optim::wd", float),
    "WD": ("optim::wd", float),
    "me": ("training::epochs_train", int),
    "OM": ("optim::optimizer", str),
    "HD": ("model::head::hidden_dim", int),
    "FCMLP": ("model::head::mlp", {"True": True, "False": False}.__getitem__),
}
_IN_NAME = re.compile(rf"_({'|'.join(_IN_NAMES)})_([^_]+)(?=_|$)")
_LOSSES = {"sl": "stce", "cl": "info_nce"}  # by training::mode
_COMPARED = dict.fromkeys(key for key, _ in _IN_NAMES.values())


def read_released(
    name: str, config: Path, logged: Mapping[str, Any]
) -> tuple[Settings, tuple[str | None, int | None], list[str]]:
    """Read the settings of a released model: config.json before result.json before the name.

    Args:
        name: The model's folder.
        config: Its config.json.
        logged: The config in its result.json; empty for none.

    Returns:
        The settings; the name and the checkpoint number of its parent, as the config says them, or None; and notes on
        missing and contradicting settings.

    Raises:
        SettingsError: No model of the zoo has such settings.
    """
    notes: list[str] = []
    own: dict[str, Any] = {}
    try:
        own = _united(load_config(config))
    except SettingsError as error:
        instead = "the config in result.json" if logged else "its name alone"
        notes.append(f"config.json {error.problem}: {instead} is read instead")
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for place, read in (("its name", _parse_name(name)), ("result.json", _united(logged)), ("config.json", own)):
        for key, value in read.items():
            if key in _COMPARED and key in values and not _equal(values[key], value):
                notes.append(
                    f"{key} is {shown(value)} in {place}, {shown(values[key])} in {places[key]}: {place} counts"
                )
            values[key], places[key] = value, place
    notes += [
        f"{key} is in {places[key]} alone: {shown(values[key])}"
        for key in _COMPARED
        if own and key in values and key not in own
    ]
    for key in _UNSEEN:
        if key in values:
            check_fixed(key, values[key])
    if values.get("model::freeze_encoder"):
        notes.append("model::freeze_encoder is true, which the released code does not read")
    loss = _LOSSES.get(str(values.get("training::mode")))
    if "training::loss" not in values and loss is not None:
        values["training::loss"] = loss
        notes.append(f"training::loss is missing: {loss}, by training::mode")
    settings = read_settings(Settings, values)
    notes += [f"{key} is missing: {effect}" for key, effect in _MISSING.items() if key not in values]
    if settings.optimizer == "sgd" and settings.momentum is None:
        notes.append("optim::momentum is missing: momentum is null")
    return settings, _named_start(values), notes


def _named_start(values: Mapping[str, Any]) -> tuple[str | None, int | None]:
    """Return the parent and its checkpoint in ``.../<model>/checkpoint_89/checkpoints``, or the parent by its key."""
    named, text = values.get("pretraining::model"), values.get("pretraining::model::path")
    parts = PurePosixPath(text).parts if isinstance(text, str) else ()
    numbers = [int(match[1]) for part in parts if (match := facts.CHECKPOINT_FOLDER.fullmatch(part))]
    if not isinstance(named, str):
        named = parts[-3] if len(parts) > 2 and facts.CHECKPOINT_FOLDER.fullmatch(parts[-2]) else None
    return named, numbers[0] if numbers else None


def _parse_name(name: str) -> dict[str, Any]:
    """Return the settings in a folder's name. A word without a value, such as ``HD_NA``, is left out."""
    found = {}
    for short, text in _IN_NAME.findall(name):
        key, parse = _IN_NAMES[short]
        try:
            found[key] = parse(text)
        except (ValueError, KeyError):
            continue
    return found


def _united(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings under one spelling each, without nulls."""
    return {ALIASES.get(key, key): value for key, value in values.items() if value is not None}


def _equal(one: object, other: object) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)
