"""A model that vitzoo assembles equals the one that transformers' own loader builds, in every attribute."""

import copy
import json
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.core_model_loading import WeightTransform

from vitzoo import VitZooConfig, VitZooModel
from vitzoo.models.loading import MemberModel

MEMBERS = ["pt-0/ft-0", "pt-0/ft-1", "pt-2"]  # linear, MLP, embedding


def by_transformers(*args: Any, **kwargs: Any) -> Any:
    with patch.object(MemberModel, "_assemble", return_value=None) as assemble:
        model = VitZooModel.from_pretrained(*args, **kwargs)
        assert assemble.call_count == 1
    return model


def assembled(*args: Any, **kwargs: Any) -> Any:
    with patch("transformers.PreTrainedModel.from_pretrained", side_effect=AssertionError("transformers' loader ran")):
        return VitZooModel.from_pretrained(*args, **kwargs)


def describe(value: Any) -> Any:
    """Return the whole state of an object as plain values, so that == compares all of it."""
    if isinstance(value, torch.Tensor):
        flags = (type(value), value.dtype, value.device, value.requires_grad, value.is_leaf, value.is_contiguous())
        return (*flags, tuple(value.shape), value.tolist(), describe(vars(value)))
    if isinstance(value, nn.Module | VitZooConfig):
        return (type(value), describe(vars(value)))
    if isinstance(value, dict):
        return (type(value), {key: describe(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return (type(value), [describe(item) for item in value])
    if isinstance(value, WeightTransform):
        return (repr(value), value.was_used())
    return value


@pytest.mark.parametrize(
    ("member", "dtype"), [*((member, torch.float32) for member in MEMBERS), (MEMBERS[1], torch.bfloat16)]
)
def test_every_attribute_is_that_of_transformers(tiny_zoo: Path, tmp_path: Path, member: str, dtype: Any) -> None:
    zoo = tiny_zoo
    if dtype != torch.float32:
        zoo = copy_in_dtype(tiny_zoo, tmp_path / "zoo", member, dtype)
    with warnings.catch_warnings(record=True) as ours:
        warnings.simplefilter("always")
        before = torch.get_rng_state()
        model = assembled(zoo / member, epoch=1)
        assert torch.equal(torch.get_rng_state(), before)
    with warnings.catch_warnings(record=True) as theirs:
        warnings.simplefilter("always")
        expected = by_transformers(zoo / member, epoch=1)
    assert model.dtype == dtype
    assert describe(model) == describe(expected)
    assert [str(warning.message) for warning in ours] == [str(warning.message) for warning in theirs]
    assert describe(model.train()) == describe(expected.train())
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in expected.named_parameters()]
    assert torch.get_default_dtype() == torch.float32


def copy_in_dtype(zoo: Path, target: Path, member: str, dtype: torch.dtype) -> Path:
    (target / member).mkdir(parents=True)
    for name in ("zoo.json", f"{member}/config.json"):
        text = (zoo / name).read_text().replace('"float32"', f'"{str(dtype).removeprefix("torch.")}"')
        (target / name).write_text(text)
    tensors = load_file(zoo / member / "model.epoch-01.safetensors")
    file = target / member / "model.epoch-01.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, file, metadata={"format": "pt"})
    record = json.loads((zoo / member / "member.json").read_text())
    for weights in record["weights"]:
        weights["size"] = file.stat().st_size
    (target / member / "member.json").write_text(json.dumps(record))
    return target


@pytest.mark.parametrize(
    ("arguments", "device"),
    [
        ({"dtype": torch.bfloat16}, None),
        ({"device_map": "cpu"}, None),
        ({"attn_implementation": "eager"}, None),
        ({"num_labels": 7, "ignore_mismatched_sizes": True}, None),
        ({"output_loading_info": True}, None),
        ({"config": "own"}, None),
        ({}, "cpu"),
    ],
    ids=lambda value: str(value),
)
def test_other_arguments_go_through_transformers(tiny_zoo: Path, arguments: dict[str, Any], device: str | None) -> None:
    member = tiny_zoo / MEMBERS[0]
    if arguments.get("config") == "own":
        arguments = {"config": VitZooConfig.from_pretrained(member)}
    loads = assembled if device else by_arguments
    with torch.device(device or "cpu"):
        loads(member, **arguments)


def by_arguments(*args: Any, **kwargs: Any) -> None:
    with patch.object(MemberModel, "_assemble", side_effect=AssertionError("it was assembled")):
        VitZooModel.from_pretrained(*args, **kwargs)


def test_patched_classes_go_through_transformers(tiny_zoo: Path) -> None:
    mapping = patch("vitzoo.models.loading.get_patch_mapping", return_value={"ViTLayer": object})
    with mapping, pytest.raises(AssertionError, match="transformers' loader ran"):
        assembled(tiny_zoo / MEMBERS[0])


def test_an_assembled_model_is_copied_pickled_saved_and_compiled(tiny_zoo: Path, tmp_path: Path) -> None:
    model = assembled(tiny_zoo / MEMBERS[1])
    pixels = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(pixels).logits
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), by_transformers(tiny_zoo / MEMBERS[1])):
            assert torch.equal(other(pixels).logits, expected)
        compiled: Any = torch.compile(model, backend="aot_eager")
        torch.testing.assert_close(compiled(pixels).logits, expected)
        model.save_pretrained(tmp_path)
        assert torch.equal(VitZooModel.from_pretrained(tmp_path)(pixels).logits, expected)


def test_weights_are_private_to_each_model(tiny_zoo: Path) -> None:
    file = tiny_zoo / MEMBERS[0] / "model.safetensors"
    before = file.read_bytes()
    first, second = assembled(tiny_zoo / MEMBERS[0]), assembled(tiny_zoo / MEMBERS[0])
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.fill_(7.0)
    assert file.read_bytes() == before
    assert not any((parameter == 7.0).all() for parameter in second.parameters())


def test_threads_load_together_and_leave_initialisation_alone(tiny_zoo: Path) -> None:
    expected = describe(assembled(tiny_zoo / MEMBERS[1]))
    with ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(lambda _: VitZooModel.from_pretrained(tiny_zoo / MEMBERS[1]), range(8)))
        layers = list(pool.map(lambda _: nn.Linear(3, 3), range(8)))
    assert all(describe(model) == expected for model in loaded)
    assert all(layer.weight.abs().max() < 1 and layer.bias.abs().sum() > 0 for layer in [*layers, nn.Linear(3, 3)])
