"""A recipe refuses bad fields, and is plain JSON with a stable digest."""

import json
import re
from copy import copy
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

from tests.tiny import tiny
from training.recipes import RECIPES, load_recipe
from training.recipes.augmentation import Augmentation, ColorJitter, GaussianBlur, RandomResizedCrop
from training.recipes.recipe import Head, Recipe, Seeds, parse_recipe
from training.recipes.training import Mixing, Optimizer, Schedule, Training
from vitzoo.errors import TrainingError
from vitzoo.records import json_files
from vitzoo.records.dataset_spec import Preprocessing
from vitzoo.records.fields import FieldError

TINY = tiny()
SUPERVISED, CONTRASTIVE = TINY.parents[0].training, TINY.parents[2].training
SGD = Optimizer(name="sgd", learning_rate=0.1, momentum=0.9)
ADAMW = Optimizer(name="adamw", learning_rate=0.1)

SEEDS = Seeds(init=0, head=0, order=0, augmentation=0)
# dataclass, field, refused value, expectation of the error; see tests/records/test_fields.py for types
REFUSED = [
    (TINY.architecture, "image_size", 0, "a whole number above 0"),
    (TINY.architecture, "patch_size", -2, "a whole number above 0"),
    (TINY.architecture, "intermediate_size", 0, "a whole number above 0"),
    (TINY.architecture, "std", (0.5, 0.0, 0.5), "a tuple of 3, each a number above 0 and below 1"),
    (TINY.architecture, "mean", (0.5, 0.5, 127.5), "a tuple of 3, each a number above 0 and below 1"),
    (Head(outputs=4), "outputs", 0, "a whole number above 0"),
    (Head(outputs=4), "width", -1, "a whole number above 0 or a tuple, each a whole number above 0 or None"),
    (Head(outputs=4), "role", "embeding", "classifier or embedding or masked"),
    (ADAMW, "name", "adam", "adamw or sgd"),
    (ADAMW, "learning_rate", 0.0, "a number above 0"),
    (ADAMW, "weight_decay", -0.1, "a number from 0 on"),
    (ADAMW, "momentum", 0.9, "None for adamw, and a number from 0 to below 1 for sgd"),
    (SGD, "momentum", None, "None for adamw, and a number from 0 to below 1 for sgd"),
    (SGD, "momentum", 1.0, "a number from 0 to below 1 or None"),
    (SGD, "beta2", 0.98, "0.999 for sgd, which has none"),
    (ADAMW, "beta2", 1.0, "a number from 0 to below 1"),
    (Schedule(), "name", "cosin", "constant or cosine or linear or one_cycle"),
    (Schedule(), "warmup_steps", -1, "a whole number from 0 on"),
    (SUPERVISED.dataset, "evaluated_train_images", 0, "a whole number above 0"),
    (SUPERVISED.dataset, "evaluated_train_images", 650, "1 to 649"),
    (SUPERVISED.dataset, "test_images", -1, "a whole number from 0 on"),
    (SUPERVISED.dataset.images, "name", "", "the name of a data set"),
    (SUPERVISED.dataset.images, "test_split", "", "the name of a split"),
    (SUPERVISED.dataset.images, "held_out", -1, "a whole number from 0 on"),
    (
        structs.replace(SUPERVISED.dataset.images, val_split="val"),
        "held_out",
        9,
        "0 with val_split val: give one of the two",
    ),
    (Preprocessing(), "crop", 0, "a whole number above 0 or None"),
    (Preprocessing(), "resample", "nearest", "bilinear or bicubic"),
    (SUPERVISED, "objective", "supervized", "supervised or contrastive or autoencoding or distillation or masked"),
    (SUPERVISED, "positives", "pairs", "views or halves"),
    (SUPERVISED, "precision", "fp16", "fp32 or bf16"),
    (SUPERVISED, "epochs", 0, "a whole number above 0"),
    (SUPERVISED, "clip_norm", 0.0, "a number above 0 or None"),
    (SUPERVISED, "batch_size", 1, "2 to 649"),
    (SUPERVISED, "batch_size", 650, "2 to 649"),
    (SUPERVISED, "temperature", 0.1, "a number above 0 for InfoNCE, None for other objectives"),
    (CONTRASTIVE, "temperature", None, "a number above 0 for InfoNCE, None for other objectives"),
    (CONTRASTIVE, "temperature", 0.0, "a number above 0 or None"),
    (replace(CONTRASTIVE, positives="halves"), "batch_size", 33, "an even number from 4 on for positives in halves"),
    (Mixing(), "mixup", -0.1, "the alpha of Beta(alpha, alpha), or 0 for none"),
    (Mixing(), "switch", 1.1, "a probability from 0 to 1"),
    (Mixing(), "label_smoothing", 1.0, "a fraction from 0 to below 1"),
    (RandomResizedCrop(size=8), "scale", (0.5, 1.1), "two fractions of the area, up to 1"),
    (RandomResizedCrop(size=8), "ratio", (2.0, 1.0), "two aspects above 0, ascending"),
    (RandomResizedCrop(size=8), "size", 0, "a whole number above 0"),
    (GaussianBlur(kernel_size=3), "kernel_size", 4, "an odd number from 1 on"),
    (GaussianBlur(kernel_size=3), "sigma", (0.0, 1.0), "a tuple of 2, each a number above 0"),
    (ColorJitter(), "contrast", -1.0, "a number from 0 on"),
    (ColorJitter(), "hue", 0.6, "a fraction of the circle from 0 to .5"),
    (Augmentation(), "rotation", 181.0, "degrees from 0 to 180"),
    (Augmentation(), "translate", 1.5, "a fraction of the side from 0 to 1"),
    (Augmentation(), "scale", 1.0, "a fraction from 0 to below 1"),
    (Augmentation(), "erasing", 2.0, "a probability from 0 to 1"),
    (Augmentation(), "erasing_aspect", (3.0, 1.0), "two aspects above 0, ascending"),
    (Augmentation(), "erasing_fill", "one", "zero or noise"),
    (Augmentation(resize=8), "random_crop", 9, "at most resize, 8"),
    (
        Augmentation(resize=8),
        "random_resized_crop",
        RandomResizedCrop(size=8),
        "None with resize or random_crop",
    ),
    (SEEDS, "order", -1, "a seed from 0 to 2^32 - 1, a whole number"),
    (SEEDS, "init", 2**32, "a seed from 0 to 2^32 - 1, a whole number"),
    (TINY.parents[0], "replicates", -1, "a whole number from 0 on"),
    (TINY.children, "seeds", (1, -2), "a tuple, each a seed from 0 to 2^32 - 1, a whole number"),
    (TINY, "parents", (), "a tuple of one or more Parent(...)"),
    (TINY, "name", "", "the name of the recipe"),
    (TINY, "source", "", 'the source of the recipe, or "our choice"'),
    (TINY, "deviations", "abc", "a tuple, each text"),
]


def changed(good: Any, field: str, value: object) -> Any:
    wrong: Any = copy(good)
    if isinstance(wrong, msgspec.Struct):
        structs.force_setattr(wrong, field, value)
    else:
        object.__setattr__(wrong, field, value)  # past the constructor, where the tests' own type checks would be first
    return wrong


@pytest.mark.parametrize(("good", "field", "value", "expected"), REFUSED)
def test_recipe_refuses_field_out_of_range(good, field: str, value: object, expected: str) -> None:
    with pytest.raises(FieldError) as caught:
        changed(good, field, value).__post_init__()
    assert (caught.value.field, caught.value.value, caught.value.expected) == (field, value, expected)


def names_of(value: Any) -> list[str]:
    return (
        list(value.__struct_fields__) if isinstance(value, msgspec.Struct) else [field.name for field in fields(value)]
    )


def test_every_dataclass_of_a_recipe_checks_its_fields() -> None:
    met: dict[type, object] = {}

    def meet(value: object) -> None:
        for one in value if isinstance(value, tuple) else (value,):
            if (is_dataclass(one) and not isinstance(one, type)) or isinstance(one, msgspec.Struct):
                met[type(one)] = one
                for name in names_of(one):
                    meet(getattr(one, name))

    meet((TINY, load_recipe("paper")))
    assert len(met) == 17
    for one in met.values():
        for name in names_of(one):
            with pytest.raises(FieldError) as caught:
                changed(one, name, object()).__post_init__()
            assert caught.value.field == name


OTHERS = [  # dataclass, change, refused field, message
    (TINY.architecture, {"patch_size": 3}, "image_size", "expected a multiple of patch_size, 3"),
    (TINY.architecture, {"num_attention_heads": 3}, "hidden_size", "expected a multiple of num_attention_heads, 3"),
    (SUPERVISED, {"schedule": Schedule(warmup_steps=21)}, "warmup_steps", "is 21; expected at most the 20 steps"),
    (CONTRASTIVE, {"mixing": Mixing(mixup=0.8)}, "mixing.mixup", "is 0.8; expected 0.0 for a contrastive objective: "),
    (TINY.parents[0], {"head": Head(outputs=6, role="embedding")}, "role", "expected classifier for a supervised"),
    (TINY.parents[2], {"head": Head(outputs=6)}, "role", 'is "classifier"; expected embedding for a contrastive'),
    (TINY.children, {"heads": (Head(outputs=4, role="embedding"),)}, "role", "expected classifier for a supervised"),
    (TINY.children, {"seeds": (100, 101, 100)}, "seeds[2]", "is 100; expected no duplicate of seeds[0]"),
    (TINY.children, {"heads": (Head(outputs=4), Head(outputs=4))}, "heads[1]", "expected no duplicate of heads[0]"),
    (TINY.children, {"optimizers": (SGD, ADAMW, replace(SGD))}, "optimizers[2]", "no duplicate of optimizers[0]"),
    (TINY, {"children": replace(TINY.children, heads=())}, "children.heads", "since a parent has 2 replicates"),
    (TINY, {"children": replace(TINY.children, optimizers=())}, "children.optimizers", "since a parent has 2"),
]


@pytest.mark.parametrize(("good", "changes", "field", "message"), OTHERS)
def test_recipe_refuses_fields_that_disagree(good, changes: dict[str, object], field: str, message: str) -> None:
    with pytest.raises(FieldError, match=re.escape(message)) as caught:
        replace(good, **changes)
    assert caught.value.field == field


def test_recipe_refuses_more_replicates_than_seeds() -> None:
    with pytest.raises(ValueError, match="a parent has 2 replicates, but the children have 1 seeds"):
        replace(TINY, children=replace(TINY.children, seeds=(1,)))


def test_digest_of_the_digits_recipe_is_frozen() -> None:
    digest = "9c6b77ddaca02e5d3538113fb7d87bfc9a573bb4048fb968afa3d2bc0ea174e3"
    assert json_files.json_sha256(json_files.as_json(load_recipe("digits"))) == digest


SIZES = [  # for a model of 8 pixels: preprocessing, augmentation, start of the refusal
    (Preprocessing(), Augmentation(), None),
    (Preprocessing(resize=8), Augmentation(resize=8), None),
    (Preprocessing(crop=8), Augmentation(random_crop=8), None),
    (Preprocessing(resize=12, crop=8), Augmentation(resize=12, random_crop=8), None),
    (Preprocessing(resize=8, crop=8), Augmentation(random_resized_crop=RandomResizedCrop(size=8)), None),
    (Preprocessing(crop=6), Augmentation(), "dataset.preprocessing.crop is 6; expected 8, the"),
    (Preprocessing(resize=8, crop=6), Augmentation(), "dataset.preprocessing.crop is 6; expected 8, the"),
    (Preprocessing(resize=12), Augmentation(), "dataset.preprocessing.resize is 12; expected 8, the"),
    (Preprocessing(resize=6, crop=8), Augmentation(), "dataset.preprocessing.resize is 6; expected 8 or more"),
    (Preprocessing(), Augmentation(resize=12), "augmentation.resize is 12; expected 8, the"),
    (Preprocessing(), Augmentation(random_crop=6), "augmentation.random_crop is 6; expected 8, the"),
    (Preprocessing(), Augmentation(resize=8, random_crop=6), "augmentation.random_crop is 6; expected 8, the"),
    (
        Preprocessing(),
        Augmentation(random_resized_crop=RandomResizedCrop(size=224)),
        "augmentation.random_resized_crop.size is 224; expected 8, the",
    ),
]


@pytest.mark.parametrize(("preprocessing", "augmentation", "refused"), SIZES)
@pytest.mark.parametrize("whose", ["parents[1].training", "children.training"])
def test_recipe_refuses_images_of_another_size_than_the_model(
    whose: str, preprocessing: Preprocessing, augmentation: Augmentation, refused: str | None
) -> None:
    def sized(training: Training) -> Training:
        dataset = replace(training.dataset, preprocessing=preprocessing)
        return replace(training, dataset=dataset, augmentation=augmentation)

    def make() -> Recipe:
        if whose == "children.training":
            return replace(TINY, children=replace(TINY.children, training=sized(TINY.children.training)))
        changed = replace(TINY.parents[1], training=sized(TINY.parents[1].training))
        return replace(TINY, parents=(TINY.parents[0], changed, *TINY.parents[2:]))

    if refused is None:
        assert make().architecture.image_size == 8
        return
    with pytest.raises(ValueError, match=f"^{re.escape(f'{whose}.{refused}')}"):
        make()


def test_population_without_children_is_a_recipe() -> None:
    parents = tuple(replace(one, replicates=0) for one in TINY.parents)
    recipe = replace(TINY, parents=parents, children=replace(TINY.children, heads=(), optimizers=(), seeds=()))
    assert recipe.children.heads == ()


def test_steps_count_whole_batches() -> None:
    assert SUPERVISED.steps_per_epoch == 10  # 649 = 10 x 64 + 9
    assert SUPERVISED.steps == 20
    assert replace(SUPERVISED, batch_size=649).steps_per_epoch == 1


def test_type_of_a_head_follows_its_width() -> None:
    assert (Head(outputs=4).type, Head(outputs=4, width=8).type) == ("linear", "mlp")


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_plain_json_with_a_stable_digest(name: str) -> None:
    plain = json_files.as_json(load_recipe(name))
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["name"] == name
    assert len(plain["parents"]) == len(load_recipe(name).parents)
    assert parse_recipe(plain, Path("zoo.json")) == load_recipe(name)
    backwards = {key: plain[key] for key in reversed(plain)}
    assert json_files.json_sha256(backwards) == json_files.json_sha256(plain)
    assert json_files.json_sha256(json_files.as_json(load_recipe(name))) == json_files.json_sha256(plain)
    other = json_files.as_json(replace(load_recipe(name), deviations=("one",)))
    assert json_files.json_sha256(other) != json_files.json_sha256(plain)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("digit", "Nearest: digits, digits_full."),
        ("imagenet", "There are: digits, digits_full, digits_self_supervised, demo, "),
    ],
)
def test_unknown_recipe_is_refused_with_the_nearest(name: str, fix: str) -> None:
    with pytest.raises(TrainingError, match=f'"{name}"') as error:
        load_recipe(name)
    assert (error.value.fix or "").startswith(fix)
