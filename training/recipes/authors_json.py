"""Make recipes from the configs of the zoo's authors, as they are written rather than as their code runs them.

    {"seed": [42, 6312], "optim::lr": "tune.grid_search([3e-3, 1e-3])", "training::mixup": 0.8, ...}

A config without a ``pretraining::`` key is a grid of parents. A config with one is a grid of children of the parents
that it names. Of language models, a config of OpenWebText is of parents and one of SST-2 of children. Nothing in a file
is executed. See `vitzoo.interop.authors.config` for keys, types and ranges, and the
recipe `as_released` for the authors' code.

Source: github.com/ModelZoos/ViTModelZoo at 2eb7441: its README, ``example_configs`` and ``experiment_runner``;
github.com/ModelZoos/TransformerModelZooDataset at ee70028 for language models.
"""

import ast
import contextlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import msgspec

from training.recipes import pipelines
from training.recipes.augmentation import Augmentation
from training.recipes.deviations import (
    CHILDREN_START,
    CONTRASTIVE_METRICS,
    ERASING_NOISE,
    MASKS,
    MIXING_PARTNER,
    ONE_CYCLE,
    POOLER,
    TEXT_CHILDREN_START,
    TEXT_TRAINER,
    TRAINER,
    adam,
    contrastive_preprocessing,
    evaluated_images,
    evaluated_rows,
    packed_rows,
    random_start,
    split_by_hash,
)
from training.recipes.recipe import Children, Head, LoadedRecipe, Parent, Recipe, Seeds, Start, start_notes
from training.recipes.training import Masking, Mixing, Optimizer, Schedule, Training
from vitzoo.errors import TrainingError, did_you_mean, printable, shown
from vitzoo.interop.authors import facts
from vitzoo.interop.authors.config import (
    ALIASES,
    FIXED,
    OF_IMAGES,
    PRETRAINING,
    TEXT_PRETRAINING,
    RecipeSettings,
    SettingsError,
    check_fixed,
    load_config,
    read_settings,
)
from vitzoo.interop.authors.facts import CHECKPOINT_FOLDER, deviation
from vitzoo.records.fields import FieldError

_DEVICES = "devices are chosen by the machine that trains, not by a recipe"
_WORKERS = "the number of processes that read images is chosen by the machine that trains, not by a recipe"
_DUMP = "data come by dataset::name from the Hub, or from a folder named by --data"
_NAME = "model::name"
IGNORED = {
    "cuda": _DEVICES,
    "device": _DEVICES,
    "training::device": _DEVICES,
    "training::ddp": _DEVICES,
    "training::num_devices": _DEVICES,
    "trainloader::num_workers": _WORKERS,
    "testloader::num_workers": _WORKERS,
    "dataset::dump": _DUMP,
    "dataset::ref": _DUMP,
    "scheduler::steps_per_epoch": "it follows from data set and batch size",
    _NAME: "it serves only to say which parent children start from",
    "training::output_epoch": "which epochs are kept is for the command that trains: --keep every-5",
    "training::val_epochs": "every epoch is measured",
}
_OF_A_MODEL = tuple(
    info.encode_name for info in msgspec.structs.fields(RecipeSettings) if info.encode_name not in FIXED
)
_OF_A_PARENT = (*PRETRAINING, *TEXT_PRETRAINING)  # which children start from
READ = tuple(dict.fromkeys((*_OF_A_MODEL, *_OF_A_PARENT)))
KNOWN = (*READ, *FIXED, *IGNORED, *ALIASES)
# Keys without a meaning for some values of another key, and the reason. 0 and null need no note.
_WITHOUT: dict[str, tuple[str, tuple[object, ...], str]] = {
    "optim::momentum": ("optim::optimizer", ("adamw", "adam"), "it has none"),
    "training::temperature": ("training::loss", ("stce", "ce"), "InfoNCE alone has one"),
}
_SEARCH = re.compile(r"\s*(?:ray\.)?tune\.grid_search\((?P<values>.*)\)\s*", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """A config of the authors whose keys are checked and have one spelling each.

    Args:
        where: Its name in messages.
        values: Keys to one or more values, which make a grid.
    """

    where: str
    values: Mapping[str, tuple[Any, ...]]

    def given(self, key: str) -> tuple[Any, ...]:
        """Return the values of a key without nulls."""
        return tuple(value for value in self.values.get(key, ()) if value is not None)

    @property
    def is_language(self) -> bool:
        """True if it is of language models."""
        return facts.LANGUAGE in self.given("model::type")

    @property
    def is_fine_tuning(self) -> bool:
        """True if it is of children: it names a parent to start from, or classifies texts."""
        if not self.is_language:
            return any(map(self.given, PRETRAINING))
        names = [name for name in self.given("dataset::name") if isinstance(name, str)]
        return facts.SST2 in map(facts.find_dataset, names)

    def models(self) -> list[RecipeSettings]:
        """Return the settings of every combination of the grids' values; the last grid of the file changes fastest.

        Raises:
            TrainingError: A combination cannot be trained here.
        """
        others = _OF_A_PARENT if self.is_fine_tuning else ()
        own = {key: values for key, values in self.values.items() if key in _OF_A_MODEL and key not in others}
        cells = [dict(zip(own, cell, strict=True)) for cell in itertools.product(*own.values())]
        with _named(self.where):
            models = [read_settings(RecipeSettings, cell) for cell in cells]
            for model in models:
                _check(model)
        return models

    def notes(self) -> list[str]:
        """Return a line for each key that is ignored, with the reason."""
        silent = {"training::output_epoch": (1,), "training::val_epochs": (1,)}  # the default of the trainer
        notes = [f"{key} is ignored: {IGNORED[key]}" for key in IGNORED if self.given(key) not in ((), silent.get(key))]
        notes += [
            f"{key} is ignored with {', '.join(map(str, met))}: {why}"
            for key, (other, without, why) in _WITHOUT.items()
            if any(self.given(key)) and (met := [word for word in without if word in self.given(other)])
        ]
        if self.is_language:
            notes += [f"{key} is ignored: a language model has none" for key in OF_IMAGES if self.given(key)]
            if not self.is_fine_tuning:
                why = "the case says which model a masked parent starts from"
                notes += [f"{key} is ignored: {why}" for key in PRETRAINING if self.given(key)]
        elif any(self.given("model::head::hidden_dim")) and True not in self.given("model::head::mlp"):
            notes.append("model::head::hidden_dim is ignored: a linear head has none")
        return notes


def read_config(path: Path) -> Config:
    """Read a config file.

    Raises:
        TrainingError: It cannot be read, is not a JSON object, or `parse_config` refuses it.
    """
    try:
        return parse_config(load_config(path), where=str(path))
    except SettingsError as error:
        raise TrainingError(
            f"{path} {error.problem}", expected=error.expected, fix="Name the authors' config."
        ) from error


def parse_config(values: Mapping[str, Any], *, where: str) -> Config:
    """Check keys, unite spellings and read grids.

    Args:
        values: The config.
        where: Its name in messages.

    Raises:
        TrainingError: A key is unknown, has two values in two spellings, or has a value that is not supported here.
    """
    parsed: dict[str, tuple[Any, ...]] = {}
    with _named(where):
        for key, value in values.items():
            if key not in KNOWN:
                raise SettingsError(f'unknown key "{printable(key)}"', fix=did_you_mean(key, KNOWN).strip() or None)
            name, choices = ALIASES.get(key, key), _choices(value, key)
            if parsed.get(name, choices) != choices:
                raise SettingsError(f"{name} has two values in two spellings", fix="Delete one.")
            parsed[name] = choices
        is_language = facts.LANGUAGE in parsed.get("model::type", ())
        for key in FIXED:
            for value in () if is_language and key in OF_IMAGES else parsed.get(key, ()):
                check_fixed(key, value)
        if len(parsed.get(_NAME, ())) > 1:
            raise SettingsError(f"{_NAME} is a grid", expected="one name for all models of a config")
    return Config(where=where, values=parsed)


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    """Name the config in an error about its settings."""
    try:
        yield
    except SettingsError as error:
        raise TrainingError(f"{where}: {error.problem}", expected=error.expected, fix=error.fix) from error
    except FieldError as error:  # a batch larger than the data set
        raise TrainingError(f"{where}: {error}") from error


def _choices(value: Any, key: str) -> tuple[Any, ...]:
    """Return the values of a grid, or the one value."""
    if isinstance(value, dict) and list(value) == ["grid_search"]:  # what tune.grid_search returns
        value = value["grid_search"]
    elif isinstance(value, str) and (search := _SEARCH.fullmatch(value)):
        try:
            value = ast.literal_eval(search["values"].strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            expected = "a list of plain Python values in grid_search: nothing in a config is executed"
            raise SettingsError(f"{key} is {shown(value)}", expected=expected) from error
        if not isinstance(value, (list, tuple)):
            raise SettingsError(f"{key} searches {search['values']:.60}", expected="a list")
    choices = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if not choices or not all(choice is None or isinstance(choice, (str, int, float)) for choice in choices):
        if key in IGNORED:  # such as the authors' dataset::ref
            return (type(value).__name__,)
        raise SettingsError(f"{key} is {shown(value)}", expected="a value, or a list of one or more values")
    if len(set(map(repr, choices))) < len(choices):
        raise SettingsError(f"{key} has a value twice in its grid", fix="Delete one.")
    return choices


def _check(model: RecipeSettings) -> None:
    """Raise a SettingsError for settings that contradict each other or cannot be trained here."""
    contrastive = model.objective == "contrastive"
    unsaid = model.dropout if model.is_language else 0
    if (unsaid if model.attention_dropout is None else model.attention_dropout) != model.dropout:
        raise model.refuse("attention_dropout", f"{model.dropout:g}, as model::dropout: a recipe has one dropout")
    if model.is_language:
        _check_language(model)
        return
    if model.case is not None:
        raise model.refuse("case", "null: images have no published start")
    if model.mode not in (None, "cl" if contrastive else "sl"):
        raise model.refuse("mode", f"the mode of the loss {model.loss}, which is {model.objective}")
    if model.validation_loss is not None and (model.validation_loss == "info_nce") != contrastive:
        raise model.refuse("validation_loss", '"info_nce"' if contrastive else '"ce" or "stce"')
    if contrastive:
        for name in ("label_smoothing", "mixup", "cutmix", "random_erasing"):
            if getattr(model, name):
                raise model.refuse(name, "null: views of a contrastive training stay whole")
        if model.temperature == 0:
            raise model.refuse("temperature", "a number above 0")
        if model.mlp:
            raise model.refuse("mlp", "false: a contrastive model's linear head is its embedding")
    elif model.mlp and model.head_width is None:
        raise model.refuse("head_width", "the width of the MLP head, such as 256")


def _check_language(model: RecipeSettings) -> None:
    if model.mode == "cl" or model.validation_loss == "info_nce":
        name = "mode" if model.mode == "cl" else "validation_loss"
        raise model.refuse(name, "null: texts are not trained contrastively")
    unfit = ["mixup", "cutmix", "random_erasing", "temperature", "mlp", "head_width"]
    if model.objective == "masked":
        unfit += ["label_smoothing", "head_seed"]
        if model.outputs not in (None, facts.BERT_BASE.vocab_size):
            raise model.refuse("outputs", f"null: a masked model predicts {facts.BERT_BASE.vocab_size} tokens")
        if model.case is None:
            raise model.refuse("case", '"continued" or "scratch"')
    for name in unfit:
        if getattr(model, name):
            raise model.refuse(name, "null: a language model has none, or its code does not read it")


def _schedule(model: RecipeSettings, steps: int) -> Schedule:
    """Return the schedule; a warm-up is followed by a linear decay, as in the later scripts of the authors."""
    if model.scheduler is not None:
        return Schedule(name="one_cycle", warmup_steps=round(model.warmup_ratio * steps))
    if model.warmup_ratio:
        return Schedule(name="linear", warmup_steps=round(model.warmup_ratio * steps))
    return Schedule()


def _training(model: RecipeSettings) -> Training:
    """Return a model's training, in fp32: configs do not name a precision."""
    training = _text_training(model) if model.is_language else _image_training(model)
    return replace(
        training,
        schedule=_schedule(model, training.steps),
        dropout=model.dropout,
        frozen_backbone=model.freeze_encoder,
    )


def _text_training(model: RecipeSettings) -> Training:
    masked = model.objective == "masked"
    return Training(
        objective="masked" if masked else "supervised",
        dataset=pipelines.OPENWEBTEXT if masked else pipelines.SST2,
        optimizer=Optimizer(
            name="sgd" if model.optimizer == "sgd" else "adamw",
            learning_rate=model.learning_rate,
            weight_decay=model.weight_decay,
            momentum=model.momentum,
        ),
        masking=Masking(share=facts.MASKED_SHARE) if masked else None,
        mixing=Mixing(label_smoothing=model.label_smoothing),
        epochs=model.epochs,
        batch_size=model.batch_size,
    )


def _image_training(model: RecipeSettings) -> Training:
    contrastive, is_cifar = model.objective == "contrastive", model.dataset is facts.CIFAR100
    augmentation: Augmentation = pipelines.CONTRASTIVE
    if not contrastive:
        augmentation = pipelines.FINE_TUNING if is_cifar else pipelines.SUPERVISED
    if model.random_erasing:
        augmentation = pipelines.with_erasing(augmentation, model.random_erasing)
    return Training(
        objective="contrastive" if contrastive else "supervised",
        dataset=pipelines.CIFAR100 if is_cifar else pipelines.IMAGENET,
        optimizer=Optimizer(
            name="sgd" if model.optimizer == "sgd" else "adamw",
            learning_rate=model.learning_rate,
            weight_decay=model.weight_decay,
            momentum=model.momentum,
        ),
        augmentation=augmentation,
        mixing=Mixing(mixup=model.mixup, cutmix=model.cutmix, label_smoothing=model.label_smoothing),
        temperature=(model.temperature or facts.TEMPERATURE) if contrastive else None,
        epochs=model.epochs,
        batch_size=model.batch_size,
    )


def _head(model: RecipeSettings) -> Head:
    if model.objective == "masked":
        return Head(outputs=facts.BERT_BASE.vocab_size, role="masked")
    assert model.outputs is not None  # noqa: S101 - `RecipeSettings` checks it
    if model.is_language:
        return Head(outputs=model.outputs, width=facts.SENTIMENT_WIDTHS)
    if model.objective == "contrastive":
        return Head(outputs=model.outputs, role="embedding")
    return Head(outputs=model.outputs, width=model.head_width if model.mlp else None)


@dataclass(frozen=True, kw_only=True, slots=True)
class _NamedParent:
    """A parent with the values of the ``pretraining::`` keys that mean it."""

    where: str
    parent: Parent
    values: Mapping[str, object]

    def has(self, key: str, value: object) -> bool:
        """Return whether a ``pretraining::`` key with this value means the parent."""
        if key == "model::path":  # .../<model>/checkpoint_89/checkpoints
            return self.values["model"] in PurePosixPath(str(value)).parts
        return self.values[key] == value


class _Child(NamedTuple):
    """A cell of the children's grid."""

    head: Head
    optimizer: Optimizer
    seed: int


_Family = dict[_Child, None]  # a set that keeps its order


def authors_recipe(configs: Sequence[Config | Mapping[str, Any]], *, name: str) -> LoadedRecipe:
    """Make a population from the authors' configs.

    Args:
        configs: Pre-training and fine-tuning configs, parsed or as plain JSON values.
        name: Name of the recipe.

    Returns:
        The recipe, and a note for each ignored key. Parents are in the order of the configs and, within one, of its
        grids (the last grid of the file changes fastest). Children are sorted by seed, then head, then optimizer, each
        in the order of first appearance.

    Raises:
        TrainingError: A config is not supported here, or a fine-tuning config names an unknown parent. The children of
            the parents may also form no common grid of heads, optimizers and seeds.
    """
    parsed = [
        config if isinstance(config, Config) else parse_config(config, where=f"config {number}")
        for number, config in enumerate(configs)
    ]
    parents = [_parent(config, model) for config in parsed if not config.is_fine_tuning for model in config.models()]
    if not parents:
        raise TrainingError(
            f"{(parsed[0].where if parsed else name)} pre-trains nothing",
            fix="Give the config of the parents as well: pretraining.json+finetuning.json.",
        )
    for number, given in enumerate(parents):
        if any(given.parent == other.parent for other in parents[:number]):
            raise TrainingError(f"{given.where}: parent {number} is given twice", fix="Delete one of the two.")
    if len({config.is_language for config in parsed}) > 1:
        raise TrainingError(
            f"{name} has vision and language models",
            expected="models of one architecture: a zoo has one",
            fix="Make a recipe of each.",
        )
    families, training = _families([config for config in parsed if config.is_fine_tuning], parents)
    children, replicates = _children(families, training or parents[0].parent.training, name)
    made = tuple(replace(one.parent, replicates=count) for one, count in zip(parents, replicates, strict=True))
    is_language = parsed[0].is_language
    trainings = [*(parent.training for parent in made), *([children.training] if children.heads else [])]
    cycles = [ONE_CYCLE] if any(training.schedule.name == "one_cycle" for training in trainings) else []
    source = "TransformerModelZooDataset at ee70028" if is_language else "ViTModelZoo at 2eb7441"
    recipe = Recipe(
        name=name,
        source=f"configs in the form of github.com/ModelZoos/{source}, as written",
        architecture=facts.BERT_BASE if is_language else pipelines.VIT_S_16,
        parents=made,
        children=children,
        deviations=(*(_text_deviations if is_language else _deviations)(made, children), *cycles),
        tokenizer=pipelines.CASED if is_language else None,
    )
    notes = dict.fromkeys(note for one in parsed for note in one.notes())
    return LoadedRecipe(recipe=recipe, notes=(*notes, *start_notes(recipe)))


def _parent(config: Config, model: RecipeSettings) -> _NamedParent:
    head_seed = model.seed if model.head_seed is None else model.head_seed
    seeds = replace(Seeds.same(model.seed), head=head_seed)
    mode = "cl" if model.objective == "contrastive" else "sl"
    name = next(iter(config.given(_NAME)), None)
    with _named(config.where):
        start = Start(repo=facts.BERT_CASED) if model.case == "continued" else None
        parent = Parent(training=_training(model), head=_head(model), seeds=seeds, replicates=0, start=start)
    values = {
        "model": name,
        "seed": model.seed,
        "mode": mode,
        "loss": model.loss,
        "case": model.case,
        "optim::optimizer": model.optimizer,
        "optim::lr": model.learning_rate,
        "optim::wd": model.weight_decay,
    }
    return _NamedParent(where=config.where, parent=parent, values=values)


def _families(fine_tuning: Sequence[Config], parents: Sequence[_NamedParent]) -> tuple[list[_Family], Training | None]:
    """Return the children of each parent, in the order of the configs, and their common training."""
    families: list[_Family] = [{} for _ in parents]
    shared: Training | None = None
    for config in fine_tuning:
        models = config.models()
        with _named(config.where):
            chosen = _chosen(config, parents)
            for model in models:
                training = _child_training(model)
                shared = shared or training
                names = (
                    *("dataset", "augmentation", "mixing", "schedule", "dropout", "frozen_backbone"),
                    *("epochs", "batch_size"),
                )
                changed = [name for name in names if getattr(training, name) != getattr(shared, name)]
                if changed:
                    raise SettingsError(
                        f"children differ in {', '.join(changed)}",
                        expected="a difference in head, optimizer, learning rate, weight decay, momentum or seed",
                        fix="Make a recipe of each.",
                    )
                child = _Child(head=_head(model), optimizer=training.optimizer, seed=model.seed)
                for number in chosen:
                    families[number].setdefault(child)
    return families, shared


def _child_training(model: RecipeSettings) -> Training:
    if model.objective != "supervised":
        raise model.refuse("loss", '"stce": children are fine-tuned supervised')
    if model.head_seed not in (None, model.seed):
        expected = f"{model.seed}, as seed, or null: a child's head, order and augmentation share their seed"
        raise model.refuse("head_seed", expected)
    return _training(model)


def _chosen(config: Config, parents: Sequence[_NamedParent]) -> list[int]:
    """Return the numbers of the parents that agree with all ``pretraining::`` keys of a config."""
    chosen = list(range(len(parents)))
    for full_key in _OF_A_PARENT:
        key, values = full_key.partition("::")[2], config.given(full_key)
        for value in values:
            if not any(parents[number].has(key, value) for number in chosen):
                names = (shown(parents[number].values["model" if key == "model::path" else key]) for number in chosen)
                raise SettingsError(
                    f"{full_key} is {shown(value)}, of no parent that is given",
                    expected=", ".join(dict.fromkeys(names)),
                    fix="Give the config of that parent as well, or name one of these.",
                )
        if values:
            chosen = [number for number in chosen if any(parents[number].has(key, value) for value in values)]
    for path in config.given("pretraining::model::path"):
        for number in map(int, CHECKPOINT_FOLDER.findall(str(path))):  # the authors count from 0 or from 1
            for epochs in {parents[n].parent.training.epochs for n in chosen} - {number, number + 1}:
                raise SettingsError(
                    f"pretraining::model::path names checkpoint {number} of {epochs} epochs",
                    expected="the parent's last checkpoint",
                )
    return chosen


def _children(families: Sequence[_Family], training: Training, name: str) -> tuple[Children, list[int]]:
    """Return the grid that all families share, and the number of its seeds that each has."""
    cells = list(dict.fromkeys(child for family in families for child in family))
    heads = tuple(dict.fromkeys(cell.head for cell in cells))
    optimizers = tuple(dict.fromkeys(cell.optimizer for cell in cells))
    seeds = tuple(dict.fromkeys(cell.seed for cell in cells))
    replicates = []
    for number, family in enumerate(families):
        count = len({child.seed for child in family})
        grid = set(itertools.starmap(_Child, itertools.product(heads, optimizers, seeds[:count])))
        if family.keys() != grid:
            raise TrainingError(
                f"{name}: parent {number} has {len(family)} children",
                expected=f"a whole grid of {len(heads)} heads x {len(optimizers)} optimizers x {count} seeds",
                fix="Write a recipe in Python for another shape (docs/guides/recipes.md).",
            )
        replicates.append(count)
    return Children(training=training, heads=heads, optimizers=optimizers, seeds=seeds), replicates


def _deviations(parents: Sequence[Parent], children: Children) -> tuple[str, ...]:
    paths = {f"parents[{number}].training": parent.training for number, parent in enumerate(parents)}
    contrastive = [path for path, training in paths.items() if training.objective == "contrastive"]
    if len({training.dataset.n_evaluated for training in paths.values()}) == 1:
        evaluated = {f"parents[0:{len(parents)}].training": parents[0].training}
    else:
        evaluated = dict(paths)
    if children.heads:
        evaluated["children.training"] = paths["children.training"] = children.training
    trainings = paths.values()
    positives = {"ours": "two views of an image", "source": facts.POSITIVES, "why": "what InfoNCE is for"}
    entries = [
        *(evaluated_images(path, training.dataset.n_evaluated) for path, training in evaluated.items()),
        *map(contrastive_preprocessing, contrastive),
        *TRAINER,
        *(deviation(f"{path}.positives", **positives) for path in contrastive),
    ]
    if any(training.mixing.mixup or training.mixing.cutmix for training in trainings):
        entries.append(MIXING_PARTNER)
    if any(training.augmentation.erasing_fill == "noise" for training in trainings):
        entries.append(ERASING_NOISE)
    return (*entries, *([CONTRASTIVE_METRICS] if contrastive else []), *([CHILDREN_START] if children.heads else []))


def _text_deviations(parents: Sequence[Parent], children: Children) -> tuple[str, ...]:
    path = f"parents[0:{len(parents)}].training"
    entries = [packed_rows(path), evaluated_rows(path, parents[0].training.dataset.n_evaluated), adam(path)]
    entries += [random_start(f"parents[{n}]") for n, parent in enumerate(parents) if parent.start is None]
    if children.heads:
        entries.append(split_by_hash("children.training"))
        entries.append(evaluated_rows("children.training", children.training.dataset.n_evaluated))
        entries += [TEXT_CHILDREN_START, POOLER]
    return (*entries, *TEXT_TRAINER, *MASKS)
