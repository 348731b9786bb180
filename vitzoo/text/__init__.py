"""Load data sets of texts by name, as rows of tokens with fixed splits: the same rows on every machine.

    tokenizer.py    read, train and write tokenizers
    tokenizer_json.py   the checks of their files
    splits.py       TextSplit, TextDataset
    load.py         load_text: a data set by its spec
    snippets.py, tables.py      the places of data sets: an archive, tables with columns
    sources.py      texts in lists and tables, read in batches
    prepared.py     folders of rows that were encoded once
    assemble.py     the checks of texts, the texts that are held out, encoding as rows
    batches.py      padded tensors, and the batches of an evaluation
    masks.py        masked tokens of an evaluation

See `vitzoo.data` for names, folders and the Hub, `training.text` for masking and batches of a training, and
`vitzoo.models.evaluation` for evaluation.

Names are imported on first use, because records hold a `TextSpec` and are read without numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

_HOMES = {
    "TextDataset": "vitzoo.text.splits",
    "TextSpec": "vitzoo.records.dataset_spec",
    "TextSplit": "vitzoo.text.splits",
    "Tokenizer": "vitzoo.text.tokenizer",
    "iter_training_texts": "vitzoo.text.load",
    "load_text": "vitzoo.text.load",
    "load_tokenizer": "vitzoo.text.tokenizer",
    "prepare_texts": "vitzoo.text.load",
    "train_bpe": "vitzoo.text.tokenizer",
}

__all__ = [
    "TextDataset",
    "TextSpec",
    "TextSplit",
    "Tokenizer",
    "iter_training_texts",
    "load_text",
    "load_tokenizer",
    "prepare_texts",
    "train_bpe",
]

if TYPE_CHECKING:
    from vitzoo.records.dataset_spec import TextSpec
    from vitzoo.text.load import iter_training_texts, load_text, prepare_texts
    from vitzoo.text.splits import TextDataset, TextSplit
    from vitzoo.text.tokenizer import Tokenizer, load_tokenizer, train_bpe


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'vitzoo.text' has no attribute {name!r}")


def __dir__():
    return __all__
