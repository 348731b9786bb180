"""The combinations that `grid` makes, their order, and what it refuses."""

from dataclasses import replace

import pytest

from tests.tiny import SUPERVISED
from training.recipes.augmentation import RandomResizedCrop
from training.recipes.grid import grid
from training.recipes.recipe import Head, Seeds
from training.recipes.training import Mixing, Optimizer, Training


def test_the_last_axis_changes_fastest() -> None:
    made = grid(Optimizer, name="sgd", learning_rate=(0.1, 0.01), momentum=[0.0, 0.9])
    assert made == (
        Optimizer(name="sgd", learning_rate=0.1, momentum=0.0),
        Optimizer(name="sgd", learning_rate=0.1, momentum=0.9),
        Optimizer(name="sgd", learning_rate=0.01, momentum=0.0),
        Optimizer(name="sgd", learning_rate=0.01, momentum=0.9),
    )


def test_the_order_is_that_of_the_arguments() -> None:
    made = grid(Optimizer, momentum=(0.0, 0.9), learning_rate=(0.1, 0.01), name="sgd")
    assert [(one.momentum, one.learning_rate) for one in made] == [(0.0, 0.1), (0.0, 0.01), (0.9, 0.1), (0.9, 0.01)]


def test_a_further_value_of_the_first_axis_appends() -> None:
    few = grid(Mixing, mixup=(0.2, 0.8), cutmix=(0.0, 1.0))
    assert grid(Mixing, mixup=(0.2, 0.8, 1.0), cutmix=(0.0, 1.0))[:4] == few


def test_no_axis_makes_one() -> None:
    assert grid(Head, outputs=10) == (Head(outputs=10),)


def test_none_is_a_value() -> None:
    assert grid(Head, outputs=10, width=(None, 256)) == (Head(outputs=10), Head(outputs=10, width=256))


def test_a_range_is_an_axis() -> None:
    assert [seeds.order for seeds in grid(Seeds, init=0, head=0, order=range(3), augmentation=0)] == [0, 1, 2]


def test_a_text_is_a_value() -> None:
    assert len(grid(Optimizer, name="adamw", learning_rate=0.1)) == 1


def test_of_a_field_that_is_a_tuple_a_tuple_is_one_value_and_a_list_an_axis() -> None:
    assert grid(RandomResizedCrop, size=(8, 16), scale=(0.2, 1.0)) == (
        RandomResizedCrop(size=8, scale=(0.2, 1.0)),
        RandomResizedCrop(size=16, scale=(0.2, 1.0)),
    )
    scales = grid(RandomResizedCrop, size=8, scale=[(0.2, 1.0), (0.5, 1.0)])
    assert [one.scale for one in scales] == [(0.2, 1.0), (0.5, 1.0)]


def test_grids_nest() -> None:
    fields = {name: getattr(SUPERVISED, name) for name in ("objective", "dataset", "epochs", "batch_size")}
    made = grid(Training, **fields, optimizer=grid(Optimizer, name="adamw", learning_rate=(0.1, 0.2)))
    assert [one.optimizer.learning_rate for one in made] == [0.1, 0.2]
    assert made[0] == replace(made[1], optimizer=made[0].optimizer)


def test_an_unknown_field_names_the_nearest() -> None:
    with pytest.raises(TypeError, match=r'Optimizer has no field "learningrate"\. Nearest: learning_rate\.'):
        grid(Optimizer, name="sgd", learningrate=0.1)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(TypeError, match=r"grid\(Seeds\) lacks head, order; each is a value, or a tuple of values"):
        grid(Seeds, init=0, augmentation=(0, 1))


@pytest.mark.parametrize("empty", [(), [], range(0)])
def test_an_empty_axis_is_refused(empty: object) -> None:
    with pytest.raises(ValueError, match=r"grid\(Optimizer\): learning_rate is empty"):
        grid(Optimizer, name="adamw", learning_rate=empty)


def test_a_refused_combination_is_named() -> None:
    with pytest.raises(
        ValueError,
        match=r"grid\(Optimizer\) at name='adamw', learning_rate=0.1, momentum=0.9: momentum is 0.9 for adamw",
    ):
        grid(Optimizer, name=("sgd", "adamw"), learning_rate=0.1, momentum=0.9)


@pytest.mark.parametrize("wrong", [dict, str])
def test_only_dataclasses(wrong) -> None:
    with pytest.raises(TypeError, match="grid makes dataclasses"):
        grid(wrong, outputs=3)
