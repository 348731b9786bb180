"""Verification of tokenizers: of the recorded digest, no larger than the vocabulary, one in a zoo."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.text.sentences import tokenizer
from tests.verification.damage import CHILD, edit_json, edit_record
from vitzoo import Zoo
from vitzoo.verification.verify import verify_zoo


def another(zoo: Path) -> None:
    tokenizer(159).write(zoo / CHILD, max_length=60)


def another_and_recorded(zoo: Path) -> None:
    another(zoo)
    edit_record(zoo, CHILD, tokenizer_sha256=tokenizer(159).sha256)


def not_recorded(zoo: Path) -> None:
    edit_record(zoo, CHILD, tokenizer_sha256=None)


def larger(zoo: Path) -> None:
    tokenizer(161).write(zoo / CHILD, max_length=60)
    edit_record(zoo, CHILD, tokenizer_sha256=tokenizer(161).sha256)


def not_allowed(zoo: Path) -> None:
    edit_json(zoo / CHILD / "tokenizer_config.json", padding_side="left")


OWN = r"tokenizer.json: says {}, but 5 of 6 members {}"
FAULTS: list[tuple[Callable[[Path], None], list[str]]] = [
    (
        another,
        [
            r'tokenizer.json: is not the tokenizer of member.json, "\w+\.\.\.',
            OWN.format(r"sha256 \S+", r"\S+"),
            OWN.format("vocab_size 159", "160"),
        ],
    ),
    (another_and_recorded, [OWN.format(r"sha256 \S+", r"\S+"), OWN.format("vocab_size 159", "160")]),
    (not_recorded, ["tokenizer.json: is not the tokenizer of member.json, null"]),
    (
        larger,
        [
            "The tokenizer has 161 tokens, config.json has a vocab_size of 160; expected at most 160 tokens",
            OWN.format(r"sha256 \S+", r"\S+"),
            OWN.format("vocab_size 161", "160"),
        ],
    ),
    (not_allowed, [r".*tokenizer_config.json is not a tokenizer that may be loaded: .*left.*"]),
]


@pytest.mark.parametrize(("fault", "expected"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_fault_of_a_tokenizer_is_found(
    text_zoo: Path, tmp_path: Path, fault: Callable[[Path], None], expected: list[str]
) -> None:
    zoo = Path(shutil.copytree(text_zoo, tmp_path / "zoo"))
    fault(zoo)
    found = [problem for problem in verify_zoo(Zoo(zoo)).problems if problem.member is not None]
    assert {str(problem.member) for problem in found} == {CHILD}
    assert len(found) == len(expected), found
    for problem, text in zip(found, expected, strict=True):
        assert re.fullmatch(text, problem.what), problem.what
