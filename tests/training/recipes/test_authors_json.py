"""The configs of the zoo's authors: every key of theirs, every spelling, grids, parents and children, refusals."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from training.recipes import load_recipe, read_recipe
from training.recipes.authors_json import authors_recipe
from training.recipes.authors_keys import ALIASES, FIXED, IGNORED, KNOWN, READ
from training.recipes.paper import paper
from training.recipes.plan import plan_members
from training.recipes.recipe import Head, Parent, Recipe, Seeds
from training.recipes.training import Mixing, Optimizer
from vitzoo.errors import TrainingError
from vitzoo.records import json_files

_EVERYWHERE = {
    "dataset::dump": "/data/dump.pt",
    "model::channels_in": 3,
    "model::init_type": "kaiming_normal",
    "model::nlin": "gelu",
    "model::type": "vit_s_16",
    "model::patch_size": 16,
    "model::attn_dropout": 0,
    "model::dropout": 0,
    "optim::scheduler": None,
    "optim::momentum": 0,
    "optim::optimizer": "adamw",
    "optim::lr": 0.001,
    "cuda": True,
    "training::ddp": False,
    "training::num_devices": 1,
    "training::device": "cuda",
    "trainloader::num_workers": 4,
    "testloader::num_workers": 4,
    "training::output_epoch": 1,
    "training::start_epoch": 0,
    "training::val_epochs": 1,
}
SUPERVISED = {
    **_EVERYWHERE,
    "dataset::name": "ImageNet1K",
    "model::o_dim": 1000,
    "model::name": "sl_seed_6312",
    "optim::wd": 0.0001,
    "seed": 6312,
    "training::batchsize": 256,
    "training::epochs_train": 90,
    "training::label_smoothing": 0.1,
    "training::temperature": 0,
    "training::loss": "stce",
    "validation::loss": "ce",
    "training::randerase": 0.25,
    "training::mixup": 0.8,
    "training::cutmix": 1.0,
    "training::mode": "sl",
}
CONTRASTIVE = {
    **SUPERVISED,
    "model::name": "cl_seed_42",
    "seed": 42,
    "training::batchsize": 96,
    "training::label_smoothing": None,
    "training::temperature": 0.07,
    "training::loss": "info_nce",
    "validation::loss": "info_nce",
    "training::randerase": None,
    "training::mixup": None,
    "training::cutmix": None,
    "training::mode": "cl",
}
FINE_TUNING = {
    **_EVERYWHERE,
    "dataset::name": "CIFAR100",
    "model::head::mlp": False,
    "model::head::hidden_dim": None,
    "model::head::nlin": None,
    "model::head::seed": 42,
    "model::freeze_encoder": False,
    "model::o_dim": 100,
    "model::name": "ft_seed_42",
    "optim::wd": 0,
    "seed": 42,
    "training::batchsize": 256,
    "training::epochs_train": 50,
    "training::label_smoothing": 0.1,
    "training::loss": "stce",
    "validation::loss": "ce",
    "training::randerase": 0.25,
    "training::mixup": 0.8,
    "training::cutmix": 1.0,
    "pretraining::model": "sl_seed_6312",
    "pretraining::model::path": "/zoos/ImageNet/sl_seed_6312/checkpoint_89/checkpoints",
    "pretraining::seed": 6312,
    "pretraining::mode": "sl",
    "pretraining::loss": "stce",
}
# The parameters that the authors' README lists.
README = [
    "model::name",
    "model::o_dim",
    "model::type",
    "dataset::name",
    "dataset::dump",
    "optim::optimizer",
    "optim::lr",
    "optim::weight_decay",
    "validation::loss",
    "training::loss",
    "training::batchsize",
    "training::epochs_train",
    "training::output_epoch",
    "training::mode",
    "training::mixup",
    "training::cutmix",
    "training::randerase",
    "trainloader::num_workers",
    "cuda",
    "seed",
    "pretrained::model::path",
]


def recipe_of(*configs: dict[str, Any]) -> Recipe:
    return authors_recipe(configs, name="theirs").recipe


def without(config: dict[str, Any], *keys: str, **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in keys} | changes


def test_every_key_of_theirs_is_known() -> None:
    assert {*README, *SUPERVISED, *CONTRASTIVE, *FINE_TUNING} <= set(KNOWN)
    sorts = [set(READ), set(FIXED), set(IGNORED), set(ALIASES)]
    assert sum(map(len, sorts)) == len(set.union(*sorts))  # each is one of them
    assert set(ALIASES.values()) <= set(KNOWN) - set(ALIASES)


def test_their_examples_are_the_papers_members_in_fp32() -> None:
    ours = paper()

    def fp32(parent: Parent) -> Parent:
        return replace(parent, training=replace(parent.training, precision="fp32"), replicates=0)

    assert recipe_of(SUPERVISED).parents == (fp32(ours.parents[1]),)
    assert recipe_of(CONTRASTIVE).parents == (fp32(ours.parents[7]),)
    both = recipe_of(SUPERVISED, FINE_TUNING)
    first = ours.children.optimizers[1]
    assert both.children.training == replace(ours.children.training, precision="fp32", optimizer=first)
    assert (both.children.heads, both.children.optimizers) == (ours.children.heads[:1], (first,))
    assert both.children.seeds == (42,)
    assert both.architecture == ours.architecture
    assert [str(one.id) for one in plan_members(both)] == ["pt-0", "pt-0/ft-0"]


def test_a_pre_training_config_alone_has_no_children() -> None:
    recipe = recipe_of(SUPERVISED, CONTRASTIVE)
    assert len(plan_members(recipe)) == 2
    assert json_files.as_json(recipe)["children"]["heads"] == []


def test_the_whole_of_paper_from_three_files() -> None:
    sl = SUPERVISED | {"seed": "tune.grid_search([42, 6312, 2, 3, 4, 5, 6])", "model::name": "sl"}
    cl = CONTRASTIVE | {"seed": [42, 8, 9], "model::name": "cl"}
    ft = FINE_TUNING | {
        "model::head::mlp": [False, True],
        "model::head::hidden_dim": 256,
        "model::head::seed": None,
        "optim::optimizer": ["adamw", "sgd"],
        "optim::lr": "ray.tune.grid_search([3e-3, 1e-3, 1e-4])",
        "seed": {"grid_search": [42, 43]},
        "pretraining::model": ["sl", "cl"],
        "pretraining::model::path": None,
        "pretraining::seed": None,
        "pretraining::mode": None,
        "pretraining::loss": None,
    }
    # The grid's order is that of the keys: put the learning rate last, as the paper's recipe has it.
    ft = without(ft, "optim::lr") | {"optim::lr": ft["optim::lr"]}
    planned = plan_members(recipe_of(sl, cl, ft))
    expected = plan_members(paper())
    assert len(planned) == 250
    for found, one in zip(planned, expected, strict=True):
        assert found == replace(one, training=replace(one.training, precision="fp32"))


def test_a_grid_of_parents_goes_by_the_order_of_the_file() -> None:
    config = without(SUPERVISED, "seed", "optim::lr", "optim::wd")
    rates_last = recipe_of(config | {"seed": [1, 2], "optim::lr": [0.1, 0.2], "optim::wd": 0})
    assert [(one.seeds.init, one.training.optimizer.learning_rate) for one in rates_last.parents] == [
        (1, 0.1),
        (1, 0.2),
        (2, 0.1),
        (2, 0.2),
    ]
    seeds_last = recipe_of(config | {"optim::lr": [0.1, 0.2], "optim::wd": 0, "seed": [1, 2]})
    assert [one.seeds.init for one in seeds_last.parents] == [1, 2, 1, 2]


SETTINGS = [  # what is changed, what the parent's training or head then is
    ({"optim::optimizer": "sgd", "optim::momentum": 0.9}, "optimizer", Optimizer(
        name="sgd", learning_rate=0.001, weight_decay=0.0001, momentum=0.9)),
    ({"optim::lr": 1}, "optimizer", Optimizer(name="adamw", learning_rate=1.0, weight_decay=0.0001)),
    ({"training::mixup": None}, "mixing", Mixing(cutmix=1.0, label_smoothing=0.1)),
    ({"training::cutmix": 0}, "mixing", Mixing(mixup=0.8, label_smoothing=0.1)),
    ({"training::label_smoothing": None}, "mixing", Mixing(mixup=0.8, cutmix=1.0)),
    ({"training::loss": "ce", "validation::loss": None}, "objective", "supervised"),
    ({"training::mode": None}, "objective", "supervised"),
    ({"training::epochs_train": 3}, "epochs", 3),
    ({"training::batchsize": 64}, "batch_size", 64),
    ({"dataset::name": "cifar-100", "model::o_dim": 100}, "dataset", paper().children.training.dataset),
    ({"dataset::name": "ImageNet-1k"}, "dataset", paper().parents[0].training.dataset),
    ({"training::temperature": None}, "temperature", None),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "field", "value"), SETTINGS)
def test_a_setting_is_what_it_says(changes: dict[str, Any], field: str, value: object) -> None:
    (parent,) = recipe_of(SUPERVISED | changes).parents
    assert getattr(parent.training, field) == value


def test_erasing_is_timms_in_its_place() -> None:
    augmentation = recipe_of(SUPERVISED).parents[0].training.augmentation
    assert (augmentation.erasing, augmentation.erasing_fill, augmentation.erasing_place) == (
        0.25,
        "noise",
        "after_mixing",
    )
    none = recipe_of(SUPERVISED | {"training::randerase": None}).parents[0].training.augmentation
    assert none == paper().parents[0].training.augmentation.__class__(
        random_resized_crop=augmentation.random_resized_crop, horizontal_flip=0.5
    )


def test_what_configs_leave_out_is_their_codes_default() -> None:
    (parent,) = recipe_of(without(SUPERVISED, "seed", "training::mode", "validation::loss")).parents
    assert parent.seeds == Seeds(init=42, head=42, order=42, augmentation=42)
    (parent,) = recipe_of(without(CONTRASTIVE, "training::temperature")).parents
    assert parent.training.temperature == 0.07
    assert parent.head == Head(outputs=1000, role="embedding")


def test_a_parents_head_may_have_its_own_seed() -> None:
    (parent,) = recipe_of(SUPERVISED | {"model::head::seed": 7}).parents
    assert parent.seeds == Seeds(init=6312, head=7, order=6312, augmentation=6312)


@pytest.mark.parametrize(("alias", "key"), ALIASES.items())
def test_each_spelling_is_the_same(alias: str, key: str) -> None:
    configs = [
        {alias if name == key else name: value for name, value in config.items()}
        for config in (SUPERVISED, FINE_TUNING)
    ]
    assert any(alias in config for config in configs)
    assert recipe_of(*configs) == recipe_of(SUPERVISED, FINE_TUNING)
    twice = [config | {alias: config[key]} if key in config else config for config in (SUPERVISED, FINE_TUNING)]
    assert recipe_of(*twice) == recipe_of(SUPERVISED, FINE_TUNING)
    with pytest.raises(TrainingError, match=f"{key} stands in two spellings with two values"):
        recipe_of(SUPERVISED, FINE_TUNING | {key: 1, alias: 2})


def test_what_is_ignored_is_said_once_with_the_reason() -> None:
    notes = authors_recipe([SUPERVISED, CONTRASTIVE, FINE_TUNING], name="theirs").notes
    assert [note.partition(" is ignored: ")[0] for note in notes] == [
        "cuda",
        "training::device",
        "training::ddp",
        "training::num_devices",
        "trainloader::num_workers",
        "testloader::num_workers",
        "dataset::dump",
        "model::name",
    ]
    lost = {"optim::momentum": [0, 0.9], "training::temperature": 0.1, "model::head::hidden_dim": 8}
    twins = without(SUPERVISED, *IGNORED) | {"optim::optimizer": ["sgd", "adamw"]} | lost
    with pytest.raises(TrainingError, match="parent 3 is given twice"):  # those of adamw are the same twice
        authors_recipe([twins], name="theirs")
    lost["optim::momentum"] = 0.9
    assert authors_recipe([without(SUPERVISED, *IGNORED) | lost], name="theirs").notes == (
        "optim::momentum is ignored with adamw: it has none",
        "training::temperature is ignored with stce: InfoNCE alone has one",
        "model::head::hidden_dim is ignored: a linear head has none",
    )
    used = {"optim::optimizer": "sgd", "optim::momentum": 0.9}
    assert authors_recipe([without(SUPERVISED, *IGNORED) | used], name="theirs").notes == ()
    plain = {key: value for key, value in SUPERVISED.items() if key not in IGNORED}
    assert authors_recipe([plain], name="theirs").notes == ()
    told = {"training::output_epoch": 5, "training::val_epochs": 2, "dataset::ref": {"a": 1}, "device": "cuda"}
    assert authors_recipe([plain | told], name="theirs").notes == tuple(
        f"{key} is ignored: {IGNORED[key]}"
        for key in ("device", "dataset::ref", "training::output_epoch", "training::val_epochs")
    )


def test_a_grid_over_what_is_ignored_makes_no_members() -> None:
    assert len(recipe_of(SUPERVISED | {"trainloader::num_workers": [2, 4]}).parents) == 1


def test_deviations_are_those_of_what_is_trained() -> None:
    def named(*configs: dict[str, Any]) -> list[str]:
        return [entry.partition(": ")[0] for entry in recipe_of(*configs).deviations]

    common = [f"trainer.{name}" for name in ("randomness", "images", "train_figures", "test_figures")]
    first = "parents[0:1].training.dataset.evaluated_train_images"
    plain = {"training::mixup": 0, "training::cutmix": 0, "training::randerase": 0}
    assert named(SUPERVISED | plain) == [first, *common]
    assert named(SUPERVISED) == [first, *common, "trainer.mixing_partner", "trainer.erasing_noise"]
    assert named(CONTRASTIVE) == [
        first,
        "parents[0].training.dataset.preprocessing",
        *common,
        "parents[0].training.positives",
        "trainer.contrastive_figures",
    ]
    children = named(SUPERVISED, FINE_TUNING)
    assert (children[:2], children[-1]) == (
        [first, "children.training.dataset.evaluated_train_images"],
        "trainer.children_start",
    )


def test_deviations_that_are_the_papers_say_what_the_papers_say() -> None:
    parents = [SUPERVISED | {"seed": [1, 2, 3, 4, 5, 6, 7], "model::name": "sl"}, CONTRASTIVE | {"seed": [8, 9, 10]}]
    named = {"pretraining::model": "sl", "pretraining::model::path": None, "pretraining::seed": None}
    theirs = recipe_of(*parents, FINE_TUNING | named).deviations
    assert len(theirs) == len(set(theirs))
    of_the_first = [one for one in theirs if one.startswith("parents[7].training.dataset.preprocessing: ")]
    (ours,) = (one for one in paper().deviations if one.startswith("parents[7:10].training.dataset.preprocessing: "))
    assert of_the_first == [ours.replace("[7:10]", "[7]")]
    for name in ("parents[0:10].training.dataset.evaluated", "children.training.dataset.evaluated", "trainer.erasing"):
        (entry,) = (one for one in paper().deviations if one.startswith(name))
        assert entry in theirs


def test_parents_of_two_data_sets_say_each_how_many_images_are_measured() -> None:
    other = SUPERVISED | {"dataset::name": "CIFAR100", "model::o_dim": 100}
    rest = "evenly spaced; source: all, while training; our choice"
    assert recipe_of(SUPERVISED, other).deviations[:2] == (
        f"parents[0].training.dataset.evaluated_train_images: 10,000, {rest}",
        f"parents[1].training.dataset.evaluated_train_images: 5,000, {rest}",
    )


def test_children_start_from_the_parents_that_they_name() -> None:
    def replicates(**said: Any) -> list[int]:
        keys = [key for key in FINE_TUNING if key.startswith("pretraining::")]
        child = without(FINE_TUNING, *keys) | {f"pretraining::{k.replace('_', '::')}": v for k, v in said.items()}
        parents = (SUPERVISED | {"seed": [42, 6312]}, CONTRASTIVE)
        return [one.replicates for one in recipe_of(*parents, child).parents]

    assert replicates(model="sl_seed_6312") == [1, 1, 0]  # a grid's models share their name
    assert replicates(model="sl_seed_6312", seed=42) == [1, 0, 0]
    assert replicates(model=["sl_seed_6312", "cl_seed_42"]) == [1, 1, 1]
    assert replicates(seed=42) == [1, 0, 1]
    assert replicates(seed=42, mode="cl") == [0, 0, 1]
    assert replicates(loss="info_nce") == [0, 0, 1]
    assert replicates(model_path="zoo/cl_seed_42/checkpoint_89/checkpoints") == [0, 0, 1]
    assert replicates(model_path="cl_seed_42/checkpoint_0090/checkpoints") == [0, 0, 1]
    assert replicates(model_path=["a/cl_seed_42/x", "b/sl_seed_6312/y"], seed=[42]) == [1, 0, 1]


def test_one_config_a_model_as_in_their_release() -> None:
    parents = [SUPERVISED, CONTRASTIVE]
    children = [
        without(FINE_TUNING, "pretraining::model::path", "model::head::seed")
        | {
            "pretraining::model": parent["model::name"],
            "pretraining::seed": parent["seed"],
            "pretraining::mode": parent["training::mode"],
            "pretraining::loss": parent["training::loss"],
            "optim::lr": rate,
            "seed": seed,
        }
        for parent in parents
        for rate in (0.1, 0.2)
        for seed in (1, 2)
    ]
    recipe = recipe_of(*children, *parents)  # in any order
    assert [one.replicates for one in recipe.parents] == [2, 2]
    assert [one.learning_rate for one in recipe.children.optimizers] == [0.1, 0.2]
    assert recipe.children.seeds == (1, 2)
    fewer = recipe_of(*parents, *[one for one in children if one["seed"] == 1 or one["pretraining::mode"] == "sl"])
    assert [one.replicates for one in fewer.parents] == [2, 1]
    with pytest.raises(
        TrainingError, match=r"theirs: the 3 children of parent 1 are no grid of 1 heads x 2 optimizers"
    ):
        recipe_of(*parents, *children[:-1])


def test_equal_children_are_one() -> None:
    heads = FINE_TUNING | {"model::head::hidden_dim": [64, 128], "model::head::mlp": [False, True]}
    recipe = recipe_of(SUPERVISED, heads | {"optim::momentum": [0, 0.9]})  # which adamw has none of
    assert recipe.children.heads == (Head(outputs=100), Head(outputs=100, width=64), Head(outputs=100, width=128))
    assert len(recipe.children.optimizers) == 1


_CHILD = [SUPERVISED]
REFUSED = [  # configs, what is said
    ([SUPERVISED | {"optim::learning_rate": 1}], 'config 0: unknown key "optim::learning_rate". Nearest: '),
    ([SUPERVISED | {"trainig::mixup": 1}], 'unknown key "trainig::mixup". Nearest: training::mixup'),
    ([SUPERVISED | {"optim::scheduler": "OneCycleLR"}], 'optim::scheduler is "OneCycleLR"; expected null: '),
    ([SUPERVISED | {"model::dropout": 0.1}], "model::dropout is 0.1; expected 0 or null: there is no dropout here"),
    ([SUPERVISED | {"model::attn_dropout": [0, 0.1]}], "model::attn_dropout is 0.1; expected 0 or null"),
    ([SUPERVISED | {"model::type": "bert"}], 'model::type is "bert"; expected "vit_s_16": language'),
    ([SUPERVISED | {"model::init_type": "xavier_normal"}], 'model::init_type is "xavier_normal"; expected "kaiming_'),
    ([SUPERVISED | {"model::nlin": "relu"}], 'model::nlin is "relu"; expected "gelu" or null'),
    ([SUPERVISED | {"model::channels_in": 1}], "model::channels_in is 1; expected 3"),
    ([SUPERVISED | {"model::patch_size": 32}], "model::patch_size is 32; expected 16"),
    ([SUPERVISED | {"optim::nesterov": True}], "optim::nesterov is true; expected false or null"),
    ([SUPERVISED | {"model::freeze_encoder": 0}], "model::freeze_encoder is 0; expected false or null"),
    ([SUPERVISED | {"model::freeze_encoder": True}], "model::freeze_encoder is true; expected false or null: all"),
    ([SUPERVISED | {"training::start_epoch": 3}], "training::start_epoch is 3; expected 0 or null"),
    ([SUPERVISED | {"training::task": "mlm"}], 'training::task is "mlm"; expected "classification" or null'),
    ([SUPERVISED | {"model::head::nlin": "tanh"}], 'model::head::nlin is "tanh"; expected "relu" or null'),
    ([SUPERVISED | {"dataset::name": "SVHN"}], 'dataset::name is "SVHN"; expected "ImageNet1K" or "CIFAR100"'),
    ([SUPERVISED | {"dataset::name": None}], "dataset::name is null; expected"),
    ([without(SUPERVISED, "dataset::name")], "dataset::name is missing; expected"),
    ([without(SUPERVISED, "optim::lr")], "config 0: optim::lr is missing; expected a number."),
    ([without(SUPERVISED, "optim::wd")], "optim::wd is missing; expected a number."),
    ([without(SUPERVISED, "model::o_dim")], "model::o_dim is missing; expected a whole number."),
    ([without(SUPERVISED, "training::loss")], 'training::loss is missing; expected "stce" or "ce" or "info_nce".'),
    ([SUPERVISED | {"optim::optimizer": "adam"}], 'optim::optimizer is "adam"; expected "adamw" or "sgd".'),
    ([without(SUPERVISED, "optim::momentum") | {"optim::optimizer": "sgd"}], "optim::momentum is missing; expected"),
    ([SUPERVISED | {"optim::lr": "3e-3"}], 'optim::lr is "3e-3"; expected a number.'),
    ([SUPERVISED | {"optim::lr": True}], "optim::lr is true; expected a number."),
    ([SUPERVISED | {"optim::lr": -1}], "config 0: optim::lr is -1; expected a number above 0."),
    ([SUPERVISED | {"optim::lr": "tune.choice([1, 2])"}], 'optim::lr is "tune.choice([1, 2])"; expected a number.'),
    ([SUPERVISED | {"optim::lr": "tune.grid_search([print(1)])"}], "expected a list of plain Python"),
    ([SUPERVISED | {"optim::lr": "tune.grid_search([1, 2)"}], "expected a list of plain Python"),
    ([SUPERVISED | {"optim::lr": "tune.grid_search(3)"}], "optim::lr searches 3; expected a list."),
    ([SUPERVISED | {"optim::lr": []}], "optim::lr is an empty list; expected a value, or a list of one or more."),
    ([SUPERVISED | {"optim::lr": "tune.grid_search([])"}], "optim::lr is an empty list; expected a value"),
    ([SUPERVISED | {"optim::lr": [0.1, [1]]}], "optim::lr[1] is a list; expected a plain value."),
    ([SUPERVISED | {"optim::lr": "tune.grid_search([{1}])"}], "optim::lr[0] is a set; expected a plain value."),
    ([SUPERVISED | {"optim::lr": "tune.grid_search({1})"}], "optim::lr searches {1}; expected a list."),
    ([SUPERVISED | {"optim::lr": {"a": 1}}], "optim::lr is an object; expected a value"),
    ([SUPERVISED | {"optim::lr": [0.1, 0.1]}], "optim::lr has a value twice in its grid. Take one away."),
    ([SUPERVISED | {"model::name": ["a", "b"]}], "model::name is a grid; expected one name"),
    ([SUPERVISED | {"seed": -1}], "config 0: seed is -1; expected a seed from 0 to 2^32 - 1, a whole number."),
    ([SUPERVISED | {"model::head::seed": -1}], "config 0: model::head::seed is -1; expected a seed from 0"),
    ([SUPERVISED, FINE_TUNING | {"seed": -1, "model::head::seed": None}], "config 1: seed is -1; expected a seed"),
    ([SUPERVISED | {"optim::wd": -1}], "config 0: optim::wd is -1; expected a number from 0 on."),
    ([SUPERVISED | {"optim::optimizer": "sgd", "optim::momentum": 1}], "config 0: optim::momentum is 1; expected a"),
    ([SUPERVISED | {"training::mixup": -1}], "config 0: training::mixup is -1; expected the alpha of Beta"),
    ([SUPERVISED | {"training::cutmix": -1}], "config 0: training::cutmix is -1; expected the alpha of Beta"),
    ([SUPERVISED | {"training::label_smoothing": 1}], "training::label_smoothing is 1; expected a fraction from 0"),
    ([SUPERVISED | {"seed": 1.5}], "seed is 1.5; expected a whole number."),
    ([SUPERVISED | {"training::epochs_train": 0}], "training::epochs_train is 0; expected a whole number above 0."),
    ([SUPERVISED | {"training::batchsize": 1}], "config 0: training::batchsize is 1; expected 2 to 1281167."),
    ([SUPERVISED | {"training::mixup": "0.8"}], 'training::mixup is "0.8"; expected a number or null.'),
    ([SUPERVISED | {"training::randerase": 2}], "config 0: training::randerase is 2; expected a probability from 0"),
    ([SUPERVISED | {"training::mode": "cl"}], 'training::mode is "cl"; expected the mode of the loss stce'),
    ([SUPERVISED | {"training::mode": "mae"}], 'training::mode is "mae"; expected "sl" or "cl".'),
    ([SUPERVISED | {"validation::loss": "info_nce"}], 'validation::loss is "info_nce"; expected "ce" or "stce".'),
    ([SUPERVISED | {"model::o_dim": 100}], "model::o_dim is 100; expected 1000, the classes of ILSVRC/imagenet-1k."),
    ([SUPERVISED | {"model::o_dim": 0}], "model::o_dim is 0; expected a number from 1 on."),
    ([CONTRASTIVE | {"training::mixup": 0.8}], "training::mixup is 0.8; expected null: views of a contrastive"),
    ([CONTRASTIVE | {"training::randerase": 0.25}], "training::randerase is 0.25; expected null"),
    ([CONTRASTIVE | {"training::temperature": 0}], "training::temperature is 0; expected a number above 0 or None."),
    ([CONTRASTIVE | {"model::head::mlp": True}], "model::head::mlp is true; expected false: a contrastive model's"),
    ([SUPERVISED, SUPERVISED], "config 1: parent 1 is given twice. Take one of the two away."),
    ([SUPERVISED | {"validation::loss": ["ce", "stce"]}], "config 0: parent 1 is given twice."),
    ([], "theirs pre-trains nothing."),
    ([FINE_TUNING], "config 0 pre-trains nothing. Give the config of the parents as well"),
    ([*_CHILD, FINE_TUNING | {"model::head::mlp": True}], "model::head::hidden_dim is null; expected the width of"),
    ([*_CHILD, FINE_TUNING | {"model::head::mlp": 1}], "model::head::mlp is 1; expected true"),
    ([*_CHILD, FINE_TUNING | {"model::head::mlp": "yes"}], 'model::head::mlp is "yes"; expected true'),
    ([*_CHILD, FINE_TUNING | {"model::head::seed": 7}], "model::head::seed is 7; expected 42, as seed, or null"),
    ([*_CHILD, FINE_TUNING | {"seed": [42, 43]}], "model::head::seed is 42; expected 43, as seed, or null"),
    ([*_CHILD, FINE_TUNING | {"training::mixup": [0, 0.8]}], "children differ in mixing. Those of a recipe"),
    ([*_CHILD, FINE_TUNING, FINE_TUNING | {"training::batchsize": 64, "training::epochs_train": 9}],
     "config 2: children differ in epochs, batch_size."),
    ([*_CHILD, CONTRASTIVE | {"pretraining::seed": 6312}], 'training::loss is "info_nce"; expected "stce": children'),
    ([*_CHILD, FINE_TUNING | {"pretraining::model": "sl_seed_7"}],
     'config 1: pretraining::model is "sl_seed_7", of no parent that is given: expected "sl_seed_6312". Give'),
    ([*_CHILD, FINE_TUNING | {"pretraining::seed": 42}], "pretraining::seed is 42, of no parent that is given: "),
    ([*_CHILD, FINE_TUNING | {"pretraining::mode": "cl"}], 'pretraining::mode is "cl", of no parent that is given'),
    ([*_CHILD, FINE_TUNING | {"pretraining::model::path": "/zoos/other/checkpoint_89/checkpoints"}],
     'expected "sl_seed_6312". Give'),
    ([*_CHILD, FINE_TUNING | {"pretraining::model::path": "sl_seed_6312/checkpoint_40/checkpoints"}],
     "pretraining::model::path names checkpoint 40 of 90 epochs; children start from their parent's last."),
    ([*_CHILD, FINE_TUNING, FINE_TUNING | {"optim::lr": 0.2, "optim::optimizer": "sgd", "model::head::mlp": True,
                                          "model::head::hidden_dim": 8}], "the 2 children of parent 0 are no grid of"),
]  # fmt: skip


@pytest.mark.parametrize(("configs", "said"), REFUSED)
def test_what_is_not_done_is_refused_by_name(configs: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(TrainingError, match=re.escape(said)):
        recipe_of(*configs)


def write(name: str, config: object) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize("text", ["./pre.json+ft.json", "ft.json+pre.json"])
def test_files_joined_by_a_plus(text: str) -> None:
    write("pre.json", SUPERVISED)
    write("ft.json", FINE_TUNING)
    loaded = read_recipe(text)
    assert len(plan_members(loaded.recipe)) == 2
    assert loaded.recipe.name == re.sub(r"\.json|\./", "", text)
    assert any(note.startswith("cuda is ignored") for note in loaded.notes)


def test_a_file_a_folder_and_a_name_with_a_plus() -> None:
    write("configs/a+b.json", SUPERVISED)
    write("configs/ft.json", FINE_TUNING)
    write("configs/notes.txt", "not read")
    assert load_recipe("configs/a+b.json").name == "a+b"
    assert len(plan_members(load_recipe("configs"))) == 2
    assert load_recipe("configs/").name == "configs"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "my.json is no JSON: Expecting"),
        ("[" * 100_000, "my.json is no JSON: "),
        ("[1]", "my.json holds a list; expected an object of section::key names."),
        ('{"seed": 1, "seed": 2}', 'my.json is no JSON: "seed" stands twice.'),
        (json.dumps(SUPERVISED).replace("0.001", "NaN"), "my.json: optim::lr is NaN; expected a number."),
        (json.dumps(SUPERVISED).replace("0.001", "1e999"), "my.json: optim::lr is Infinity; expected a number."),
        ('{"\\u001b[31m": 1}', 'my.json: unknown key "\\x1b[31m".'),
        (b"\xff\xfe\xff", "my.json is no JSON: "),
    ],
)
def test_a_file_that_is_no_config_is_said_to_be_none(content: str | bytes, said: str) -> None:
    Path("my.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TrainingError, match=f"^{re.escape(said)}"):
        load_recipe("my.json")
