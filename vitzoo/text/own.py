"""Take a user's texts as a split: lists of texts or pairs, or a table of `datasets`.

See `load.py` for data sets by name.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vitzoo.data.labels import find_column, is_table, is_text, match_labels, table_labels
from vitzoo.errors import DatasetError, shown
from vitzoo.text.splits import TextSplit
from vitzoo.text.tokenizer import Tokenizer

_EXPECTED = (
    "texts: a split such as member.load_texts().test, a list of texts or of pairs of texts, or a datasets.Dataset"
)


def split_texts(
    samples: Any, *, labels: Any = None, classes: Sequence[str], tokenizer: Tokenizer, max_length: int
) -> TextSplit:
    """Return texts as rows of tokens, with the labels of a model's classes.

    Args:
        samples: A split, a list of texts or of pairs of texts, or a `datasets.Dataset`.
        labels: Class of each text, by name or place; None where the samples have their own.
        classes: Names of the model's classes, in the order of its logits.
        tokenizer: The model's tokenizer.
        max_length: Longest row in tokens; longer ones are cut.

    Raises:
        DatasetError: The samples are of another kind or of none, or labels are missing or not the model's.
    """
    if isinstance(samples, TextSplit):
        if not len(samples):
            raise DatasetError("There are 0 texts", expected="one or more")
        labels = samples.labels if labels is None else labels
        return replace(samples, labels=match_labels(labels, classes, count=len(samples)))
    if is_table(samples):
        labels = table_labels(samples, classes) if labels is None else labels
        column = find_column(samples, "texts", fits=lambda name, feature: is_text(feature) and name != "label")
        samples = list(samples[column])
    if not isinstance(samples, (list, tuple)):
        raise DatasetError(f"The samples are of type {type(samples).__name__}", expected=_EXPECTED)
    if not samples:
        raise DatasetError("There are 0 texts", expected="one or more")
    rows = [(sample,) if isinstance(sample, str) else tuple(sample or ()) for sample in samples]
    for place, row in enumerate(rows):
        if len(row) != len(rows[0]) or len(row) not in (1, 2) or not all(isinstance(text, str) for text in row):
            raise DatasetError(f"Sample {place} is {shown(samples[place])}", expected="a text; or all pairs of texts")
    numbers = match_labels(labels, classes, count=len(rows))
    texts, *pairs = ([row[side] for row in rows] for side in range(len(rows[0])))
    encoded = tokenizer.encode(texts, pairs[0] if pairs else None, max_length=max_length)
    return TextSplit(labels=numbers, indices=np.arange(len(rows)), **encoded._asdict())
