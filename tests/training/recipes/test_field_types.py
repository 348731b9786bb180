"""Fields of the wrong type are refused where a recipe is written: by name, value and what was expected."""

import json
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace

import pytest

from tests.tiny import tiny
from training.recipes import load_recipe
from training.recipes.augmentation import Augmentation, ColorJitter, GaussianBlur, RandomResizedCrop
from training.recipes.recipe import Head, Recipe
from training.recipes.training import Optimizer
from vitzoo.records import json_files
from vitzoo.records.dataset_spec import DatasetSpec, Preprocessing

TINY = tiny()
TRAINING = TINY.parents[0].training
DATASET = TRAINING.dataset

WRONG = [  # of what, the field, what it is given, what is said
    (TRAINING, "epochs", 2.5, "epochs is 2.5; expected a whole number"),
    (TRAINING, "epochs", True, "epochs is True; expected a whole number"),
    (TRAINING, "epochs", "2", 'epochs is "2"; expected a whole number'),
    (TRAINING, "batch_size", 32.5, "batch_size is 32.5; expected a whole number"),
    (TRAINING, "batch_size", 32.0, "batch_size is 32.0; expected a whole number"),
    (TRAINING, "clip_norm", "1", 'clip_norm is "1"; expected a number or None'),
    (TRAINING, "temperature", False, "temperature is False; expected a number or None"),
    (TRAINING, "schedule", None, "schedule is None; expected Schedule(...)"),
    (TRAINING, "optimizer", "adamw", 'optimizer is "adamw"; expected Optimizer(...)'),
    (TRAINING, "augmentation", None, "augmentation is None; expected Augmentation(...)"),
    (TRAINING, "mixing", 0.8, "mixing is 0.8; expected Mixing(...)"),
    (TRAINING, "objective", None, "objective is None; expected supervised or contrastive"),
    (TRAINING.schedule, "warmup_steps", 2.5, "warmup_steps is 2.5; expected a whole number"),
    (DATASET, "images", "a/b", 'images is "a/b"; expected DatasetSpec(...)'),
    (DATASET, "train_images", 10.5, "train_images is 10.5; expected a whole number"),
    (DATASET, "test_images", None, "test_images is None; expected a whole number"),
    (DATASET, "preprocessing", None, "preprocessing is None; expected Preprocessing(...)"),
    (DATASET.images, "name", 5, "name is 5; expected text"),
    (DATASET.images, "name", "", 'name is ""; expected the name of a data set'),
    (DATASET.images, "test_split", "", 'test_split is ""; expected the name of a split'),
    (DATASET.images, "val_split", 1, "val_split is 1; expected text or None"),
    (DATASET.images, "held_out", 1.5, "held_out is 1.5; expected a whole number"),
    (DATASET.images, "streamed", 1, "streamed is 1; expected True or False"),
    (Preprocessing(), "resize", 8.0, "resize is 8.0; expected a whole number or None"),
    (Preprocessing(), "crop", "8", 'crop is "8"; expected a whole number or None'),
    (
        Optimizer(name="adamw", learning_rate=1e-3),
        "learning_rate",
        "1e-3",
        'learning_rate is "1e-3"; expected a number',
    ),
    (Optimizer(name="adamw", learning_rate=1e-3), "weight_decay", None, "weight_decay is None; expected a number"),
    (Augmentation(), "scale", (0.5,), "scale is (0.5,); expected a number"),
    (Augmentation(), "resize", 8.0, "resize is 8.0; expected a whole number or None"),
    (Augmentation(), "random_resized_crop", 8, "random_resized_crop is 8; expected RandomResizedCrop(...) or None"),
    (Augmentation(), "erasing_aspect", 0.5, "erasing_aspect is 0.5; expected a tuple of 2 numbers"),
    (RandomResizedCrop(size=8), "size", 8.0, "size is 8.0; expected a whole number"),
    (RandomResizedCrop(size=8), "scale", 0.5, "scale is 0.5; expected a tuple of 2 numbers"),
    (RandomResizedCrop(size=8), "scale", (1,), "scale is (1,); expected a tuple of 2 numbers"),
    (RandomResizedCrop(size=8), "scale", [0.1, 1.0], "scale is [0.1, 1.0]; expected a tuple of 2 numbers"),
    (RandomResizedCrop(size=8), "scale", (0.1, "1"), 'scale[1] is "1"; expected a number'),
    (GaussianBlur(kernel_size=3), "kernel_size", 3.5, "kernel_size is 3.5; expected a whole number"),
    (ColorJitter(), "hue", None, "hue is None; expected a number"),
    (TRAINING.mixing, "mixup", "a" * 80, f'mixup is "{"a" * 59}...; expected a number'),
    (TINY.architecture, "image_size", 8.0, "image_size is 8.0; expected a whole number"),
    (TINY.architecture, "mean", (0.5, 0.5), "mean is (0.5, 0.5); expected a tuple of 3 numbers"),
    (TINY.architecture, "std", (0.5, None, 0.5), "std[1] is None; expected a number"),
    (Head(outputs=3), "outputs", 3.0, "outputs is 3.0; expected a whole number"),
    (Head(outputs=3), "width", True, "width is True; expected a whole number or None"),
    (TINY.parents[0].seeds, "init", 1.5, "init is 1.5; expected a whole number"),
    (TINY.parents[0], "replicates", 1.5, "replicates is 1.5; expected a whole number"),
    (TINY.children, "seeds", (1, 2.5), "seeds[1] is 2.5; expected a whole number"),
    (TINY.children, "seeds", 100, "seeds is 100; expected a tuple of whole numbers"),
    (TINY.children, "heads", Head(outputs=4), "heads is Head(outputs=4, width=None, role='classifier'); expected a tu"),
    (TINY.children, "heads", (4,), "heads[0] is 4; expected Head(...)"),
    (TINY, "parents", [], "parents is []; expected a tuple of Parent(...)"),
    (TINY, "deviations", "abc", 'deviations is "abc"; expected a tuple of texts'),
    (TINY, "source", "", 'source is ""; expected what it follows, or "our choice"'),
    (TINY, "name", "", 'name is ""; expected what the recipe is called'),
]


@pytest.mark.parametrize(("good", "field", "value", "message"), WRONG)
def test_a_wrong_type_is_refused_by_name_and_value(good, field: str, value: object, message: str) -> None:
    wrong = replace(good)
    object.__setattr__(wrong, field, value)  # past the constructor, where the tests' own type checks would be first
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        wrong.__post_init__()


def test_a_users_own_process_says_the_same() -> None:
    # Without the tests' own type checks; one process for all that a constructor can be given.
    cases = [
        ("Seeds(init=1.5, head=0, order=0, augmentation=0)", "init is 1.5; expected a whole number"),
        ("Head(outputs='2')", 'outputs is "2"; expected a whole number'),
        ("Optimizer(name='adamw', learning_rate='1e-3')", 'learning_rate is "1e-3"; expected a number'),
        ("Optimizer(name=None, learning_rate=1)", "name is None; expected adamw or sgd"),
        ("DatasetSpec(name=5)", "name is 5; expected text"),
        ("Preprocessing(resize=2.5)", "resize is 2.5; expected a whole number or None"),
        ("RandomResizedCrop(size=8, scale=0.5)", "scale is 0.5; expected a tuple of 2 numbers"),
    ]
    program = """
import json, sys
from training.recipes.augmentation import *
from training.recipes.recipe import *
from training.recipes.training import *
for code in json.loads(sys.argv[1]):
    try:
        eval(code)
    except ValueError as error:
        print(error)
"""
    arguments = [sys.executable, "-c", program, json.dumps([code for code, _ in cases])]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [message for _, message in cases]


def test_an_int_is_a_number_and_stays_what_it_is() -> None:
    optimizer = Optimizer(name="sgd", learning_rate=1, momentum=0)
    assert (type(optimizer.learning_rate), type(optimizer.momentum)) == (int, int)
    assert RandomResizedCrop(size=8, scale=(1, 1)).scale == (1, 1)


def test_a_digits_recipe_is_what_it_was() -> None:
    digest = "b8dd516ec59d43891d2e125380ad703cab1acd71ae7462caa6d21dfb0c9b3beb"  # as published folders hold it
    assert json_files.json_sha256(json_files.as_json(load_recipe("digits"))) == digest


def test_every_dataclass_of_a_recipe_is_checked() -> None:
    met: set[type] = set()
    for recipe in (TINY, load_recipe("paper")):
        _meet(recipe, met)
    assert {cls.__name__ for cls in met} == {
        "Recipe", "Architecture", "Parent", "Children", "Head", "Seeds", "Training", "Dataset", "DatasetSpec",
        "Preprocessing", "Optimizer", "Schedule", "Augmentation", "RandomResizedCrop", "ColorJitter", "GaussianBlur",
        "Mixing",
    }  # fmt: skip
    assert {type(good) for good, *_ in WRONG} == met
    assert DatasetSpec in met
    assert Recipe in met


def _meet(value: object, met: set[type]) -> None:
    for one in value if isinstance(value, tuple) else (value,):
        if is_dataclass(one) and not isinstance(one, type):
            met.add(type(one))
            for field in fields(one):
                _meet(getattr(one, field.name), met)
