"""Recipes from the configs of the authors: grids, parents and children, refusals. The guide's test has each key."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.interop.release_records import CONTRASTIVE, MASKED, SENTIMENT, SUPERVISED
from tests.interop.release_records import FINE_TUNING as PUBLISHED_FINE_TUNING
from training.recipes import load_recipe, read_recipe
from training.recipes.authors_json import ALIASES, FIXED, IGNORED, KNOWN, READ, authors_recipe
from training.recipes.paper import paper
from training.recipes.plan import plan_members
from training.recipes.recipe import Head, Parent, Recipe, Seeds
from training.recipes.training import Mixing, Optimizer, Schedule
from vitzoo.errors import TrainingError

SL, CL = SUPERVISED["model::name"], CONTRASTIVE["model::name"]
FINE_TUNING = PUBLISHED_FINE_TUNING | {
    "pretraining::model": SL,
    "pretraining::model::path": f"/zoos/{SL}/checkpoint_89/checkpoints",
    "pretraining::seed": 6312,
}
README_KEYS = ("optim::weight_decay", "training::output_epoch", "pretrained::model::path")


def recipe_of(*configs: dict[str, Any]) -> Recipe:
    return authors_recipe(configs, name="theirs").recipe


def without(config: dict[str, Any], *keys: str, **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in keys} | changes


def test_every_key_is_of_one_kind() -> None:
    assert {*README_KEYS, *SUPERVISED, *CONTRASTIVE, *FINE_TUNING} <= set(KNOWN)
    kinds = [set(READ), set(FIXED), set(IGNORED), set(ALIASES)]
    assert sum(map(len, kinds)) == len(set.union(*kinds))
    assert set(ALIASES.values()) <= set(KNOWN) - set(ALIASES)


def test_published_configs_are_the_papers_members_in_fp32() -> None:
    ours = paper()

    def fp32(parent: Parent) -> Parent:
        return replace(parent, training=replace(parent.training, precision="fp32"), replicates=0)

    assert recipe_of(SUPERVISED, CONTRASTIVE).parents == (fp32(ours.parents[1]), fp32(ours.parents[7]))
    assert len(plan_members(recipe_of(SUPERVISED, CONTRASTIVE))) == 2
    both = recipe_of(SUPERVISED, FINE_TUNING)
    first = ours.children.optimizers[1]
    assert both.children.training == replace(ours.children.training, precision="fp32", optimizer=first)
    assert (both.children.heads, both.children.optimizers) == (ours.children.heads[:1], (first,))
    assert both.children.seeds == (42,)
    assert both.architecture == ours.architecture
    assert [str(one.id) for one in plan_members(both)] == ["pt-0", "pt-0/ft-0"]


def test_the_whole_of_paper_from_three_files() -> None:
    sl = SUPERVISED | {"seed": "tune.grid_search([42, 6312, 2, 3, 4, 5, 6])"}
    cl = CONTRASTIVE | {"seed": [42, 8, 9]}
    # The grid's order is that of the keys: the learning rate is last, as the paper's recipe has it.
    ft = without(FINE_TUNING, *(key for key in FINE_TUNING if key.startswith("pretraining::")), "optim::lr") | {
        "model::head::mlp": [False, True],
        "model::head::hidden_dim": 256,
        "model::head::seed": None,
        "optim::optimizer": ["adamw", "sgd"],
        "seed": {"grid_search": [42, 43]},
        "pretraining::model": [SL, CL],
        "optim::lr": "ray.tune.grid_search([3e-3, 1e-3, 1e-4])",
    }
    planned, expected = plan_members(recipe_of(sl, cl, ft)), plan_members(paper())
    assert len(planned) == 250
    for found, one in zip(planned, expected, strict=True):
        assert found == replace(one, training=replace(one.training, precision="fp32"))


def test_grid_of_parents_has_the_order_of_the_file() -> None:
    config = without(SUPERVISED, "seed", "optim::lr")
    rates_last = recipe_of(config | {"seed": [1, 2], "optim::lr": [0.1, 0.2]})
    found = [(one.seeds.init, one.training.optimizer.learning_rate) for one in rates_last.parents]
    assert found == [(1, 0.1), (1, 0.2), (2, 0.1), (2, 0.2)]
    seeds_last = recipe_of(config | {"optim::lr": [0.1, 0.2], "seed": [1, 2]})
    assert [one.seeds.init for one in seeds_last.parents] == [1, 2, 1, 2]
    assert len(recipe_of(SUPERVISED | {"trainloader::num_workers": [2, 4]}).parents) == 1  # which is ignored


SETTINGS = [  # a change, and the parent's training after it
    ({"optim::optimizer": "sgd", "optim::momentum": 0.9}, "optimizer", Optimizer(
        name="sgd", learning_rate=0.001, weight_decay=0.0001, momentum=0.9)),
    ({"optim::lr": 1}, "optimizer", Optimizer(name="adamw", learning_rate=1.0, weight_decay=0.0001)),
    ({"training::mixup": None}, "mixing", Mixing(cutmix=1.0, label_smoothing=0.1)),
    ({"training::cutmix": 0}, "mixing", Mixing(mixup=0.8, label_smoothing=0.1)),
    ({"training::loss": "ce", "validation::loss": None}, "objective", "supervised"),
    ({"training::mode": None}, "objective", "supervised"),
    ({"dataset::name": "cifar-100", "model::o_dim": 100}, "dataset", paper().children.training.dataset),
    ({"dataset::name": "ImageNet-1k"}, "dataset", paper().parents[0].training.dataset),
    ({"training::temperature": None}, "temperature", None),
    ({"optim::scheduler": "OneCycleLR"}, "schedule", Schedule(name="one_cycle")),
    ({"model::dropout": 0.2, "model::attn_dropout": 0.2}, "dropout", 0.2),
    ({"training::warump_ratio": 0.1}, "schedule", Schedule(name="linear", warmup_steps=45036)),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "field", "value"), SETTINGS)
def test_setting_is_taken_as_written(changes: dict[str, Any], field: str, value: object) -> None:
    (parent,) = recipe_of(SUPERVISED | changes).parents
    assert getattr(parent.training, field) == value


def test_missing_keys_have_the_authors_defaults() -> None:
    (parent,) = recipe_of(
        without(SUPERVISED, "seed", "training::mode", "validation::loss", "training::randerase")
    ).parents
    assert parent.seeds == Seeds(init=42, head=42, order=42, augmentation=42)
    assert parent.training.augmentation.erasing == 0
    (parent,) = recipe_of(without(CONTRASTIVE, "training::temperature")).parents
    assert parent.training.temperature == 0.07
    assert parent.head == Head(outputs=1000, role="embedding")
    (parent,) = recipe_of(SUPERVISED | {"model::head::seed": 7}).parents
    assert parent.seeds == Seeds(init=6312, head=7, order=6312, augmentation=6312)


def test_ignored_keys_are_noted_once_with_the_reason() -> None:
    notes = authors_recipe([SUPERVISED, CONTRASTIVE, FINE_TUNING], name="theirs").notes
    assert {note.partition(" is ignored: ")[0] for note in notes} == {
        *("cuda", "training::device", "training::ddp", "training::num_devices", "trainloader::num_workers"),
        *("testloader::num_workers", "dataset::dump", "model::name"),
    }
    assert len(set(notes)) == len(notes)
    plain = without(SUPERVISED, *IGNORED)
    assert authors_recipe([plain], name="theirs").notes == ()
    lost = {"optim::momentum": 0.9, "training::temperature": 0.1, "model::head::hidden_dim": 8}
    assert authors_recipe([plain | lost], name="theirs").notes == (
        "optim::momentum is ignored with adamw: it has none",
        "training::temperature is ignored with stce: InfoNCE alone has one",
        "model::head::hidden_dim is ignored: a linear head has none",
    )
    told = {"training::output_epoch": 5, "training::val_epochs": 2, "dataset::ref": {"a": 1}, "device": "cuda"}
    assert {note.partition(" is ignored")[0] for note in authors_recipe([plain | told], name="theirs").notes} == set(
        told
    )


def test_deviations_are_those_of_what_is_trained() -> None:
    def named(*configs: dict[str, Any]) -> list[str]:
        return [entry.partition(": ")[0] for entry in recipe_of(*configs).deviations]

    common = [f"trainer.{name}" for name in ("randomness", "images", "train_metrics", "test_metrics")]
    first = "parents[0:1].training.dataset.evaluated_train_images"
    plain = {"training::mixup": 0, "training::cutmix": 0, "training::randerase": 0}
    assert named(SUPERVISED | plain) == [first, *common]
    assert named(SUPERVISED) == [first, *common, "trainer.mixing_partner", "trainer.erasing_noise"]
    assert named(CONTRASTIVE) == [
        first,
        "parents[0].training.dataset.preprocessing",
        *common,
        "parents[0].training.positives",
        "trainer.contrastive_metrics",
    ]
    children = named(SUPERVISED, FINE_TUNING)
    assert children[:2] == [first, "children.training.dataset.evaluated_train_images"]
    assert children[-1] == "trainer.children_start"
    two = [SUPERVISED, SUPERVISED | {"dataset::name": "CIFAR100", "model::o_dim": 100}]
    rest = "evenly spaced; source: all, while training; our choice"
    assert recipe_of(*two).deviations[:2] == (
        f"parents[0].training.dataset.evaluated_train_images: 10,000, {rest}",
        f"parents[1].training.dataset.evaluated_train_images: 5,000, {rest}",
    )


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"model": SL}, [1, 1, 0]),  # a grid's models share their name
        ({"model": SL, "seed": 42}, [1, 0, 0]),
        ({"model": [SL, CL]}, [1, 1, 1]),
        ({"seed": 42}, [1, 0, 1]),
        ({"seed": 42, "mode": "cl"}, [0, 0, 1]),
        ({"loss": "info_nce"}, [0, 0, 1]),
        ({"model::path": f"zoo/{CL}/checkpoint_89/checkpoints"}, [0, 0, 1]),
        ({"model::path": f"{CL}/checkpoint_0090/checkpoints"}, [0, 0, 1]),
        ({"model::path": [f"a/{CL}/x", f"b/{SL}/y"], "seed": [42]}, [1, 0, 1]),
    ],
)
def test_children_start_from_the_parents_that_they_name(said: dict[str, Any], expected: list[int]) -> None:
    child = without(FINE_TUNING, *(key for key in FINE_TUNING if key.startswith("pretraining::")))
    child |= {f"pretraining::{key}": value for key, value in said.items()}
    recipe = recipe_of(SUPERVISED | {"seed": [42, 6312]}, CONTRASTIVE, child)
    assert [one.replicates for one in recipe.parents] == expected


def test_one_config_a_model_as_in_the_release() -> None:
    parents = [SUPERVISED, CONTRASTIVE]
    children = [
        without(FINE_TUNING, "pretraining::model::path", "model::head::seed")
        | {"pretraining::model": parent["model::name"], "pretraining::seed": parent["seed"], "seed": seed}
        | {"pretraining::mode": parent["training::mode"], "pretraining::loss": parent["training::loss"]}
        | {"optim::lr": rate}
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
    with pytest.raises(TrainingError, match="parent 1 has 3 children; expected a whole grid of 1 heads x 2 optimizers"):
        recipe_of(*parents, *children[:-1])


def test_equal_children_are_one() -> None:
    heads = FINE_TUNING | {"model::head::hidden_dim": [64, 128], "model::head::mlp": [False, True]}
    recipe = recipe_of(SUPERVISED, heads | {"optim::momentum": [0, 0.9]})  # adamw has none
    assert recipe.children.heads == (Head(outputs=100), Head(outputs=100, width=64), Head(outputs=100, width=128))
    assert len(recipe.children.optimizers) == 1


ONE: list[tuple[dict[str, Any], str]] = [  # changes of a supervised parent, and the message
    ({"optim::learning_rate": 1}, 'config 0: unknown key "optim::learning_rate". Nearest: '),
    ({"trainig::mixup": 1}, 'unknown key "trainig::mixup". Nearest: training::mixup'),
    ({"optim::weight_decay": 1}, "config 0: optim::wd has two values in two spellings. Delete one."),
    ({"model::attn_dropout": [0, 0.1]}, "model::attn_dropout is 0.1; expected 0, as model::dropout"),
    ({"model::type": "gpt2"}, 'model::type is "gpt2"; expected "vit_s_16" or "bert" or null'),
    ({"model::type": "bert"}, 'dataset::name is "ImageNet1K"; expected "openweb" or "sst"'),
    ({"dataset::name": "openweb"}, 'dataset::name is "openweb"; expected "ImageNet1K" or "CIFAR100"'),
    ({"pretraining::case": "scratch"}, 'config 0: pretraining::case is "scratch"; expected null'),
    ({"model::freeze_encoder": True}, "config 0: training.frozen_backbone is True; expected False for a parent"),
    ({"optim::scheduler": "StepLR"}, 'optim::scheduler is "StepLR"; expected "OneCycleLR" or null'),
    ({"optim::scheduler": "OneCycleLR", "training::warmup_ratio": 0.1}, "config 0: warmup_steps is"),
    ({"optim::nesterov": True}, "optim::nesterov is true; expected false or null"),
    ({"model::freeze_encoder": 0}, "model::freeze_encoder is 0; expected true or false or null"),
    ({"dataset::name": "SVHN"}, 'dataset::name is "SVHN"; expected "ImageNet1K" or "CIFAR100"'),
    ({"dataset::name": None}, "dataset::name is null; expected"),
    ({"optim::optimizer": "adam"}, 'optim::optimizer is "adam"; expected "adamw" or "sgd".'),
    ({"optim::momentum": None, "optim::optimizer": "sgd"}, "optim::momentum is missing; expected"),
    ({"optim::lr": "3e-3"}, 'optim::lr is "3e-3"; expected a number above 0.'),
    ({"optim::lr": -1}, "config 0: optim::lr is -1; expected a number above 0."),
    ({"optim::lr": "tune.choice([1, 2])"}, 'optim::lr is "tune.choice([1, 2])"; expected a number'),
    ({"optim::lr": "tune.grid_search([print(1)])"}, "expected a list of plain Python"),
    ({"optim::lr": "tune.grid_search([1, 2)"}, "expected a list of plain Python"),
    ({"optim::lr": "tune.grid_search(3)"}, "optim::lr searches 3; expected a list."),
    ({"optim::lr": []}, "optim::lr is a list; expected a value, or a list of one or more values"),
    ({"optim::lr": [0.1, [1]]}, "optim::lr is a list; expected a value"),
    ({"optim::lr": {"a": 1}}, "optim::lr is an object; expected a value"),
    ({"optim::lr": [0.1, 0.1]}, "optim::lr has a value twice in its grid. Delete one."),
    ({"model::name": ["a", "b"]}, "model::name is a grid; expected one name"),
    ({"seed": -1}, "config 0: seed is -1; expected a seed from 0 to 2^32 - 1"),
    ({"seed": 1.5}, "seed is 1.5; expected a seed"),
    ({"optim::wd": -1}, "config 0: optim::wd is -1; expected a number from 0."),
    ({"optim::optimizer": "sgd", "optim::momentum": 1}, "config 0: optim::momentum is 1; expected a number from 0 to"),
    ({"training::cutmix": -1}, "config 0: training::cutmix is -1; expected a number from 0 or null"),
    ({"training::mixup": "0.8"}, 'training::mixup is "0.8"; expected a number from 0 or null.'),
    ({"training::label_smoothing": 1}, "training::label_smoothing is 1; expected a number from 0 to below 1"),
    ({"training::randerase": 2}, "config 0: training::randerase is 2; expected a probability from 0"),
    ({"training::batchsize": 1}, "config 0: batch_size is 1; expected 2 to 1281167"),
    ({"training::mode": "cl"}, 'training::mode is "cl"; expected the mode of the loss stce'),
    ({"training::mode": "mae"}, 'training::mode is "mae"; expected "sl" or "cl" or null.'),
    ({"validation::loss": "info_nce"}, 'validation::loss is "info_nce"; expected "ce" or "stce".'),
    ({"model::o_dim": 100}, "model::o_dim is 100; expected 1000, the classes of ILSVRC/imagenet-1k."),
    ({"validation::loss": ["ce", "stce"]}, "config 0: parent 1 is given twice. Delete one of the two."),
    ({"model::head::mlp": True}, "model::head::hidden_dim is missing; expected the width of"),
    ({"model::head::mlp": 1}, "model::head::mlp is 1; expected true or false"),
]
_PATH = "pretraining::model::path"
_OTHER_CELL = FINE_TUNING | {"optim::lr": 0.2, "model::head::mlp": True, "model::head::hidden_dim": 8}
MORE: list[tuple[list[dict[str, Any]], str]] = [
    *(([without(SUPERVISED, key)], f"config 0: {key} is missing; expected ")
      for key in ("dataset::name", "optim::lr", "optim::wd", "model::o_dim", "training::loss")),
    ([CONTRASTIVE | {"training::mixup": 0.8}], "training::mixup is 0.8; expected null: views of a contrastive"),
    ([CONTRASTIVE | {"training::randerase": 0.25}], "training::randerase is 0.25; expected null"),
    ([CONTRASTIVE | {"training::temperature": 0}], "training::temperature is 0.0; expected a number above 0."),
    ([CONTRASTIVE | {"model::head::mlp": True}], "model::head::mlp is true; expected false: a contrastive model's"),
    ([SUPERVISED, SUPERVISED], "config 1: parent 1 is given twice."),
    ([], "theirs pre-trains nothing."),
    ([FINE_TUNING], "config 0 pre-trains nothing. Give the config of the parents as well"),
    *(([SUPERVISED, child], message) for child, message in (
        (FINE_TUNING | {"model::head::seed": 7}, "model::head::seed is 7; expected 42, as seed, or null"),
        (FINE_TUNING | {"seed": [42, 43]}, "model::head::seed is 42; expected 43, as seed, or null"),
        (FINE_TUNING | {"training::mixup": [0, 0.8]}, "children differ in mixing"),
        (CONTRASTIVE | {"pretraining::seed": 6312}, 'training::loss is "info_nce"; expected "stce": children'),
        (FINE_TUNING | {"pretraining::model": "sl_seed_7"},
         f'config 1: pretraining::model is "sl_seed_7", of no parent that is given; expected "{SL[:50]}'),
        (FINE_TUNING | {"pretraining::seed": 42}, "pretraining::seed is 42, of no parent that is given"),
        (FINE_TUNING | {"pretraining::mode": "cl"}, 'pretraining::mode is "cl", of no parent that is given'),
        (FINE_TUNING | {_PATH: "/zoos/other/checkpoint_89/checkpoints"}, f'expected "{SL[:50]}'),
        (FINE_TUNING | {_PATH: f"{SL}/checkpoint_40/checkpoints"},
         "pretraining::model::path names checkpoint 40 of 90 epochs; expected the parent's last"),
    )),
    ([SUPERVISED, FINE_TUNING, FINE_TUNING | {"training::batchsize": 64, "training::epochs_train": 9}],
     "config 2: children differ in epochs, batch_size"),
    ([SUPERVISED, FINE_TUNING, _OTHER_CELL],
     "parent 0 has 2 children; expected a whole grid of"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("configs", "message"), [*(([without(SUPERVISED, **change)], message) for change, message in ONE), *MORE]
)
def test_config_is_refused_by_key(configs: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(TrainingError, match=re.escape(message)):
        recipe_of(*configs)


def test_files_are_joined_by_a_plus_or_a_folder() -> None:
    Path("configs").mkdir()
    for name, text in (("a+b.json", SUPERVISED), ("ft.json", FINE_TUNING), ("notes.txt", "not read")):
        Path("configs", name).write_text(json.dumps(text), encoding="utf-8")
    for text, name in (
        ("./configs/a+b.json+configs/ft.json", "a+b+ft"),
        ("configs/ft.json+configs/a+b.json", "ft+a+b"),
        ("configs", "configs"),
        ("configs/", "configs"),
    ):
        loaded = read_recipe(text)
        assert (len(plan_members(loaded.recipe)), loaded.recipe.name) == (2, name)
        assert any(note.startswith("cuda is ignored") for note in loaded.notes)
    assert load_recipe("configs/a+b.json").name == "a+b"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "my.json is not JSON: Expecting"),
        ("[" * 100_000, "my.json is not JSON: "),
        ("[1]", "my.json holds a list; expected an object of section::key names. "),
        ('{"seed": 1, "seed": 2}', 'my.json is not JSON: "seed" is there twice. '),
        (json.dumps(SUPERVISED).replace("0.001", "NaN"), "my.json: optim::lr is NaN; expected a number"),
        (
            json.dumps(SUPERVISED).replace('lr": 0.001', 'lr": 1e999'),
            "my.json: optim::lr is Infinity; expected a number",
        ),
        ('{"\\u001b[31m": 1}', 'my.json: unknown key "\\x1b[31m".'),
        (b"\xff\xfe\xff", "my.json is not JSON: "),
    ],
)
def test_file_that_is_not_a_config_is_refused(content: str | bytes, message: str) -> None:
    Path("my.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TrainingError, match=f"^{re.escape(message)}"):
        load_recipe("my.json")


def test_frozen_encoder_is_of_children_alone() -> None:
    recipe = recipe_of(SUPERVISED, FINE_TUNING | {"model::freeze_encoder": True})
    assert (recipe.parents[0].training.frozen_backbone, recipe.children.training.frozen_backbone) == (False, True)


def test_language_configs_are_the_recipe_language_in_fp32() -> None:
    """Both recipes are inferred from one grid; as files they have the same members."""
    decays = {"optim::lr": [1e-4, 5e-5, 3e-5], "optim::wd": [1e-4, 1e-2]}
    continued = MASKED | decays | {"cuda": "True"}
    scratch = MASKED | {"optim::lr": 1e-4, "optim::wd": decays["optim::wd"], "pretraininig::case": "scratch"}
    children = without(SENTIMENT, *(key for key in SENTIMENT if key.startswith("pretrain"))) | {
        "optim::lr": [3e-5, 2e-5],
        "optim::wd": [1e-3, 1e-2],
    }
    loaded = authors_recipe([continued, scratch, children], name="theirs")
    found, expected = plan_members(loaded.recipe), plan_members(load_recipe("language"))
    assert len(found) == 40
    for one, other in zip(found, expected, strict=True):
        assert one == replace(other, training=replace(other.training, precision="fp32"))
    assert any("one family" in note for note in loaded.notes)
    ignored = [note.partition(" is ignored")[0] for note in loaded.notes if " is ignored" in note]
    assert {"cuda", "model::init_type", "pretraining::model"} <= set(ignored)
    fields = [entry.partition(": ")[0] for entry in loaded.recipe.deviations]
    assert {"parents[6].start", "trainer.children_start", "trainer.masks"} <= set(fields)


def test_language_children_start_from_the_parents_that_they_name() -> None:
    parents = [MASKED | {"optim::lr": [5e-5, 3e-5]}, MASKED | {"pretraininig::case": "scratch"}]
    child = SENTIMENT | {"pretraininig::case": "continued"}
    assert [one.replicates for one in recipe_of(*parents, child).parents] == [0, 1, 0]
    child = without(child, *(key for key in child if key.startswith("pretraining::")))
    assert [one.replicates for one in recipe_of(*parents, child).parents] == [1, 1, 0]
    with pytest.raises(TrainingError, match='pretraining::case is "scratch", of no parent that is given') as refused:
        recipe_of(MASKED, SENTIMENT)  # as published
    assert refused.value.expected == '"continued"'


LANGUAGE: list[tuple[list[dict[str, Any]], str]] = [
    ([without(MASKED, "pretraininig::case")], "pretraining::case is missing; expected"),
    ([MASKED | {"model::o_dim": 30_522}], "model::o_dim is 30522; expected null: a masked model predicts 28996"),
    ([MASKED | {"training::loss": "info_nce"}], 'training::loss is "info_nce"; expected "ce" or "stce"'),
    ([MASKED | {"training::label_smoothing": 0.1}], "training::label_smoothing is 0.1; expected null"),
    ([MASKED | {"training::mixup": 0.8}], "training::mixup is 0.8; expected null"),
    ([MASKED | {"training::mode": "cl"}], 'training::mode is "cl"; expected null'),
    ([MASKED | {"model::attn_dropout": 0}], "model::attn_dropout is 0.0; expected 0.1, as model::dropout"),
    ([MASKED | {"model::freeze_encoder": True}], "training.frozen_backbone is True"),
    ([MASKED, SENTIMENT | {"pretraininig::case": "continued", "model::head::mlp": True}], "model::head::mlp is true"),
    ([MASKED, SUPERVISED], "theirs has vision and language models"),
    ([SENTIMENT], "config 0 pre-trains nothing"),
]


@pytest.mark.parametrize(("configs", "message"), LANGUAGE)
def test_language_config_is_refused_by_key(configs: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(TrainingError, match=re.escape(message)):
        recipe_of(*configs)
