"""Each architecture is known to one module of `vitzoo.architectures` and one of `vitzoo.models`."""

import re
from pathlib import Path

import pytest

from vitzoo.architectures import ARCHITECTURES, Architecture, find_architecture, is_head, of_tensors, register
from vitzoo.models.registry import MODELS, model_class

ROOT = Path(__file__).parents[2]
# Mappings of other formats to a ViT; transformers' ViTImageProcessor; a recipe's sizes.
ALLOWED = (
    "vitzoo/architectures/",
    "vitzoo/models/",
    "vitzoo/interop/",
    "vitzoo/images/processor.py",
    "vitzoo/images/member_processor.py",
    "training/recipes/",
)
NAMES = re.compile(
    r"""["']vit\.|(?<!models)(?<!architectures)\.vit\b|``vit\.|\bViT(?:For|Config|Model|Shape|Image|Layer)\w*|"""
    r"""["']classifier\.fc|["']bert\.|["']cls\.|(?<!models)(?<!architectures)\.bert\b|\bBert(?:For|Config|Model|Shape)\w*|"""
    r"""["'](?:hidden_size|num_hidden_layers|intermediate_size|patch_size|num_attention_heads)["']"""
)
EXAMPLES = {"vitzoo/zoo/zoo.py", "vitzoo/weights/population.py", "vitzoo/weights/learning/scaling.py"}  # in docstrings


def test_every_architecture_has_a_model() -> None:
    assert {backbone for backbone, _ in MODELS} == set(ARCHITECTURES)
    for (name, role), model in MODELS.items():
        architecture = ARCHITECTURES[name]
        assert model_class(architecture, role) is model
        assert role in model.roles
        assert model.architecture is architecture
        assert model.base_model_prefix == name
        assert architecture.modality in ("images", "text")
        for word in (*architecture.model_types, model.config_class.model_type):
            assert find_architecture(word) is architecture


class _Toy(Architecture):
    backbone = "toy"
    model_types = ("toy",)

    def is_head(self, name: str) -> bool:
        return name.startswith("readout.")


def test_registered_architecture_is_found_by_word_prefix_and_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitzoo.architectures.ARCHITECTURES", dict(ARCHITECTURES))
    monkeypatch.setattr("vitzoo.architectures._BY_WORD", {})
    register(toy := _Toy())
    assert find_architecture("toy") is of_tensors(["toy.weight"]) is of_tensors(["readout.bias"]) is toy
    assert is_head("readout.bias")
    assert not is_head("toy.readout.bias")
    assert of_tensors(["classifier.bias"]) is of_tensors(["strange"]) is ARCHITECTURES["vit"]


def test_word_of_another_architecture_is_refused() -> None:
    taken = _Toy()
    taken.model_types = ("vit",)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match='model_type "vit" belongs to the architecture "vit"'):
        register(taken)


def test_architecture_of_tensors_is_found_by_their_prefix() -> None:
    assert of_tensors(["classifier.weight", "vit.layernorm.bias"]) is ARCHITECTURES["vit"]


@pytest.mark.parametrize("package", ["vitzoo", "training"])
def test_other_modules_name_no_tensors_classes_or_keys_of_an_architecture(package: str) -> None:
    found = [
        f"{name}:{number}: {line.strip()}"
        for path in sorted((ROOT / package).rglob("*.py"))
        if not (name := path.relative_to(ROOT).as_posix()).startswith(ALLOWED) and name not in EXAMPLES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if NAMES.search(line)
    ]
    assert found == []
