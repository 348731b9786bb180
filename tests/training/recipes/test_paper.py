"""The paper's recipes: every number, the ids of their members, and their deviations."""

import re
from collections import Counter
from dataclasses import fields, is_dataclass, replace
from math import prod

import msgspec
import pytest

from tests.shrunken import shrunken_paper, write_images
from training.recipes import load_recipe
from training.recipes.deviations import MIXING_PARTNER, deviation
from training.recipes.paper import as_released, no_mixup, paper
from training.recipes.pipelines import CIFAR100, IMAGENET
from training.recipes.plan import PlannedMember, plan_member, plan_members
from training.recipes.recipe import Recipe, Seeds
from training.recipes.training import Mixing, Optimizer
from vitzoo.architectures import is_head
from vitzoo.data.known import KNOWN, complete
from vitzoo.ids import MemberId
from vitzoo.images import load_images

# The children of every parent: head, optimizer, learning rate, seed. Frozen: ids that are published never change.
CHILDREN = """
ft-0 linear adamw 0.003 42
ft-1 linear adamw 0.001 42
ft-2 linear adamw 0.0001 42
ft-3 linear sgd 0.003 42
ft-4 linear sgd 0.001 42
ft-5 linear sgd 0.0001 42
ft-6 mlp adamw 0.003 42
ft-7 mlp adamw 0.001 42
ft-8 mlp adamw 0.0001 42
ft-9 mlp sgd 0.003 42
ft-10 mlp sgd 0.001 42
ft-11 mlp sgd 0.0001 42
ft-12 linear adamw 0.003 43
ft-13 linear adamw 0.001 43
ft-14 linear adamw 0.0001 43
ft-15 linear sgd 0.003 43
ft-16 linear sgd 0.001 43
ft-17 linear sgd 0.0001 43
ft-18 mlp adamw 0.003 43
ft-19 mlp adamw 0.001 43
ft-20 mlp adamw 0.0001 43
ft-21 mlp sgd 0.003 43
ft-22 mlp sgd 0.001 43
ft-23 mlp sgd 0.0001 43
"""
PARENTS = """
pt-0 supervised 42
pt-1 supervised 6312
pt-2 supervised 2
pt-3 supervised 3
pt-4 supervised 4
pt-5 supervised 5
pt-6 supervised 6
pt-7 contrastive 42
pt-8 contrastive 8
pt-9 contrastive 9
"""
RECIPES = {"paper": paper, "as_released": as_released, "no_mixup": no_mixup}


def parents(recipe: Recipe, objective: str) -> list:
    return [one for one in recipe.parents if one.training.objective == objective]


@pytest.mark.parametrize("name", RECIPES)
def test_ids_of_members_are_frozen(name: str) -> None:
    planned = plan_members(load_recipe(name))
    assert len(planned) == 250
    children = [line.split() for line in CHILDREN.split("\n") if line]
    expected = []
    for line in filter(None, PARENTS.split("\n")):
        parent, objective, seed = line.split()
        expected.append((parent, objective, "linear", "adamw", "0.001", seed))
        expected += [(f"{parent}/{child}", "supervised", *factors) for child, *factors in children]
    found = [
        (
            str(one.id),
            one.training.objective,
            one.head.type,
            one.training.optimizer.name,
            f"{one.training.optimizer.learning_rate:g}",
            str(one.seeds.order),
        )
        for one in planned
    ]
    assert found == expected


def test_seeds_equal_the_authors() -> None:
    planned = {one.id: one for one in plan_members(paper())}
    for one in planned.values():
        seed = one.seeds.order
        init = seed if one.id.parent_id is None else planned[one.id.parent_id].seeds.init
        assert one.seeds == Seeds(init=init, head=seed, order=seed, augmentation=seed)
        assert one.replicate == (0 if one.id.is_parent or seed == 42 else 1)
    groups = Counter(one.init_group for one in planned.values() if one.id.is_parent)
    assert groups == {"init-42": 2, "init-6312": 1} | {f"init-{seed}": 1 for seed in (2, 3, 4, 5, 6, 8, 9)}


def test_sizes_equal_the_paper() -> None:
    planned = plan_members(paper())
    by_id = {one.id: one for one in planned}
    shapes = by_id[MemberId(0)].shape.tensor_shapes()
    backbone = sum(prod(shape) for name, shape in shapes.items() if not is_head(name))
    assert backbone == 21_665_664
    assert by_id[MemberId(0)].num_parameters == by_id[MemberId(9)].num_parameters == 22_050_664
    assert by_id[MemberId(0, 0)].num_parameters == 21_704_164
    assert by_id[MemberId(0, 6)].num_parameters == 21_789_924
    assert sum(one.training.epochs + 1 for one in planned) == 13_150
    assert sum(one.checkpoint_bytes for one in planned) == pytest.approx(21.8e9, rel=0.003)
    assert sum(one.bytes for one in planned if one.id.is_parent) == pytest.approx(80e9, rel=0.005)
    assert sum(one.bytes for one in planned if not one.id.is_parent) == pytest.approx(1.06e12, rel=0.005)


# Everything that is not at its default, field by field.
ERASING = {
    "erasing": 0.25,
    "erasing_aspect": (0.3, 1 / 0.3),
    "erasing_fill": "noise",
    "erasing_place": "after_mixing",
}
PRE_TRAINING = {"optimizer.name": "adamw", "optimizer.learning_rate": 1e-3, "optimizer.weight_decay": 1e-4}
IMAGENET_TRAINING = {
    "dataset.images.name": "ILSVRC/imagenet-1k",
    "dataset.images.image_column": "image",
    "dataset.images.label_column": "label",
    "dataset.images.test_split": "validation",
    "dataset.images.streamed": True,
    "dataset.train_images": 1_281_167,
    "dataset.evaluated_train_images": 10_000,
    "dataset.test_images": 50_000,
    "dataset.preprocessing.resize": 256,
    "dataset.preprocessing.crop": 224,
    "augmentation.random_resized_crop.size": 224,
    "augmentation.horizontal_flip": 0.5,
    "epochs": 90,
}
SUPERVISED = {
    "objective": "supervised",
    **IMAGENET_TRAINING,
    **PRE_TRAINING,
    **{f"augmentation.{name}": value for name, value in ERASING.items()},
    "mixing.mixup": 0.8,
    "mixing.cutmix": 1.0,
    "mixing.label_smoothing": 0.1,
    "precision": "bf16",
    "batch_size": 256,
}
CONTRASTIVE = {
    "objective": "contrastive",
    **IMAGENET_TRAINING,
    **PRE_TRAINING,
    "augmentation.color_jitter.brightness": 0.5,
    "augmentation.color_jitter.contrast": 0.5,
    "augmentation.color_jitter.saturation": 0.5,
    "augmentation.color_jitter.hue": 0.1,
    "augmentation.color_jitter.probability": 0.8,
    "augmentation.grayscale": 0.2,
    "augmentation.blur.kernel_size": 9,
    "temperature": 0.07,
    "precision": "bf16",
    "batch_size": 96,
}
FINE_TUNING = {
    "objective": "supervised",
    "dataset.images.name": "uoft-cs/cifar100",
    "dataset.images.image_column": "img",
    "dataset.images.label_column": "fine_label",
    "dataset.train_images": 50_000,
    "dataset.evaluated_train_images": 5_000,
    "dataset.test_images": 10_000,
    "dataset.preprocessing.resize": 256,
    "dataset.preprocessing.crop": 224,
    "dataset.preprocessing.resample": "bicubic",
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 1e-3,
    "augmentation.resize": 256,
    "augmentation.random_crop": 224,
    "augmentation.horizontal_flip": 0.5,
    "augmentation.rotation": 10.0,
    "augmentation.interpolation": "nearest",
    **{f"augmentation.{name}": value for name, value in ERASING.items()},
    "mixing.mixup": 0.8,
    "mixing.cutmix": 1.0,
    "mixing.label_smoothing": 0.1,
    "precision": "bf16",
    "epochs": 50,
    "batch_size": 256,
}


def set_fields(value: object, path: str = "") -> dict[str, object]:
    """Return the fields of a dataclass that differ from their defaults, nested ones by path."""
    found: dict[str, object] = {}
    declared = msgspec.structs.fields(value) if isinstance(value, msgspec.Struct) else fields(value)  # type: ignore
    for field in declared:
        inner, name = getattr(value, field.name), f"{path}{field.name}"
        if is_dataclass(inner) or isinstance(inner, msgspec.Struct):
            found |= set_fields(inner, f"{name}.")
        elif inner != field.default:
            found[name] = inner
    return found


def test_trainings_of_paper_have_these_fields() -> None:
    recipe = paper()
    for objective, count, expected in (("supervised", 7, SUPERVISED), ("contrastive", 3, CONTRASTIVE)):
        trainings = [one.training for one in parents(recipe, objective)]
        assert [set_fields(training) for training in trainings] == [expected] * count
    assert set_fields(recipe.children.training) == FINE_TUNING
    assert set_fields(recipe.architecture) == {
        "image_size": 224,
        "patch_size": 16,
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }


def test_heads_and_optimizers_of_paper_have_these_fields() -> None:
    recipe = paper()
    assert [set_fields(one.head) for one in parents(recipe, "supervised")] == [{"outputs": 1000}] * 7
    assert [set_fields(one.head) for one in parents(recipe, "contrastive")] == [
        {"outputs": 1000, "role": "embedding"}
    ] * 3
    assert [set_fields(head) for head in recipe.children.heads] == [{"outputs": 100}, {"outputs": 100, "width": 256}]
    assert recipe.children.optimizers == tuple(
        Optimizer(name=name, learning_rate=rate, weight_decay=0.0, momentum=momentum)  # type: ignore[arg-type]
        for name, momentum in (("adamw", None), ("sgd", 0.0))
        for rate in (3e-3, 1e-3, 1e-4)
    )


def test_no_mixup_equals_paper_without_mixing() -> None:
    recipe, other = no_mixup(), paper()
    unmixed = Mixing(label_smoothing=0.1)
    assert {one.training.mixing for one in parents(recipe, "supervised")} == {unmixed}
    assert recipe.children.training.mixing == unmixed
    back = replace(
        recipe,
        name=other.name,
        deviations=other.deviations,
        parents=tuple(
            replace(ours, training=replace(ours.training, mixing=theirs.training.mixing))
            for ours, theirs in zip(recipe.parents, other.parents, strict=True)
        ),
        children=replace(
            recipe.children, training=replace(recipe.children.training, mixing=other.children.training.mixing)
        ),
    )
    assert back == other
    assert set(recipe.deviations) - set(other.deviations) == {
        f"{who}.training.mixing.{what}: 0; source: {theirs}; what this recipe is for"
        for who in ("parents[0:7]", "children")
        for what, theirs in (("mixup", "0.8"), ("cutmix", "1.0"))
    }
    assert set(other.deviations) - set(recipe.deviations) == {MIXING_PARTNER}


def test_as_released_equals_the_released_code() -> None:
    recipe = as_released()
    effective = {"mixing.mixup": 1.0, "mixing.label_smoothing": 0.8}
    for found, described in (
        (recipe.parents[0].training, SUPERVISED),
        (recipe.children.training, FINE_TUNING),
    ):
        kept = {name: value for name, value in described.items() if name not in ("precision", "mixing.cutmix")}
        assert set_fields(found) == kept | effective
    kept = {name: value for name, value in CONTRASTIVE.items() if name != "precision"}
    assert set_fields(recipe.parents[7].training) == kept | {"positives": "halves"}
    assert recipe.parents[7].training.views == 1
    assert (recipe.children.heads, recipe.children.optimizers) == (paper().children.heads, paper().children.optimizers)
    text = "\n".join(recipe.deviations)
    entries = dict(entry.split(": ", 1) for entry in recipe.deviations)
    assert "training::mode" in entries["trainer.mode"]
    assert "first test, before any step" in entries["trainer.mode"]
    for module in ("models.bert_sst", "models.bert_mlm", "data_preparation.vit.pretraining"):
        assert module in entries["trainer.imports"]
    assert "asked for .to" in entries["trainer.contrastive_test"]
    for field in ("precision", "label_smoothing", "mixing.mixup", "positives", "batch_size"):  # these follow the source
        assert field not in text


def test_batch_in_halves_costs_half() -> None:
    released, described = (plan_member(recipe(), MemberId(7)) for recipe in (as_released, paper))
    assert released.flops * 2 == described.flops
    assert (released.units, described.units) == (90 * 13_345 * 96, 90 * 13_345 * 192)


@pytest.mark.parametrize("name", RECIPES)
def test_deviations_name_a_field_of_the_recipe_its_source_and_the_reason(name: str) -> None:
    recipe = RECIPES[name]()
    assert len(set(recipe.deviations)) == len(recipe.deviations)
    for entry in recipe.deviations:
        assert re.fullmatch(r"[\w.\[\]:]+: [^;]+; source: [^;]+; [^;]+", entry), entry
        path = entry.partition(": ")[0]
        if not path.startswith("trainer."):
            eval(f"recipe.{path.replace('].', '][0].') if ':' in path else path}")  # the path exists
    entries = dict(entry.split(": ", 1) for entry in recipe.deviations)
    assert "2^20 normal numbers of seed 0" in entries["trainer.erasing_noise"]
    assert "but for erasing noise" in entries["trainer.randomness"]


@pytest.mark.parametrize("name", RECIPES)
def test_docstring_has_a_command_that_fits_a_disk(name: str) -> None:
    assert f"python -m training run {name} --out" in str(RECIPES[name].__doc__)
    assert "--keep every-10``" in str(RECIPES[name].__doc__)


def test_bf16_is_a_deviation_where_it_is_used() -> None:
    for name, recipe in RECIPES.items():
        precisions = {one.training.precision for one in recipe().parents} | {recipe().children.training.precision}
        assert precisions == {"fp32" if name == "as_released" else "bf16"}
        assert any("bf16" in entry for entry in recipe().deviations) == (name != "as_released")


@pytest.mark.parametrize(
    "wrong", [{"field": ""}, {"field": "a: b"}, {"ours": "1; 2"}, {"source": ""}, {"why": "because; so"}]
)
def test_deviation_that_cannot_be_parsed_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="of a deviation"):
        deviation(**({"field": "a", "ours": "1", "source": "2", "why": "so"} | wrong))  # type: ignore[arg-type]


def test_data_sets_of_paper_are_known_by_name() -> None:
    for dataset in (IMAGENET, CIFAR100):
        assert complete(dataset.images) == dataset.images
    assert {IMAGENET.images, CIFAR100.images} <= {known.spec for known in KNOWN}


def test_shrunken_paper_equals_paper_except_for_sizes(tmp_path) -> None:
    small, recipe = shrunken_paper(), paper()
    planned = plan_members(small)
    assert [str(one.id) for one in planned if one.id.is_parent] == ["pt-0", "pt-1"]
    assert len(planned) == 2 + 48

    def factors(one: PlannedMember) -> tuple:
        training = one.training
        return (
            one.head.type,
            one.head.role,
            training.optimizer,
            training.objective,
            training.mixing,
            training.precision,
            training.temperature,
            training.positives,
            training.augmentation.erasing_place,
            training.augmentation.color_jitter,
            one.seeds,
        )

    for one in planned:
        original = plan_member(recipe, MemberId((0, 7)[one.id.parent], one.id.child))
        assert factors(one) == factors(original)
    data = write_images(tmp_path)
    for training in (small.parents[0].training, small.parents[1].training, small.children.training):
        images = load_images(training.dataset.images, data=data)
        assert (len(images.train), len(images.test)) == (training.dataset.train_images, training.dataset.test_images)
    assert len(images.classes) == 4
