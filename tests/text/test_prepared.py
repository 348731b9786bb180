"""Prepared folders: the same rows as without one, whole or absent, and no damaged file without an error."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.text.sentences import tokenizer
from tests.text.test_load import ROWS, SPEC, write_csv
from vitzoo.errors import ConfigError, DatasetError, FormatVersionError, RecordError
from vitzoo.text import TextDataset, TextSpec, iter_training_texts, load_text, prepare_texts
from vitzoo.text.load import _load, check_text, prepared_tokenizer

PAIRS = msgspec.structs.replace(SPEC, text_column="text", pair_column="other")
PACKED = msgspec.structs.replace(SPEC, text_column="text", packed=True, max_length=16)
SPECS = (msgspec.structs.replace(SPEC, text_column="text"), PAIRS, PACKED)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _load.cache_clear()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    rows = {name: rows | {"other": rows["text"][::-1]} for name, rows in ROWS.items()}
    return write_csv(tmp_path / "texts", rows)


@pytest.fixture
def prepared(tmp_path: Path, texts: Path) -> Path:
    assert prepare_texts(SPECS, tmp_path / "prepared", tokenizer=tokenizer(), data={"animals": texts})
    return tmp_path / "prepared"


def load(folder: Path, spec: TextSpec = SPECS[0]) -> TextDataset:
    return load_text(spec, data={"animals": folder})


@pytest.mark.parametrize("spec", SPECS, ids=["texts", "pairs", "packed"])
def test_prepared_rows_are_those_of_the_texts(prepared: Path, texts: Path, spec: TextSpec) -> None:
    mapped = load(prepared, spec)
    encoded = load_text(spec, tokenizer=tokenizer(), data={"animals": texts})
    assert mapped.fingerprint == encoded.fingerprint
    assert (mapped.revision, mapped.classes, mapped.tokenizer) == ("csv", encoded.classes, tokenizer())
    assert isinstance(mapped.train.token_ids, np.memmap)
    assert np.array_equal(mapped.train.take(np.array([2, 1])).token_ids, encoded.train.take(np.array([2, 1])).token_ids)
    assert load_text(spec, tokenizer=tokenizer(), data={"animals": prepared}).fingerprint == mapped.fingerprint
    check_text(spec, data={"animals": prepared})


def test_no_file_is_a_pickle(prepared: Path) -> None:
    names = {path.suffix for path in prepared.rglob("*") if path.is_file()}
    assert names == {".json", ".npy"}
    for path in prepared.rglob("*.npy"):
        np.load(path, allow_pickle=False)


def test_prepared_twice_is_the_same_folder(prepared: Path, texts: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in prepared.rglob("*")}
    assert not prepare_texts(SPECS[:2], prepared, tokenizer=tokenizer(), data={"animals": texts})
    assert before == {path: path.stat().st_mtime_ns for path in prepared.rglob("*")}
    assert sorted(path.name for path in prepared.parent.iterdir() if "prepared" in path.name) == ["prepared"]


def test_folder_of_another_tokenizer_is_refused(prepared: Path, texts: Path) -> None:
    for ask in (
        lambda: prepare_texts(SPECS, prepared, tokenizer=tokenizer(150), data={"animals": texts}),
        lambda: load_text(SPECS[0], tokenizer=tokenizer(150), data={"animals": prepared}),
    ):
        with pytest.raises(DatasetError, match=f"{tokenizer().sha256[:16]}.*{tokenizer(150).sha256[:16]}"):
            ask()
    assert prepared_tokenizer(SPEC, data={"animals": prepared}) == tokenizer()
    assert prepared_tokenizer(SPEC, data={"animals": texts}) is None
    assert prepared_tokenizer(SPEC) is None


def test_folder_without_the_data_set_is_refused(prepared: Path, texts: Path) -> None:
    longer = msgspec.structs.replace(SPECS[0], max_length=64)
    for ask in (
        lambda: load(prepared, longer),
        lambda: check_text(longer, data={"animals": prepared}),
        lambda: prepare_texts([longer], prepared, tokenizer=tokenizer(), data={"animals": texts}),
    ):
        with pytest.raises(DatasetError, match=r"does not have TextSpec\(.*max_length=64"):
            ask()
    with pytest.raises(DatasetError, match="but not its texts"):
        next(iter_training_texts(SPEC, data={"animals": prepared}))


@pytest.mark.parametrize("content", ["a file", "a folder with one"])
def test_folder_with_other_files_is_refused(tmp_path: Path, texts: Path, content: str) -> None:
    folder = tmp_path / "prepared"
    if content == "a file":
        folder.write_text("")
    else:
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")
    with pytest.raises(DatasetError, match="exists, and was not prepared"):
        prepare_texts(SPECS, folder, tokenizer=tokenizer(), data={"animals": texts})
    assert folder.is_file() or [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_empty_folder_is_taken(tmp_path: Path, texts: Path) -> None:
    (tmp_path / "prepared").mkdir()
    assert prepare_texts(SPECS, tmp_path / "prepared", tokenizer=tokenizer(), data={"animals": texts})


def test_bad_text_leaves_no_folder(tmp_path: Path) -> None:
    rows = ROWS["train"] | {"text": ["", *ROWS["train"]["text"][1:]]}
    texts = write_csv(tmp_path / "texts", ROWS | {"train": rows})
    with pytest.raises(DatasetError, match=r"is missing|is empty"):
        prepare_texts(SPECS[:1], tmp_path / "prepared", tokenizer=tokenizer(), data={"animals": texts})
    assert not [path for path in tmp_path.iterdir() if "prepared" in path.name]


PREPARE = """
import sys
from pathlib import Path
from tests.text.sentences import tokenizer
from tests.text.test_prepared import SPECS
from vitzoo.text import prepare_texts
def say(line):
    print(line, flush=True)
    if "wait" in sys.argv:
        import time
        time.sleep(60)
prepare_texts(SPECS, sys.argv[1], tokenizer=tokenizer(), data={"animals": sys.argv[2]}, say=say)
"""


def start(folder: Path, texts: Path, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", PREPARE, str(folder), str(texts), *arguments]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.slow
def test_killed_process_leaves_no_folder_and_the_next_one_writes_it(tmp_path: Path, texts: Path) -> None:
    folder = tmp_path / "prepared"
    run = start(folder, texts, "wait")
    assert run.stdout is not None
    assert run.stdout.readline().startswith("me/animals: 30 train, 8 val, 12 test rows")
    with pytest.raises(DatasetError, match="Another process prepares"):
        prepare_texts(SPECS, folder, tokenizer=tokenizer(), data={"animals": texts})
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=60)
    assert not folder.exists()
    assert (tmp_path / ".prepared.partial").exists()
    assert prepare_texts(SPECS, folder, tokenizer=tokenizer(), data={"animals": texts})
    assert [path.name for path in tmp_path.iterdir() if "prepared" in path.name] == ["prepared"]
    assert len(load(folder).train) == 30


def test_full_disk_leaves_no_folder(tmp_path: Path, texts: Path) -> None:
    """A limit of the size of files stands for a disk that fills up."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    no_bytecode = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}  # the limit would truncate it, for every later import
    run = start(tmp_path / "prepared", texts, preexec_fn=limit, env=no_bytecode)
    _, error = run.communicate(timeout=120)
    assert "cannot be written: File too large" in error, error
    assert not [path for path in tmp_path.iterdir() if "prepared" in path.name]


def rewrite(name: str, change: Callable[[np.ndarray], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        array = np.load(folder / "0" / name)
        result = change(array)
        np.save(folder / "0" / name, array if result is None else result)

    return damage


def truncate(folder: Path) -> None:
    path = folder / "0/train.token_ids.npy"
    os.truncate(path, path.stat().st_size - 8)


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "another token": (rewrite("train.token_ids.npy", lambda a: a.__setitem__(1, 9)), "has fingerprint"),
    "another label": (rewrite("val.labels.npy", lambda a: a.__setitem__(0, 1 - a[0])), "has fingerprint"),
    "label out of range": (rewrite("val.labels.npy", lambda a: a.__setitem__(0, 2)), "labels 0 to 2; expected 0 to 1"),
    "token out of range": (rewrite("test.token_ids.npy", lambda a: a.__setitem__(1, 160)), "token 160"),
    "negative token": (rewrite("test.token_ids.npy", lambda a: a.__setitem__(1, -1)), "token -1"),
    "padding on the left": (rewrite("test.token_ids.npy", lambda a: a.__setitem__(0, 0)), "has padding"),
    "no first token": (rewrite("test.token_ids.npy", lambda a: a.__setitem__(0, 9)), "does not begin with"),
    "longer row": (
        rewrite("train.offsets.npy", lambda a: a.__setitem__(slice(1, 6), [2, 4, 6, 8, 10])),
        r"Row 5 of .* has \d+ tokens; expected at most 48",
    ),
    "offsets that go back": (rewrite("train.offsets.npy", lambda a: a.__setitem__(1, 0)), "do not fill"),
    "fewer labels": (rewrite("train.labels.npy", lambda a: a[1:]), "one length"),
    "another type": (rewrite("train.labels.npy", lambda a: a.astype(np.float64)), "float64"),
    "a pickle": (
        rewrite("train.labels.npy", lambda a: np.array([{"a": 1}], dtype=object)),
        "labels.npy cannot be read",
    ),
    "truncated": (truncate, "token_ids.npy cannot be read"),
    "missing": (lambda folder: (folder / "0/train.labels.npy").unlink(), "labels.npy cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_array_is_refused(prepared: Path, damage: str) -> None:
    change, message = DAMAGE[damage]
    change(prepared)
    with pytest.raises(DatasetError, match=message) as error:
        load(prepared)
    assert error.value.dataset == "me/animals"
    assert error.value.fix == "Prepare the folder again."


def test_second_text_outside_of_its_row_is_refused(prepared: Path) -> None:
    path = prepared / "1/train.second.npy"
    np.save(path, np.load(path) + 48)
    with pytest.raises(DatasetError, match="begins outside of its row"):
        load(prepared, PAIRS)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"format": 2}, FormatVersionError, "format 2"),
        ({"more": 1}, RecordError, "more"),
        ({"tokenizer_sha256": "0" * 64}, DatasetError, r"prepared\.json has 0000"),
    ],
)
def test_damaged_record_is_refused(prepared: Path, change: dict[str, Any], error: type, message: str) -> None:
    path = prepared / "prepared.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(error, match=message):
        load(prepared)


def test_record_that_names_a_folder_elsewhere_is_refused(prepared: Path) -> None:
    path = prepared / "prepared.json"
    values = json.loads(path.read_text())
    values["datasets"][0]["folder"] = "../secret"
    path.write_text(json.dumps(values))
    with pytest.raises(RecordError, match="folder"):
        load(prepared)
    (prepared / "tokenizer.json").write_text("{}")
    path.write_text(json.dumps(values | {"datasets": []}))
    with pytest.raises(ConfigError):
        load(prepared)


@pytest.mark.slow
def test_real_sentences_are_prepared_once_for_three_names(tmp_path: Path, snippets_archive: Path) -> None:
    specs = [
        TextSpec(name="snippets-all", max_length=48, packed=True),
        TextSpec(name="snippets-films", max_length=48),
        TextSpec(name="snippets-others", max_length=48),
    ]
    folder = tmp_path / "prepared"
    prepare_texts(specs, folder, tokenizer=tokenizer(), data={"snippets": snippets_archive})
    loaded = [load_text(spec, data={"snippets": folder}) for spec in specs]
    assert [len(dataset.test) for dataset in loaded[1:]] == [710, 641]
    with pytest.raises(DatasetError, match="does not have"):
        load_text("snippets-films", data={"snippets": folder})
