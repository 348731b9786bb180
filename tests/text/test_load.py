"""Data sets of texts in folders and on the Hub: equal rows from every layout, and no bad text without an error."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.hub import Hub
from tests.text.sentences import CLASSES, label_of, sentence, tokenizer
from vitzoo.errors import DatasetError
from vitzoo.records.fields import FieldError
from vitzoo.text import TextDataset, TextSpec, iter_training_texts, load_text
from vitzoo.text.load import _load, check_text

TRAIN, VAL, TEST = range(30), range(30, 38), range(38, 50)
SPLITS: Mapping[str, range] = {"train": TRAIN, "validation": VAL, "test": TEST}
SPEC = TextSpec(name="me/animals", val_split="validation", max_length=48)
Rows = dict[str, list[Any]]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _load.cache_clear()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def rows_of(seeds: range) -> Rows:
    return {"text": [sentence(seed) for seed in seeds], "label": [label_of(seed) for seed in seeds]}


def table(rows: Rows) -> datasets.Dataset:
    made = datasets.Dataset.from_dict(rows)
    return made.cast_column("label", datasets.ClassLabel(names=[*CLASSES])) if rows.get("label") else made


def write_parquet(root: Path, splits: Mapping[str, Rows]) -> Path:
    root.mkdir()
    for name, rows in splits.items():
        table(rows).to_parquet(root / f"{name}-00000-of-00001.parquet")
    return root


def write_csv(root: Path, splits: Mapping[str, Rows]) -> Path:
    root.mkdir()
    for name, rows in splits.items():
        datasets.Dataset.from_dict(rows).to_csv(root / f"{name}.csv")
    return root


def write_lines(root: Path, splits: Mapping[str, Rows]) -> Path:
    root.mkdir()
    for name, rows in splits.items():
        datasets.Dataset.from_dict(rows).to_json(root / f"{name}.jsonl")
    return root


def save_to_disk(root: Path, splits: Mapping[str, Rows]) -> Path:
    datasets.DatasetDict({name: table(rows) for name, rows in splits.items()}).save_to_disk(root)
    return root


Write = Callable[[Path, Mapping[str, Rows]], Path]
LAYOUTS: dict[str, Write] = {"parquet": write_parquet, "csv": write_csv, "json": write_lines, "arrow": save_to_disk}
ROWS = {name: rows_of(seeds) for name, seeds in SPLITS.items()}


def load(spec: TextSpec, folder: Path) -> TextDataset:
    return load_text(spec, tokenizer=tokenizer(), data={"animals": folder})


def loaded_rows(tmp_path: Path, spec: TextSpec = SPEC, **splits: Rows) -> TextDataset:
    """Load parquet files whose splits are ``splits``, the others as usual."""
    return load(spec, write_parquet(tmp_path / "animals", ROWS | splits))


def changed(part: str, place: int, **values: Any) -> Rows:
    rows = rows_of(SPLITS[part])
    for column, value in values.items():
        rows[column][place] = value
    return rows


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_rows(tmp_path: Path, layout: str) -> None:
    found = load(SPEC, LAYOUTS[layout](tmp_path / "animals", ROWS))
    named = layout in ("parquet", "arrow")
    assert (found.name, found.revision) == ("me/animals", layout)
    assert found.classes == (CLASSES if named else ("0", "1"))
    for name, split in (("train", found.train), ("validation", found.val), ("test", found.test)):
        seeds = SPLITS[name]
        assert split.labels.tolist() == list(map(label_of, seeds))
        assert split.indices.tolist() == list(range(len(seeds)))
        expected = tokenizer().encode([sentence(seed) for seed in seeds], max_length=48)
        assert np.array_equal(split.token_ids, expected.token_ids)
        assert np.array_equal(split.offsets, expected.offsets)
        assert split.second is None
    assert load(SPEC, tmp_path / "animals") is found


def test_fingerprint_does_not_depend_on_the_layout(tmp_path: Path) -> None:
    found = {load(SPEC, write(tmp_path / name, ROWS)).fingerprint for name, write in LAYOUTS.items()}
    assert len(found) == 1


def test_classes_may_be_names(tmp_path: Path) -> None:
    named = {name: rows | {"label": [CLASSES[label] for label in rows["label"]]} for name, rows in ROWS.items()}
    found = load(SPEC, write_csv(tmp_path / "animals", named))
    assert found.classes == CLASSES
    assert found.test.labels.tolist() == list(map(label_of, TEST))
    named["test"]["label"][3] = "neutral"
    with pytest.raises(DatasetError, match='label "neutral" at text 3; expected one of the 2 classes of "train"'):
        load(SPEC, write_csv(tmp_path / "other", named))


def test_words_for_missing_values_are_texts_in_csv(tmp_path: Path) -> None:
    rows = changed("train", 0, text="NA")
    rows["text"][1] = "null"
    found = load(SPEC, write_csv(tmp_path / "animals", ROWS | {"train": rows})).train
    assert [tokenizer().decode(found.row(place).tolist()) for place in (0, 1)] == ["na", "null"]
    rows["text"][1] = ""
    with pytest.raises(DatasetError, match=r"Row 1 of .* is missing"):
        load(SPEC, write_csv(tmp_path / "empty", ROWS | {"train": rows}))


def test_pairs_have_the_place_of_their_second_text(tmp_path: Path) -> None:
    pairs = {name: rows | {"other": rows["text"][::-1]} for name, rows in ROWS.items()}
    spec = msgspec.structs.replace(SPEC, text_column="text", pair_column="other", max_length=24)
    found = load(spec, write_parquet(tmp_path / "animals", pairs)).train
    expected = tokenizer().encode(pairs["train"]["text"], pairs["train"]["other"], max_length=24)
    assert found.second is not None
    assert found.second.tolist() == expected.second.tolist()  # pyright: ignore[reportOptionalMemberAccess]
    assert (found.token_ids[found.offsets[:-1] + found.second - 1] == tokenizer().sep_id).all()
    with pytest.raises(DatasetError, match='no column "others"'):
        load(msgspec.structs.replace(spec, pair_column="others"), tmp_path / "animals")
    with pytest.raises(DatasetError, match="is named twice"):
        load(msgspec.structs.replace(spec, pair_column="text"), tmp_path / "animals")


def test_held_out_texts_are_chosen_by_their_hash(tmp_path: Path) -> None:
    spec = TextSpec(name="me/animals", held_out=5, test_split=None, test_held_out=7, max_length=48)
    rows = rows_of(range(40))
    found = load(spec, write_parquet(tmp_path / "a", {"train": rows}))
    parts = [found.train.indices, found.val.indices, found.test.indices]
    assert list(map(len, parts)) == [28, 5, 7]
    assert sorted(np.concatenate(parts)) == list(range(40))
    # Another order, and texts that are added, leave every text in its part, but at the border of two parts.
    reversed_rows = {name: values[::-1] for name, values in rows.items()}
    again = load(spec, write_parquet(tmp_path / "b", {"train": reversed_rows}))
    assert sorted(39 - again.test.indices) == found.test.indices.tolist()
    assert sorted(39 - again.val.indices) == found.val.indices.tolist()


def test_repetitions_of_a_held_out_text_are_dropped(tmp_path: Path) -> None:
    spec = TextSpec(name="me/animals", test_split=None, test_held_out=10, max_length=48)
    rows = rows_of(range(20))
    twice = {"text": [*rows["text"], *(text.upper() + " " for text in rows["text"])], "label": rows["label"] * 2}
    found = load(spec, write_parquet(tmp_path / "a", {"train": twice}))
    assert (len(found.test), len(found.train), found.dropped) == (10, 20, {"repeats a text that is held out": 10})
    assert not set(found.test.indices % 20) & set(found.train.indices % 20)
    with pytest.raises(DatasetError, match="of 20 different training texts"):
        load(msgspec.structs.replace(spec, test_held_out=20), tmp_path / "a")


def test_some_of_the_training_texts_are_used(tmp_path: Path) -> None:
    found = loaded_rows(tmp_path, msgspec.structs.replace(SPEC, train_texts=10))
    assert found.train.indices.tolist() == list(range(0, 30, 3))
    with pytest.raises(DatasetError, match="31 samples were requested from a split of 30"):
        load(msgspec.structs.replace(SPEC, train_texts=31), tmp_path / "animals")


def test_packed_rows_need_no_label(tmp_path: Path) -> None:
    unlabelled = {name: {"text": rows["text"]} for name, rows in ROWS.items()}
    spec = msgspec.structs.replace(SPEC, packed=True, max_length=16)
    found = load(spec, write_lines(tmp_path / "animals", unlabelled))
    stream = tokenizer().encode_stream([sentence(seed) for seed in TRAIN])
    assert len(found.train) == len(stream) // 15
    assert found.classes == ()
    assert list(iter_training_texts(spec, data={"animals": tmp_path / "animals"})) == unlabelled["train"]["text"]


BAD_TEXTS: dict[str, tuple[Any, str]] = {
    "missing": (None, "is missing; expected a text"),
    "empty": ("", "is empty; expected a text"),
    "blank": (" \t\n", "is empty; expected a text"),
    "10 MB": ("a" * 10_000_000, "is too long; expected at most 1048576 characters"),
    "special token": ("A [MASK] here", r"has the special token \[MASK\]"),
}


@pytest.mark.parametrize("bad", BAD_TEXTS)
def test_unusable_text_is_refused_or_dropped(tmp_path: Path, bad: str) -> None:
    text, message = BAD_TEXTS[bad]
    rows = changed("train", 4, text=text)
    with pytest.raises(DatasetError, match=f'Row 4 of me/animals, split "train", column "text", {message}') as error:
        loaded_rows(tmp_path, train=rows)
    assert error.value.dataset == "me/animals"
    assert 'unusable="drop"' in str(error.value.fix)
    found = load(msgspec.structs.replace(SPEC, unusable="drop"), tmp_path / "animals")
    assert found.train.indices.tolist() == [0, 1, 2, 3, *range(5, 30)]
    assert sum(found.dropped.values()) == 1


@pytest.mark.parametrize(("part", "other"), [("train", "test"), ("train", "validation"), ("validation", "test")])
def test_text_in_two_splits_is_refused_or_dropped(tmp_path: Path, part: str, other: str) -> None:
    rows = changed(part, 2, text=sentence(SPLITS[other][1]).replace(" ", "  ").upper())
    with pytest.raises(DatasetError, match=f'Row 2 of me/animals, split "{part}", column "text", is also in'):
        load(SPEC, write_parquet(tmp_path / "animals", ROWS | {part: rows}))
    found = load(msgspec.structs.replace(SPEC, unusable="drop"), tmp_path / "animals")
    lengths = dict(zip(SPLITS, map(len, (found.train, found.val, found.test)), strict=True))
    assert lengths == {name: len(seeds) - (name == part) for name, seeds in SPLITS.items()}


BAD_ROWS: dict[str, tuple[dict[str, Rows], dict[str, Any], str]] = {
    "no text column": ({"train": {"label": [0, 1]}}, {}, "0 columns of kind string"),
    "two text columns": (
        {"train": rows_of(TRAIN) | {"title": rows_of(TRAIN)["text"]}},
        {},
        "2 columns of kind string.*Name one as text_column",
    ),
    "text column that does not exist": ({}, {"text_column": "sentence"}, 'no column "sentence"'),
    "text column of numbers": ({}, {"text_column": "label"}, 'Column "label".* has type int64; expected string'),
    "no label column": ({"train": {"text": rows_of(TRAIN)["text"]}}, {}, "0 columns of kind ClassLabel"),
    "empty split": (
        {"test": {"text": pa.array([], pa.string()), "label": []}},
        {},
        'Split "test" of "me/animals" has no rows',
    ),
    "split that does not exist": ({}, {"test_split": "tset"}, r'has no split "tset".*Nearest: test'),
}


@pytest.mark.parametrize("bad", BAD_ROWS)
def test_table_that_does_not_fit_is_refused(tmp_path: Path, bad: str) -> None:
    splits, fields, message = BAD_ROWS[bad]
    with pytest.raises(DatasetError, match=message):
        loaded_rows(tmp_path, msgspec.structs.replace(SPEC, **fields), **splits)


@pytest.mark.parametrize(
    ("part", "label", "message"),
    [
        ("test", -1, "has label -1 at text 3; expected 0 to 1.*Some data sets do not publish"),
        ("test", 2, "has label 2 at text 3; expected 0 to 1"),
        ("train", 0.5, "expected whole numbers, the class of each text"),
        ("train", None, "1 missing values"),
    ],
)
def test_bad_label_is_refused(tmp_path: Path, part: str, label: Any, message: str) -> None:
    rows = changed(part, 3, label=label)
    with pytest.raises(DatasetError, match=message):
        load(SPEC, write_lines(tmp_path / "animals", ROWS | {part: rows}))


def test_class_without_training_texts_is_refused(tmp_path: Path) -> None:
    rows = rows_of(TRAIN) | {"label": [1] * len(TRAIN)}
    with pytest.raises(DatasetError, match='Class "negative" of "me/animals" has no training text'):
        loaded_rows(tmp_path, train=rows)


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    folder = write_csv(tmp_path / "csv", ROWS)
    (folder / "train.csv").write_bytes(b"text,label\ncaf\xe9,0\nno,1\n")
    with pytest.raises(DatasetError, match="cannot be read"):
        load(SPEC, folder)
    folder = write_parquet(tmp_path / "parquet", ROWS)
    binary = pa.array([b"caf\xe9", b"no"])
    text = pa.StringArray.from_buffers(2, binary.buffers()[1], binary.buffers()[2])
    rows = pa.table({"text": text, "label": pa.array([0, 1])})
    parquet.write_table(rows, folder / "train-00000-of-00001.parquet")
    with pytest.raises(DatasetError, match=r"row 0 or later, cannot be read.*expected UTF-8"):
        load(msgspec.structs.replace(SPEC, packed=True), folder)
    lines = write_lines(tmp_path / "lines", ROWS)
    (lines / "train.jsonl").write_bytes(b'{"text": "caf\xe9", "label": 0}\n')
    with pytest.raises(DatasetError, match="cannot be read"):
        load(SPEC, lines)


def test_folder_without_texts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "animals").mkdir()
    with pytest.raises(DatasetError, match=r"no train\*\.parquet, \.csv or \.jsonl, no dataset_dict\.json"):
        load(SPEC, tmp_path / "animals")
    with pytest.raises(DatasetError, match="does not exist"):
        load(SPEC, tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="is a file"):
        load(SPEC, tmp_path / "file")


@pytest.mark.parametrize("name", ["", "snippet-films", "a/b/c"])
def test_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(DatasetError, match="No data set of texts is called") as error:
        load_text(name, tokenizer=tokenizer())
    assert "--data NAME=FOLDER in a shell" in str(error.value.fix)
    assert str(error.value.fix).count(" snippets,") <= 1


def test_tokenizer_must_be_given(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "animals", ROWS)
    with pytest.raises(DatasetError, match=r"The tokenizer of .* is not given"):
        load_text(SPEC, data={"animals": folder})


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"max_length": 3}, "max_length"),
        ({"max_length": 2**17}, "max_length"),
        ({"name": ""}, "name"),
        ({"held_out": 5, "val_split": "validation"}, "held_out"),
        ({"test_held_out": 5}, "test_held_out"),
        ({"test_split": None}, "test_held_out"),
        ({"packed": True, "label_column": "label"}, "label_column"),
        ({"packed": True, "pair_column": "other"}, "pair_column"),
        ({"unusable": "ignore"}, "unusable"),
    ],
)
def test_spec_out_of_range_is_refused(fields: dict[str, Any], field: str) -> None:
    values: dict[str, Any] = {"name": "me/animals"} | fields
    with pytest.raises(FieldError) as error:
        TextSpec(**values)
    assert error.value.field == field


def publish(hub: Hub, tmp_path: Path, name: str, splits: Mapping[str, Rows], folder: str = "data") -> str:
    repo = hub.create_repo(name, "dataset")
    for split, rows in splits.items():
        table(rows).to_parquet(tmp_path / "rows.parquet")
        repo.commit({f"{folder}/{split}-00000-of-00001.parquet": (tmp_path / "rows.parquet").read_bytes()})
    return f"{name}@{repo.head}"


def test_data_set_of_the_hub_is_loaded_and_cached(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    revision = publish(hub, tmp_path, "me/animals", ROWS)
    check_text(SPEC, data={})
    found = load_text(SPEC, tokenizer=tokenizer())
    assert found.revision == revision
    assert found.fingerprint == load(SPEC, write_parquet(tmp_path / "animals", ROWS)).fingerprint
    _load.cache_clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with hub.recorded() as requests:
        again = load_text(SPEC, tokenizer=tokenizer())
    assert (len(requests), again.fingerprint) == (0, found.fingerprint)


def test_sst2_needs_no_columns(hub: Hub, tmp_path: Path) -> None:
    splits = {name: {"sentence": [*rows["text"]], "label": rows["label"]} for name, rows in ROWS.items()}
    splits["validation"]["sentence"][0] = splits["train"]["sentence"][0]
    splits["test"] |= {"label": [-1] * len(TEST)}  # hidden, as on the Hub
    repo = hub.create_repo("nyu-mll/glue", "dataset")
    configs = []
    for config in ("cola", "sst2"):
        for split, rows in splits.items():
            datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "rows.parquet")
            repo.commit({f"{config}/{split}-00000-of-00001.parquet": (tmp_path / "rows.parquet").read_bytes()})
        files = "".join(f"  - split: {split}\n    path: {config}/{split}-*\n" for split in splits)
        configs.append(f"- config_name: {config}\n  data_files:\n{files}")
    repo.commit({"README.md": f"---\nconfigs:\n{''.join(configs)}---\n".encode()})
    found = load_text("sst2", tokenizer=tokenizer())
    assert (found.name, found.revision) == ("nyu-mll/glue", f"nyu-mll/glue@{repo.head}")
    assert (len(found.train), len(found.test), len(found.val)) == (29, 8, 0)
    assert found.dropped == {"is also in test": 1}
    with pytest.raises(DatasetError, match='"validation" is val_split and test_split') as error:
        load_text(TextSpec(name="sst2", val_split="validation"), tokenizer=tokenizer())
    assert "test_held_out" in str(error.value.fix)
    spec = TextSpec(name="sst2", val_split="validation", test_split=None, test_held_out=9)
    found = load_text(spec, tokenizer=tokenizer())
    assert (len(found.train), len(found.val), len(found.test)) == (20, 8, 9)


def test_openwebtext_is_held_out_of_its_only_split(hub: Hub, tmp_path: Path) -> None:
    publish(hub, tmp_path, "Skylion007/openwebtext", {"train": {"text": rows_of(range(60))["text"]}}, "plain_text")
    spec = TextSpec(name="openwebtext", test_split=None, test_held_out=6, held_out=4, max_length=20)
    found = load_text(spec, tokenizer=tokenizer())
    assert len(found.train) > 4 * len(found.test) > 0
    assert len(found.val)


def test_data_set_that_is_not_cached_is_refused_offline() -> None:
    for ask in (
        lambda: load_text("sst2", tokenizer=tokenizer()),
        lambda: check_text(TextSpec(name="sst2"), data={}),
    ):
        with pytest.raises(
            DatasetError, match='"nyu-mll/glue" is not in the cache, and HF_HUB_OFFLINE is set'
        ) as error:
            ask()
        assert '{"sst2": "./folder"}' in str(error.value.fix)


@pytest.mark.slow
def test_workers_that_are_forked_after_loading_neither_warn_nor_hang(tmp_path: Path) -> None:
    folder = write_csv(tmp_path / "animals", ROWS)
    code = (
        "import sys\nfrom pathlib import Path\nfrom torch.utils.data import DataLoader, Dataset\n"
        "from tests.text.sentences import tokenizer\nfrom tests.text.test_load import SPEC, load\n"
        "from vitzoo.text.batches import padded\n"
        "split = load(SPEC, Path(sys.argv[1])).train\n"
        "class Rows(Dataset):\n"
        "    def __len__(self):\n        return 30\n"
        "    def __getitem__(self, place):\n"
        "        tokenizer().encode(['forked'], max_length=8)\n        return padded(split, [place], pad=0)\n"
        "loader = DataLoader(Rows(), batch_size=None, num_workers=2, multiprocessing_context='fork')\n"
        "print(sum(int(batch['attention_mask'].sum()) for batch in loader) == len(split.token_ids))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.stdout.split()[-1:] == ["True"], run.stderr
    assert "fork" not in run.stderr


def test_json_lines_may_end_with_json(tmp_path: Path) -> None:
    folder = write_lines(tmp_path / "animals", ROWS)
    for path in folder.iterdir():
        path.rename(path.with_suffix(".json"))
    assert load(SPEC, folder).revision == "json"
