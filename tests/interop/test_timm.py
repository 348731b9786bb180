"""Beside real timm, in a process of its own (`real_timm.py`): every layer, both ways, and what is refused."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.interop.test_timm_names import shape, timm_state
from vitzoo import VitZooConfig, VitZooModel
from vitzoo.errors import ConfigError, MissingPackageError, WeightsError
from vitzoo.interop.timm import from_timm, timm_arguments, to_timm, to_timm_module

TIMM = Path(sys.prefix) / "timm"
TOLERANCE = 1e-5


def real_timm(*arguments: str) -> Any:
    """What the script measured."""
    if not (TIMM / "timm").is_dir():
        pytest.fail(f"{TIMM} holds no timm: touch tests/interop/timm.txt && make .venv/.installed-dev")
    script = Path(__file__).with_name("real_timm.py")
    command = [sys.executable, "-W", "error", str(script), str(TIMM), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_layer_equals_timm_s() -> None:
    measured = real_timm("compare")
    swapped = measured.pop("swapped")
    assert swapped["layer 0"] == 0
    assert min(swapped["layer 1"], swapped["logits"]) > 0.01  # the comparison sees what is wrong
    assert len(measured) == 13
    for name, found in measured.items():
        for way in ("from", "to", "from_state"):
            if found[way] is None:
                continue
            assert found[way].pop("size") > 1, name  # logits of a size that differences can be judged by
            worst = max(found[way], key=found[way].get)
            assert found[way][worst] <= TOLERANCE, (name, way, worst, found[way][worst])
        assert found["same_names"], name
        assert found["same_bits"], name
    assert len(measured["vit_small_patch16_224"]["from"]) == 15  # embeddings, 12 blocks, the last norm, logits
    assert {name: found["heads"] for name, found in measured.items() if found["heads"] != 3} == {
        "vit_small_patch16_224": 6,
        "vit_base_patch32_224 of 2 layers": 12,
        "vit_small_patch16_224 of 160 pixels": 6,
    }
    assert {found["eps"] for found in measured.values()} == {1e-6, 1e-3}


REFUSED = {
    "registers": "register tokens",
    "layer scale": "LayerScale",
    "average pooling": "a norm behind its pooling",
    "average pooling without a norm": 'Its global_pool is "avg"; expected "token"',
    "no pooling": 'Its global_pool is ""; expected "token"',
    "map pooling": "attention pooling, as SigLIP's",
    "no CLS token": "cls_token is missing",
    "clip": "a norm before its blocks, as CLIP's",
    "quick gelu": "Its blocks.0.mlp.act is QuickGELU(); expected an exact GELU",
    "tanh gelu": "Its blocks.0.mlp.act is GELUTanh()",
    "relu": "Its blocks.0.mlp.act is ReLU()",
    "qk norm": "normalised queries and keys",
    "scaled attention norm": "norms inside its attention",
    "no head": "reset_classifier(<classes>)",
    "no positions": "pos_embed is missing",
    "no final norm": "norm.weight is missing",
    "oblong": "images and patches are square",
    "rms norm": "blocks.0.norm1.bias is missing",
    "dinov2": "LayerScale",
    "distilled": "a distillation token",
    "siglip": "attention pooling",
    "clip of OpenAI": "a norm before its blocks",
    "hybrid": "a convolutional stem",
    "beit": "LayerScale",
    "eva": "queries, keys and values that are not fused",
    "swin": "relative or rotary positions",
    "resnet": "The module is ResNet; expected a VisionTransformer of timm's",
    "post-norm": "LayerScale",
    "a subclass": "The module is Mine; expected timm's VisionTransformer",
    "a head with tanh": "Its head is Linear, Tanh, Linear; expected",
}


def test_what_is_no_plain_vit_is_refused() -> None:
    said = real_timm("refuse")
    assert said.keys() == REFUSED.keys()
    for name, words in REFUSED.items():
        assert words in said[name], (name, said[name])
        assert said[name].startswith(("WeightsError", "ConfigError"))
        assert "\n" not in said[name]


def test_stock_sizes_have_timm_s_names() -> None:
    found = real_timm("stock")
    assert len(found) == 17
    assert {name: named for name, named in found.items() if name != named} == {}


def test_a_state_dict_needs_no_timm() -> None:
    assert importlib.util.find_spec("timm") is None
    for width in (None, 5):
        state = {name: tensor.float() for name, tensor in timm_state(shape(head_width=width)).items()}
        model = from_timm(state, num_heads=3)
        assert isinstance(model, VitZooModel)
        assert not model.training
        assert (model.config.num_attention_heads, model.config.layer_norm_eps, model.config.num_labels) == (3, 1e-6, 7)
        assert model.config.head_width == width
        assert all(parameter.requires_grad for parameter in model.parameters())
        back = to_timm(model)
        assert list(back) == list(state)
        assert all(torch.equal(back[name], state[name]) for name in state)
        assert not {tensor.data_ptr() for tensor in state.values()} & {p.data_ptr() for p in model.parameters()}
    with pytest.raises(MissingPackageError, match="pip install timm"):
        to_timm_module(model)


def test_the_number_of_heads() -> None:
    wide = {name: tensor.bfloat16() for name, tensor in timm_state(shape(hidden_size=128, patch_size=8)).items()}
    model = from_timm(wide)
    assert (model.config.num_attention_heads, model.dtype) == (2, torch.bfloat16)
    assert from_timm(wide, num_heads=4).config.num_attention_heads == 4
    with pytest.raises(ConfigError, match=r"6 is no multiple of 64 .* from_timm[(]..., num_heads=<heads>[)]"):
        from_timm(timm_state(shape()))
    for heads in (0, -3, 4):
        with pytest.raises(ConfigError, match=f"num_heads is {heads}; expected a divisor of the hidden size, 6"):
            from_timm(timm_state(shape()), num_heads=heads)


def test_dtypes_are_one() -> None:
    state = timm_state(shape())
    with pytest.raises(WeightsError, match=r"norm.bias is of torch.float16, among torch.float16, torch.float64"):
        from_timm(
            {"norm.bias": state["norm.bias"].half()} | {n: t for n, t in state.items() if n != "norm.bias"}, num_heads=3
        )
    with pytest.raises(WeightsError, match=r"torch.int64"):
        from_timm({name: tensor.long() for name, tensor in state.items()}, num_heads=3)


def test_a_saved_model_is_a_plain_one(tmp_path: Path) -> None:
    model = from_timm({name: tensor.float() for name, tensor in timm_state(shape()).items()}, num_heads=3)
    model.save_pretrained(tmp_path / "model")
    loaded = VitZooModel.from_pretrained(tmp_path / "model")
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(loaded(pixel_values=images).logits, model(pixel_values=images).logits)
    assert loaded.config.to_dict()["model_type"] == "vit"


def test_another_activation_is_not_given_to_timm() -> None:
    config = VitZooConfig(hidden_act="relu", image_size=8, patch_size=4, num_hidden_layers=1)
    with pytest.raises(ConfigError, match='hidden_act is "relu"; timm\'s plain ViTs have gelu'):
        to_timm(VitZooModel(config))


def test_a_module_of_another_kind() -> None:
    with pytest.raises(ConfigError, match="The module is Linear; expected a VisionTransformer of timm's"):
        from_timm(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(("hidden", "wide"), [(6, 10), (384, 1536), (48, 254), (49, 143), (7, 5), (1000, 1001)])
def test_timm_multiplies_to_the_width_of_the_mlp(hidden: int, wide: int) -> None:
    sizes: dict[str, Any] = {"hidden_size": hidden, "intermediate_size": wide, "num_attention_heads": 1}
    assert int(hidden * timm_arguments(VitZooConfig(**sizes))["mlp_ratio"]) == wide
