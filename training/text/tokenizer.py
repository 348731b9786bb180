"""Make the tokenizer of a population: train it on a recipe's texts, or take a published one by its hash."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from training.recipes.data import TokenizerSpec
from training.recipes.plan import PlannedMember
from vitzoo.errors import TrainingError, shown
from vitzoo.records.layout import TOKENIZER_CONFIG_JSON, TOKENIZER_JSON
from vitzoo.text import Tokenizer, iter_training_texts, load_tokenizer, train_bpe
from vitzoo.text.load import prepared_tokenizer


def make_tokenizer(planned: PlannedMember, *, data: Mapping[str, Path]) -> Tokenizer:
    """Return the tokenizer of a member, made once a process: the same bytes on every machine.

    Args:
        planned: Member to train.
        data: Folders of data sets on this machine, by name.

    Raises:
        DatasetError: The texts that it is trained on are not on this machine.
        TrainingError: The published tokenizer is another one, or has another number of tokens.
    """
    spec = planned.tokenizer
    assert spec is not None  # noqa: S101 - a recipe of texts has one
    tokenizer = _make(spec, tuple(data.items()))
    if tokenizer.vocab_size != spec.vocab_size:
        raise TrainingError(
            f"{planned.id}: the tokenizer has {tokenizer.vocab_size} tokens",
            expected=f"{spec.vocab_size}, as the recipe says",
            fix="Fix the recipe.",
        )
    return tokenizer


@cache
def _make(spec: TokenizerSpec, data: tuple[tuple[str, Path], ...]) -> Tokenizer:
    if spec.texts is not None:
        prepared = prepared_tokenizer(spec.texts, data=dict(data))
        return prepared or train_bpe(iter_training_texts(spec.texts, data=dict(data)), spec.vocab_size)
    from vitzoo.sources.published import fetch_published

    if spec.commit is None or spec.sha256 is None:
        raise TrainingError(
            f"The recipe takes the tokenizer of {spec.repo}, but does not say its commit and sha256",
            expected="TokenizerSpec(repo=..., commit=..., sha256=...) with the digest of tokenizer.json",
            fix=f"Copy both from https://huggingface.co/{spec.repo}/tree/main (docs/guides/recipes.md).",
        )
    folder = fetch_published(str(spec.repo), spec.commit, files=(TOKENIZER_JSON, TOKENIZER_CONFIG_JSON))
    tokenizer = load_tokenizer(folder)
    if tokenizer.sha256 != spec.sha256:
        raise TrainingError(
            f"The tokenizer of {spec.repo} has sha256 {tokenizer.sha256}",
            expected=shown(spec.sha256),
            fix="Check the recipe's commit and sha256.",
        )
    return tokenizer
