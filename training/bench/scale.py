"""What is trained in a benchmark: on a GPU the paper's members as they are, on a CPU the same ones in small.

Speed does not depend on what an image shows, so data sets keep their sizes and lose their content (`images.py`).
"""

from dataclasses import dataclass, replace
from typing import Literal

from training.recipes.augmentation import Augmentation, GaussianBlur, RandomResizedCrop
from training.recipes.paper import paper
from training.recipes.plan import PlannedMember, plan_member
from training.recipes.recipe import Head, Parent, Recipe
from training.recipes.training import Training
from vitzoo.ids import MemberId
from vitzoo.records.dataset_spec import Preprocessing

Mode = Literal["none", "default"]

_PIXELS, _RESIZED = 64, 73  # on a CPU, for 224 and 256
_ROWS = {256: 32, 96: 12}  # on a CPU, for the paper's batches


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """How much is measured of what.

    Args:
        title: What is trained, in words.
        recipe: Whose members: pt-0 supervised from files, pt-0/ft-0 fine-tuned from memory, pt-7 contrastive.
        steps: Of a round.
        rounds: Of every subject.
        photograph: Width and height of the images in files, pixels.
        photographs: How many files there are; a data set repeats them.
        compiled: Members that are compiled too; all others are eager alone.
        child_images: Images that a child starts on: to train on, and as many again to test on.
    """

    title: str
    recipe: Recipe
    steps: int
    rounds: int
    photograph: tuple[int, int] = (500, 375)
    photographs: int = 128
    compiled: tuple[str, ...]
    child_images: int

    @property
    def members(self) -> dict[str, PlannedMember]:
        """What is trained, by name: one member for each batch and pipeline that the paper's population has."""
        contrastive = plan_member(self.recipe, MemberId(7))
        halves = replace(contrastive, training=replace(contrastive.training, positives="halves"))
        members = (plan_member(self.recipe, MemberId(0)), plan_member(self.recipe, MemberId(0, 0)), contrastive, halves)
        return dict(zip(("supervised", "fine-tuning", "contrastive", "halves"), members, strict=True))

    def mode(self, name: str) -> Mode:
        """The fastest mode of `torch.compile` in which a member is measured."""
        return "default" if name in self.compiled else "none"


def scale_for(device: Literal["cuda", "cpu"], *, quick: bool = False) -> Scale:
    """What is measured on a kind of device.

    Args:
        device: The kind.
        quick: Fewer rounds, and nothing compiled on a CPU.
    """
    if device == "cuda":
        return Scale(
            title="ViT-S/16 at 224 pixels, as the paper trains it",
            recipe=paper(),
            steps=32,
            rounds=2 if quick else 4,
            compiled=("supervised", "fine-tuning", "contrastive", "halves"),
            child_images=5_120,
        )
    steps = 4 if quick else 8
    return Scale(
        title=f"a small ViT at {_PIXELS} pixels, for a CPU: ratios only say how the same code behaves there",
        recipe=small(paper(), steps=steps),
        steps=steps,
        rounds=2 if quick else 4,
        compiled=() if quick else ("supervised",),
        child_images=256,
    )


def small(recipe: Recipe, *, steps: int) -> Recipe:
    """A recipe whose members a CPU trains, with the same parts: all sizes shrink, and precision is fp32.

    Args:
        recipe: In the paper's sizes.
        steps: Of an epoch of the children.
    """
    architecture = replace(
        recipe.architecture,
        image_size=_PIXELS,
        hidden_size=192,
        num_hidden_layers=6,
        num_attention_heads=3,
        intermediate_size=768,
    )
    parents = tuple(
        replace(parent, training=_small(parent.training, images=parent.training.dataset.train_images // 100))
        for parent in recipe.parents
    )
    children = recipe.children
    images = steps * _ROWS[children.training.batch_size]
    return replace(
        recipe,
        name=f"{recipe.name}_small",
        architecture=architecture,
        parents=parents,
        children=replace(children, training=_small(children.training, images=images)),
    )


def starting(scale: Scale) -> Recipe:
    """A recipe whose children's start can be timed: their parent is trained as they are, for one short epoch."""
    children = scale.recipe.children
    images = scale.child_images
    dataset = replace(
        children.training.dataset,
        train_images=images,
        evaluated_train_images=min(images, children.training.dataset.evaluated_train_images),
    )
    training = replace(children.training, dataset=dataset, epochs=1)
    first = scale.recipe.parents[0]
    parent = Parent(training=training, head=Head(outputs=children.heads[0].outputs), seeds=first.seeds, replicates=1)
    return replace(
        scale.recipe,
        name=f"{scale.recipe.name}_starting",
        parents=(parent,),
        children=replace(children, training=training),
    )


def _small(training: Training, *, images: int) -> Training:
    dataset = replace(
        training.dataset,
        train_images=images,
        evaluated_train_images=min(images, training.dataset.evaluated_train_images // 50),
        preprocessing=Preprocessing(resize=_RESIZED, crop=_PIXELS, resample=training.dataset.preprocessing.resample),
    )
    return replace(
        training,
        dataset=dataset,
        augmentation=_small_augmentation(training.augmentation),
        precision="fp32",
        batch_size=_ROWS[training.batch_size],
    )


def _small_augmentation(augmentation: Augmentation) -> Augmentation:
    return replace(
        augmentation,
        resize=augmentation.resize and _RESIZED,
        random_crop=augmentation.random_crop and _PIXELS,
        random_resized_crop=augmentation.random_resized_crop and RandomResizedCrop(size=_PIXELS),
        blur=augmentation.blur and GaussianBlur(kernel_size=3),
    )
