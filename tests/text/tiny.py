"""The smallest zoo of language models with both objectives and heads, dropout, and each new schedule.

It has a masked and a supervised parent and 4 children of 5 thousand parameters, with two epochs each, on sentences
about animals in CSV files. Training takes a few seconds.
"""

import csv
from dataclasses import replace
from pathlib import Path

from tests.text.sentences import CLASSES, label_of, sentence
from training.member.execution import Execution
from training.member.train import train_member
from training.recipes.data import TextData, TokenizerSpec
from training.recipes.plan import plan_members
from training.recipes.recipe import Children, Head, Parent, Recipe, Seeds
from training.recipes.training import Masking, Optimizer, Schedule, Training
from training.workspace import Workspace
from vitzoo.architectures.bert import BertSizes
from vitzoo.records.dataset_spec import TextSpec
from vitzoo.tables.catalogue import write_tables

SIZES = BertSizes(
    vocab_size=160,
    max_position_embeddings=60,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    initializer_range=0.1,
)
COUNTS = {"train": 160, "validation": 48, "test": 48}  # sentences
PACKED_ROWS = 86
_SENTENCES = TextSpec(name="animals", text_column="text", val_split="validation", max_length=60)
_PACKED = TextSpec(name="animals", text_column="text", val_split="validation", max_length=32, packed=True)
MASKED = Training(
    objective="masked",
    dataset=TextData(texts=_PACKED, train_rows=PACKED_ROWS, evaluated_train_rows=48),
    masking=Masking(share=0.2),
    optimizer=Optimizer(name="adamw", learning_rate=3e-3, weight_decay=0.01),
    schedule=Schedule(name="linear", warmup_steps=4),
    dropout=0.1,
    clip_norm=1.0,
    epochs=2,
    batch_size=16,
)
SUPERVISED = Training(
    objective="supervised",
    dataset=TextData(texts=_SENTENCES, train_rows=COUNTS["train"], evaluated_train_rows=48),
    optimizer=Optimizer(name="adamw", learning_rate=3e-3),
    schedule=Schedule(name="one_cycle"),
    epochs=2,
    batch_size=16,
)


def write_sentences(folder: Path) -> None:
    """Write the sentences as CSV files, one for each split."""
    folder.mkdir(parents=True)
    first = 0
    for name, count in COUNTS.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("text", "label"))
            writer.writerows((sentence(seed), CLASSES[label_of(seed)]) for seed in range(first, first + count))
        first += count


def tiny_text() -> Recipe:
    """Make the recipe: pt-0 is masked, with dropout, and pt-1 is supervised."""
    return Recipe(
        name="tiny_text",
        source="tests",
        architecture=SIZES,
        parents=(
            Parent(
                training=MASKED,
                head=Head(outputs=SIZES.vocab_size, role="masked"),
                seeds=Seeds.same(0),
                replicates=1,
            ),
            Parent(training=SUPERVISED, head=Head(outputs=2), seeds=Seeds.same(1), replicates=1),
        ),
        children=Children(
            training=replace(SUPERVISED, schedule=Schedule(name="linear"), dropout=0.1),
            heads=(Head(outputs=2), Head(outputs=2, width=(8, 4))),
            optimizers=(Optimizer(name="adamw", learning_rate=3e-3),),
            seeds=(100,),
        ),
        tokenizer=TokenizerSpec(vocab_size=SIZES.vocab_size, texts=_SENTENCES),
    )


def execution(sentences: Path) -> Execution:
    """Return choices of this machine that name the folder of the sentences."""
    return Execution(data={"animals": sentences})


def train_texts(recipe: Recipe, root: Path, *, sentences: Path) -> None:
    """Train a whole recipe in this process."""
    workspace = Workspace(root, recipe)
    for planned in plan_members(recipe):
        train_member(workspace, planned, execution=execution(sentences))
    write_tables(workspace.source)
