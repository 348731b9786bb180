"""Make rows of tokens of the texts of a data set: check the texts, hold some out, encode the others.

A text is in one part only. A repeated text would be known from the training when it is evaluated, so texts are compared
by hash, and the hash decides which texts are held out. See `sources.py` for how texts are read.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from vitzoo.data.columns import check_labels, requested_splits
from vitzoo.data.splits import evenly_spaced
from vitzoo.errors import DatasetError, shown
from vitzoo.records.dataset_spec import TextSpec
from vitzoo.text.sources import ListedTexts, TableTexts
from vitzoo.text.splits import NO_LABEL, TextDataset, TextSplit
from vitzoo.text.tokenizer import Tokenizer
from vitzoo.text.tokenizer_json import SPECIAL_TOKENS

MAX_CHARACTERS = 2**20  # of a text
_PARTS = ("test", "val", "train")  # a text that is in two splits belongs to the first of them

Texts = ListedTexts | TableTexts


@dataclass(frozen=True, kw_only=True, eq=False)
class TextParts:
    """The texts of a data set that may be used, by part.

    Args:
        spec: The data set.
        revision: Source of the texts.
        classes: Names of the classes; none for packed rows.
        sources: Source of each part's texts: two parts may have one.
        places: Places of each part's texts in its source, ascending.
        dropped: Number of texts that are left out, by reason.
    """

    spec: TextSpec
    revision: str
    classes: tuple[str, ...]
    sources: Mapping[str, Texts]
    places: Mapping[str, Int64[np.ndarray, " texts"]]
    dropped: Mapping[str, int]

    def iter_texts(self, part: str) -> Iterator[tuple[list[str], list[str] | None]]:
        """Yield the texts of a part in batches, and their second texts if there are any."""
        source, places = self.sources[part], self.places[part]
        for start, texts, pairs in source.iter_batches():
            first, last = np.searchsorted(places, [start, start + len(texts)])
            chosen = (places[first:last] - start).tolist()
            if chosen:  # a text that is missing is not among them
                yield (
                    [texts[place] or "" for place in chosen],
                    None if pairs is None else [pairs[place] or "" for place in chosen],
                )


def choose_texts(
    spec: TextSpec,
    *,
    revision: str,
    classes: tuple[str, ...],
    splits: Mapping[str, Texts],
    special_tokens: tuple[str, ...] = tuple(SPECIAL_TOKENS.values()),
) -> TextParts:
    """Check the texts of each split, and decide which part each belongs to.

    Args:
        spec: The data set.
        revision: Source of the texts.
        classes: Names of the classes; none for packed rows.
        splits: The texts of each requested split, by part.
        special_tokens: Texts of the special tokens, which no text may have.

    Raises:
        DatasetError: A split is empty, a label is not a class, a class has no training text, or too few texts are left
            to be held out. A text is missing, empty, too long, has a special token, or is in two splits, unless the
            spec says that such texts are dropped.
    """
    names = requested_splits(spec)
    hashes, usable, dropped = {}, {}, Counter()
    for part, source in splits.items():
        if source.labels is not None:
            check_labels(spec, classes, names[part], source.labels, of="text")
        elif not len(source):
            raise DatasetError(
                f"Split {shown(names[part])} of {shown(spec.name)} has no texts",
                expected="one or more",
                dataset=spec.name,
            )
        hashes[part], usable[part] = _inspect(spec, source, special_tokens, dropped)
    if spec.train_texts is not None:
        chosen = np.zeros(len(splits["train"]), dtype=bool)
        chosen[evenly_spaced(spec.train_texts, len(chosen))] = True
        usable["train"] &= chosen
    places = {part: np.flatnonzero(some) for part, some in usable.items()}
    _separate(spec, splits, hashes, places, dropped)
    sources = dict(splits)
    for part, count in (("test", spec.test_held_out), ("val", spec.held_out)):
        if count:
            places["train"], places[part] = _hold_out(spec, hashes["train"], places["train"], count, dropped)
            sources[part] = splits["train"]
    for part in places:
        if not len(places[part]):
            raise DatasetError(
                f"{shown(spec.name)} has no text left for {part}: {dict(dropped)} were dropped",
                expected="one or more",
                dataset=spec.name,
            )
    labels = splits["train"].labels
    if labels is not None:
        empty = np.setdiff1d(np.arange(len(classes)), labels[places["train"]])
        if len(empty):
            raise DatasetError(
                f"Class {shown(classes[empty[0]])} of {shown(spec.name)} has no training text",
                expected="one or more for each class",
                fix="Leave the class out of the data set, or use more of train_texts.",
                dataset=spec.name,
            )
    return TextParts(
        spec=spec, revision=revision, classes=classes, sources=sources, places=places, dropped=dict(dropped)
    )


def encode_texts(parts: TextParts, tokenizer: Tokenizer) -> TextDataset:
    """Encode the texts of each part as rows.

    Raises:
        DatasetError: The texts of a part do not fill one packed row.
    """
    encode = _pack if parts.spec.packed else _encode
    splits = {part: encode(parts, part, tokenizer) for part in parts.places}
    return TextDataset(
        name=parts.spec.name,
        revision=parts.revision,
        classes=parts.classes,
        train=splits["train"],
        val=splits.get("val") or splits["train"].part(0, 0),
        test=splits["test"],
        tokenizer=tokenizer,
        dropped=parts.dropped,
    )


def _inspect(
    spec: TextSpec, source: Texts, special_tokens: tuple[str, ...], dropped: Counter[str]
) -> tuple[UInt64[np.ndarray, " texts"], Bool[np.ndarray, " texts"]]:
    """Return a hash of each text, and whether it may be used; count the others by reason."""
    hashes = np.zeros(len(source), dtype=np.uint64)
    usable = np.ones(len(source), dtype=bool)
    for start, texts, pairs in source.iter_batches():
        for place, text in enumerate(texts, start):
            sample = (text,) if pairs is None else (text, pairs[place - start])
            reason = next((reason for part in sample if (reason := _unusable(part, special_tokens))), None)
            if reason is None:
                hashes[place] = _hash("\0".join(map(str, sample)))
                continue
            if spec.unusable == "refuse":
                problem, expected = reason
                raise _refusal(spec, f"{source.describe(place)} {problem}", expected)
            usable[place] = False
            dropped[reason[0]] += 1
    return hashes, usable


def _unusable(text: str | None, special_tokens: tuple[str, ...]) -> tuple[str, str] | None:
    """Return the reason why a text may not be used, and what is expected."""
    if text is None:
        return "is missing", "a text"
    if not text.strip():
        return "is empty", "a text"
    if len(text) > MAX_CHARACTERS:
        return "is too long", f"at most {MAX_CHARACTERS} characters"
    for token in special_tokens:
        if token in text:
            return f"has the special token {token}", "a text without special tokens"
    return None


def _hash(text: str) -> int:
    """Hash a text regardless of case and spacing."""
    normal = " ".join(text.casefold().split())
    return int.from_bytes(hashlib.blake2b(normal.encode(), digest_size=8).digest(), "little")


def _refusal(spec: TextSpec, problem: str, expected: str) -> DatasetError:
    return DatasetError(
        f"{problem[0].upper()}{problem[1:]}",
        expected=expected,
        fix='Correct the data set, or leave such texts out: unusable="drop" in the TextSpec.',
        dataset=spec.name,
    )


def _separate(
    spec: TextSpec,
    splits: Mapping[str, Texts],
    hashes: Mapping[str, UInt64[np.ndarray, " _"]],
    places: dict[str, Int64[np.ndarray, " _"]],
    dropped: Counter[str],
) -> None:
    """Leave texts out of a split that are also in another one, nearer to the test."""
    for later, part in enumerate(_PARTS):
        for other in _PARTS[:later]:
            if part not in places or other not in places:
                continue
            repeated = np.isin(hashes[part][places[part]], hashes[other][places[other]])
            if not repeated.any():
                continue
            if spec.unusable == "refuse":
                raise _refusal(
                    spec,
                    f"{splits[part].describe(int(places[part][repeated][0]))} is also in the texts of {other}, as are "
                    f"{repeated.sum() - 1} others",
                    "each text in one split",
                )
            dropped[f"is also in {other}"] += int(repeated.sum())
            places[part] = places[part][~repeated]


def _hold_out(
    spec: TextSpec,
    hashes: UInt64[np.ndarray, " _"],
    places: Int64[np.ndarray, " texts"],
    count: int,
    dropped: Counter[str],
) -> tuple[Int64[np.ndarray, " rest"], Int64[np.ndarray, " count"]]:
    """Split training texts: the texts of the lowest hashes are held out, and their repetitions are dropped."""
    distinct, first = np.unique(hashes[places], return_index=True)
    if count >= len(distinct):
        raise DatasetError(
            f"held_out and test_held_out are {spec.held_out} and {spec.test_held_out} of {len(distinct)} different "
            f"training texts of {shown(spec.name)}",
            expected="fewer",
            dataset=spec.name,
        )
    rest = places[~np.isin(hashes[places], distinct[:count])]
    repeated = len(places) - len(rest) - count
    if repeated:
        dropped["repeats a text that is held out"] += repeated
    return rest, np.sort(places[first[:count]])


def _encode(parts: TextParts, part: str, tokenizer: Tokenizer) -> TextSplit:
    """Encode each text, or pair of texts, as a row."""
    source, places = parts.sources[part], parts.places[part]
    encoded = [
        tokenizer.encode(texts, pairs, max_length=parts.spec.max_length) for texts, pairs in parts.iter_texts(part)
    ]
    lengths = np.concatenate([np.diff(some.offsets) for some in encoded])
    second = [some.second for some in encoded if some.second is not None]
    labels = np.full(len(source), NO_LABEL) if source.labels is None else source.labels
    return TextSplit(
        labels=labels[places],
        indices=source.indices[places],
        token_ids=np.concatenate([some.token_ids for some in encoded]),
        offsets=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)]),
        second=np.concatenate(second) if second else None,
    )


def _pack(parts: TextParts, part: str, tokenizer: Tokenizer) -> TextSplit:
    """Cut the stream of all texts into rows of one length, each behind the first token of a row; drop the remainder."""
    length = parts.spec.max_length
    stream = np.concatenate([tokenizer.encode_stream(texts) for texts, _ in parts.iter_texts(part)])
    rows = len(stream) // (length - 1)
    if not rows:
        raise DatasetError(
            f"The texts of {shown(parts.spec.name)} for {part} have {len(stream)} tokens",
            expected=f"at least {length - 1}, one row of max_length {length}",
            fix="Set a smaller max_length in the TextSpec, or use more texts.",
            dataset=parts.spec.name,
        )
    token_ids = np.empty((rows, length), dtype=np.int32)
    token_ids[:, 0] = tokenizer.cls_id
    token_ids[:, 1:] = stream[: rows * (length - 1)].reshape(rows, length - 1)
    return TextSplit(
        labels=np.full(rows, NO_LABEL),
        indices=np.arange(rows),
        token_ids=token_ids.reshape(-1),
        offsets=np.arange(rows + 1) * length,
    )
