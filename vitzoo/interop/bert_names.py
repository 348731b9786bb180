"""Convert a BERT's state dict of the authors to the names on disk.

    bert.bert.*, bert.cls.*                                masked: `BertForMaskedLM` in a wrapper, or bare
    bert.*, classification_head.{0,3,6}.*                  a classifier: `BertModel` with its pooler, and an MLP

Old names (``LayerNorm.gamma``) and buffers of positions are known. A head for next sentences is kept, with its pooler.
Tied tensors must be equal, and are kept once.

Source: github.com/ModelZoos/TransformerModelZooDataset at ee70028, ``models/bert_mlm.py`` and ``models/bert_sst.py``.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from vitzoo.architectures.bert import BERT, OLD_NAMES, BertShape, BertSizes

PREFIXES = ("bert.", "cls.", "classification_head.")
BUFFERS = ("position_ids", "token_type_ids")  # int64; they are not weights
_WORDS, _BIAS = "bert.embeddings.word_embeddings.weight", "cls.predictions.bias"
_HEAD = re.compile(r"classification_head\.(0|[1-9]\d?)\.(weight|bias)")
_STEP = 3  # places of a linear layer, ReLU and dropout in the head
_NEXT = "cls.seq_relationship.weight"


def from_bert_state(raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a state dict of the authors to names on disk.

    Raises:
        ValueError: A name is unknown, or a tied tensor differs from the tensor that it repeats.
    """
    wrapped = any(name.startswith("bert.bert.") for name in raw)
    weights: dict[str, Tensor] = {}
    for name, tensor in raw.items():
        if wrapped:
            if not name.startswith("bert."):
                raise ValueError(f"it holds {name} beside bert.bert.*")
            name = name.removeprefix("bert.")
        for old, new in OLD_NAMES.items():
            name = name.removesuffix(old) + new if name.endswith(old) else name
        if (match := _HEAD.fullmatch(name)) is not None:
            place, rest = divmod(int(match[1]), _STEP)
            if rest:
                raise ValueError(f"it holds {name}, expected places 0, 3, 6 of classification_head")
            name = f"classifier.fc{place + 1}.{match[2]}"
        if name in weights:
            raise ValueError(f"it holds {name} twice, under an old name as well")
        weights[name] = tensor
    if _WORDS not in weights:
        raise ValueError(f"it has no {_WORDS}")
    if _BIAS in weights and _NEXT not in weights:  # nothing reads its pooler
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith("bert.pooler.")}
    for name, other in BERT.tied.items():
        tensor = weights.pop(name, None)
        if tensor is not None and (other not in weights or not torch.equal(tensor, weights[other])):
            raise ValueError(f"{name} differs from {other}, which it repeats")
    return weights


def shape_of(weights: Mapping[str, Tensor], sizes: BertSizes, *, outputs: int | None) -> BertShape:
    """Return the expected shape of a model: its token vectors and head are read off the weights.

    Args:
        weights: Weights under their names on disk.
        sizes: Expected sizes of its config's ``model::type``; the vocabulary may be another.
        outputs: Expected classes; None for any.
    """
    classes, widths = head_shape(weights)
    role = role_of(weights)
    sizes = sizes_of(weights, sizes)
    shape = sizes.shape(outputs=classes if role == "masked" else outputs or classes, head_width=widths, role=role)
    return replace(shape, next_sentence=has_next_sentence(weights))


def sizes_of(weights: Mapping[str, Tensor], sizes: BertSizes) -> BertSizes:
    """Return sizes with the vocabulary of the weights."""
    return replace(sizes, vocab_size=len(weights[_WORDS]))


def role_of(weights: Mapping[str, Tensor]) -> str:
    """Return the role of a BERT's head."""
    return "masked" if _BIAS in weights else "classifier"


def has_next_sentence(weights: Mapping[str, Tensor]) -> bool:
    """Return whether a masked model has a head for next sentences."""
    return _NEXT in weights


def head_shape(weights: Mapping[str, Tensor]) -> tuple[int, tuple[int, ...] | None]:
    """Return the width of a head's output and the widths of its hidden layers; None for a masked or linear head."""
    if _BIAS in weights:
        return len(weights[_BIAS]), None
    numbers = sorted(int(name[13:].split(".")[0]) for name in weights if re.fullmatch(r"classifier\.fc\d+\.bias", name))
    if not numbers:
        raise ValueError("it has no head of a masked model or a classifier")
    widths = [len(weights[f"classifier.fc{number}.bias"]) for number in numbers]
    return widths[-1], tuple(widths[:-1]) or None


def is_untrained(weights: Mapping[str, Tensor]) -> bool | None:
    """Return whether weights are before the first step, by biases of 0; None where weights cannot show it.

    A classifier's head begins with biases of 0, and so does every linear layer of a masked model from random weights.
    A masked model that continues a published one has biases already.
    """
    biases = [
        tensor
        for name, tensor in weights.items()
        if name.endswith(".bias") and "LayerNorm" not in name and (role_of(weights) == "masked" or "classifier" in name)
    ]
    if all(bool((bias == 0).all()) for bias in biases):
        return True
    return None if role_of(weights) == "masked" else False
