"""The smallest zoo with both objectives, heads and optimizers, and a shared initialisation.

It has 3 parents and 8 children of 3 thousand parameters, with two epochs each. Training takes a few seconds.
"""

from dataclasses import replace
from pathlib import Path

from training.recipes.augmentation import Augmentation
from training.recipes.data import Dataset
from training.recipes.plan import plan_members
from training.recipes.recipe import Architecture, Children, Head, Parent, Recipe, Seeds
from training.recipes.training import Decoder, Distillation, Masking, Mixing, Optimizer, Schedule, Training
from training.workspace import Workspace
from vitzoo.records.dataset_spec import DatasetSpec
from vitzoo.tables.catalogue import write_tables

MEMBER_FILES = {  # of a member with two epochs, but for the files that prepare its inputs
    "config.json",
    "model.safetensors",
    "model.epoch-00.safetensors",
    "model.epoch-01.safetensors",
    "model.epoch-02.safetensors",
    "metrics.jsonl",
    "timing.jsonl",
    "member.json",
}
SUPERVISED = Training(
    objective="supervised",
    dataset=Dataset(images=DatasetSpec(name="digits-0-5"), train_images=649, evaluated_train_images=64),
    optimizer=Optimizer(name="adamw", learning_rate=3e-3, weight_decay=0.05),
    augmentation=Augmentation(rotation=15.0, translate=0.1, scale=0.1),
    mixing=Mixing(label_smoothing=0.1),
    epochs=2,
    batch_size=64,
)
CONTRASTIVE = replace(
    SUPERVISED,
    objective="contrastive",
    mixing=Mixing(),
    temperature=0.2,
    schedule=Schedule(name="cosine", warmup_steps=5),
)
AUTOENCODING = replace(
    SUPERVISED,
    objective="autoencoding",
    mixing=Mixing(),
    masking=Masking(share=0.5),
    decoder=Decoder(num_hidden_layers=1, num_attention_heads=2, intermediate_size=16),
)
DISTILLATION = replace(
    SUPERVISED, objective="distillation", mixing=Mixing(), distillation=Distillation(prototypes=16, momentum=0.9)
)
FINE_TUNING = replace(
    SUPERVISED,
    dataset=Dataset(images=DatasetSpec(name="digits-6-9"), train_images=429, evaluated_train_images=64),
    augmentation=Augmentation(rotation=10.0, erasing=0.25),
    mixing=Mixing(mixup=0.8, cutmix=1.0, label_smoothing=0.1),
)


def tiny() -> Recipe:
    """Make the recipe: pt-0 and pt-1 are supervised with one initialisation, pt-2 is contrastive."""
    return Recipe(
        name="tiny",
        source="tests",
        architecture=Architecture(
            image_size=8,
            patch_size=4,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        parents=(
            Parent(training=SUPERVISED, head=Head(outputs=6), seeds=_seeds(init=0, order=0), replicates=2),
            Parent(training=SUPERVISED, head=Head(outputs=6), seeds=_seeds(init=0, order=1), replicates=1),
            Parent(
                training=CONTRASTIVE,
                head=Head(outputs=12, role="embedding"),
                seeds=_seeds(init=2, order=2),
                replicates=1,
            ),
        ),
        children=Children(
            training=FINE_TUNING,
            heads=(Head(outputs=4), Head(outputs=4, width=8)),
            optimizers=(Optimizer(name="sgd", learning_rate=0.05, momentum=0.9),),
            seeds=(100, 101),
        ),
        deviations=("tiny: nothing here is the paper's",),
    )


def restless() -> Recipe:
    """Make the tiny recipe with forty epochs a member, so that a test can interrupt the training."""
    recipe = tiny()
    parents = tuple(replace(parent, training=replace(parent.training, epochs=40)) for parent in recipe.parents)
    children = replace(recipe.children, training=replace(recipe.children.training, epochs=40))
    return replace(recipe, name="restless", parents=parents, children=children)


def _seeds(*, init: int, order: int) -> Seeds:
    return Seeds(init=init, head=init, order=order, augmentation=order)


def train_here(recipe: Recipe, root: Path) -> None:
    """Train a whole recipe in this process."""
    from training.member.train import train_member  # imports torch, which processes that read the recipe do without

    workspace = Workspace(root, recipe)
    for planned in plan_members(recipe):
        train_member(workspace, planned)
    write_tables(workspace.source)
