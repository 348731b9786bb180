"""One model of the zoo's authors: from the settings of a config to a training and a head.

Which model starts from which, and what a population of them is, is `authors_json.py`'s.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Literal

from training.recipes import pipelines
from training.recipes.augmentation import Augmentation
from training.recipes.authors_keys import Cell
from training.recipes.recipe import Head
from training.recipes.training import Dataset, Mixing, Optimizer, Training
from vitzoo.errors import TrainingError

LOSSES = {"stce": "supervised", "ce": "supervised", "info_nce": "contrastive"}
_MODES = {"sl": "supervised", "cl": "contrastive"}
_TEMPERATURE = 0.07  # theirs, where a config names none
_KEYS = {  # of a recipe's fields
    "init": "seed",
    "head": "model::head::seed",
    "learning_rate": "optim::lr",
    "weight_decay": "optim::wd",
    "momentum": "optim::momentum",
    "epochs": "training::epochs_train",
    "batch_size": "training::batchsize",
    "temperature": "training::temperature",
    "mixup": "training::mixup",
    "cutmix": "training::cutmix",
    "label_smoothing": "training::label_smoothing",
    "erasing": "training::randerase",
}
_DATASETS = {
    "imagenet1k": pipelines.IMAGENET,
    "imagenet": pipelines.IMAGENET,
    "cifar100": pipelines.CIFAR100,
}


def training_of(cell: Cell) -> Training:
    """How a model is trained, as its config is written: in fp32, for configs do not speak of precision.

    Raises:
        TrainingError: A setting is missing, contradicts another, or is out of range.
    """
    loss = cell.text("training::loss", tuple(LOSSES))
    objective: Literal["supervised", "contrastive"] = "contrastive" if loss == "info_nce" else "supervised"
    if _MODES[cell.text("training::mode", tuple(_MODES), default="cl" if loss == "info_nce" else "sl")] != objective:
        raise cell.refuse("training::mode", f"the mode of the loss {loss}, which is {objective}")
    wanted = ("info_nce",) if objective == "contrastive" else ("ce", "stce")
    cell.text("validation::loss", wanted, default=wanted[0])
    smoothing, mixup, cutmix, erasing = (
        cell.number(f"training::{name}", default=0.0) for name in ("label_smoothing", "mixup", "cutmix", "randerase")
    )
    if objective == "contrastive":
        for name in ("label_smoothing", "mixup", "cutmix", "randerase"):
            if cell.values.get(f"training::{name}"):
                raise cell.refuse(f"training::{name}", "null: views of a contrastive training stay whole")
    dataset = _dataset(cell)
    with in_their_words(cell):
        return Training(
            objective=objective,
            dataset=dataset,
            optimizer=_optimizer(cell),
            augmentation=_augmentation(dataset, objective, erasing),
            mixing=Mixing(mixup=mixup, cutmix=cutmix, label_smoothing=smoothing),
            temperature=(
                cell.number("training::temperature", default=_TEMPERATURE) if objective == "contrastive" else None
            ),
            epochs=cell.whole("training::epochs_train"),
            batch_size=cell.whole("training::batchsize"),
        )


@contextlib.contextmanager
def in_their_words(cell: Cell) -> Iterator[None]:
    """Say by the key and the value of the config which field of a recipe is refused.

    Raises:
        TrainingError: A field is refused.
    """
    try:
        yield
    except ValueError as error:
        message = str(error)
        key = _KEYS.get(message.partition(" is ")[0])
        _, separator, expected = message.partition("; expected ")
        if key is None or not separator or key not in cell.values:
            raise TrainingError(f"{cell.where}: {message}.") from error
        raise cell.refuse(key, expected) from error


def _augmentation(dataset: Dataset, objective: str, erasing: float) -> Augmentation:
    if objective == "contrastive":
        return pipelines.CONTRASTIVE
    plain = pipelines.FINE_TUNING if dataset == pipelines.CIFAR100 else pipelines.SUPERVISED
    return pipelines.with_erasing(plain, erasing) if erasing else plain


def _dataset(cell: Cell) -> Dataset:
    name = cell.values.get("dataset::name")
    found = _DATASETS.get(re.sub(r"[-_ ]", "", name).lower()) if isinstance(name, str) else None
    if found is None:
        raise cell.refuse(
            "dataset::name", '"ImageNet1K" or "CIFAR100"; other images need a recipe in Python (docs/guides/recipes.md)'
        )
    return found


def _optimizer(cell: Cell) -> Optimizer:
    name = cell.text("optim::optimizer", ("adamw", "sgd"))
    return Optimizer(
        name="sgd" if name == "sgd" else "adamw",
        learning_rate=cell.number("optim::lr"),
        weight_decay=cell.number("optim::wd"),
        momentum=cell.number("optim::momentum") if name == "sgd" else None,
    )


def head_of(cell: Cell, training: Training) -> Head:
    """What stands on a model's backbone.

    Raises:
        TrainingError: It does not fit the data set or the objective, or an MLP head has no width.
    """
    outputs, mlp = _positive(cell, "model::o_dim"), cell.values.get("model::head::mlp")
    if mlp not in (None, True, False) or type(mlp) not in (bool, type(None)):
        raise cell.refuse("model::head::mlp", "true, false or null")
    if training.objective == "contrastive" and mlp:
        raise cell.refuse("model::head::mlp", "false: a contrastive model's linear head is its embedding")
    if training.objective == "contrastive":
        return Head(outputs=outputs, role="embedding")
    classes = pipelines.CLASSES[training.dataset.name]
    if outputs != classes:
        raise cell.refuse("model::o_dim", f"{classes}, the classes of {training.dataset.name}")
    if not mlp:
        return Head(outputs=outputs)
    if cell.values.get("model::head::hidden_dim") is None:
        raise cell.refuse("model::head::hidden_dim", "the width of the MLP head, such as 256")
    return Head(outputs=outputs, width=_positive(cell, "model::head::hidden_dim"))


def _positive(cell: Cell, key: str) -> int:
    number = cell.whole(key)
    if number < 1:
        raise cell.refuse(key, "a number from 1 on")
    return number
