"""Names of timm and of a zoo: the rows of qkv by hand, round trips bit for bit, and refusals."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vitzoo.architectures import memory_name
from vitzoo.architectures.vit import VIT, ViTShape
from vitzoo.errors import WeightsError
from vitzoo.interop.timm_names import from_timm_state, infer_shape, timm_shapes, to_timm_state


def shape(**changes) -> ViTShape:
    sizes = {
        "image_size": 8,
        "patch_size": 4,
        "num_channels": 3,
        "hidden_size": 6,
        "num_hidden_layers": 12,
        "intermediate_size": 10,
        "qkv_bias": True,
        "num_labels": 7,
        "head_width": None,
    }
    return ViTShape(**(sizes | changes))


def tensors(of: ViTShape) -> dict[str, Tensor]:
    """On-disk names to numbers that are all different."""
    made, start = {}, 0
    for name, size in of.tensor_shapes().items():
        count = torch.Size(size).numel()
        made[name] = torch.arange(start, start + count, dtype=torch.float64).reshape(size)
        start += count
    return made


def timm_state(of: ViTShape) -> dict[str, Tensor]:
    return to_timm_state(tensors(of))


def test_timm_shapes_have_every_name() -> None:
    assert list(timm_shapes(shape(num_hidden_layers=1)).items()) == [
        ("cls_token", (1, 1, 6)),
        ("pos_embed", (1, 5, 6)),
        ("patch_embed.proj.weight", (6, 3, 4, 4)),
        ("patch_embed.proj.bias", (6,)),
        ("blocks.0.norm1.weight", (6,)),
        ("blocks.0.norm1.bias", (6,)),
        ("blocks.0.attn.qkv.weight", (18, 6)),
        ("blocks.0.attn.qkv.bias", (18,)),
        ("blocks.0.attn.proj.weight", (6, 6)),
        ("blocks.0.attn.proj.bias", (6,)),
        ("blocks.0.norm2.weight", (6,)),
        ("blocks.0.norm2.bias", (6,)),
        ("blocks.0.mlp.fc1.weight", (10, 6)),
        ("blocks.0.mlp.fc1.bias", (10,)),
        ("blocks.0.mlp.fc2.weight", (6, 10)),
        ("blocks.0.mlp.fc2.bias", (6,)),
        ("norm.weight", (6,)),
        ("norm.bias", (6,)),
        ("head.weight", (7, 6)),
        ("head.bias", (7,)),
    ]


def test_the_rows_of_qkv_are_queries_then_keys_then_values() -> None:
    state = timm_state(shape())
    weight, bias = state["blocks.3.attn.qkv.weight"], state["blocks.3.attn.qkv.bias"]
    found = from_timm_state(state)
    for place, part in enumerate(("query", "key", "value")):
        name = f"vit.encoder.layer.3.attention.attention.{part}"
        assert torch.equal(found[f"{name}.weight"], weight[6 * place : 6 * place + 6])
        assert torch.equal(found[f"{name}.bias"], bias[6 * place : 6 * place + 6])
        assert found[f"{name}.weight"].is_contiguous()
        assert found[f"{name}.weight"].untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()  # a view


def test_mlp_head_has_the_names_of_a_sequential() -> None:
    state = timm_state(shape(head_width=5))
    assert [(name, list(state[name].shape)) for name in state if name.startswith("head")] == [
        ("head.0.weight", [5, 6]),
        ("head.0.bias", [5]),
        ("head.2.weight", [7, 5]),
        ("head.2.bias", [7]),
    ]
    assert torch.equal(from_timm_state(state)["classifier.fc2.weight"], state["head.2.weight"])


@settings(max_examples=40)
@given(
    st.builds(
        lambda heads, patch, grid, more: shape(patch_size=patch, image_size=patch * grid, hidden_size=heads, **more),
        st.integers(1, 5),
        st.integers(1, 3),
        st.integers(1, 3),
        st.fixed_dictionaries(
            {
                "num_channels": st.integers(1, 4),
                "num_hidden_layers": st.integers(1, 12),
                "intermediate_size": st.integers(1, 6),
                "qkv_bias": st.booleans(),
                "num_labels": st.integers(1, 4),
                "head_width": st.none() | st.integers(1, 4),
            }
        ),
    ),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    st.randoms(use_true_random=False),
)
def test_conversions_are_inverse(of: ViTShape, dtype: torch.dtype, random) -> None:
    ours = {name: tensor.to(dtype) for name, tensor in tensors(of).items()}
    names = list(ours)
    random.shuffle(names)  # whatever the order of a file
    theirs = to_timm_state({name: ours[name] for name in names})
    assert {name: tuple(tensor.shape) for name, tensor in theirs.items()} == timm_shapes(of)
    assert list(theirs) == list(timm_shapes(of))
    assert infer_shape(theirs) == of
    back = from_timm_state(theirs)
    assert list(back) == VIT.network_order(ours)
    assert all(torch.equal(back[name], ours[name]) and back[name].dtype == dtype for name in ours)
    again = to_timm_state({memory_name(name): tensor for name, tensor in back.items()})
    assert list(again) == list(theirs)
    assert all(torch.equal(again[name], theirs[name]) for name in theirs)


def test_cls_token_without_a_position_gets_zeros() -> None:
    state = timm_state(shape())
    state["pos_embed"] = state["pos_embed"][:, 1:]
    found = from_timm_state(state)["vit.embeddings.position_embeddings"]
    assert found.shape == (1, 5, 6)
    assert torch.equal(found[:, 1:], state["pos_embed"])
    assert not found[:, 0].any()


def without(*names: str) -> Callable[[dict], dict]:
    return lambda state: {name: tensor for name, tensor in state.items() if not name.startswith(names)}


def with_tensor(name: str, *size: int) -> Callable[[dict], dict]:
    return lambda state: state | {name: torch.zeros(size)}


BROKEN: dict[str, tuple[Callable[[dict], dict], str]] = {
    "nothing": (lambda state: {}, "head.weight is missing"),
    "no head": (without("head"), "reset_classifier(<classes>)"),
    "registers": (with_tensor("reg_token", 1, 4, 6), '"reg_token"'),
    "LayerScale": (with_tensor("blocks.11.ls2.gamma", 6), '"blocks.11.ls2.gamma"'),
    "norm of queries": (with_tensor("blocks.0.attn.q_norm.weight", 6), '"blocks.0.attn.q_norm.weight"'),
    "no bias of the head": (without("head.bias"), "head.bias is missing"),
    "no CLS token": (without("cls_token"), "cls_token is missing"),
    "no positions": (without("pos_embed"), "pos_embed is missing"),
    "no last norm": (without("norm.weight"), "norm.weight is missing"),
    "a block less": (without("blocks.5."), "blocks.5.norm1.weight is missing; blocks.5.norm1.bias is missing"),
    "a bias less": (without("blocks.5.attn.qkv.bias"), "blocks.5.attn.qkv.bias is missing"),
    "a slip": (with_tensor("bloks.0.norm1.weight", 6), "Nearest: blocks.0.norm1.weight"),
    "a zero in front": (with_tensor("blocks.00.norm1.weight", 6), '"blocks.00.norm1.weight"'),
    "an endless number": (with_tensor("blocks.999999999.norm1.weight", 6), "and 1"),
    "wrapped": (
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        'Every name begins with "module."',
    ),
    "a control character": (with_tensor("\x1b[31mred", 6), "\\x1b[31mred"),
    "another size": (with_tensor("blocks.2.norm1.bias", 7), "blocks.2.norm1.bias is [7], a plain ViT of these sizes"),
    "not a multiple of three": (with_tensor("blocks.2.attn.qkv.weight", 17, 6), "blocks.2.attn.qkv.weight is [17, 6]"),
    "a scalar": (with_tensor("blocks.2.attn.qkv.bias"), "blocks.2.attn.qkv.bias is []"),
    "a flat projection": (with_tensor("patch_embed.proj.weight", 6, 48), "expected 4 dimensions"),
    "an oblong image": (with_tensor("pos_embed", 1, 7, 6), "pos_embed has 7 rows and patches are 4 x 4"),
    "oblong patches": (with_tensor("patch_embed.proj.weight", 6, 3, 4, 2), "patches are 4 x 2"),
    "no patch": (with_tensor("pos_embed", 1, 0, 6), "pos_embed is [1, 0, 6]"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_state_of_timm_is_refused_by_tensor(case: str) -> None:
    change, words = BROKEN[case]
    with pytest.raises(WeightsError) as raised:
        from_timm_state(change(timm_state(shape())))
    assert words in str(raised.value)
    assert len(str(raised.value)) < 500


def test_half_an_mlp_head_is_refused() -> None:
    state = timm_state(shape(head_width=5))
    for missing in ("head.0.weight", "head.2.weight", "head.2.bias"):
        with pytest.raises(WeightsError, match=missing.replace(".", "[.]") + " is missing"):
            from_timm_state(without(missing)(state))
    with pytest.raises(WeightsError, match=r"head[.]weight is not in the plain ViT"):
        from_timm_state(with_tensor("head.weight", 7, 6)(state))


KEY = "vit.encoder.layer.3.attention.attention.key.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without(KEY), f"{KEY} is missing"),
        (with_tensor(KEY, 5, 6), f"{KEY} is [5, 6]"),
        (without("classifier"), "head.weight is missing"),
        (without("vit.embeddings.cls_token"), "cls_token is missing"),
        (with_tensor("vit.encoder.layer.3.attention.attention.keys.weight", 6, 6), 'No member has a tensor "vit.enc'),
        (with_tensor("classifier.fc1.weight", 6, 6), "head.2.weight is missing"),
        (with_tensor("vit.pooler.dense.weight", 6, 6), 'No member has a tensor "vit.pooler.dense.weight"'),
        (with_tensor("cls_token", 1, 1, 6), 'No member has a tensor "cls_token"'),
    ],
)
def test_broken_state_of_a_member_is_refused_by_tensor(change: Callable[[dict], dict], words: str) -> None:
    with pytest.raises(WeightsError) as raised:
        to_timm_state(change(tensors(shape())))
    assert words in str(raised.value)


def test_names_need_neither_timm_nor_transformers() -> None:
    code = (
        "import sys, vitzoo.interop.timm_names; "
        "print([name for name in ('timm', 'transformers', 'torchvision') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
