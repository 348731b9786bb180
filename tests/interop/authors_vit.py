"""The network whose state dicts the zoo's authors saved: the names and the order of its tensors, and what it computes.

Written here from the published names (timm's, under ``vit.``); its forward pass is the oracle of what an imported
member must compute. What lies around the state dicts is `tests.interop.release`'s.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD_WIDTH = 64  # of one attention head, in every ViT-S, -B and -L
NORM_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class Size:
    """An architecture, and what ``model::type`` calls it."""

    model_type: str
    hidden: int
    depth: int
    patch: int
    image: int


TINY = Size(model_type="vit_test", hidden=64, depth=2, patch=8, image=16)
VIT_S_16 = Size(model_type="vit_s_16", hidden=384, depth=12, patch=16, image=224)


class AuthorsViT(nn.Module):
    """The wrapper: ``vit`` is the network. An MLP head where ``head_width`` is given."""

    def __init__(self, size: Size, *, outputs: int, head_width: int | None = None):
        super().__init__()
        self.vit = _ViT(size)
        self.vit.head = head_of(size.hidden, outputs=outputs, width=head_width)

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "AuthorsViT":
        """The network that saved ``state``, in evaluation mode: all sizes are read off the tensors."""
        _, tokens, hidden = state["vit.pos_embed"].shape
        patch = state["vit.patch_embed.proj.weight"].shape[-1]
        side = round((tokens - 1) ** 0.5)
        depth = len({name.split(".")[2] for name in state if name.startswith("vit.blocks.")})
        size = Size(model_type="", hidden=hidden, depth=depth, patch=patch, image=side * patch)
        mlp = "vit.head.0.weight" in state
        last = state["vit.head.2.weight" if mlp else "vit.head.weight"]
        network = cls(size, outputs=len(last), head_width=last.shape[1] if mlp else None)
        network.load_state_dict(OrderedDict(state))
        return network.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.vit(images)


def head_of(hidden: int, *, outputs: int, width: int | None) -> nn.Module:
    if width is None:
        return nn.Linear(hidden, outputs)
    return nn.Sequential(nn.Linear(hidden, width), nn.ReLU(), nn.Linear(width, outputs))


def initialise(module: nn.Module) -> None:
    """kaiming_normal weights and biases of .01, of every Linear and Conv2d."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.constant_(layer.bias, 0.01)  # pyright: ignore[reportArgumentType]


class _ViT(nn.Module):
    head: nn.Module

    def __init__(self, size: Size):
        super().__init__()
        tokens = (size.image // size.patch) ** 2 + 1
        self.cls_token = nn.Parameter(nn.init.normal_(torch.empty(1, 1, size.hidden), std=1e-6))
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, tokens, size.hidden), std=0.02))
        self.patch_embed = _PatchEmbed(size)
        self.blocks = nn.Sequential(*(_Block(size.hidden) for _ in range(size.depth)))
        self.norm = nn.LayerNorm(size.hidden, eps=NORM_EPS)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images)
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks(tokens))[:, 0])


class _PatchEmbed(nn.Module):
    def __init__(self, size: Size):
        super().__init__()
        self.proj = nn.Conv2d(3, size.hidden, kernel_size=size.patch, stride=size.patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class _Block(nn.Module):
    def __init__(self, hidden: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden, eps=NORM_EPS)
        self.attn = _Attention(hidden)
        self.norm2 = nn.LayerNorm(hidden, eps=NORM_EPS)
        self.mlp = _MLP(hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class _Attention(nn.Module):
    def __init__(self, hidden: int):
        super().__init__()
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.proj = nn.Linear(hidden, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        split = self.qkv(tokens).unflatten(-1, (3, -1, HEAD_WIDTH))  # [batch, tokens, 3, heads, width]
        query, key, value = split.permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-1, -2) / HEAD_WIDTH**0.5).softmax(-1)
        return self.proj((weights @ value).transpose(1, 2).flatten(2))


class _MLP(nn.Module):
    def __init__(self, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(hidden, 4 * hidden)
        self.fc2 = nn.Linear(4 * hidden, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))
