"""What a recipe refuses, and that it is data: plain JSON with a digest that stays."""

import json
import math
import re
from dataclasses import replace

import pytest

from tests.tiny import tiny
from training.recipes import RECIPES, load_recipe
from training.recipes.augmentation import Augmentation, RandomResizedCrop
from training.recipes.checks import check_one_of
from training.recipes.recipe import Head, Recipe, Seeds
from training.recipes.training import Mixing, Optimizer, Schedule, Training
from vitzoo.errors import TrainingError
from vitzoo.records import json_files
from vitzoo.records.dataset_spec import Preprocessing

TINY = tiny()
SUPERVISED, CONTRASTIVE = TINY.parents[0].training, TINY.parents[2].training
SGD = Optimizer(name="sgd", learning_rate=0.1, momentum=0.9)
ADAMW = Optimizer(name="adamw", learning_rate=0.1)

# what is changed, to what, what is said
REFUSED = [
    (TINY.architecture, {"image_size": 0}, "image_size is 0; expected a number above 0"),
    (TINY.architecture, {"patch_size": -2}, "patch_size is -2; expected a number above 0"),
    (TINY.architecture, {"hidden_size": 0}, "hidden_size is 0; expected a number above 0"),
    (TINY.architecture, {"num_hidden_layers": 0}, "num_hidden_layers is 0; expected a number above 0"),
    (TINY.architecture, {"num_attention_heads": 0}, "num_attention_heads is 0; expected a number above 0"),
    (TINY.architecture, {"intermediate_size": 0}, "intermediate_size is 0; expected a number above 0"),
    (TINY.architecture, {"std": (0.5, 0.0, 0.5)}, "std[1] is 0.0; expected a number above 0 and below 1"),
    (TINY.architecture, {"patch_size": 3}, "image_size is 8, which patch_size 3 does not divide"),
    (TINY.architecture, {"num_attention_heads": 3}, "hidden_size is 16, which num_attention_heads 3 does not divide"),
    (TINY.architecture, {"std": (0.5, 0.5, 1.0)}, "std[2] is 1.0; expected a number above 0 and below 1"),
    (TINY.architecture, {"std": (math.nan, 0.5, 0.5)}, "std[0] is nan; expected a number above 0 and below 1"),
    (TINY.architecture, {"mean": (math.inf, 0.5, 0.5)}, "mean[0] is inf; expected a number above 0 and below 1"),
    (TINY.architecture, {"mean": (0.5, 0, 0.5)}, "mean[1] is 0; expected a number above 0 and below 1"),
    (TINY.architecture, {"mean": (0.5, 0.5, 127.5)}, "mean[2] is 127.5; expected a number above 0 and below 1"),
    (Head(outputs=4), {"outputs": 0}, "outputs is 0; expected a number above 0"),
    (Head(outputs=4), {"width": -1}, "width is -1; expected a number above 0"),
    (
        Head(outputs=4),
        {"role": "embeding"},
        'role is "embeding"; expected classifier or embedding. Nearest: embedding.',
    ),
    (ADAMW, {"name": "adam"}, 'name is "adam"; expected adamw or sgd. Nearest: adamw.'),
    (ADAMW, {"learning_rate": 0.0}, "learning_rate is 0.0; expected a number above 0"),
    (ADAMW, {"learning_rate": math.nan}, "learning_rate is nan; expected a number above 0"),
    (ADAMW, {"learning_rate": math.inf}, "learning_rate is inf; expected a number above 0"),
    (ADAMW, {"weight_decay": -0.1}, "weight_decay is -0.1; expected a number from 0 on"),
    (ADAMW, {"momentum": 0.9}, "momentum is 0.9 for adamw; sgd has one, if 0, and adamw has none"),
    (SGD, {"momentum": None}, "momentum is None for sgd; sgd has one, if 0, and adamw has none"),
    (SGD, {"momentum": 1.0}, "momentum is 1.0; expected a number from 0 to below 1"),
    (Schedule(), {"name": "cosin"}, 'name is "cosin"; expected constant or cosine. Nearest: cosine'),
    (Schedule(), {"warmup_steps": -1}, "warmup_steps is -1; expected a number from 0 on"),
    (SUPERVISED.dataset, {"evaluated_train_images": 0}, "evaluated_train_images is 0; expected 1 to 649"),
    (SUPERVISED.dataset, {"evaluated_train_images": 650}, "evaluated_train_images is 650; expected 1 to 649"),
    (SUPERVISED.dataset, {"test_images": -1}, "test_images is -1; expected a number of images from 0 on"),
    (SUPERVISED, {"objective": "supervized"}, 'objective is "supervized"; expected supervised or contrastive'),
    (SUPERVISED, {"epochs": 0}, "epochs is 0; expected a number above 0"),
    (SUPERVISED, {"batch_size": 1}, "batch_size is 1; expected 2 to 649"),
    (SUPERVISED, {"batch_size": 650}, "batch_size is 650; expected 2 to 649"),
    (SUPERVISED, {"temperature": 0.1}, "temperature is 0.1 for a supervised objective; InfoNCE alone has one"),
    (CONTRASTIVE, {"temperature": None}, "temperature is None for a contrastive objective; InfoNCE alone has one"),
    (CONTRASTIVE, {"temperature": 0.0}, "temperature is 0.0; expected a number above 0"),
    (CONTRASTIVE, {"mixing": Mixing(mixup=0.8)}, "mixing is Mixing(mixup=0.8, "),
    (SUPERVISED, {"schedule": Schedule(warmup_steps=21)}, "warmup_steps is 21; expected at most the 20 steps"),
    (Seeds(init=0, head=0, order=0, augmentation=0), {"order": -1}, "order is -1; expected a seed from 0 to 2^32 - 1"),
    (
        Seeds(init=0, head=0, order=0, augmentation=0),
        {"init": 2**32},
        "init is 4294967296; expected a seed from 0 to 2^32 - 1",
    ),
    (TINY.parents[0], {"replicates": -1}, "replicates is -1; expected a number from 0 on"),
    (
        TINY.parents[0],
        {"head": Head(outputs=6, role="embedding")},
        "role is embedding for a supervised objective; expected classifier",
    ),
    (TINY.parents[2], {"head": Head(outputs=6)}, "role is classifier for a contrastive objective; expected embedding"),
    (
        TINY.children,
        {"heads": (Head(outputs=4), Head(outputs=4, role="embedding"))},
        "role is embedding for a supervised objective; expected classifier",
    ),
    (TINY.children, {"seeds": (1, -2)}, "seeds is -2; expected a seed from 0 to 2^32 - 1"),
    (TINY.children, {"seeds": (100, 101, 100)}, "seeds[2] is 100, as seeds[0]; expected each once"),
    (
        TINY.children,
        {"heads": (Head(outputs=4), Head(outputs=4))},
        "heads[1] is Head(outputs=4, width=None, role='classifier'), as heads[0]; expected each once",
    ),
    (TINY.children, {"optimizers": (SGD, ADAMW, replace(SGD))}, "optimizers[2] is Optimizer(name='sgd', "),
    (TINY, {"parents": ()}, "parents is (); expected one parent at least"),
    (
        TINY,
        {"children": replace(TINY.children, heads=())},
        "children.heads is (); expected one at least, for a parent has 2 replicates",
    ),
    (
        TINY,
        {"children": replace(TINY.children, optimizers=())},
        "children.optimizers is (); expected one at least, for a parent has 2 replicates",
    ),
    (
        TINY,
        {"children": replace(TINY.children, seeds=(1,))},
        "a parent has 2 replicates, but the children have 1 seeds",
    ),
]


@pytest.mark.parametrize(("good", "changes", "message"), REFUSED)
def test_a_wrong_field_is_refused_by_name_and_value(good, changes: dict[str, object], message: str) -> None:
    wrong = replace(good)
    for name, value in changes.items():
        object.__setattr__(wrong, name, value)  # past the constructor, where the tests' own type checks would be first
    with pytest.raises(ValueError, match=re.escape(message)):
        wrong.__post_init__()


SIZES = [  # of images of 8 pixels: preprocessing, augmentation, what is refused of them
    (Preprocessing(), Augmentation(), None),
    (Preprocessing(resize=8), Augmentation(resize=8), None),
    (Preprocessing(crop=8), Augmentation(random_crop=8), None),
    (Preprocessing(resize=12, crop=8), Augmentation(resize=12, random_crop=8), None),
    (Preprocessing(resize=8, crop=8), Augmentation(random_resized_crop=RandomResizedCrop(size=8)), None),
    (Preprocessing(crop=6), Augmentation(), "dataset.preprocessing.crop is 6; expected 8, the"),
    (Preprocessing(resize=8, crop=6), Augmentation(), "dataset.preprocessing.crop is 6; expected 8, the"),
    (Preprocessing(resize=12), Augmentation(), "dataset.preprocessing.resize is 12; expected 8, the"),
    (Preprocessing(resize=6, crop=8), Augmentation(), "dataset.preprocessing.resize is 6; expected 8 at least"),
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
def test_images_come_out_at_the_models_size(
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


def test_a_crop_is_not_larger_than_what_it_is_cut_from() -> None:
    assert Augmentation(resize=8, random_crop=8).random_crop == 8
    with pytest.raises(ValueError, match=r"^random_crop is 9; expected at most resize, 8$"):
        Augmentation(resize=8, random_crop=9)


def test_a_population_may_have_no_children() -> None:
    parents = tuple(replace(one, replicates=0) for one in TINY.parents)
    recipe = replace(TINY, parents=parents, children=replace(TINY.children, heads=(), optimizers=(), seeds=()))
    assert recipe.children.heads == ()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("quick", 'compile is "quick"; expected none or default'),
        ("defualt", 'compile is "defualt"; expected none or default. Nearest: default.'),
    ],
)
def test_choices_are_said_once(value: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        check_one_of("compile", value, ("none", "default"))


def test_steps_are_whole_batches() -> None:
    assert SUPERVISED.steps_per_epoch == 10  # 649 = 10 x 64 + 9
    assert SUPERVISED.steps == 20
    assert replace(SUPERVISED, batch_size=649).steps_per_epoch == 1


def test_a_heads_type_follows_its_width() -> None:
    assert (Head(outputs=4).type, Head(outputs=4, width=8).type) == ("linear", "mlp")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_plain_json_with_a_stable_digest(name: str) -> None:
    plain = json_files.as_json(load_recipe(name))
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["name"] == name
    assert len(plain["parents"]) == (13 if name.startswith("digits") else 10)
    backwards = {key: plain[key] for key in reversed(plain)}
    assert json_files.json_sha256(backwards) == json_files.json_sha256(plain)
    assert json_files.json_sha256(json_files.as_json(load_recipe(name))) == json_files.json_sha256(plain)
    other = json_files.as_json(replace(load_recipe(name), deviations=("one",)))
    assert json_files.json_sha256(other) != json_files.json_sha256(plain)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("digit", 'No recipe is called "digit". Nearest: digits, digits_full.'),
        ("imagenet", 'No recipe is called "imagenet". There are: digits, digits_full, paper, as_released, no_mixup.'),
    ],
)
def test_an_unknown_recipe_names_the_nearest(name: str, said: str) -> None:
    with pytest.raises(TrainingError) as caught:
        load_recipe(name)
    assert str(caught.value) == said
