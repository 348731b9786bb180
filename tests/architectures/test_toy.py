"""A third architecture is registered by two calls, and then drawn, saved, loaded, evaluated and read as weights."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.hub.server import Hub
from tests.tiny import tiny, train_here
from tests.toy import TOY, ToyModel, ToySizes, register_toy
from tests.training.publish.zoos import TO, push
from training.member.initialisation import initialise
from vitzoo import BertZooForMaskedLM, Zoo, ZooModel
from vitzoo.architectures import disk_name, is_head, load_config_json, of_tensors, owner_of
from vitzoo.errors import ConfigError
from vitzoo.images import load_images
from vitzoo.models.evaluation import evaluate
from vitzoo.models.registry import model_class
from vitzoo.verification.verify import verify_zoo
from vitzoo.weights.index import WeightsIndex
from vitzoo.weights.representations.representation import representation

SIZES = ToySizes(image_size=8, hidden_size=6)


@pytest.fixture(autouse=True)
def _toy() -> Iterator[None]:
    with register_toy():
        yield


def make() -> ToyModel:
    cls = model_class(owner_of(SIZES), "classifier")
    assert cls is ToyModel
    model = cls(cls.config_for(SIZES, outputs=4, role="classifier", classes=tuple("6789")))
    initialise(model, init_seed=1, head_seed=2)
    return model.eval()


def test_saved_toy_is_loaded_by_its_config(tmp_path: Path) -> None:
    model = make()
    model.save_pretrained(tmp_path)
    config = load_config_json(tmp_path / "config.json")
    assert TOY.head_role(config) == "classifier"
    again = ZooModel.from_pretrained(tmp_path)
    assert type(again) is ToyModel
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        assert torch.equal(again.state_dict()[name], tensor)
        assert torch.equal(model.state_dict()[name], tensor)
    with pytest.raises(ConfigError, match=r"ToyConfig\.from_pretrained"):
        BertZooForMaskedLM.from_pretrained(tmp_path)


def test_toy_is_evaluated_by_the_library() -> None:
    model, test = make(), load_images("digits-6-9").test
    found = evaluate(model, test, mean=SIZES.mean, std=SIZES.std)
    assert found.logits.shape == (len(test), 4)
    assert found.features.shape == (len(test), 6)
    assert not torch.equal(found.logits[0], found.logits[1])


def test_toy_is_read_as_weights() -> None:
    tensors = {name: tensor.numpy() for name, tensor in make().state_dict().items()}
    index = WeightsIndex({name: array.shape for name, array in tensors.items()})
    assert of_tensors(index) is of_tensors(["readout.bias"]) is TOY
    assert list(index) == ["toy.pixels.weight", "toy.pixels.bias", "readout.weight", "readout.bias"]
    assert list(index.layers) == ["pixels", "readout"]
    assert [is_head(name) for name in index] == [False, False, True, True]
    assert disk_name("readout.bias") == "readout.bias"
    vector = index.flatten(tensors)
    for name, options in (("flat", {}), ("tokens", {"token_size": 7}), ("graph", {"num_heads": 1})):
        made = representation(name, index, **options)
        assert np.array_equal(made.decode(made.encode(vector)), vector)


@pytest.fixture(scope="module")
def toy_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a zoo of three toys and three children, trained for two epochs by the tiny recipe."""
    recipe, folder = tiny(), tmp_path_factory.mktemp("toys") / "zoo"
    children = replace(recipe.children, heads=recipe.children.heads[:1], seeds=recipe.children.seeds[:1])
    parents = tuple(replace(parent, replicates=1) for parent in recipe.parents)
    with register_toy():
        train_here(replace(recipe, name="toys", architecture=SIZES, parents=parents, children=children), folder)
    return folder


def test_trained_toys_are_a_zoo(toy_zoo: Path) -> None:
    zoo = Zoo(toy_zoo)
    assert verify_zoo(zoo).problems == ()
    child = zoo["pt-0/ft-0"]
    assert type(child.load()) is ToyModel
    assert child.evaluate().accuracy == child.metrics[-1].test_accuracy
    selection = zoo.select(stage="fine-tuning", epoch="all")
    assert len(zoo.weights(selection).matrix(part="all").values) == 9
    assert zoo.splits("by_parent", folds=2)
    starts, finals = (zoo.weights(zoo.select(id=id, epoch=epoch)) for id, epoch in (("pt-1/ft-0", 0), ("pt-1", 2)))
    assert np.array_equal(starts.matrix(part="backbone").values, finals.matrix(part="backbone").values)


def test_toys_are_published(toy_zoo: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.add_token("org", role="write").value)
    push(toy_zoo)
    published = ZooModel.from_pretrained(f"{TO}/pt-2@1")
    assert torch.equal(published.readout.weight, ZooModel.from_pretrained(toy_zoo / "pt-2", epoch=1).readout.weight)
