"""Plan the members of a recipe: ids, heads, trainings, seeds, cost and disk, without reading or training."""

import json
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any, Literal

from training.recipes.data import TextData, TokenizerSpec
from training.recipes.recipe import Head, Recipe, Seeds, Start
from training.recipes.training import Training
from vitzoo.architectures import ModelShape, is_head
from vitzoo.errors import MemberNotFoundError, did_you_mean
from vitzoo.ids import MemberId


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedMember:
    """A member to train, fully resolved.

    Args:
        id: Id of the member.
        architecture: Sizes of the backbone, of one class in `vitzoo.architectures`.
        head: Head of the member.
        training: Training of the member.
        seeds: Seeds of its random numbers; a child has its parent's ``init``.
        replicate: Number of the repetition of its cell of the grid, from 0.
        start: Published model that the member or its parent started from; None for random weights.
        tokenizer: Tokenizer of the population; None for images.
    """

    id: MemberId
    architecture: Any
    head: Head
    training: Training
    seeds: Seeds
    replicate: int
    start: Start | None = None
    tokenizer: TokenizerSpec | None = None

    @property
    def init_group(self) -> str:
        """Return a name that members with the same first weights of the backbone share."""
        start = self.start
        return f"init-{self.seeds.init}" if start is None else f"{start.repo}@{(start.commit or 'main')[:12]}"

    @property
    def shape(self) -> ModelShape:
        """Return the values that decide the shapes of its tensors."""
        return self.architecture.shape(outputs=self.head.outputs, head_width=self.head.width, role=self.head.role)

    @property
    def num_parameters(self) -> int:
        """Return the number of parameters, head included."""
        return sum(map(prod, self.shape.tensor_shapes().values()))

    @property
    def visible_patches(self) -> int:
        """Return the patches that a masked autoencoder's encoder sees: at least 1, and fewer than all."""
        patches, masking = self.architecture.num_patches, self.training.masking
        hidden = round(patches * (0.0 if masking is None else masking.share))
        return patches - min(max(hidden, 1), patches - 1)

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
    def unit(self) -> Literal["images", "tokens"]:
        """Return the unit in which work and speed are counted, in the plural."""
        return "tokens" if isinstance(self.training.dataset, TextData) else "images"

    @property
    def units_per_sample(self) -> float:
        """Return the views of an image, or the mean tokens of a row of text."""
        dataset = self.training.dataset
        return dataset.tokens if isinstance(dataset, TextData) else self.training.views

    @property
    def _head_weights(self) -> int:
        """Return the number of weights in the matrices of the head."""
        shapes = self.shape.tensor_shapes()
        return sum(prod(shape) for name, shape in shapes.items() if is_head(name) and len(shape) == 2)

    @property
    def unit_flops(self) -> float:
        """Return the floating-point operations of one view of an image, or of one token, forward and backward.

        Source: a multiplication and an addition for each weight and token, twice that backward (Kaplan et al. 2020,
        section 2.1), and the two products of attention.
        """
        dataset, outputs = self.training.dataset, self._head_weights
        passes = 1 if self.training.frozen_backbone else 3  # of the backbone: forward, and twice that backward
        if self.training.decoder is not None:  # only visible patches enter the encoder
            tokens = self.visible_patches + 1
            sizes = replace(self.architecture, hidden_size=self.head.outputs, **asdict(self.training.decoder))
            return 3 * (self.architecture.flops(tokens=tokens) + tokens * 2 * outputs + sizes.flops())
        if self.training.distillation is not None:  # the teacher's forward pass, and the prototypes
            passes, outputs = 4, (outputs + self.head.outputs * self.training.distillation.prototypes) * 4 / 3
        if not isinstance(dataset, TextData):
            return passes * self.architecture.flops() + 3 * 2 * outputs
        masking, tokens = self.training.masking, dataset.tokens
        if masking is not None:  # the decoder's matrix is the embedding
            outputs = masking.share * tokens * (outputs + self.head.outputs * self.architecture.hidden_size)
        return (passes * self.architecture.flops(tokens=round(tokens)) + 3 * 2 * outputs) / tokens

    @property
    def units(self) -> int:
        """Return the number of images of all steps, each view counted, or of tokens."""
        return round(self.training.steps * self.training.batch_size * self.units_per_sample)

    @property
    def flops(self) -> float:
        """Return the floating-point operations of training, forward and backward, without evaluation."""
        return self.units * self.unit_flops

    @property
    def evaluation_flops(self) -> float:
        """Return the floating-point operations of measuring every epoch, 0 included: forward passes.

        A classifier sees each sample once. A member with an embedding head sees it once for its features, and its views
        for the loss.
        """
        dataset, training, flops = self.training.dataset, self.training, self.unit_flops / 3
        samples = dataset.n_evaluated + dataset.n_test
        if isinstance(dataset, TextData):
            flops *= dataset.tokens
        elif self.head.role == "embedding":
            flops = training.views * flops + self.architecture.flops() + 2 * self._head_weights
        return (training.epochs + 1) * samples * flops


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
        id=member,
        architecture=recipe.architecture,
        head=head,
        training=training,
        seeds=seeds,
        replicate=replicate,
        start=parent.start,
        tokenizer=recipe.tokenizer,
    )
