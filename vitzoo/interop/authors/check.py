"""Compare the logits of imported members with their original checkpoints' logits, on the same images or tokens.

The original runs from its checkpoint's own tensors. Its forward pass shares no code with the member's.

Source: Dosovitskiy et al. 2021; timm's ``vit_small_patch16_224``, whose layer norms have an epsilon of 1e-6. Devlin et
al. 2019, whose layer norms have 1e-12.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional
from transformers.utils.logging import disable_progress_bar

from vitzoo.architectures.bert import BertSizes
from vitzoo.errors import WeightsError
from vitzoo.ids import MemberRef
from vitzoo.interop.authors.checkpoints import load_raw
from vitzoo.interop.authors.job import Import
from vitzoo.interop.authors.plan import PlannedImport
from vitzoo.models.registry import load_model
from vitzoo.sources.folder import FolderSource
from vitzoo.tables.catalogue import Catalogue

TOLERANCE = 1e-5  # relative to the largest logit, where that is above 1
_SAMPLES, _TOKENS = 4, 32


def check_logits(zoo: FolderSource, planned: Sequence[PlannedImport], job: Import) -> dict[str, float]:
    """Compare the final logits of ``job.check`` members, evenly spaced, with their original checkpoints' logits.

    Args:
        zoo: The zoo.
        planned: Its members.
        job: The import.

    Returns:
        Ids to the largest difference, divided by the largest logit where that is above 1.

    Raises:
        WeightsError: A member gives other logits than its original.
    """
    disable_progress_bar()
    pairs = [(one, Catalogue(zoo).member_record(one.id)) for one in planned]
    completed = [(one, record) for one, record in pairs if record.status == "completed"]
    count = min(job.check, len(completed))
    differences = {}
    for number in range(count):
        one, record = completed[number * len(completed) // count]
        sizes: Any = one.model.sizes
        generator = torch.Generator().manual_seed(number)
        raw = load_raw(one.checkpoints[record.epochs], sizes)
        model = load_model(zoo, MemberRef(zoo=None, member=one.id, epoch=None))
        with torch.inference_mode():
            if isinstance(sizes, BertSizes):
                shape = (_SAMPLES, min(_TOKENS, sizes.max_position_embeddings))
                tokens = torch.randint(sizes.vocab_size, shape, generator=generator)
                before = forward_bert(raw, tokens, num_heads=sizes.num_attention_heads)
                after = model(input_ids=tokens).logits
            else:
                images = torch.randn(_SAMPLES, 3, sizes.image_size, sizes.image_size, generator=generator)
                before = forward(raw, images, num_heads=sizes.num_attention_heads)
                after = model(pixel_values=images).logits
        difference = float((before - after).abs().max() / before.abs().max().clamp(min=1))
        differences[str(one.id)] = difference
        if not difference <= TOLERANCE:
            raise WeightsError(
                f"{one.id} differs from {one.name} by {difference:.1e} in its logits",
                expected=f"{TOLERANCE:.0e} at most",
                fix="Delete the member's folder and import it again.",
                path=zoo.root,
            )
        job.progress("comparing logits", number + 1, count)
    return differences


def forward(
    state: Mapping[str, Tensor], images: Float[Tensor, "batch channels side side"], *, num_heads: int
) -> Float[Tensor, "batch outputs"]:
    """Compute the logits of a plain ViT for normalised images from its weights under timm's names."""

    def linear(name: str, x: Tensor) -> Tensor:
        return functional.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    def norm(name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)

    kernel = state["patch_embed.proj.weight"]
    x = functional.conv2d(images, kernel, state["patch_embed.proj.bias"], stride=kernel.shape[-1])
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], dim=1) + state["pos_embed"]
    for layer in range(sum(name.endswith("attn.qkv.weight") for name in state)):
        block = f"blocks.{layer}"
        qkv = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", x)).unflatten(-1, (3, num_heads, -1))
        queries, keys, values = (part.transpose(1, 2) for part in qkv.unbind(2))
        attended = functional.scaled_dot_product_attention(queries, keys, values)
        x = x + linear(f"{block}.attn.proj", attended.transpose(1, 2).flatten(2))
        x = x + linear(f"{block}.mlp.fc2", functional.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", x))))
    x = norm("norm", x)[:, 0]
    return linear("head", x) if "head.weight" in state else linear("head.2", linear("head.0", x).relu())


def forward_bert(
    state: Mapping[str, Tensor], tokens: Int64[Tensor, "rows length"], *, num_heads: int
) -> Float[Tensor, "rows ..."]:
    """Compute the logits of a BERT for rows of tokens of one sentence from its weights under the authors' names.

    Args:
        state: Weights; old names of layer norms and a wrapper's ``bert.`` are known.
        tokens: Tokens without padding.
        num_heads: Heads of a block.
    """
    prefix = "bert." if any(name.startswith("bert.bert.") for name in state) else ""
    names = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    names = {name.replace("gamma", "weight").replace("beta", "bias"): tensor for name, tensor in names.items()}

    def linear(name: str, x: Tensor) -> Tensor:
        return functional.linear(x, names[f"{name}.weight"], names[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], names[f"{name}.weight"], names[f"{name}.bias"], eps=1e-12)

    words, *others = (names[f"bert.embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type"))
    x = norm("bert.embeddings.LayerNorm", words[tokens] + others[0][: tokens.shape[1]] + others[1][0])
    for layer in range(sum(name.endswith("attention.self.query.weight") for name in names)):
        block = f"bert.encoder.layer.{layer}"
        queries, keys, values = (
            linear(f"{block}.attention.self.{part}", x).unflatten(-1, (num_heads, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        attended = functional.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)
        x = norm(f"{block}.attention.output.LayerNorm", x + linear(f"{block}.attention.output.dense", attended))
        hidden = functional.gelu(linear(f"{block}.intermediate.dense", x))
        x = norm(f"{block}.output.LayerNorm", x + linear(f"{block}.output.dense", hidden))
    if "cls.predictions.bias" in names:
        head = "cls.predictions.transform"
        x = norm(f"{head}.LayerNorm", functional.gelu(linear(f"{head}.dense", x)))
        return functional.linear(x, words, names["cls.predictions.bias"])
    x = linear("bert.pooler.dense", x[:, 0]).tanh()
    places = sorted(
        int(name.split(".")[1]) for name in names if name.startswith("classification_head.") and "bias" in name
    )
    for place in places[:-1]:
        x = linear(f"classification_head.{place}", x).relu()
    return linear(f"classification_head.{places[-1]}", x)
