"""A third architecture costs one module of facts and one of classes: tests/toy.py is all that knows this one."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset

from tests.hub.server import Hub
from tests.published import REPO
from tests.tiny import FINE_TUNING, SUPERVISED, train_here
from tests.toy import ToyModel, ToySizes, register_toy
from training.publish.plan import plan_publication
from training.publish.push import publish
from training.recipes.cost import estimate
from training.recipes.plan import plan_members
from training.recipes.recipe import Children, Head, Parent, Recipe, Seeds, parse_recipe
from training.recipes.training import Optimizer
from vitzoo import Zoo
from vitzoo.models.registry import ZooModel
from vitzoo.records import layout
from vitzoo.records.json_files import as_json
from vitzoo.sources.folder import FolderSource
from vitzoo.verification.verify import verify_zoo
from vitzoo.weights.representations.representation import representation


def toy() -> Recipe:
    """Make a recipe of 2 parents and 4 children, with two epochs each."""
    return Recipe(
        name="toy",
        source="tests",
        architecture=ToySizes(image_size=8, hidden_size=16),
        parents=tuple(
            Parent(training=SUPERVISED, head=Head(outputs=6), seeds=Seeds.same(seed), replicates=1) for seed in (0, 1)
        ),
        children=Children(
            training=FINE_TUNING,
            heads=(Head(outputs=4),),
            optimizers=(Optimizer(name="adamw", learning_rate=3e-3), Optimizer(name="adamw", learning_rate=1e-3)),
            seeds=(7,),
        ),
    )


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    with register_toy():
        yield


@pytest.fixture(scope="module")
def toy_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "zoo"
    train_here(toy(), folder)
    return folder


def test_recipe_is_planned_and_read_back() -> None:
    planned = plan_members(toy())
    assert len(planned) == 6
    assert planned[0].num_parameters == 192 * 16 + 16 + 16 * 6 + 6
    assert estimate(planned).training_flops > 0
    assert parse_recipe(as_json(toy()), Path(layout.ZOO_JSON)) == toy()


def test_zoo_is_verified_tabulated_selected_and_split(toy_zoo: Path, tmp_path: Path) -> None:
    zoo = Zoo(toy_zoo)
    assert not verify_zoo(zoo).problems
    rows = load_dataset(str(toy_zoo / "metadata"), "members", cache_dir=str(tmp_path))["train"]
    assert rows["id"] == ["pt-0", "pt-0/ft-0", "pt-0/ft-1", "pt-1", "pt-1/ft-0", "pt-1/ft-1"]
    selection = zoo.select(stage="finetuning", learning_rate=3e-3, epoch=[1, 2])
    assert len(selection) == 4
    fold = zoo.splits("by_parent")[0]
    zoo.assert_no_leaks(fold)


def test_members_are_loaded_and_measured_as_recorded(toy_zoo: Path) -> None:
    member = Zoo(toy_zoo)["pt-1/ft-0"]
    model = ZooModel.from_pretrained(f"{toy_zoo}/pt-1/ft-0@1")
    assert type(model) is type(member.load()) is ToyModel
    assert member.evaluate(epoch=1).accuracy == member.metrics_at(1).test_accuracy
    start, parent = member.load(epoch=0).toy.state_dict(), Zoo(toy_zoo)["pt-1"].load().toy.state_dict()
    assert all(bool((start[name] == parent[name]).all()) for name in start)


def test_weights_are_read_as_arrays_and_tokens(toy_zoo: Path) -> None:
    weights = Zoo(toy_zoo).weights(Zoo(toy_zoo).select(stage="finetuning"))
    matrix = weights.matrix()
    assert matrix.values.shape == (4, 192 * 16 + 16)  # the backbones
    assert weights.tensor("toy.pixels.bias").shape == (4, 16)
    assert weights.distances("cosine").values.max() > 0
    tokens = representation("tokens", matrix.index, token_size=33)
    assert np.array_equal(tokens.decode(tokens.encode(matrix.values[0])), matrix.values[0])


def test_zoo_is_published_and_read_from_the_hub(toy_zoo: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.add_token("someone", role="write", orgs=("org",)).value)
    publish(plan_publication(FolderSource(toy_zoo), to=REPO))
    assert type(ZooModel.from_pretrained(f"{REPO}/pt-0/ft-1")) is ToyModel
    assert len(Zoo(REPO).select(stage="finetuning")) == 4
