"""Compare with real timm in a process of its own (`real_timm.py`): every layer, both ways, and refusals."""

import importlib.util
import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests.forking import fork
from tests.interop import real_timm as real_timm_script
from tests.interop.test_timm_names import shape, timm_state
from vitzoo import VitZooConfig, VitZooModel
from vitzoo.errors import ConfigError, MissingPackageError, WeightsError
from vitzoo.interop.timm import from_timm, timm_arguments, to_timm, to_timm_module

TIMM = Path(sys.prefix) / "timm"
TOLERANCE = 1e-5


def real_timm(*arguments: str) -> Any:
    """Import timm in another process, and return what it measured."""
    if not (TIMM / "timm").is_dir():
        pytest.fail(f"{TIMM} holds no timm: touch tests/interop/timm.txt && make .venv/.installed-dev")
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = fork(real_timm_script.measure, sender, str(TIMM), *arguments)
    sender.close()
    measured = json.loads(receiver.recv_bytes())
    process.join()
    return measured


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
    assert len(measured["vit_small_patch16_224"]["from"]) == 6  # embeddings, 3 blocks, the last norm, logits
    assert {name: found["heads"] for name, found in measured.items() if found["heads"] != 3} == {
        "vit_small_patch16_224": 6,
        "vit_base_patch32_224 of 2 layers": 12,
        "vit_small_patch16_224 of 160 pixels": 6,
    }
    assert {found["eps"] for found in measured.values()} == {1e-6, 1e-3}


REFUSED = {
    "registers": "reg_token",
    "layer scale": "ls1.gamma",
    "average pooling": "fc_norm",
    "average pooling without a norm": 'global_pool is "avg"; expected "token"',
    "map pooling": "attn_pool",
    "no CLS token": "cls_token is missing",
    "clip": "norm_pre",
    "quick gelu": "blocks.0.mlp.act is QuickGELU(); expected an exact GELU",
    "tanh gelu": "blocks.0.mlp.act is GELUTanh()",
    "relu": "blocks.0.mlp.act is ReLU()",
    "qk norm": "q_norm",
    "no head": "reset_classifier(<classes>)",
    "no positions": "pos_embed is missing",
    "no final norm": "norm.weight is missing",
    "oblong": "square patches",
    "rms norm": "blocks.0.norm1.bias is missing",
    "distilled": "dist_token",
    "hybrid": "patch_embed.backbone",
    "swin": "patch_embed.norm",
    "resnet": "The module is ResNet; expected a VisionTransformer of timm's",
    "a subclass": "The module is Mine; expected timm's VisionTransformer",
    "a head with tanh": "head is Linear, Tanh, Linear; expected",
}


def test_models_that_are_not_plain_are_refused() -> None:
    messages = real_timm("refuse")
    assert messages.keys() == REFUSED.keys()
    for name, words in REFUSED.items():
        assert words in messages[name], (name, messages[name])
        assert messages[name].startswith(("WeightsError", "ConfigError"))


def test_state_dict_needs_no_timm() -> None:
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
    with pytest.raises(MissingPackageError) as missing:
        to_timm_module(model)
    assert missing.value.package == "timm"


def test_number_of_heads_is_taken_or_given() -> None:
    wide = {name: tensor.bfloat16() for name, tensor in timm_state(shape(hidden_size=128, patch_size=8)).items()}
    model = from_timm(wide)
    assert (model.config.num_attention_heads, model.dtype) == (2, torch.bfloat16)
    assert from_timm(wide, num_heads=4).config.num_attention_heads == 4
    for heads in (None, 0, -3, 4):
        with pytest.raises(ConfigError) as refused:
            from_timm(timm_state(shape()), num_heads=heads)
        assert refused.value.key == "num_heads"


def test_mixed_and_whole_number_dtypes_are_refused() -> None:
    state = timm_state(shape())
    with pytest.raises(WeightsError, match=r"norm.bias is of torch.float16, among torch.float16, torch.float64"):
        from_timm(
            {"norm.bias": state["norm.bias"].half()} | {n: t for n, t in state.items() if n != "norm.bias"}, num_heads=3
        )
    with pytest.raises(WeightsError, match=r"torch.int64"):
        from_timm({name: tensor.long() for name, tensor in state.items()}, num_heads=3)


def test_saved_model_is_a_plain_one(tmp_path: Path) -> None:
    model = from_timm({name: tensor.float() for name, tensor in timm_state(shape()).items()}, num_heads=3)
    model.save_pretrained(tmp_path / "model")
    loaded = VitZooModel.from_pretrained(tmp_path / "model")
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(loaded(pixel_values=images).logits, model(pixel_values=images).logits)
    assert loaded.config.to_dict()["model_type"] == "vit"


def test_to_timm_refuses_another_activation() -> None:
    config = VitZooConfig(hidden_act="relu", image_size=8, patch_size=4, num_hidden_layers=1)
    with pytest.raises(ConfigError, match="relu") as refused:
        to_timm(VitZooModel(config))
    assert refused.value.key == "hidden_act"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")
def test_a_model_with_an_adapter_must_be_merged(tiny_zoo: Path) -> None:
    model: Any = VitZooModel.from_pretrained(tiny_zoo / "pt-0/ft-1")
    adapted: Any = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ConfigError, match="is a PeftModel") as error:
        to_timm(adapted)
    assert "merge_and_unload()" in (error.value.fix or "")
    assert (
        to_timm(adapted.merge_and_unload()).keys()
        == to_timm(VitZooModel.from_pretrained(tiny_zoo / "pt-0/ft-1")).keys()
    )


def test_from_timm_refuses_another_module() -> None:
    with pytest.raises(ConfigError, match="The module is Linear; expected a VisionTransformer of timm's"):
        from_timm(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(("hidden", "wide"), [(6, 10), (384, 1536), (48, 254), (49, 143), (7, 5), (1000, 1001)])
def test_timm_multiplies_to_the_width_of_the_mlp(hidden: int, wide: int) -> None:
    sizes: dict[str, Any] = {"hidden_size": hidden, "intermediate_size": wide, "num_attention_heads": 1}
    assert int(hidden * timm_arguments(VitZooConfig(**sizes))["mlp_ratio"]) == wide
