"""The snippets: fixed splits by sentence, and clear errors for an archive that cannot be had or is another file."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.text.archive import GENRES, lines_of, make_archive
from tests.text.sentences import tokenizer
from vitzoo.errors import DatasetError
from vitzoo.text import TextSpec, load_text
from vitzoo.text.assemble import TextParts, encode_texts
from vitzoo.text.load import iter_training_texts
from vitzoo.text.snippets import ARCHIVE, find_archive, parse_snippets

FILMS = TextSpec(name="snippets-films", max_length=48)


def texts_of(parts: TextParts, part: str) -> list[str]:
    return [text for texts, _ in parts.iter_texts(part) for text in texts]


def rating(line: str) -> float:
    return float(line.split("\t")[1])


@pytest.mark.parametrize(
    ("name", "genres", "threshold"), [("films", GENRES[:1], 1.5), ("others", GENRES[1:], 1.0), ("all", GENRES, None)]
)
def test_sentences_with_a_class_are_in_one_part(name: str, genres: tuple[str, ...], threshold: float | None) -> None:
    parts = parse_snippets(TextSpec(name=f"snippets-{name}"), make_archive())
    lines = [line for genre in genres for line in lines_of(genre)]
    found = {}
    for part, source in parts.sources.items():
        assert source.labels is not None
        places = parts.places[part]
        samples = zip(source.labels[places].tolist(), source.indices[places].tolist(), strict=True)
        found |= dict(zip(texts_of(parts, part), samples, strict=True))
    expected = {
        line.split("\t")[2]: (int(rating(line) > 0), place)
        for place, line in enumerate(lines)
        if abs(rating(line)) >= (threshold or (1.5 if place < 60 else 1.0))
    }
    assert found == expected
    assert sum(map(len, parts.places.values())) == len(expected)


def test_part_of_a_sentence_is_the_same_in_every_data_set() -> None:
    archive = make_archive()
    parts = {}
    for name in ("films", "others", "all"):
        for packed in (False, True):
            chosen = parse_snippets(TextSpec(name=f"snippets-{name}", packed=packed), archive)
            for part in ("train", "val", "test"):
                for text in texts_of(chosen, part):
                    assert parts.setdefault(text, part) == part
    assert len(parts) == 240  # packed rows have every sentence


def test_repeated_contradictory_and_escaped_sentences() -> None:
    lines = lines_of(GENRES[0])
    more = [
        "1\t2.0\tTwice &amp;amp; good&#33;",
        "2\t3.0\ttwice &  GOOD!",
        "3\t2.0\tBoth signs.",
        "4\t-2.0\tBoth signs.",
        "5\t2.0\t  ",
    ]
    parts = parse_snippets(FILMS, make_archive({GENRES[0]: [*lines, *more]}))
    found = [text for part in ("train", "val", "test") for text in texts_of(parts, part)]
    assert found.count("Twice & good!") == 1
    assert not {"twice &  GOOD!", "Both signs.", ""} & set(found)
    packed = parse_snippets(TextSpec(name="snippets-films", packed=True), make_archive({GENRES[0]: [*lines, *more]}))
    assert sum(text == "Both signs." for part in packed.places for text in texts_of(packed, part)) == 1


@pytest.mark.parametrize("line", ["1\tmuch\tText", "1\tnan\tText", "1\t2.0", "1\t2.0\ta\tb"])
def test_line_of_another_form_is_refused(line: str) -> None:
    archive = make_archive({GENRES[0]: [*lines_of(GENRES[0]), line]})
    with pytest.raises(DatasetError, match=r"Line 61 of .*movieReviewSnippets_GroundTruth"):
        parse_snippets(FILMS, archive)


def test_archive_that_cannot_be_read_is_refused() -> None:
    latin = make_archive({GENRES[0]: ["1\t2.0\tcaf\u00e9"]}, encoding="latin-1")
    whole = make_archive()
    for damaged in (latin, whole[:200], b"", b"PK\x03\x04", make_archive()[:-40]):
        with pytest.raises(DatasetError, match="has no readable hutto_ICWSM_2014/movieReviewSnippets") as error:
            parse_snippets(FILMS, damaged)
        assert "pip download" in str(error.value.fix)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (ARCHIVE, None, "does not exist"),
        (ARCHIVE, b"x" * 100, "is truncated: it has 100 bytes of 2466783"),
        (ARCHIVE, b"x" * 2_466_783, "has sha256 "),
        ("vaderSentiment-3.3.2-py2.py3-none-any.whl", b"x", "is a wheel"),
        (ARCHIVE, "zip", "is a wheel"),
    ],
)
@pytest.mark.parametrize("named", ["file", "folder"])
def test_other_file_than_the_archive_is_refused(
    tmp_path: Path, name: str, content: bytes | str | None, message: str, named: str
) -> None:
    file = tmp_path / name
    if content == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("vaderSentiment/__init__.py", "")
    elif isinstance(content, bytes):
        file.write_bytes(content)
    if named == "folder" and file.name != ARCHIVE:
        message = "does not exist"
    with pytest.raises(DatasetError, match=message) as error:
        load_text(FILMS, tokenizer=tokenizer(), data={"snippets": tmp_path if named == "folder" else file})
    assert error.value.dataset == "snippets-films"
    assert 'data={"snippets": "FILE"}' in str(error.value.fix) or "--data snippets" in str(error.value.fix)


def test_snippets_have_their_own_splits() -> None:
    with pytest.raises(DatasetError, match="has its own splits and columns"):
        load_text(TextSpec(name="snippets-films", held_out=5), tokenizer=tokenizer())


def test_archive_is_not_fetched_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DatasetError, match="HF_HUB_OFFLINE is set") as error:
        load_text(FILMS, tokenizer=tokenizer())
    assert f"--dest {tmp_path / 'vitzoo'}" in str(error.value.fix)
    (tmp_path / "vitzoo" / ARCHIVE).write_bytes(b"x" * 100)
    with pytest.raises(DatasetError, match=r"is truncated.* and HF_HUB_OFFLINE is set"):
        load_text(FILMS, tokenizer=tokenizer())


def test_failure_of_pip_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with pytest.raises(DatasetError, match="pip could not fetch the sentences") as error:
        find_archive("snippets-films", None)
    assert "pip download --no-deps --no-binary vaderSentiment" in str(error.value.fix)
    assert [path.name for path in (tmp_path / "vitzoo").iterdir()] == [f"{ARCHIVE}.lock"]


def test_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DatasetError, match="cannot be written"):
        find_archive("snippets-films", None)


def test_real_sentences_have_fixed_splits(snippets_archive: Path) -> None:
    """Counts of the splits, frozen: zoos are trained on them."""
    data = {"snippets": snippets_archive}
    films = load_text(FILMS, tokenizer=tokenizer(), data=data)
    counts = [np.bincount(split.labels).tolist() for split in (films.train, films.val, films.test)]
    assert counts == [[2784, 2873], [348, 362], [318, 392]]
    assert films.classes == ("negative", "positive")
    assert len({*films.train.indices, *films.val.indices, *films.test.indices}) == 5657 + 710 + 710
    others = load_text(TextSpec(name="snippets-others", max_length=48), tokenizer=tokenizer(), data=data)
    assert [len(split) for split in (others.train, others.val, others.test)] == [5258, 690, 641]
    texts = list(iter_training_texts(TextSpec(name="snippets-all", packed=True), data=data))
    assert not [text for text in texts if "&amp;" in text or not text.strip()]
    assert len(texts) == len({" ".join(text.casefold().split()) for text in texts}) == 18_822


def test_two_processes_wait_for_one_archive(snippets_archive: Path, tmp_path: Path) -> None:
    code = (
        "import shutil, sys, time\nfrom pathlib import Path\nfrom vitzoo.text import snippets\n"
        "def fetch(name, file, problem):\n"
        "    time.sleep(0.5)\n    shutil.copyfile(sys.argv[1], file)\n    print('fetched')\n"
        "snippets._fetch = fetch\nsnippets.find_archive('snippets-all', None)"
    )
    command = [sys.executable, "-c", code, str(snippets_archive)]
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    runs = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(run.communicate(timeout=60)[0] for run in runs) == ["", "fetched\n"]


def test_packed_rows_are_cut_from_the_stream() -> None:
    parts = parse_snippets(TextSpec(name="snippets-all", max_length=20, packed=True), make_archive())
    made = tokenizer()
    dataset = encode_texts(parts, made)
    stream = made.encode_stream(texts_of(parts, "train"))
    rows = dataset.train.token_ids.reshape(-1, 20)
    assert (rows[:, 0] == made.cls_id).all()
    assert rows[:, 1:].reshape(-1).tolist() == stream[: len(rows) * 19].tolist()
    assert len(stream) - len(rows) * 19 < 19
    assert set(dataset.train.labels) == {-1}
    assert dataset.classes == ()
    with pytest.raises(DatasetError, match="one row of max_length 60000"):
        encode_texts(
            parse_snippets(TextSpec(name="snippets-all", max_length=60_000, packed=True), make_archive()), made
        )
