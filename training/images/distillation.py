"""Pre-train a ViT by self-distillation (as DINO): a student predicts what its teacher says of another view.

Two views of each image go through both. A network is a ViT whose head gives an embedding, then a layer of prototypes
of unit length. The teacher is an exponential moving average of the student. Its outputs are centred and sharpened, so
that they neither become uniform nor settle on one prototype.

The member is the teacher: in the source it is better than the student during the whole training, and its weights are
the published ones. The student, the prototypes and the centre are in the resume state alone.

Source: Caron et al., "Emerging properties in self-supervised vision transformers", 2021 (arXiv 2104.14294). See
`training.recipes.deviations` for the differences.
"""

import math
from copy import deepcopy
from types import SimpleNamespace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from training.pretext import Pretext
from training.ranks import Ranks
from training.recipes.plan import PlannedMember
from vitzoo.models.loading import MemberModel


class SelfDistillation(Pretext):
    """A student with its teacher, which is the member.

    Args:
        planned: Member to train; its head is as wide as the prototypes.
        member: Its model. Its weights get no gradient any more.
    """

    centre: Tensor

    def __init__(self, planned: PlannedMember, member: MemberModel):
        super().__init__(member)
        settings = planned.training.distillation
        if settings is None:
            raise ValueError(f"{planned.id} has no distillation")
        self.settings, self.steps = settings, planned.training.steps
        self.prototypes = nn.Parameter(torch.empty(settings.prototypes, planned.head.outputs))
        self.initialise(planned.seeds.head)
        self.student = deepcopy(member)
        self.teacher_prototypes = nn.Parameter(self.prototypes.detach().clone())
        for parameter in (*member.parameters(), self.teacher_prototypes):
            parameter.requires_grad_(False)
        self.register_buffer("centre", torch.zeros(settings.prototypes))
        self._seen: list[Tensor] = []  # the teacher's mean outputs of this step

    @property
    def compiled_parts(self) -> tuple[nn.Module, ...]:
        """The backbones of student and teacher."""
        return self.student.base_model, self.member.base_model

    def forward(self, pixel_values: Float[Tensor, "views channels height width"]) -> SimpleNamespace:
        """Compute what the distillation compares.

        Args:
            pixel_values: First views of all images, then their second views.

        Returns:
            ``logits``: the student's outputs over its temperature, ``[views, prototypes]``; ``targets``: the
            teacher's probabilities for the other view of the same image.
        """
        logits = _outputs(self.student, self.prototypes, pixel_values)
        with torch.no_grad():
            taught = _outputs(self.member, self.teacher_prototypes, pixel_values)
            targets = ((taught - self.centre) / self.settings.teacher_temperature).softmax(1)
        if self.training:
            self._seen.append(taught.mean(0))
        return SimpleNamespace(
            logits=logits / self.settings.student_temperature, targets=targets.roll(len(targets) // 2, dims=0)
        )

    @torch.no_grad()
    def finish_step(self, step: int, ranks: Ranks) -> None:
        """Move the centre by the outputs of all ranks, and the teacher by the student's new weights."""
        seen = ranks.gather(torch.stack(self._seen).mean(0)[None], ranks.count).mean(0)
        self._seen.clear()
        self.centre.lerp_(seen, 1 - self.settings.centre_momentum)
        share = teacher_share(self.settings.momentum, step=step, steps=self.steps)
        taught: list[Tensor] = [*self.member.parameters(), self.teacher_prototypes]
        learnt: list[Tensor] = [*self.student.parameters(), self.prototypes]
        torch._foreach_lerp_(taught, learnt, share)  # pyright: ignore[reportPrivateImportUsage] (optimizers use it)


def teacher_share(momentum: float, *, step: int, steps: int) -> float:
    """Return the share of the student in the teacher's average: from 1 - momentum to 0 by half a cosine.

    Source: Caron et al. 2021, section 3.1.
    """
    return (1 - momentum) * 0.5 * (1 + math.cos(math.pi * step / steps))


def distillation_loss(outputs: SimpleNamespace) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of the student under the teacher, in nats: a scalar in float32, from 0.

    Source: Caron et al. 2021, equation 3, for two views.
    """
    return functional.cross_entropy(outputs.logits.float(), outputs.targets)


def _outputs(model: MemberModel, prototypes: Tensor, pixel_values: Tensor) -> Float[Tensor, "views prototypes"]:
    """Return the cosines of embeddings and prototypes, in float32."""
    embeddings = cast(nn.Module, model)(pixel_values=pixel_values).logits.float()
    with torch.autocast(pixel_values.device.type, enabled=False):
        return functional.normalize(embeddings, dim=1) @ functional.normalize(prototypes, dim=1).T
