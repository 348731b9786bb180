"""Symmetries change no output, and a planted change of every group is found again."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vitzoo import VitZooConfig, VitZooModel, Zoo
from vitzoo.analysis.alignment.alignment import align
from vitzoo.analysis.alignment.symmetries import canonical, load_state, num_heads, symmetry_of, with_state
from vitzoo.architectures.symmetry import STREAM
from vitzoo.errors import ConfigError, MissingPackageError, WeightsError

WIDTH, DEPTH, HEADS, WIDE = 24, 2, 3, 32


def block_diagonal(*blocks: np.ndarray) -> np.ndarray:
    """Return a matrix with square blocks on its diagonal."""
    count = sum(map(len, blocks))
    whole, start = np.zeros((count, count)), 0
    for block in blocks:
        whole[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    return whole


def make_vit(seed: int = 0, **changes: Any) -> VitZooModel:
    """Make a ViT with random gains and biases, in float64."""
    sizes: dict[str, Any] = {
        "image_size": 8,
        "patch_size": 2,
        "hidden_size": WIDTH,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "intermediate_size": WIDE,
        "num_labels": 5,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = VitZooModel(VitZooConfig(**(sizes | changes))).double()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, mean=0.1, std=0.4)
    return model.eval()


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(6, 3, 8, 8)))


def logits(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(pixel_values=pixels).logits


def changed(model: Any, changes: dict[str, np.ndarray]) -> Any:
    """Return a model whose groups of units are multiplied by orthogonal matrices."""
    state, symmetry = load_state(model), symmetry_of(model)
    norms = [f"{norm}.{part}" for norm in symmetry.readers or () for part in ("weight", "bias")]
    for name, axes in symmetry.axes.items():
        for axis, label in enumerate(axes):
            is_rotated = label in changes and (name not in norms or set(changes[label].ravel()) <= {0, 1})
            if label is not None and is_rotated:
                state[name] = np.moveaxis(np.tensordot(changes[label], state[name], (1, axis)), 0, axis)
    return with_state(model, state)


def plant(model: Any, generator: np.random.Generator, *, rotate: bool) -> Any:
    """Return a model with a random change of every group."""

    def permutation(count: int) -> np.ndarray:
        return np.eye(count)[generator.permutation(count)]

    def rotation(count: int) -> np.ndarray:
        return np.linalg.qr(generator.normal(size=(count, count)))[0]

    config, symmetry = model.config, symmetry_of(model)
    hidden, heads = config.hidden_size, num_heads(model)
    width = hidden // heads
    changes = {STREAM: permutation(hidden)}
    if rotate:
        basis = np.linalg.qr(np.column_stack([np.ones(hidden), generator.normal(size=(hidden, hidden - 1))]))[0]
        changes[STREAM] = basis @ block_diagonal(np.eye(1), rotation(hidden - 1)) @ basis.T
    for block in symmetry.blocks:
        changes[block.units] = permutation(config.intermediate_size)
        order = np.kron(permutation(heads), np.eye(width))
        for label in (block.query_key, block.values):
            inside = [(rotation if rotate else permutation)(width) for _ in range(heads)]
            changes[label] = block_diagonal(*inside) @ order
    return changed(model, changes)


@pytest.mark.parametrize("head_width", [None, 7])
def test_canonical_form_changes_no_output(pixels: torch.Tensor, head_width: int | None) -> None:
    head = {"head_type": "linear" if head_width is None else "mlp", "head_width": head_width}
    model = make_vit(**head)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    form = canonical(model)
    assert (logits(form, pixels) - logits(model, pixels)).abs().max() < 1e-12
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    state = load_state(form)
    for name, values in state.items():
        if "layernorm" in name:
            assert (values == name.endswith("weight")).all()
        if name.endswith(("key.bias", "value.bias")):
            assert not values.any()
    assert abs(state["vit.embeddings.cls_token"].sum()) < 1e-12
    query, key = (state[f"vit.encoder.layer.1.attention.attention.{part}.weight"] for part in ("query", "key"))
    augmented = np.column_stack([query, state["vit.encoder.layer.1.attention.attention.query.bias"]])
    np.testing.assert_allclose((augmented[:8] ** 2).sum(1), (key[:8] ** 2).sum(1), rtol=1e-9)
    model, form = model.float(), canonical(model.float())
    assert (logits(form, pixels.float()) - logits(model, pixels.float())).abs().max() < 2e-5


def test_canonical_form_forgets_an_invertible_map_of_a_head(pixels: torch.Tensor) -> None:
    model, generator = make_vit(), np.random.default_rng(1)
    state = load_state(model)
    part = "vit.encoder.layer.0.attention.attention."
    invertible, rows = generator.normal(size=(8, 8)), slice(8, 16)
    for name, turn in (
        ("query.weight", invertible),
        ("query.bias", invertible),
        ("key.weight", np.linalg.inv(invertible).T),
    ):
        state[part + name][rows] = turn @ state[part + name][rows]
    other = with_state(model, state)
    assert (logits(other, pixels) - logits(model, pixels)).abs().max() < 1e-12
    found, expected = load_state(canonical(other)), load_state(canonical(model))
    np.testing.assert_allclose(found[f"{part}query.weight"], expected[f"{part}query.weight"], atol=1e-9)
    np.testing.assert_allclose(found[f"{part}key.weight"], expected[f"{part}key.weight"], atol=1e-9)


def test_planted_permutation_of_all_groups_is_found(pixels: torch.Tensor) -> None:
    model = make_vit()
    other = plant(model, np.random.default_rng(2), rotate=False)
    assert (logits(other, pixels) - logits(model, pixels)).abs().max() < 1e-12
    found = align(model, other)
    assert found.distances[0] > 10
    assert found.distance == 0
    assert found.check(pixels) < 1e-12
    assert sorted(found.permutations["units.1"]) == list(range(WIDE))
    assert found.rotation is None
    back = load_state(other)["vit.layernorm.weight"][found.permutations[STREAM]]
    assert (back == load_state(model)["vit.layernorm.weight"]).all()


def test_planted_rotation_of_all_groups_is_found(pixels: torch.Tensor) -> None:
    model = canonical(make_vit())
    other = plant(model, np.random.default_rng(3), rotate=True)
    assert (logits(other, pixels) - logits(model, pixels)).abs().max() < 1e-12
    found = align(model, other, group="rotation")
    assert found.distance < 1e-8
    assert found.check(pixels) < 1e-12
    assert found.rotation is not None
    np.testing.assert_allclose(found.rotation @ found.rotation.T, np.eye(WIDTH), atol=1e-12)
    np.testing.assert_allclose(found.rotation.sum(axis=0), 1, atol=1e-12)


@pytest.mark.parametrize("group", ["permutation", "rotation"])
def test_distance_never_rises_and_outputs_stay(pixels: torch.Tensor, group: Any) -> None:
    one, two = make_vit(1), make_vit(2, num_labels=3)  # heads of other shapes
    found = align(one, two, group=group)
    assert all(before >= after - 1e-9 for before, after in zip(found.distances, found.distances[1:], strict=False))
    assert found.distance < found.distances[0] - 1
    assert found.check(pixels) < 1e-12
    assert found.check(pixels) > 0
    backbones = [
        {name: values for name, values in load_state(each).items() if not name.startswith("classifier")}
        for each in (found.reference, found.model)
    ]
    gap = sum(((backbones[0][name] - backbones[1][name]) ** 2).sum() for name in backbones[0]) ** 0.5
    assert gap == pytest.approx(found.distance, rel=1e-12)
    itself = align(one, one, group=group)
    assert itself.distance < 1e-8
    assert repr(itself).startswith(f"Alignment(group={group}, distance=")


def test_members_of_the_tiny_zoo(tiny_zoo: Path) -> None:
    zoo = Zoo(tiny_zoo)
    one, two = zoo["pt-0"].load(), zoo["pt-2"].load()
    size = one.config.image_size
    pixels = torch.rand(8, 3, size, size, generator=torch.Generator().manual_seed(0))
    for group in ("permutation", "rotation"):
        found = align(one, two, group=group)
        assert found.check(pixels) < 2e-5
        assert found.distance < found.distances[0]


def test_language_models_are_permuted_and_not_rotated(text_zoo: Path) -> None:
    zoo = Zoo(text_zoo)
    for name in ("pt-0", "pt-0/ft-0"):
        model = zoo[name].load().double()
        other = plant(model, np.random.default_rng(4), rotate=False)
        inputs = {"input_ids": torch.arange(1, 9)[None] % model.config.vocab_size}
        found = align(model, other)
        assert found.distance == 0
        assert found.check(inputs) < 1e-12
        with torch.inference_mode():
            assert (other(**inputs).logits - model(**inputs).logits).abs().max() < 1e-12
    with pytest.raises(ConfigError) as refused:
        align(model, other, group="rotation")
    assert refused.value.key == "model_type"


def test_align_names_the_package_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingPackageError) as raised:
        align(make_vit(), make_vit(1))
    assert raised.value.package == "scipy"


def test_other_models_are_refused() -> None:
    model = make_vit()
    with pytest.raises(WeightsError):
        align(model, make_vit(hidden_size=12))
    with pytest.raises(WeightsError):
        align(model, make_vit(num_hidden_layers=1))
    with pytest.raises(ConfigError) as unknown:
        align(model, model, group="rotations")
    assert unknown.value.key == "group"
    with pytest.raises(ConfigError) as none:
        align(model, model, sweeps=0)
    assert none.value.key == "sweeps"
    broken = load_state(make_vit())
    broken["classifier.bias"][0] = float("nan")
    with pytest.raises(WeightsError):
        canonical(with_state(model, broken))
    without = make_vit(qkv_bias=False)
    with pytest.raises(ConfigError) as biases:
        canonical(without)
    assert biases.value.key == "qkv_bias"
    gains = load_state(model)
    gains["vit.layernorm.weight"][:3] = 0
    zero = with_state(model, gains)
    pixels = torch.ones(1, 3, 8, 8, dtype=torch.float64)
    assert (logits(canonical(zero), pixels) - logits(zero, pixels)).abs().max() < 1e-12
