"""A zoo of six families, each with its own initialisation: four supervised and two contrastive, with two children."""

from dataclasses import replace
from pathlib import Path

from tests.tiny import CONTRASTIVE, SUPERVISED, tiny, train_here
from training.recipes.recipe import Head, Parent, Seeds

CONTRASTIVE_FROM = 4


def write_families(folder: Path) -> None:
    """Train the zoo into a folder, in seconds."""
    recipe = tiny()
    parents = []
    for number in range(6):
        seeds = Seeds(init=number, head=number, order=number, augmentation=number)
        if number < CONTRASTIVE_FROM:
            parents.append(Parent(training=SUPERVISED, head=Head(outputs=6), seeds=seeds, replicates=1))
        else:
            head = Head(outputs=12, role="embedding")
            parents.append(Parent(training=CONTRASTIVE, head=head, seeds=seeds, replicates=1))
    train_here(replace(recipe, name="families", parents=tuple(parents)), folder)
