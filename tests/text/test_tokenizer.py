"""Tokenizers: equal bytes from every training, transformers' ids, and no hostile or contradictory file."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from tests.text.sentences import as_json, from_json, sentence, tokenizer
from vitzoo.errors import ConfigError, DatasetError, UnsafePathError
from vitzoo.text import load_tokenizer, train_bpe
from vitzoo.text.tokenizer import MAX_BYTES, check_tokenizer

ROOT = Path(__file__).parents[2]
TRAIN = """
import sys
from tests.text.sentences import sentence
from vitzoo.text import train_bpe
texts = [sentence(seed) for seed in range(200)]
print(train_bpe(reversed(texts) if "reversed" in sys.argv else texts, 160).sha256)
"""


@pytest.mark.parametrize(("seed", "order"), [("0", "as they are"), ("1", "as they are"), ("2", "reversed")])
def test_training_gives_equal_bytes_in_every_process(seed: str, order: str) -> None:
    environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", TRAIN, order]
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == [tokenizer().sha256]


def test_training_gives_the_tokens_that_were_asked_for() -> None:
    made = tokenizer()
    assert made.vocab_size == len(as_json(made)["model"]["vocab"]) == 160
    assert made.special_ids == (made.pad_id, made.unk_id, made.cls_id, made.sep_id, made.mask_id) == (0, 1, 2, 3, 4)
    encoded = made.encode(["The gentle otter!", "Ünknown \u4e2d"], max_length=48)
    first = encoded.token_ids[: encoded.offsets[1]].tolist()
    assert (first[0], first[-1]) == (made.cls_id, made.sep_id)
    assert made.decode(first) == "the gentle otter!" or made.unk_id in first
    assert made.unk_id in encoded.token_ids[encoded.offsets[1] :]


def test_rare_characters_become_unknown() -> None:
    texts = [sentence(seed) for seed in range(200)]
    rare = "".join(map(chr, range(0x4E00, 0x4E00 + 100)))
    vocabulary = as_json(train_bpe([*texts, rare], 160))["model"]["vocab"]
    assert len(vocabulary) == 160
    assert sum(len(token) == 1 for token in vocabulary) <= 160 // 4 + 1


@pytest.mark.parametrize("vocab_size", [10, 100_000])
def test_vocabulary_that_texts_cannot_give_is_refused(vocab_size: int) -> None:
    with pytest.raises(DatasetError, match=str(vocab_size)):
        train_bpe(map(sentence, range(20)), vocab_size)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("max_length", [48, 12])
def test_transformers_loads_it_and_gives_the_same_rows(tmp_path: Path, pairs: bool, max_length: int) -> None:
    made = tokenizer()
    made.write(tmp_path, max_length=max_length)
    assert load_tokenizer(tmp_path) == made
    texts = [sentence(seed) for seed in range(40)]
    second = [sentence(seed + 1)[: seed * 3] + "x" for seed in range(40)] if pairs else None
    theirs: Any = AutoTokenizer.from_pretrained(str(tmp_path))
    expected = theirs(texts, second, truncation=True)
    encoded = made.encode(texts, second, max_length=max_length)
    rows = np.split(encoded.token_ids, encoded.offsets[1:-1])
    assert [row.tolist() for row in rows] == expected["input_ids"]
    assert theirs.model_max_length == max_length
    if encoded.second is not None:
        starts = [types.index(1) for types in expected["token_type_ids"]]
        assert encoded.second.tolist() == starts


def test_stream_has_every_token_and_a_separator_after_each_text() -> None:
    made = tokenizer()
    texts = [sentence(seed) for seed in range(5)]
    encoded = made.encode(texts, max_length=1000)
    rows = np.split(encoded.token_ids, encoded.offsets[1:-1])
    assert made.encode_stream(texts).tolist() == [token for row in rows for token in row[1:].tolist()]
    assert made.encode_stream([]).tolist() == []
    assert len(made.encode([], max_length=8).token_ids) == 0


def test_saved_again_by_transformers_is_the_same_tokenizer(tmp_path: Path) -> None:
    tokenizer().write(tmp_path, max_length=48)
    theirs: Any = AutoTokenizer.from_pretrained(str(tmp_path))
    theirs(["One", "Two and three"], padding=True, truncation=True, return_tensors="pt")
    theirs.save_pretrained(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    texts = [sentence(seed) for seed in range(10)]
    for ours, saved in zip(tokenizer().encode(texts, max_length=10), again.encode(texts, max_length=10), strict=True):
        assert (ours is saved is None) or np.array_equal(ours, saved)  # pyright: ignore[reportArgumentType]


def test_wordpiece_of_bert_is_loaded(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    with pytest.raises(ConfigError, match=r"vocab\.txt alone"):
        load_tokenizer(tmp_path)
    from transformers import BertTokenizer

    BertTokenizer(vocab={word: place for place, word in enumerate(words)}).save_pretrained(tmp_path / "bert")
    loaded = load_tokenizer(tmp_path / "bert")
    assert loaded.vocab_size == 8
    assert loaded.encode(["The cats"], max_length=8).token_ids.tolist() == [2, 5, 6, 7, 3]


def test_forms_of_older_files_give_the_same_rows(tmp_path: Path) -> None:
    """Files of 2020 have no type of the model, merges as texts, and BERT's own processing instead of a template."""
    values = as_json(tokenizer())
    del values["model"]["type"]
    values["model"]["merges"] = [" ".join(merge) for merge in values["model"]["merges"]]
    values["post_processor"] = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    older = from_json(values, tmp_path / "tokenizer.json")
    texts = [sentence(seed) for seed in range(10)]
    for pairs in (None, texts[::-1]):
        expected = tokenizer().encode(texts, pairs, max_length=40)
        for ours, theirs in zip(older.encode(texts, pairs, max_length=40), expected, strict=True):
            assert (ours is theirs is None) or np.array_equal(ours, theirs)  # pyright: ignore[reportArgumentType]
    values["post_processor"]["sep"] = ["[SEP]", 4]
    with pytest.raises(ConfigError, match="template"):
        from_json(values, tmp_path / "tokenizer.json")


def test_pickled_tokenizer_encodes_the_same() -> None:
    made = tokenizer()
    again = pickle.loads(pickle.dumps(made))
    assert again == made
    assert np.array_equal(
        again.encode([sentence(1)], max_length=48).token_ids, made.encode([sentence(1)], max_length=48).token_ids
    )


def _special(values: dict[str, Any], **change: Any) -> dict[str, Any]:
    return next(token for token in values["added_tokens"] if token["content"] == "[CLS]") | change


SPLIT = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
REPLACE = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "b"}
DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "regular expression": (lambda v: v.update(pre_tokenizer=SPLIT), "Split"),
    "regular expression in a sequence": (lambda v: v["pre_tokenizer"]["pretokenizers"].append(SPLIT), "Split"),
    "regular expression of a normalizer": (lambda v: v.update(normalizer=REPLACE), "Replace"),
    "another model": (lambda v: v["model"].update(type="Unigram"), "Unigram"),
    "dropout": (lambda v: v["model"].update(dropout=0.1), "dropout"),
    "unknown key": (lambda v: v.update(auto_map={"AutoTokenizer": "x.Y"}), "auto_map"),
    "missing key": (lambda v: v.pop("post_processor"), "post_processor"),
    "padding on the left": (
        lambda v: v.update(
            padding={
                "strategy": "BatchLongest",
                "direction": "Left",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "[PAD]",
            }
        ),
        "Left",
    ),
    "special token missing": (
        lambda v: (
            v["model"]["vocab"].update({"[M]": v["model"]["vocab"].pop("[MASK]")}),
            v["added_tokens"].pop(),
        ),
        "mask_token",
    ),
    "special token twice": (lambda v: v["added_tokens"].append(_special(v)), r"\[CLS\].* twice"),
    "special token with another id": (lambda v: v["added_tokens"].append(_special(v, content="[PAD]")), "PAD"),
    "gap in the ids": (lambda v: v["model"]["vocab"].update({"zz": 999}), "none with id"),
    "template of a thousand tokens": (
        lambda v: v["post_processor"]["special_tokens"]["[CLS]"].update(ids=[2] * 1000, tokens=["[CLS]"] * 1000),
        "template",
    ),
    "template without a separator": (lambda v: v["post_processor"]["single"].pop(), "template"),
    "template with two classes": (
        lambda v: v["post_processor"]["single"].insert(0, {"SpecialToken": {"id": "[CLS]", "type_id": 0}}),
        "template",
    ),
    "merge of unknown tokens": (lambda v: v["model"]["merges"].append(["q", "qqq"]), "refused by tokenizers"),
    "unknown token of the model": (lambda v: v["model"].update(unk_token="[PAD]"), "unk_token"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_file_that_may_not_be_loaded_is_refused(damage: str, tmp_path: Path) -> None:
    values = as_json(tokenizer())
    change, message = DAMAGE[damage]
    change(values)
    with pytest.raises(ConfigError, match=message) as error:
        from_json(values, tmp_path / "tokenizer.json")
    assert error.value.path == tmp_path / "tokenizer.json"
    assert error.value.expected
    assert error.value.fix


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cls_token": "[BOS]"}, "cls_token"),
        ({"cls_token": "[SEP]"}, "cls_token.*twice"),
        ({"do_lower_case": False}, "do_lower_case"),
        ({"padding_side": "left"}, "left"),
        ({"auto_map": {"AutoTokenizer": ["x.Y", None]}}, "auto_map"),
        ({"tokenizer_class": "MyTokenizer"}, "MyTokenizer"),
        ({"model_max_length": 3}, "model_max_length"),
        ({"chat_template": "{{ x }}"}, "chat_template"),
        ({"added_tokens_decoder": {"2": _special(as_json(tokenizer()), content="[SEP]") | {"id": 2}}}, "added_tokens"),
    ],
)
def test_settings_that_disagree_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    tokenizer().write(tmp_path, max_length=48)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ConfigError, match=message):
        load_tokenizer(tmp_path)


def test_file_that_is_missing_large_or_not_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_tokenizer(tmp_path)
    tokenizer().write(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(ConfigError, match=r"tokenizer_config\.json cannot be read"):
        load_tokenizer(tmp_path)
    assert load_tokenizer(tmp_path / "tokenizer.json") == tokenizer()
    values = as_json(tokenizer())
    values["model"]["vocab"] |= {"a" * 100 + str(token): token for token in range(160, 50_000)}
    for content, message in (
        (json.dumps(values).encode(), f"expected at most {MAX_BYTES}"),
        (b"{", "not a tokenizer"),
        (b"\xff\xfe", "not a tokenizer"),
        (b"[" * 100_000, "not a tokenizer"),
    ):
        (tmp_path / "tokenizer.json").write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            load_tokenizer(tmp_path / "tokenizer.json")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UnsafePathError):
        load_tokenizer(tmp_path / "fifo")


def test_tokenizer_of_another_model_is_refused() -> None:
    made = tokenizer()
    check_tokenizer(made, vocab_size=160, sha256=made.sha256, by="pt-0")
    check_tokenizer(made, vocab_size=192, by="pt-0")
    with pytest.raises(ConfigError, match="160 tokens, pt-0 has a vocab_size of 159"):
        check_tokenizer(made, vocab_size=159, by="pt-0")
    with pytest.raises(ConfigError, match="sha256"):
        check_tokenizer(made, vocab_size=160, sha256="0" * 64, by="pt-0")


def test_fork_after_encoding_does_not_warn_and_encodes(capfd: pytest.CaptureFixture[str]) -> None:
    code = (
        "import os\nfrom tests.text.sentences import sentence, tokenizer\n"
        "texts = [sentence(seed) for seed in range(500)]\nmade = tokenizer()\n"
        "rows = made.encode(texts, max_length=48)\nchild = os.fork()\n"
        "if child == 0:\n    same = (made.encode(texts, max_length=48).token_ids == rows.token_ids).all()\n"
        "    os._exit(0 if same else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (run.returncode, run.stderr) == (0, "")
