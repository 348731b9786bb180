"""Pre-train a ViT as a masked autoencoder (MAE): hide most patches, and predict their pixels from the others.

The encoder, which is the member, sees the visible patches alone. Its head maps each token to the width of a small
decoder, which also gets a mask token for each hidden patch. The member's file has the encoder and this head; the
decoder is in the resume state alone.

Source: He et al., "Masked autoencoders are scalable vision learners", 2022 (arXiv 2111.06377). See
`training.recipes.deviations` for the differences.
"""

from copy import deepcopy
from dataclasses import asdict
from math import isqrt
from types import SimpleNamespace
from typing import Any, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from training.pretext import Pretext
from training.random import Draw
from training.recipes.plan import PlannedMember
from vitzoo.models.loading import MemberModel


class Autoencoder(Pretext):
    """A ViT with the decoder of its pre-training.

    Args:
        planned: Member to train; its head is as wide as the decoder.
        member: Its model.
    """

    def __init__(self, planned: PlannedMember, member: MemberModel):
        super().__init__(member)
        sizes, width, decoder = planned.architecture, planned.head.outputs, planned.training.decoder
        if decoder is None:
            raise ValueError(f"{planned.id} has no decoder")
        config: Any = deepcopy(member.config)
        config.hidden_size = width
        for name, value in asdict(decoder).items():
            setattr(config, name, value)
        block = type(self._encoder[0])
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, sizes.num_patches + 1, width))
        self.layers = nn.ModuleList(block(config) for _ in range(decoder.num_hidden_layers))
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.pixels = nn.Linear(width, len(sizes.mean) * sizes.patch_size**2)
        self.initialise(planned.seeds.head)

    @property
    def compiled_parts(self) -> tuple[nn.Module, ...]:
        """The whole training, and the encoder on whole images for metrics."""
        return self, self.member.base_model

    @property
    def _encoder(self) -> list[nn.Module]:
        """The blocks of the member."""
        return [module for name, module in self.member.layers.items() if name.startswith("layer.")]

    def forward(
        self, pixel_values: Float[Tensor, "rows channels height width"], visible: Int64[Tensor, "rows visible"]
    ) -> SimpleNamespace:
        """Predict the normalised pixels of every patch.

        Args:
            pixel_values: Normalised images.
            visible: Numbers of the patches that the encoder sees, row by row from the top left, from 0.

        Returns:
            ``logits``: predictions, ``[rows, patches, pixels]``.
        """
        tokens = self.member.layers["embeddings"](pixel_values)
        places = nn.functional.pad(visible + 1, (1, 0))[..., None]  # place 0 is the CLS token
        tokens = tokens.gather(1, places.expand(-1, -1, tokens.shape[2]))
        for layer in self._encoder:
            tokens = layer(tokens)
        tokens = cast(nn.Module, self.member.classifier)(self.member.layers["layernorm"](tokens))
        whole = self.mask_token.to(tokens.dtype).expand(len(tokens), self.positions.shape[1], -1)
        whole = whole.scatter(1, places.expand_as(tokens), tokens) + self.positions
        for layer in self.layers:
            whole = layer(whole)
        return SimpleNamespace(logits=self.pixels(self.layernorm(whole))[:, 1:])


def draw_visible(planned: PlannedMember, draw: Draw) -> Int64[Tensor, "rows visible"]:
    """Draw the visible patches of each image, ascending: the ones with the smallest random words."""
    words = draw.words(planned.architecture.num_patches)
    return words.argsort(dim=1, stable=True)[:, : planned.visible_patches].sort(1).values


def masked_patches_loss(
    predictions: Float[Tensor, "rows patches pixels"],
    pixel_values: Float[Tensor, "rows channels height width"],
    visible: Int64[Tensor, "rows visible"],
) -> Float[Tensor, ""]:
    """Return the mean squared error of the hidden patches: a scalar in float32, in [0, inf). Smaller is better.

    The target is each patch's pixels less their mean, over their standard deviation. Predicting 0 gives about 1, and
    less where patches are constant.

    Args:
        predictions: Pixels of each patch: rows, then columns, then channels.
        pixel_values: Normalised images.
        visible: Patches that the encoder saw.

    Source: He et al. 2022, section 3 and table 1d.
    """
    rows, patches, _ = predictions.shape
    across = isqrt(patches)
    side = pixel_values.shape[-1] // across
    pixels = pixel_values.float().unflatten(3, (across, side)).unflatten(2, (across, side))
    target = pixels.permute(0, 2, 4, 3, 5, 1).reshape(predictions.shape)
    variance, mean = torch.var_mean(target, dim=2, keepdim=True)
    errors = (predictions.float() - (target - mean) / (variance + 1e-6).sqrt()).square().mean(2)
    is_hidden = torch.ones_like(errors).scatter(1, visible, 0.0)
    return (errors * is_hidden).sum() / (rows * (patches - visible.shape[1]))


def example_masks(
    planned: PlannedMember, rows: int, *, device: torch.device
) -> dict[str, Int64[Tensor, "rows visible"]]:
    """Return the input ``visible`` of a batch of any images; nothing for other objectives."""
    if planned.training.decoder is None:
        return {}
    return {"visible": torch.arange(planned.visible_patches, device=device).expand(rows, -1)}
