"""Compare the logits of imported members with their original checkpoints' logits, on the same images.

The original runs from its checkpoint's own tensors. Its forward pass shares no code with the member's.

Source: Dosovitskiy et al. 2021; timm's ``vit_small_patch16_224``, whose layer norms have an epsilon of 1e-6.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from transformers.utils.logging import disable_progress_bar

from vitzoo.errors import WeightsError
from vitzoo.ids import MemberRef
from vitzoo.interop.authors.checkpoints import load_raw
from vitzoo.interop.authors.job import Import
from vitzoo.interop.authors.plan import PlannedImport
from vitzoo.models.vit import VitZooModel
from vitzoo.sources.folder import FolderSource
from vitzoo.tables.catalogue import Catalogue

TOLERANCE = 1e-5  # relative to the largest logit, where that is above 1
_IMAGES = 4


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
        sizes = job.model_types[one.model.settings.model_type]
        generator = torch.Generator().manual_seed(number)
        images = torch.randn(_IMAGES, 3, sizes.image_size, sizes.image_size, generator=generator)
        raw = load_raw(one.checkpoints[record.epochs])
        model = VitZooModel.from_source(zoo, MemberRef(zoo=None, member=one.id, epoch=None))
        with torch.inference_mode():
            before = forward(raw, images, num_heads=sizes.num_attention_heads)
            after = model(pixel_values=images).logits
        difference = float((before - after).abs().max() / before.abs().max().clamp(min=1))
        differences[str(one.id)] = difference
        if not difference <= TOLERANCE:
            raise WeightsError(
                f"{one.id} differs from {one.folder} by {difference:.1e} in its logits",
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
