"""Read, train and write tokenizers: tokenizer.json and tokenizer_config.json of `tokenizers` and transformers.

A file is checked before `tokenizers` parses it: see `tokenizer_json.py`. See `vitzoo.text.load` for how texts become
rows, and `vitzoo.records.layout` for the places of the files in a zoo.

`train_bpe` gives the same bytes in every process. WordPiece's trainer does not (huggingface/tokenizers#1794), nor does
BPE's with a prefix for inner pieces: both number pieces in the order of a hash table. So the first piece of a word has
a mark instead, and rare characters are left out here, because the trainer breaks ties between them by chance.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from vitzoo.errors import ConfigError, DatasetError, printable
from vitzoo.notebook import Shown
from vitzoo.records.files import open_regular, write_atomically
from vitzoo.records.layout import TOKENIZER_CONFIG_JSON, TOKENIZER_JSON
from vitzoo.text.tokenizer_json import FIX, SPECIAL_TOKENS, check_tokenizer_json

if TYPE_CHECKING:
    import tokenizers

MAX_BYTES = 4 * 2**20
_BATCH = 1000  # texts that are encoded at once
_ALPHABET = 4  # a trained vocabulary has at most a quarter of its tokens as single characters
_OWN = "Use the tokenizer of the model: its tokenizer.json is in the folder of the member."
_PARALLELISM = "TOKENIZERS_PARALLELISM"


class EncodedTexts(NamedTuple):
    """Rows of token ids, one after another.

    Args:
        token_ids: Tokens of all rows, special tokens included.
        offsets: Start of each row in ``token_ids``, and the end of the last.
        second: Place in each row where the second text begins; None where rows have one text.
    """

    token_ids: Int32[np.ndarray, " tokens"]
    offsets: Int64[np.ndarray, " offsets"]
    second: Int32[np.ndarray, " rows"] | None


@dataclass(frozen=True, kw_only=True, repr=False)
class Tokenizer(Shown):
    """A tokenizer of a zoo, checked. Make one with `load_tokenizer` or `train_bpe`.

    Args:
        content: Bytes of its tokenizer.json.
        vocab_size: Number of tokens; ids are from 0 to below.
        special_tokens: Texts of the special tokens, in the order of `SPECIAL_TOKENS`.
        special_ids: Their ids.
    """

    content: bytes
    vocab_size: int
    special_tokens: tuple[str, ...]
    special_ids: tuple[int, ...]

    @cached_property
    def sha256(self) -> str:
        """Return the digest of tokenizer.json, 64 hex digits."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pad_id(self) -> int:
        """Return the id of the padding token."""
        return self.special_ids[0]

    @property
    def unk_id(self) -> int:
        """Return the id of the unknown token."""
        return self.special_ids[1]

    @property
    def cls_id(self) -> int:
        """Return the id of the first token of a row."""
        return self.special_ids[2]

    @property
    def sep_id(self) -> int:
        """Return the id of the token after each text."""
        return self.special_ids[3]

    @property
    def mask_id(self) -> int:
        """Return the id of the token that replaces masked ones."""
        return self.special_ids[4]

    @cached_property
    def _fast(self) -> "tokenizers.Tokenizer":
        fast = _parse_fast(self.content)
        fast.no_padding()
        return fast

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_fast"}

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_length: int) -> EncodedTexts:
        """Encode texts, or pairs of texts, as rows with special tokens. Longer rows are cut on the right.

        Args:
            texts: The texts, or the first ones of the pairs.
            pairs: The second ones; None for texts alone. Of a pair that is too long, the longer text is cut first.
            max_length: Longest row in tokens, special tokens included.
        """
        self._fast.enable_truncation(max_length)
        second: list[int] = []
        rows: list[np.ndarray] = [np.zeros(0, dtype=np.int32)]
        lengths: list[int] = []
        for start in range(0, len(texts), _BATCH):
            some = slice(start, start + _BATCH)
            inputs: Any = texts[some] if pairs is None else list(zip(texts[some], pairs[some], strict=True))
            with _no_threads():
                encodings = self._fast.encode_batch_fast(inputs)
            lengths += [len(encoding) for encoding in encodings]
            rows += [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]
            if pairs is not None:
                second += [encoding.type_ids.index(1) for encoding in encodings]
        return EncodedTexts(
            token_ids=np.concatenate(rows),
            offsets=np.cumsum([0, *lengths], dtype=np.int64),
            second=None if pairs is None else np.array(second, dtype=np.int32),
        )

    def encode_stream(self, texts: Sequence[str]) -> Int32[np.ndarray, " tokens"]:
        """Encode texts as one stream, each followed by a separator, without truncation."""
        self._fast.no_truncation()
        pieces: list[np.ndarray] = [np.zeros(0, dtype=np.int32)]
        for start in range(0, len(texts), _BATCH):
            with _no_threads():
                encodings = self._fast.encode_batch_fast(texts[start : start + _BATCH], add_special_tokens=False)
            pieces += [np.array([*encoding.ids, self.sep_id], dtype=np.int32) for encoding in encodings]
        return np.concatenate(pieces)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens, special tokens left out."""
        return self._fast.decode(list(map(int, token_ids)))

    def config(self, *, max_length: int | None = None) -> dict[str, Any]:
        """Return tokenizer_config.json as plain JSON.

        Args:
            max_length: Longest row of the model in tokens, to which transformers truncates when asked to.
        """
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **dict(zip(SPECIAL_TOKENS, self.special_tokens, strict=True)),
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
            **({} if max_length is None else {"model_max_length": max_length}),
            "padding_side": "right",
            "truncation_side": "right",
            "clean_up_tokenization_spaces": False,
        }

    def write(self, folder: Path, *, max_length: int | None = None) -> None:
        """Write tokenizer.json and tokenizer_config.json, from which AutoTokenizer loads it. Args as `config`."""
        write_atomically(folder / TOKENIZER_JSON, self.content)
        text = json.dumps(self.config(max_length=max_length), indent=1, ensure_ascii=False) + "\n"
        write_atomically(folder / TOKENIZER_CONFIG_JSON, text.encode())


def load_tokenizer(place: str | os.PathLike[str]) -> Tokenizer:
    """Read and check a tokenizer.

    Args:
        place: A folder with tokenizer.json and tokenizer_config.json, or a tokenizer.json alone.

    Raises:
        ConfigError: A file is missing, over 4 MiB or not JSON, has a part that is not allowed, lacks a special token or
            has it twice, or the two files disagree.
    """
    path = Path(place)
    if not path.is_dir():
        return parse_tokenizer(_read(path), path=path)
    file, config_file = path / TOKENIZER_JSON, path / TOKENIZER_CONFIG_JSON
    if not file.exists() and (path / "vocab.txt").exists():
        raise ConfigError(
            f"{path} has vocab.txt alone",
            expected=f"{TOKENIZER_JSON} and {TOKENIZER_CONFIG_JSON}",
            fix=f'Convert it: AutoTokenizer.from_pretrained("{path}").save_pretrained("{path}").',
            path=file,
        )
    return parse_tokenizer(_read(file), path=file, config=_read(config_file))


def parse_tokenizer(content: bytes, *, path: Path, config: bytes | None = None) -> Tokenizer:
    """Check the bytes of a tokenizer.json, and of the tokenizer_config.json beside it. Raises as `load_tokenizer`.

    Args:
        content: Bytes of tokenizer.json.
        path: Path of tokenizer.json, for messages.
        config: Bytes of tokenizer_config.json; None where there is none, and special tokens have BERT's names.
    """
    tokens = check_tokenizer_json(content, path=path, config=config)
    try:
        _parse_fast(content)
    except Exception as error:  # noqa: BLE001 - the errors of tokenizers are plain exceptions
        raise ConfigError(
            f"{path} is refused by tokenizers: {printable(str(error))[:300].rstrip(' .')}",
            expected="merges and a vocabulary that fit",
            fix=FIX,
            path=path,
        ) from None
    return Tokenizer(
        content=content,
        vocab_size=tokens.vocab_size,
        special_tokens=tokens.special_tokens,
        special_ids=tokens.special_ids,
    )


def check_tokenizer(
    tokenizer: Tokenizer, *, vocab_size: int, sha256: str | None = None, by: str, fix: str = _OWN
) -> None:
    """Check that a tokenizer is the one of a model.

    Args:
        tokenizer: The tokenizer.
        vocab_size: Number of tokens of the model.
        sha256: Digest of the model's tokenizer.json; None where it is not recorded.
        by: Name of the model in messages, such as "pt-3".
        fix: Advice of the error.

    Raises:
        ConfigError: It has ids that the model does not have, or it is another tokenizer.
    """
    if tokenizer.vocab_size > vocab_size:
        raise ConfigError(
            f"The tokenizer has {tokenizer.vocab_size} tokens, {by} has a vocab_size of {vocab_size}",
            expected=f"at most {vocab_size} tokens",
            fix=fix,
            key="vocab_size",
        )
    if sha256 not in (None, tokenizer.sha256):
        raise ConfigError(
            f"The tokenizer has sha256 {tokenizer.sha256[:16]}..., the tokenizer of {by} {sha256[:16]}...",
            expected="the same",
            fix=fix,
            key="tokenizer_sha256",
        )


def train_bpe(texts: Iterable[str], vocab_size: int, *, lowercase: bool = True) -> Tokenizer:
    """Train a tokenizer by byte-pair encoding: the same bytes for the same texts, in any order and process.

    Words are split at spaces and punctuation. The first piece of a word begins with a mark, and characters that are too
    rare for the vocabulary become the unknown token. Source: Sennrich, Haddow and Birch 2016, section 3.2.

    Args:
        texts: Training texts.
        vocab_size: Number of tokens, special tokens included.
        lowercase: Whether texts are lower-cased and lose their accents, as in BERT uncased.

    Raises:
        DatasetError: The texts have too few different words for the vocabulary.
    """
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

    if vocab_size <= 2 * len(SPECIAL_TOKENS):
        raise DatasetError(
            f"vocab_size is {vocab_size}", expected=f"more than {2 * len(SPECIAL_TOKENS)}, of which 5 are special"
        )
    special = list(SPECIAL_TOKENS.values())
    fast: Any = Fast(models.BPE(unk_token=SPECIAL_TOKENS["unk_token"]))
    fast.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    mark: Any = {"replacement": "▁", "prepend_scheme": "always"}
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(**mark), pre_tokenizers.Punctuation()]
    )
    fast.decoder = decoders.Metaspace(**mark)
    normal = [fast.normalizer.normalize_str(text) for text in texts]
    counts = Counter(character for text in normal for character in text)
    by_count = sorted(counts, key=lambda character: (-counts[character], character))
    rare = dict.fromkeys(map(ord, by_count[max(1, vocab_size // _ALPHABET) :]), " ")
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    with _no_threads():
        fast.train_from_iterator((text.translate(rare) for text in normal), trainer)
    if fast.get_vocab_size() < vocab_size:
        raise DatasetError(
            f"{len(normal)} texts give a vocabulary of {fast.get_vocab_size()} tokens",
            expected=f"{vocab_size}, the vocab_size",
            fix="Train on more texts, or choose a smaller vocab_size.",
        )
    cls, sep = SPECIAL_TOKENS["cls_token"], SPECIAL_TOKENS["sep_token"]
    fast.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, special.index(token)) for token in (cls, sep)],
    )
    return parse_tokenizer(fast.to_str(pretty=True).encode(), path=Path(TOKENIZER_JSON))


def _parse_fast(content: bytes) -> "tokenizers.Tokenizer":
    from tokenizers import Tokenizer as Fast

    return Fast.from_str(content.decode())


@contextmanager
def _no_threads() -> Iterator[None]:
    """Keep tokenizers from starting threads, unless the user asks for them.

    Threads would make every later fork of this process warn and switch parallelism off.
    """
    if _PARALLELISM in os.environ:
        yield
        return
    os.environ[_PARALLELISM] = "false"
    try:
        yield
    finally:
        os.environ.pop(_PARALLELISM, None)


def _read(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}",
            expected=f"a folder with {TOKENIZER_JSON} and {TOKENIZER_CONFIG_JSON}",
            fix=FIX,
            path=path,
        ) from None
    if len(content) > MAX_BYTES:
        raise ConfigError(
            f"{path} has {path.stat().st_size} bytes", expected=f"at most {MAX_BYTES}", fix=FIX, path=path
        )
    return content
