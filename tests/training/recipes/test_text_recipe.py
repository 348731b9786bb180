"""Recipes of texts refuse fields that disagree, and name the field, its value and the expectation."""

import re
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from tests.text.tiny import MASKED, SIZES, SUPERVISED, tiny_text
from tests.tiny import tiny
from training.recipes.augmentation import Augmentation
from training.recipes.data import TokenizerSpec
from training.recipes.recipe import Head, Recipe
from training.recipes.training import Masking, Mixing, Training
from vitzoo.records.fields import FieldError

TEXT, IMAGES = tiny_text(), tiny()


def with_masking(share: Any) -> Training:
    return replace(MASKED, masking=Masking(share=share))


def with_rows(training: Training, **fields: Any) -> Training:
    return replace(
        training, dataset=replace(training.dataset, texts=msgspec.structs.replace(training.dataset.spec, **fields))
    )


def with_parent(**changes: Any) -> Recipe:
    return replace(TEXT, parents=(replace(TEXT.parents[0], **changes), *TEXT.parents[1:]))


REFUSED: dict[str, tuple[Any, str, str]] = {
    "masking 0": (lambda: with_masking(0.0), "share", "is 0.0; expected a share above 0 and below 1"),
    "masking .6": (lambda: with_masking(0.6), "masking.share", "is 0.6; expected 0.5 at most for texts"),
    "masking nothing": (
        lambda: with_masking(0.03),
        "masking.share",
        "is 0.03; expected at least 0.0333, so that a row masks a token",
    ),
    "no masking": (lambda: replace(MASKED, masking=None), "masking", "expected Masking(...) for a masked objective"),
    "masking of sentences": (
        lambda: replace(SUPERVISED, masking=Masking(share=0.2)),
        "masking",
        "expected Masking(...) for a masked objective and for autoencoding, None for other ones",
    ),
    "label smoothing": (
        lambda: replace(MASKED, mixing=Mixing(label_smoothing=0.1)),
        "mixing.label_smoothing",
        "is 0.1; expected 0.0 for a masked objective",
    ),
    "mixup of masked rows": (
        lambda: replace(MASKED, mixing=Mixing(mixup=0.8)),
        "mixing.mixup",
        "is 0.8; expected 0.0 for a masked objective",
    ),
    "mixup of sentences": (
        lambda: replace(SUPERVISED, mixing=Mixing(mixup=0.8)),
        "mixing.mixup",
        "is 0.8; expected 0.0 for texts",
    ),
    "augmentation": (
        lambda: replace(SUPERVISED, augmentation=Augmentation(rotation=9.0)),
        "augmentation.rotation",
        "is 9.0; expected 0.0 for texts",
    ),
    "contrastive": (
        lambda: replace(SUPERVISED, objective="contrastive", temperature=0.1),
        "objective",
        'is "contrastive"; expected supervised or masked for texts',
    ),
    "packed sentences": (
        lambda: replace(MASKED, objective="supervised", masking=None),
        "dataset.texts.packed",
        "packed rows have no label",
    ),
    "masked images": (
        lambda: replace(IMAGES.parents[0].training, objective="masked", masking=Masking(share=0.2), mixing=Mixing()),
        "objective",
        'is "masked"; expected supervised, contrastive, autoencoding or distillation for images',
    ),
    "classifier of masked rows": (
        lambda: with_parent(head=Head(outputs=160)),
        "role",
        'is "classifier"; expected masked for a masked objective',
    ),
    "masked head of another vocabulary": (
        lambda: with_parent(head=Head(outputs=150, role="masked")),
        "parents[0].head",
        "expected Head(outputs=160, role='masked'), with the architecture's vocab_size",
    ),
    "masked children of another vocabulary": (
        lambda: replace(
            TEXT, children=replace(TEXT.children, training=MASKED, heads=(Head(outputs=150, role="masked"),))
        ),
        "children.head",
        "expected Head(outputs=160, role='masked'), with the architecture's vocab_size",
    ),
    "tokenizer beyond the vocabulary": (
        lambda: replace(TEXT, tokenizer=TokenizerSpec(vocab_size=161, repo="google-bert/tiny")),
        "tokenizer.vocab_size",
        "is 161; expected at most 160, the architecture's vocab_size",
    ),
    "no tokenizer": (
        lambda: replace(TEXT, tokenizer=None),
        "tokenizer",
        "expected TokenizerSpec(...) for texts, None for images",
    ),
    "tokenizer of images": (lambda: replace(IMAGES, tokenizer=TEXT.tokenizer), "tokenizer", "None for images"),
    "images with a BERT": (
        lambda: replace(IMAGES, architecture=SIZES),
        "parents[0].training.dataset",
        'is "digits-0-5"; expected text for an architecture of text, bert',
    ),
    "texts with a ViT": (
        lambda: replace(TEXT, architecture=IMAGES.architecture),
        "parents[0].training.dataset",
        'is "animals"; expected images for an architecture of images, vit',
    ),
    "rows beyond the positions": (
        lambda: with_parent(training=with_rows(MASKED, max_length=61)),
        "parents[0].training.dataset.texts.max_length",
        "is 61; expected at most 60, the architecture's max_position_embeddings",
    ),
    "rows of 3 tokens": (lambda: with_rows(MASKED, max_length=3), "max_length", "is 3; expected 4 to"),
    "frozen parent": (
        lambda: with_parent(training=replace(MASKED, frozen_backbone=True)),
        "training.frozen_backbone",
        "expected False for a parent",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_recipe_of_texts_refuses_fields_that_disagree(case: str) -> None:
    make, field, message = REFUSED[case]
    with pytest.raises(FieldError, match=re.escape(message)) as refused:
        make()
    assert refused.value.field == field
