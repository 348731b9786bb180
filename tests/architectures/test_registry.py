"""Each architecture is known to one module of `vitzoo.architectures` and one of `vitzoo.models`."""

import re
from pathlib import Path

import pytest

from vitzoo.architectures import ARCHITECTURES, find_architecture, of_tensors
from vitzoo.models.registry import MODELS

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
    r"""["']classifier\.fc|"""
    r"""["'](?:hidden_size|num_hidden_layers|intermediate_size|patch_size|num_attention_heads)["']"""
)
EXAMPLES = {"vitzoo/zoo/zoo.py", "vitzoo/weights/population.py", "vitzoo/weights/learning/scaling.py"}  # in docstrings


def test_every_architecture_has_a_model() -> None:
    assert list(MODELS) == list(ARCHITECTURES)
    for name, architecture in ARCHITECTURES.items():
        assert MODELS[name].architecture is architecture
        assert MODELS[name].base_model_prefix == name
        for word in (*architecture.model_types, MODELS[name].config_class.model_type):
            assert find_architecture(word) is architecture


def test_architecture_of_tensors_is_found_by_their_prefix() -> None:
    assert of_tensors(["classifier.weight", "vit.layernorm.bias"]) is ARCHITECTURES["vit"]


@pytest.mark.parametrize("package", ["vitzoo", "training"])
def test_other_modules_name_no_tensors_classes_or_keys_of_a_vit(package: str) -> None:
    found = [
        f"{name}:{number}: {line.strip()}"
        for path in sorted((ROOT / package).rglob("*.py"))
        if not (name := path.relative_to(ROOT).as_posix()).startswith(ALLOWED) and name not in EXAMPLES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if NAMES.search(line)
    ]
    assert found == []
