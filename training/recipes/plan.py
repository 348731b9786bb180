"""From a recipe to the members to train: ids, parents, seeds, cost and disk. Pure: nothing is read or trained."""

from dataclasses import dataclass, replace
from math import prod

from training.recipes.recipe import Architecture, Head, Recipe, Seeds
from training.recipes.training import Training
from vitzoo.errors import MemberNotFoundError, did_you_mean
from vitzoo.ids import MemberId

_BYTES_PER_PARAMETER = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedMember:
    """A member to train, fully resolved.

    Args:
        id: Its id.
        architecture: Its backbone.
        head: What stands on it.
        training: How it is trained.
        seeds: Its random numbers; the initialisation's is its parent's.
        replicate: Which repetition of its cell of the grid.
    """

    id: MemberId
    architecture: Architecture
    head: Head
    training: Training
    seeds: Seeds
    replicate: int

    @property
    def init_group(self) -> str:
        """Equal for members that share a random initialisation."""
        return f"init-{self.seeds.init}"

    @property
    def num_parameters(self) -> int:
        """Parameters, head included."""
        return sum(prod(shape) for shape in self.architecture.shape(self.head).tensor_shapes().values())

    @property
    def checkpoint_bytes(self) -> int:
        """Disk for the weights of one epoch."""
        return self.num_parameters * _BYTES_PER_PARAMETER

    @property
    def bytes(self) -> int:
        """Disk for the weights of every epoch, 0 included; the final file is a link to the last."""
        return (self.training.epochs + 1) * self.checkpoint_bytes

    @property
    def image_flops(self) -> float:
        """Floating-point operations of one image (of a pair: of one view), forward and backward.

        Source: a multiplication and an addition for each weight and token, twice that backward (Kaplan et al. 2020,
        section 2.1), and the two products of attention.
        """
        shape = self.architecture.shape(self.head)
        tokens, hidden, layers = shape.num_tokens, shape.hidden_size, shape.num_hidden_layers
        block = tokens * (4 * hidden**2 + 2 * hidden * shape.intermediate_size) + 2 * tokens**2 * hidden
        patches = (tokens - 1) * shape.num_channels * shape.patch_size**2 * hidden
        outputs = (
            hidden * self.head.outputs if self.head.width is None else self.head.width * (hidden + self.head.outputs)
        )
        return 3 * 2 * (layers * block + patches + outputs)

    @property
    def images(self) -> int:
        """Images that pass through training, each view of one and each epoch counted."""
        return self.training.steps * self.training.batch_size * self.training.views

    @property
    def flops(self) -> float:
        """Floating-point operations of training, forward and backward, without evaluation."""
        return self.images * self.image_flops

    @property
    def evaluation_flops(self) -> float:
        """Floating-point operations of measuring every epoch, 0 included: forward passes.

        A classifier sees each image once. A contrastive member sees it once for its features, and in its views for
        the loss.
        """
        dataset, training = self.training.dataset, self.training
        images = dataset.evaluated_train_images + dataset.images.held_out + dataset.test_images
        passes = 1 if training.objective == "supervised" else 1 + training.views
        return (training.epochs + 1) * images * passes * self.image_flops / 3


def plan_members(recipe: Recipe) -> list[PlannedMember]:
    """Every member of a recipe, parents before their children.

    The children of a parent are numbered by replicate, then head, then optimizer, so that a further replicate appends.
    """
    planned = []
    for number, parent in enumerate(recipe.parents):
        planned.append(
            PlannedMember(
                id=MemberId(number),
                architecture=recipe.architecture,
                head=parent.head,
                training=parent.training,
                seeds=parent.seeds,
                replicate=0,
            )
        )
        cells = [
            (replicate, head, optimizer)
            for replicate in range(parent.replicates)
            for head in recipe.children.heads
            for optimizer in recipe.children.optimizers
        ]
        for child, (replicate, head, optimizer) in enumerate(cells):
            seed = recipe.children.seeds[replicate]
            planned.append(
                PlannedMember(
                    id=MemberId(number, child),
                    architecture=recipe.architecture,
                    head=head,
                    training=replace(recipe.children.training, optimizer=optimizer),
                    seeds=Seeds(init=parent.seeds.init, head=seed, order=seed, augmentation=seed),
                    replicate=replicate,
                )
            )
    return planned


def plan_member(recipe: Recipe, member: MemberId) -> PlannedMember:
    """One member of a recipe.

    Raises:
        MemberNotFoundError: The recipe has no such member.
    """
    planned = {planned.id: planned for planned in plan_members(recipe)}
    if member not in planned:
        raise MemberNotFoundError(
            f"The recipe {recipe.name} has no member {member}.{did_you_mean(member, planned)}", member=member
        )
    return planned[member]
