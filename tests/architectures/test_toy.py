"""A third architecture is registered by two calls, and then drawn, saved, loaded, evaluated and read as weights."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.toy import TOY, ToyModel, ToySizes, register_toy
from training.member.initialisation import initialise
from vitzoo import BertZooForMaskedLM, ZooModel
from vitzoo.architectures import disk_name, is_head, load_config_json, of_tensors, owner_of
from vitzoo.errors import ConfigError
from vitzoo.images import load_images
from vitzoo.models.evaluation import evaluate
from vitzoo.models.registry import model_class
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
