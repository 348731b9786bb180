"""Check tokenizer.json and tokenizer_config.json of `tokenizers` and transformers, before anything else parses them.

A file may only have the parts that the structs below list. None of them takes a regular expression or code, and none
makes a text longer than BERT's special tokens do. See `tokenizer.py` for tokenizers that encode texts.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from vitzoo.errors import ConfigError, printable, shown
from vitzoo.records.dataset_spec import MIN_ROW
from vitzoo.records.layout import TOKENIZER_CONFIG_JSON

SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_MAX_ADDED = 1000  # tokens beside the model's, as BERT's 994 unused ones
FIX = "Get the file again, or train another with vitzoo.text.train_bpe."

_Name = Annotated[str, Meta(min_length=1, max_length=100)]


class _Part(Struct, forbid_unknown_fields=True, tag_field="type", tag=lambda name: name.rpartition("_")[2]):
    """A part of a tokenizer, named by its ``type``: the class's name without what is before the last underscore."""


class _BertNormalizer(_Part):
    clean_text: bool
    handle_chinese_chars: bool
    strip_accents: bool | None
    lowercase: bool


class _Lowercase(_Part):
    pass


class _NFC(_Part):
    pass


class _NFD(_Part):
    pass


class _NFKC(_Part):
    pass


class _NFKD(_Part):
    pass


class _StripAccents(_Part):
    pass


class _Strip(_Part):
    strip_left: bool
    strip_right: bool


_Normalizer = _BertNormalizer | _Lowercase | _NFC | _NFD | _NFKC | _NFKD | _StripAccents | _Strip


class _Normalizers_Sequence(_Part):
    normalizers: list[_Normalizer]


class _BertPreTokenizer(_Part):
    pass


class _Whitespace(_Part):
    pass


class _WhitespaceSplit(_Part):
    pass


class _Punctuation(_Part):
    behavior: Literal["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]


class _Digits(_Part):
    individual_digits: bool


class _ByteLevel(_Part):
    add_prefix_space: bool
    trim_offsets: bool
    use_regex: bool = True  # a fixed one, of GPT-2


class _Metaspace(_Part):
    replacement: Annotated[str, Meta(min_length=1, max_length=1)]
    prepend_scheme: Literal["first", "never", "always"]
    split: bool


_PreTokenizer = _BertPreTokenizer | _Whitespace | _WhitespaceSplit | _Punctuation | _Digits | _ByteLevel | _Metaspace


class _PreTokenizers_Sequence(_Part):
    pretokenizers: list[_PreTokenizer]


class _WordPieceDecoder_WordPiece(_Part):
    prefix: _Name
    cleanup: bool


class _BPEDecoder(_Part):
    suffix: str


_Decoder = _WordPieceDecoder_WordPiece | _ByteLevel | _Metaspace | _BPEDecoder


class _Piece(Struct, forbid_unknown_fields=True):
    id: str
    type_id: int


_Template = Annotated[list[dict[Literal["SpecialToken", "Sequence"], _Piece]], Meta(max_length=8)]


class _TemplateToken(Struct, forbid_unknown_fields=True):
    id: str
    ids: list[int]
    tokens: list[str]


class _TemplateProcessing(_Part):
    single: _Template
    pair: _Template
    special_tokens: Annotated[dict[str, _TemplateToken], Meta(max_length=8)]


class _BertProcessing(_Part):
    sep: tuple[str, int]
    cls: tuple[str, int]


_Vocabulary = Annotated[dict[str, Annotated[int, Meta(ge=0)]], Meta(min_length=1)]


class _BPE(_Part):
    vocab: _Vocabulary
    merges: list[tuple[str, str] | str]
    unk_token: str | None = None
    dropout: None = None  # it would make the tokens random
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None
    fuse_unk: bool = False
    byte_fallback: bool = False
    ignore_merges: bool = False


class _WordPiece(_Part):
    vocab: _Vocabulary
    unk_token: str
    continuing_subword_prefix: str = "##"
    max_input_chars_per_word: Annotated[int, Meta(ge=1, le=1000)] = 100


class _AddedToken(Struct, forbid_unknown_fields=True):
    content: _Name
    single_word: bool
    lstrip: bool
    rstrip: bool
    normalized: bool
    special: bool
    id: int | UnsetType = UNSET


class _Truncation(Struct, forbid_unknown_fields=True):
    """Truncation that was switched on when the file was saved. Encoding replaces it."""

    direction: Literal["Right"]
    max_length: int
    strategy: str
    stride: int


class _Padding(Struct, forbid_unknown_fields=True):
    """Padding that was switched on when the file was saved. Encoding replaces it."""

    strategy: Any
    direction: Literal["Right"]
    pad_to_multiple_of: int | None
    pad_id: int
    pad_type_id: int
    pad_token: str


class _TokenizerFile(Struct, forbid_unknown_fields=True):
    version: Literal["1.0"]
    truncation: _Truncation | None
    padding: _Padding | None
    added_tokens: Annotated[list[_AddedToken], Meta(max_length=_MAX_ADDED)]
    normalizer: _Normalizer | _Normalizers_Sequence | None
    pre_tokenizer: _PreTokenizer | _PreTokenizers_Sequence | None
    post_processor: _TemplateProcessing | _BertProcessing
    decoder: _Decoder | None
    model: _BPE | _WordPiece


_TokenName = _Name | dict[str, Any]
_NoTokens = Annotated[dict[str, str], Meta(max_length=0)] | Annotated[list[str], Meta(max_length=0)] | None


class _ConfigFile(Struct, forbid_unknown_fields=True):
    tokenizer_class: Literal[
        "BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend", None
    ] = None
    pad_token: _TokenName = SPECIAL_TOKENS["pad_token"]
    unk_token: _TokenName = SPECIAL_TOKENS["unk_token"]
    cls_token: _TokenName = SPECIAL_TOKENS["cls_token"]
    sep_token: _TokenName = SPECIAL_TOKENS["sep_token"]
    mask_token: _TokenName = SPECIAL_TOKENS["mask_token"]
    model_max_length: Annotated[float, Meta(ge=MIN_ROW)] | None = None
    model_input_names: list[Literal["input_ids", "token_type_ids", "attention_mask"]] | None = None
    padding_side: Literal["right"] = "right"
    truncation_side: Literal["right"] = "right"
    do_lower_case: bool | None = None
    added_tokens_decoder: dict[str, _AddedToken] | None = None
    # Values that change no token, or that transformers writes beside the ones above.
    backend: Literal["tokenizers"] | None = None
    clean_up_tokenization_spaces: bool | None = None
    do_basic_tokenize: bool | None = None
    extra_special_tokens: _NoTokens = None
    is_local: bool | None = None
    local_files_only: bool | None = None
    max_length: int | None = None
    never_split: list[str] | None = None
    pad_to_multiple_of: int | None = None
    pad_token_type_id: int | None = None
    stride: int | None = None
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool | None = None
    truncation_strategy: str | None = None


class TokenizerTokens(NamedTuple):
    """The tokens of a checked tokenizer.json.

    Args:
        vocab_size: Number of tokens; ids are from 0 to below.
        special_tokens: Texts of the special tokens, in the order of `SPECIAL_TOKENS`.
        special_ids: Their ids.
    """

    vocab_size: int
    special_tokens: tuple[str, ...]
    special_ids: tuple[int, ...]


def check_tokenizer_json(content: bytes, *, path: Path, config: bytes | None = None) -> TokenizerTokens:
    """Check a tokenizer.json, and the tokenizer_config.json beside it, without `tokenizers`.

    Args:
        content: Bytes of tokenizer.json.
        path: Path of tokenizer.json, for messages.
        config: Bytes of tokenizer_config.json; None where there is none, and special tokens have BERT's names.

    Raises:
        ConfigError: A file is not JSON, has a part that is not allowed, lacks a special token or has it twice, or the
            two files disagree.
    """
    file = _decode(_TokenizerFile, content, path)
    config_path = path.with_name(TOKENIZER_CONFIG_JSON)
    settings = _ConfigFile() if config is None else _decode(_ConfigFile, config, config_path)
    ids = _token_ids(file, path)
    names = {field: _token_name(getattr(settings, field), field, config_path) for field in SPECIAL_TOKENS}
    contents = [token.content for token in file.added_tokens]
    for field, name in names.items():
        if name not in ids or contents.count(name) > 1 or list(names.values()).count(name) > 1:
            problem = f"lacks the {field} {shown(name)}" if name not in ids else f"has the {field} {shown(name)} twice"
            raise ConfigError(f"{path} {problem}", expected="each special token once", fix=FIX, path=path, key=field)
    if file.model.unk_token not in (None, names["unk_token"]):
        raise _disagree(path, "unk_token", file.model.unk_token, names["unk_token"])
    _check_template(file.post_processor, names, ids, path)
    if config is not None:
        _check_agreement(file, settings, config_path)
    return TokenizerTokens(
        vocab_size=len(ids),
        special_tokens=tuple(names.values()),
        special_ids=tuple(ids[name] for name in names.values()),
    )


def _decode(cls: Any, content: bytes, path: Path) -> Any:
    try:
        values = msgspec.json.decode(content)
        model = values.get("model") if isinstance(values, dict) else None
        if isinstance(model, dict):  # files of 2020 lack the type
            model.setdefault("type", "BPE" if "merges" in model else "WordPiece")
        return msgspec.convert(values, type=cls)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(
            f"{path} is not a tokenizer that may be loaded: {printable(str(error))[:300].rstrip(' .')}",
            expected="BPE or WordPiece with parts of a fixed list, without regular expressions, and padding on the "
            "right",
            fix=FIX,
            path=path,
        ) from None


def _token_ids(file: _TokenizerFile, path: Path) -> dict[str, int]:
    """Return the id of every token, or raise ConfigError unless they are 0, 1, 2, ... and each is given once."""
    ids = dict(file.model.vocab)
    for token in file.added_tokens:
        if ids.setdefault(token.content, token.id if isinstance(token.id, int) else -1) != token.id:
            raise _disagree(path, token.content, token.id, ids[token.content])
    missing = set(range(len(ids))) - set(ids.values())
    if missing:
        raise ConfigError(
            f"{path} has {len(ids)} tokens, but none with id {min(missing)}",
            expected=f"ids from 0 to {len(ids) - 1}, each once",
            fix=FIX,
            path=path,
            key="vocab",
        )
    return ids


def _token_name(value: str | dict[str, Any], field: str, path: Path) -> str:
    """Return a special token's text, which older files have in an object."""
    name = value.get("content") if isinstance(value, dict) else value
    if not isinstance(name, str):
        raise ConfigError(f"{path} says {field}: {shown(value)}", expected="a text", fix=FIX, path=path, key=field)
    return name


def _check_template(
    processor: _TemplateProcessing | _BertProcessing, names: dict[str, str], ids: dict[str, int], path: Path
) -> None:
    """Check that rows are [CLS] A [SEP] and [CLS] A [SEP] B [SEP], as BERT's are."""
    cls, sep = names["cls_token"], names["sep_token"]
    if isinstance(processor, _BertProcessing):
        sound = (processor.cls, processor.sep) == ((cls, ids[cls]), (sep, ids[sep]))
    else:
        pair = [
            {kind: _Piece(id=name, type_id=type_id)}
            for kind, name, type_id in (
                ("SpecialToken", cls, 0),
                ("Sequence", "A", 0),
                ("SpecialToken", sep, 0),
                ("Sequence", "B", 1),
                ("SpecialToken", sep, 1),
            )
        ]
        tokens = {name: _TemplateToken(id=name, ids=[ids[name]], tokens=[name]) for name in (cls, sep)}
        sound = (processor.single, processor.pair, processor.special_tokens) == (pair[:3], pair, tokens)
    if not sound:
        raise ConfigError(
            f"{path} has a post_processor with another template",
            expected=f"{cls} A {sep} for a text and {cls} A {sep} B {sep} for a pair, each special token once",
            fix=FIX,
            path=path,
            key="post_processor",
        )


def _check_agreement(file: _TokenizerFile, settings: _ConfigFile, path: Path) -> None:
    """Check that tokenizer_config.json says nothing else than tokenizer.json."""
    normalizer = file.normalizer
    parts = normalizer.normalizers if isinstance(normalizer, _Normalizers_Sequence) else [normalizer]
    lowercase = any(isinstance(part, _Lowercase) or getattr(part, "lowercase", False) for part in parts)
    if settings.do_lower_case not in (None, lowercase):
        raise _disagree(path, "do_lower_case", settings.do_lower_case, lowercase)
    added = {str(token.id): token.content for token in file.added_tokens}
    for token_id, token in (settings.added_tokens_decoder or {}).items():
        if added.get(token_id) != token.content:
            raise _disagree(path, f"added_tokens_decoder {token_id}", token.content, added.get(token_id))


def _disagree(path: Path, key: str, value: object, other: object) -> ConfigError:
    return ConfigError(
        f"{path} says {shown(key)}: {shown(value)}",
        expected=f"{shown(other)}, as in the rest of the tokenizer",
        fix=FIX,
        path=path,
        key=key,
    )
