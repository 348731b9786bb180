"""Sentences about animals for tests, with a class that a few words decide; and a tokenizer trained on them."""

import json
import random
from functools import cache
from typing import Any

from vitzoo.text import Tokenizer, train_bpe
from vitzoo.text.tokenizer import parse_tokenizer

CLASSES = ("negative", "positive")
_ANIMALS = ("cat", "dog", "heron", "otter", "lynx", "adder", "wren", "badger", "newt", "hare")
_VERBS = ("watched", "followed", "found", "carried", "left", "heard", "chased", "fed")
_GOOD = ("lovely", "splendid", "gentle", "bright")
_BAD = ("dreadful", "gloomy", "nasty", "dull")


def sentence(seed: int) -> str:
    """Return a sentence; sentences of different seeds differ."""
    draw = random.Random(seed)
    words = (_BAD, _GOOD)[label_of(seed)]
    first, second = draw.sample(_ANIMALS, 2)
    tail = "" if draw.random() < 0.5 else f", and it wasn't {draw.choice(words)} at all"
    return f"The {draw.choice(words)} {first} {draw.choice(_VERBS)} the {draw.choice(words)} {second}{tail}: {seed}."


def label_of(seed: int) -> int:
    return seed * 7 % 5 % 2


@cache
def tokenizer(vocab_size: int = 160) -> Tokenizer:
    return train_bpe(map(sentence, range(200)), vocab_size)


def as_json(made: Tokenizer) -> dict[str, Any]:
    return json.loads(made.content)


def from_json(values: dict[str, Any], path: Any) -> Tokenizer:
    return parse_tokenizer(json.dumps(values).encode(), path=path)
