"""Plan the members of a recipe: ids, heads, trainings, seeds, cost and disk, without reading or training."""

import json
from dataclasses import dataclass, replace
from math import prod

from training.recipes.recipe import Architecture, Head, Recipe, Seeds
from training.recipes.training import Training
from vitzoo.architectures.vit import ViTShape
from vitzoo.errors import MemberNotFoundError, did_you_mean
from vitzoo.ids import MemberId


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedMember:
    """A member to train, fully resolved.

    Args:
        id: Id of the member.
        architecture: Backbone of the member.
        head: Head of the member.
        training: Training of the member.
        seeds: Seeds of its random numbers; a child has its parent's ``init``.
        replicate: Number of the repetition of its cell of the grid, from 0.
    """

    id: MemberId
    architecture: Architecture
    head: Head
    training: Training
    seeds: Seeds
    replicate: int

    @property
    def init_group(self) -> str:
        """Return a name that members with the same random initialisation share."""
        return f"init-{self.seeds.init}"

    @property
    def shape(self) -> ViTShape:
        """Return the values that decide the shapes of its tensors."""
        return self.architecture.shape(outputs=self.head.outputs, head_width=self.head.width)

    @property
    def num_parameters(self) -> int:
        """Return the number of parameters, head included."""
        return sum(map(prod, self.shape.tensor_shapes().values()))

    @property
    def checkpoint_bytes(self) -> int:
        """Return the bytes of one epoch's weights file: its safetensors header, and the weights in float32."""
        entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, shape in sorted(self.shape.tensor_shapes().items()):
            start, end = end, end + 4 * prod(shape)
            entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
        header = len(json.dumps(entries, separators=(",", ":")))
        return 8 + -(-header // 8) * 8 + end  # padded to a multiple of 8

    @property
    def bytes(self) -> int:
        """Return the bytes of every epoch's weights, 0 included; the final file is a link to the last."""
        return (self.training.epochs + 1) * self.checkpoint_bytes

    @property
    def image_flops(self) -> float:
        """Return the floating-point operations of one view of an image, forward and backward.

        Source: a multiplication and an addition for each weight and token, twice that backward (Kaplan et al. 2020,
        section 2.1), and the two products of attention.
        """
        shape = self.shape
        tokens, hidden, layers = shape.num_tokens, shape.hidden_size, shape.num_hidden_layers
        block = tokens * (4 * hidden**2 + 2 * hidden * shape.intermediate_size) + 2 * tokens**2 * hidden
        patches = (tokens - 1) * shape.num_channels * shape.patch_size**2 * hidden
        outputs = (
            hidden * self.head.outputs if self.head.width is None else self.head.width * (hidden + self.head.outputs)
        )
        return 3 * 2 * (layers * block + patches + outputs)

    @property
    def images(self) -> int:
        """Return the number of images of all steps, each view counted."""
        return self.training.steps * self.training.batch_size * self.training.views

    @property
    def flops(self) -> float:
        """Return the floating-point operations of training, forward and backward, without evaluation."""
        return self.images * self.image_flops

    @property
    def evaluation_flops(self) -> float:
        """Return the floating-point operations of measuring every epoch, 0 included: forward passes.

        A classifier sees each image once. A contrastive member sees it once for its features, and its views for the
        loss.
        """
        dataset, training = self.training.dataset, self.training
        images = dataset.evaluated_train_images + dataset.images.held_out + dataset.test_images
        passes = 1 if training.objective == "supervised" else 1 + training.views
        return (training.epochs + 1) * images * passes * self.image_flops / 3


def plan_members(recipe: Recipe) -> list[PlannedMember]:
    """Return every member of a recipe, parents before their children.

    The children of a parent are numbered by replicate, then head, then optimizer, so that a further replicate appends.
    """
    return [_plan(recipe, member) for member in _member_ids(recipe)]


def plan_member(recipe: Recipe, member: MemberId) -> PlannedMember:
    """Return one member of a recipe, without planning the others.

    Raises:
        MemberNotFoundError: The recipe does not have the member.
    """
    if member.parent < len(recipe.parents) and (member.is_parent or member.child in _children(recipe, member.parent)):
        return _plan(recipe, member)
    raise MemberNotFoundError(
        f"The recipe {recipe.name} has no member {member}",
        fix=did_you_mean(member, _member_ids(recipe)).strip(),
        member=member,
    )


def _children(recipe: Recipe, parent: int) -> range:
    return range(recipe.parents[parent].replicates * len(recipe.children.heads) * len(recipe.children.optimizers))


def _member_ids(recipe: Recipe) -> list[MemberId]:
    return [
        MemberId(parent, child) for parent in range(len(recipe.parents)) for child in (None, *_children(recipe, parent))
    ]


def _plan(recipe: Recipe, member: MemberId) -> PlannedMember:
    parent, children = recipe.parents[member.parent], recipe.children
    if member.child is None:
        head, training, seeds, replicate = parent.head, parent.training, parent.seeds, 0
    else:
        cell, optimizer = divmod(member.child, len(children.optimizers))
        replicate, number = divmod(cell, len(children.heads))
        head, seed = children.heads[number], children.seeds[replicate]
        training = replace(children.training, optimizer=children.optimizers[optimizer])
        seeds = replace(Seeds.same(seed), init=parent.seeds.init)
    return PlannedMember(
        id=member, architecture=recipe.architecture, head=head, training=training, seeds=seeds, replicate=replicate
    )
