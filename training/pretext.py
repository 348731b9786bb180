"""Wrap a member's model with the parts that only its pre-training needs, such as a decoder or a student.

The wrapped model, ``member``, is saved and measured. The other parts are in the resume state alone. See
`training.images.autoencoder` and `training.images.distillation` for the two kinds.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from training.random import Stream, normals, tensor_id, tensor_uniforms
from training.ranks import Ranks
from vitzoo.models.loading import MemberModel

_MEMBER = "member."


class Pretext(nn.Module):
    """A member's model inside its pre-training.

    Args:
        member: Model that is saved and measured.
    """

    def __init__(self, member: MemberModel):
        super().__init__()
        self.member = member

    @property
    def compiled_parts(self) -> tuple[nn.Module, ...]:
        """The modules that `torch.compile` compiles, each at its first run."""
        raise NotImplementedError

    def finish_step(self, step: int, ranks: Ranks) -> None:
        """Update what no gradient updates, after an optimizer step.

        Args:
            step: Finished steps before this one, from 0.
            ranks: Processes that train together.
        """

    def initialise(self, seed: int) -> None:
        """Set the parts beside the member to their first values: functions of the head's seed and their names.

        Matrices are Xavier uniform, other tensors normal with std .02, LayerNorms 1 and biases 0.
        """
        for name, parameter in self.named_parameters():
            if name.startswith(_MEMBER):
                continue
            key, count = tensor_id(name), parameter.numel()
            if parameter.dim() == 1:
                values = torch.full((count,), float(name.endswith(".weight")))
            elif parameter.dim() == 2:
                bound = math.sqrt(6 / sum(parameter.shape))
                values = (2 * tensor_uniforms(seed, Stream.HEAD, tensor=key, count=count) - 1) * bound
            else:
                values = normals(seed, Stream.HEAD, tensor=key, count=count) * 0.02
            with torch.no_grad():
                parameter.copy_(values.view_as(parameter))

    def own_tensors(self) -> dict[str, Tensor]:
        """Return the tensors that the member's file does not have, without gradients."""
        return {name: tensor.detach() for name, tensor in self.state_dict().items() if not name.startswith(_MEMBER)}

    def load_own_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the tensors that `own_tensors` returned."""
        self.load_state_dict(self.state_dict() | dict(tensors))
