"""Measure real timm beside vitzoo. `measure` runs in a process of its own.

timm needs torchvision, whose compiled operators have no build for the CPU torch of the tests; transformers, where it
sees torchvision, would use them. So both lie in a folder of their own, that comes last on the path, and transformers is
imported before. None of the operators is needed: only their registration is left out.
"""

import json
import sys
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn

from vitzoo.errors import VitZooError
from vitzoo.interop.timm import from_timm, to_timm, to_timm_module
from vitzoo.models.vit import VitZooModel

SMALL: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": 5}
MODELS: dict[str, dict[str, Any]] = {
    "vit_small_patch16_224": {"depth": 3},
    "vit_tiny_patch16_224 of 21 classes": {"num_classes": 21, "depth": 4},
    "vit_base_patch32_224 of 2 layers": {"depth": 2, "num_classes": 7},
    "vit_small_patch16_224 of 160 pixels": {"img_size": 160, "depth": 2, "num_classes": 3},
    "small": SMALL,
    "small without qkv bias": SMALL | {"qkv_bias": False},
    "small with one channel and a wide MLP": SMALL | {"in_chans": 1, "mlp_ratio": 5.3},
    "small without a position of its CLS token": SMALL | {"no_embed_class": True},
    "small with another epsilon": SMALL | {"norm_layer": lambda width, **more: nn.LayerNorm(width, eps=1e-3, **more)},
    "small with dynamic images": SMALL | {"dynamic_img_size": True},
    "small with dropout": SMALL
    | {"drop_rate": 0.3, "pos_drop_rate": 0.2, "attn_drop_rate": 0.1, "drop_path_rate": 0.2},
    "small with timm's own GELU": SMALL | {"act_layer": "gelu"},
    "small with the authors' MLP head": SMALL,
}
REFUSED: dict[str, dict[str, Any]] = {
    "registers": {"reg_tokens": 4},
    "layer scale": {"init_values": 1e-5},
    "average pooling": {"global_pool": "avg"},
    "average pooling without a norm": {"global_pool": "avg", "fc_norm": False},
    "map pooling": {"global_pool": "map", "class_token": False},
    "no CLS token": {"global_pool": "avg", "fc_norm": False, "class_token": False},
    "clip": {"pre_norm": True},
    "quick gelu": {"act_layer": "quick_gelu"},
    "tanh gelu": {"act_layer": "gelu_tanh"},
    "relu": {"act_layer": nn.ReLU},
    "qk norm": {"qk_norm": True},
    "no head": {"num_classes": 0},
    "no positions": {"pos_embed": "none"},
    "no final norm": {"final_norm": False},
    "oblong": {"img_size": (32, 64)},
    "rms norm": {"norm_layer": "rmsnorm"},
}
NAMED = {
    "distilled": ("deit_tiny_distilled_patch16_224", {"depth": 1}),
    "hybrid": ("vit_tiny_r_s16_p8_224", {"depth": 1}),
    "swin": ("swin_tiny_patch4_window7_224", {"depths": (1, 1, 1, 1)}),
    "resnet": ("resnet10t", {}),
}


def import_timm(folder: str) -> Any:
    import transformers  # noqa: F401  looks for torchvision when it is imported

    sys.path.append(folder)
    register, torch.library.register_fake = torch.library.register_fake, lambda *_, **__: lambda function: function
    try:
        import timm  # pyright: ignore[reportMissingImports]
    finally:
        torch.library.register_fake = register
    return timm


def randomise(module: nn.Module) -> nn.Module:
    """Random weights everywhere: timm's first CLS token, biases and norms would hide what is swapped."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            fan_in = parameter[0].numel() if parameter.dim() in (2, 4) else 25
            parameter.copy_(noise * fan_in**-0.5 + (1 if "norm" in name and name.endswith("weight") else 0))
    return module.eval()


def build(timm: Any, name: str, arguments: dict[str, Any]) -> nn.Module:
    stock = name.partition(" ")[0]
    stock = stock if timm.is_model(stock) else "vit_small_patch16_224"
    module = timm.create_model(stock, pretrained=False, **arguments)
    if "MLP head" in name:
        module.head = nn.Sequential(nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 5))
    return randomise(module)


def difference(module: Any, model: VitZooModel, images: Tensor) -> dict[str, float]:
    """The largest differences: of the embeddings, of each block's output, of the logits."""
    theirs: list[Tensor] = []
    hooks = [module.blocks[0].register_forward_pre_hook(lambda _, given: theirs.append(given[0]))]
    hooks += [block.register_forward_hook(lambda *given: theirs.append(given[2])) for block in module.blocks]
    hooks += [module.norm.register_forward_hook(lambda *given: theirs.append(given[2]))]
    with torch.inference_mode():
        logits, found = module(images), model(pixel_values=images, output_hidden_states=True)
        last = model.vit(images).last_hidden_state
    for hook in hooks:
        hook.remove()
    ours = [*found.hidden_states, last]
    assert len(ours) == len(theirs) == len(module.blocks) + 2
    compared = {
        f"layer {number}": (a - b).abs().max().item() for number, (a, b) in enumerate(zip(ours, theirs, strict=True))
    }
    return compared | {"logits": (found.logits - logits).abs().max().item(), "size": logits.abs().max().item()}


def compare(timm: Any) -> dict[str, Any]:
    measured = {}
    for name, arguments in MODELS.items():
        module: Any = build(timm, name, arguments)
        side = module.patch_embed.img_size[0]
        images = torch.randn(2, module.in_chans, side, side, generator=torch.Generator().manual_seed(1))
        model = from_timm(module)
        drawn = torch.get_rng_state()
        back, state = to_timm_module(model), to_timm(model)
        assert torch.equal(torch.get_rng_state(), drawn)
        assert not {p.data_ptr() for p in back.parameters()} & {p.data_ptr() for p in model.parameters()}
        expected = module.state_dict()
        if "position" in name:  # a row of zeros came with the CLS token's position
            expected["pos_embed"] = torch.cat([torch.zeros(1, 1, 48), expected["pos_embed"]], dim=1)
        measured[name] = {
            "from": difference(module, model, images),
            "to": difference(back, model, images),
            "from_state": difference(
                module, from_timm(module.state_dict(), num_heads=module.blocks[0].attn.num_heads), images
            )
            if "epsilon" not in name
            else None,
            "same_names": list(state) == list(expected),
            "same_bits": all(torch.equal(state[key], tensor) for key, tensor in expected.items()),
            "heads": model.config.num_attention_heads,
            "eps": model.config.layer_norm_eps,
        }
        into = build(timm, name, {key: value for key, value in arguments.items() if key != "no_embed_class"})
        into.load_state_dict(state)
    measured["swapped"] = _swapped(timm)
    return measured


def _swapped(timm: Any) -> dict[str, float]:
    """What the comparison says of a model whose keys and values are swapped."""
    module = build(timm, "small", SMALL)
    state = module.state_dict()
    queries, keys, values = state["blocks.0.attn.qkv.weight"].chunk(3)
    state["blocks.0.attn.qkv.weight"] = torch.cat([queries, values, keys])
    return difference(module, from_timm(state, num_heads=3), torch.randn(2, 3, 32, 32))


def refuse(timm: Any) -> dict[str, str]:
    cases: dict[str, tuple[str, dict[str, Any]]] = {
        name: ("vit_small_patch16_224", SMALL | arguments) for name, arguments in REFUSED.items()
    }
    modules: dict[str, Callable[[], Any]] = {
        name: (lambda stock=stock, arguments=arguments: timm.create_model(stock, pretrained=False, **arguments))
        for name, (stock, arguments) in (cases | NAMED).items()
    }

    class Mine(timm.models.VisionTransformer):
        def forward(self, x: Tensor) -> Tensor:
            return -super().forward(x)

    modules["a subclass"] = lambda: Mine(**SMALL)
    modules["a head with tanh"] = lambda: _with_tanh(timm)
    said = {}
    for name, make in modules.items():
        try:
            from_timm(make())
            said[name] = "TAKEN"
        except VitZooError as error:
            said[name] = f"{type(error).__name__}: {error}"
    return said


def _with_tanh(timm: Any) -> nn.Module:
    module = timm.create_model("vit_small_patch16_224", **SMALL)
    module.head = nn.Sequential(nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, 5))
    return module


def folders(timm: Any, *names: str) -> dict[str, Any]:
    """Exported folders, each ``<folder>=<member>``: timm's logits and preprocessing beside the member's."""
    import numpy as np
    from PIL import Image
    from timm.data import create_transform, resolve_data_config  # pyright: ignore[reportMissingImports]

    from vitzoo.sources.locate import locate
    from vitzoo.zoo.zoo import Zoo

    measured = {}
    for pair in names:
        folder, _, name = pair.partition("=")
        located = locate(name)
        assert located is not None
        member = Zoo.of(located[1])[located[0].member]
        model: VitZooModel = member.load(epoch=located[0].epoch)
        module = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        data = resolve_data_config({}, model=module)
        side = model.config.shape.image_size
        rng = np.random.default_rng(0)
        pictures = [
            Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)) for size in ((side, side, 3), (40, 31, 3))
        ]
        transform: Any = create_transform(**data)
        theirs = torch.stack([transform(picture) for picture in pictures])
        ours = member.load_image_processor()(pictures, return_tensors="pt")["pixel_values"]
        measured[pair] = {
            "differences": difference(module, model, ours),
            "pixels": (theirs - ours).abs().max().item(),
            "data": {key: data[key] for key in ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")},
            "labels": module.pretrained_cfg.get("label_names"),
            "architecture": module.pretrained_cfg["architecture"],
        }
    return measured


TASKS: dict[str, Callable[..., Any]] = {"compare": compare, "refuse": refuse, "folders": folders}


def measure(results: Connection, folder: str, task: str, *arguments: str) -> None:
    """Import timm and send what a task of `TASKS` measured, as JSON."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    timm = import_timm(folder)
    results.send_bytes(json.dumps(TASKS[task](timm, *arguments)).encode())
