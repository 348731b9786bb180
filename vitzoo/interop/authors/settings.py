"""How a model of the authors' release was trained: from its config.json, the config in its result.json, and its name.

The three are asked in that order. Each value that decides a column of the members table is checked; whatever else
stands in a config (paths, devices, numbers of processes) goes no further. Grids of configs, from which populations are
trained, are `training.recipes.authors_keys`' business.

Source: github.com/ModelZoos/ViTModelZoo at 2eb7441: ``example_configs`` and ``experiment_runner/def_net.py``, of which
the defaults are.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from vitzoo.errors import shown
from vitzoo.interop.authors.images import IMAGES, Images
from vitzoo.interop.authors.keys import ALIASES

_SEED = 42  # theirs, where nothing names one
_MAX_BYTES = 4 * 2**20
_CHECKPOINT = re.compile(r"checkpoint_(\d{1,9})", re.ASCII)

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


class SettingsError(Exception):
    """Why a model's settings cannot be told, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How a model was trained, as its configs say it: what their code made of it is `deviations.py`'s.

    Args:
        model_type: ``model::type``.
        objective: supervised or contrastive.
        images: What it was trained on.
        outputs: Width of the head's output.
        seed: Of everything.
        optimizer: adamw or sgd.
        learning_rate: Constant.
        weight_decay: Of the optimizer.
        momentum: Of SGD; None for AdamW.
        batch_size: Images a step.
        epochs: Planned.
        mixup: Alpha; 0 for none.
        cutmix: Alpha; 0 for none.
        label_smoothing: 0 to 1.
        random_erasing: Probability.
        named_parent: Of a child, the name of the model that its config says it starts from; None where it is silent.
        named_checkpoint: The number of that model's checkpoint, likewise.
    """

    model_type: str
    objective: Literal["supervised", "contrastive"]
    images: Images
    outputs: int
    seed: int
    optimizer: Literal["adamw", "sgd"]
    learning_rate: float
    weight_decay: float
    momentum: float | None
    batch_size: int
    epochs: int
    mixup: float
    cutmix: float
    label_smoothing: float
    random_erasing: float
    named_parent: str | None
    named_checkpoint: int | None

    @property
    def steps_per_epoch(self) -> int:
        """Their loader drops the last smaller batch."""
        return self.images.n_train // self.batch_size

    @property
    def n_test_seen(self) -> int:
        """Test images that figures are of: that loader drops the last smaller batch, too."""
        return self.images.n_test // self.batch_size * self.batch_size


def read_settings(name: str, config: Path, logged: Mapping[str, Any], *, is_child: bool) -> tuple[Settings, list[str]]:
    """How a model was trained.

    Args:
        name: Of its folder.
        config: Its config.json.
        logged: The config that its result.json carries; empty for none.
        is_child: Whether it lies under finetuning/.

    Returns:
        The settings, and what should be known of them: what was missing or contradicts, a line each.

    Raises:
        SettingsError: A setting is in none of the three places, or is none that this zoo has.
    """
    notes: list[str] = []
    try:
        own = _united(_read_config(config))
    except SettingsError as error:
        if not logged:
            raise SettingsError(f"{error}, and result.json carries no config") from None
        notes.append(f"{error}: the config in result.json is read instead")
        own = {}
    values: dict[str, Any] = {}
    for place, said in (("its name", _parse_name(name)), ("result.json", _united(logged)), ("config.json", own)):
        for key, value in said.items():
            if key in values and not _equal(values[key][0], value) and key in _COMPARED:
                notes.append(f"{key} is {shown(value)} in {place}, {shown(values[key][0])} in {values[key][1]}: "
                             f"{place} counts")  # fmt: skip
            values[key] = (value, place)
    notes += [
        f"{key} stands in {values[key][1]} alone: {shown(values[key][0])}"
        for key in _COMPARED
        if own and key in values and key not in own
    ]
    return _Reader(values, notes).settings(is_child=is_child), notes


_COMPARED = dict.fromkeys(key for key, _ in _IN_NAMES.values())


class _Reader:
    """Settings, one key at a time."""

    def __init__(self, values: Mapping[str, tuple[Any, str]], notes: list[str]):
        self._values, self._notes = values, notes

    def settings(self, *, is_child: bool) -> Settings:
        loss = self._text("training::loss", {"stce": "supervised", "ce": "supervised", "info_nce": "contrastive"})
        if is_child and loss == "contrastive":
            raise SettingsError('training::loss is "info_nce" of a fine-tuned model; expected "stce" or "ce"')
        self._check_constant()
        images = self._images()
        optimizer = self._text("optim::optimizer", {"adamw": "adamw", "sgd": "sgd"})
        named = self._values.get("pretraining::model::path", ("", ""))[0]
        path = PurePosixPath(named) if isinstance(named, str) else PurePosixPath()
        numbers = [int(match[1]) for part in path.parts if (match := _CHECKPOINT.fullmatch(part))]
        parent = self._values.get("pretraining::model", (None, ""))[0]
        return Settings(
            model_type=self._text("model::type"),
            objective="contrastive" if loss == "contrastive" else "supervised",
            images=images,
            outputs=self._outputs(images, is_classifier=loss != "contrastive"),
            seed=self._whole("seed", least=0, default=_SEED),
            optimizer="sgd" if optimizer == "sgd" else "adamw",
            learning_rate=self._number("optim::lr"),
            weight_decay=self._number("optim::wd"),
            momentum=self._number("optim::momentum") if optimizer == "sgd" else None,
            batch_size=self._whole("training::batchsize", least=1),
            epochs=self._whole("training::epochs_train", least=1),
            mixup=self._number("training::mixup", default=0.0),
            cutmix=self._number("training::cutmix", default=0.0),
            label_smoothing=self._number("training::label_smoothing", default=0.0),
            random_erasing=self._number("training::randerase", default=0.0),
            named_parent=parent if is_child and isinstance(parent, str) else _model_of(path) if is_child else None,
            named_checkpoint=numbers[0] if is_child and numbers else None,
        )

    def _check_constant(self) -> None:
        """Settings that no column could tell apart have the one value that all of the zoo has."""
        for key, allowed in (("optim::scheduler", (None,)), ("optim::nesterov", (None, False)),
                             ("model::dropout", (None, 0)), ("model::attn_dropout", (None, 0))):  # fmt: skip
            value = self._values.get(key, (None, ""))[0]
            if value not in allowed:
                raise SettingsError(f"{key} is {shown(value)}; expected {shown(allowed[-1])}, as in all of the zoo")
        if self._values.get("model::freeze_encoder", (None, ""))[0]:
            self._notes.append("model::freeze_encoder is true, which the released code does not read")

    def _images(self) -> Images:
        name = self._text("dataset::name")
        found = IMAGES.get(re.sub(r"[-_ ]", "", name).lower())
        if found is None:
            raise SettingsError(f'dataset::name is {shown(name)}; expected "ImageNet1K" or "CIFAR100"')
        return found

    def _outputs(self, images: Images, *, is_classifier: bool) -> int:
        outputs = self._whole("model::o_dim", least=1)
        if is_classifier and outputs != len(images.classes):
            raise SettingsError(f"model::o_dim is {outputs}; expected {len(images.classes)}, the classes of its images")
        return outputs

    def _value(self, key: str) -> Any:
        if self._values.get(key, (None, ""))[0] is None:
            raise SettingsError(f"{key} stands nowhere: not in config.json, result.json or the folder's name")
        return self._values[key][0]

    def _text(self, key: str, allowed: Mapping[str, str] | None = None) -> str:
        value = self._value(key)
        if not isinstance(value, str) or (allowed is not None and value not in allowed):
            raise SettingsError(f"{key} is {shown(value)}; expected {' or '.join(allowed or ('a text',))}")
        return value if allowed is None else allowed[value]

    def _whole(self, key: str, *, least: int, default: int | None = None) -> int:
        if default is not None and self._values.get(key, (None, ""))[0] is None:
            self._notes.append(f"{key} stands nowhere: {default}, the released code's default")
            return default
        value = self._value(key)
        if type(value) is not int or not least <= value < 2**32:
            raise SettingsError(f"{key} is {shown(value)}; expected a whole number from {least}")
        return value

    def _number(self, key: str, *, default: float | None = None) -> float:
        if default is not None and self._values.get(key, (None, ""))[0] is None:
            return default
        value = self._value(key)
        if type(value) not in (int, float) or not 0 <= value < 1e6:
            raise SettingsError(f"{key} is {shown(value)}; expected a number from 0")
        return float(value)


def _model_of(path: PurePosixPath) -> str | None:
    """The model's name in ``.../<model>/checkpoint_89/checkpoints``."""
    parts = path.parts
    return parts[-3] if len(parts) > 2 and _CHECKPOINT.fullmatch(parts[-2]) else None


def _parse_name(name: str) -> dict[str, Any]:
    """The settings that a folder's name carries; what has no value, as ``HD_NA``, is left out."""
    found = {}
    for short, text in _IN_NAME.findall(name):
        key, parse = _IN_NAMES[short]
        try:
            found[key] = parse(text)
        except (ValueError, KeyError):
            continue
    return found


def _read_config(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SettingsError(f"config.json has over {_MAX_BYTES} bytes")
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"config.json cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"config.json is no JSON ({error})") from None
    if not isinstance(value, dict):
        raise SettingsError("config.json is no JSON object")
    return value


def _united(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings under one spelling each; nulls say nothing."""
    return {ALIASES.get(key, key): value for key, value in values.items() if value is not None}


def _equal(one: object, other: object) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)
