"""timm's own training step, beside ours: the same network, batches, precision, attention, loss and optimizer.

Source: timm's ``train.py``: loss and forward pass under autocast, `torch.compile` of the whole model, AdamW as its
factory makes it (biases and norms without decay). It is not made to wait for each step, as some versions of it are.
"""

import time
from itertools import repeat

import torch

from training.bench.rounds import Span
from training.bench.scale import Mode
from training.images.loader import Batch
from training.recipes.plan import PlannedMember


def timm_version() -> str | None:
    """The version of timm on this machine; None where it, or what it needs, cannot be imported."""
    try:
        import timm  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError):  # torchvision that does not fit torch raises the latter
        return None
    return timm.__version__


class TimmTrainee:
    """A member's network as timm has it, under training.

    Args:
        planned: The member, supervised and with a linear head.
        device: Where.
        mode: Of `torch.compile`.
    """

    def __init__(self, planned: PlannedMember, *, device: torch.device, mode: Mode):
        import timm  # pyright: ignore[reportMissingImports]
        from timm.loss import SoftTargetCrossEntropy  # pyright: ignore[reportMissingImports]
        from timm.optim import create_optimizer_v2  # pyright: ignore[reportMissingImports]

        shape, optimizer = planned.architecture, planned.training.optimizer
        model = timm.create_model(
            "vit_small_patch16_224",
            num_classes=planned.head.outputs,
            img_size=shape.image_size,
            patch_size=shape.patch_size,
            embed_dim=shape.hidden_size,
            depth=shape.num_hidden_layers,
            num_heads=shape.num_attention_heads,
        ).to(device)
        self._optimizer = create_optimizer_v2(
            model, opt=optimizer.name, lr=optimizer.learning_rate, weight_decay=optimizer.weight_decay, fused=True
        )
        self._loss, self._device = SoftTargetCrossEntropy().to(device), device
        self._bf16 = planned.training.precision == "bf16"
        self.model = model.train()
        self._forward = self.model if mode == "none" else torch.compile(self.model, mode=mode)

    def repeat(self, batch: Batch, steps: int) -> Span:
        """Take steps on one batch."""
        self._wait()
        began = time.perf_counter()
        for pixels, targets in repeat((batch.pixel_values, batch.targets), steps):
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
                loss = self._loss(self._forward(pixels), targets)
            loss.backward()
            self._optimizer.step()
            self._optimizer.zero_grad()
        self._wait()
        return Span(seconds=time.perf_counter() - began)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
