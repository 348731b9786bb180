"""Data sets in folders: every layout gives the same images in a fixed order, and errors name the cause."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.images.pictures import (
    CIFAR_COARSE,
    CIFAR_FINE,
    CLASSES,
    encoded,
    label_of,
    picture,
    pixels,
    table,
    write_cifar,
    write_class_folders,
    write_parquet,
)
from vitzoo.errors import DatasetError
from vitzoo.images import DatasetSpec, FileSplit, ImageSplit, load_images
from vitzoo.images.load import _load

TRAIN, VAL, TEST = range(12), range(12, 15), range(15, 20)
SPLITS: Mapping[str, range] = {"train": TRAIN, "validation": VAL, "test": TEST}
SPEC = DatasetSpec(name="me/animals", val_split="validation")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def save_to_disk(root: Path, splits: Mapping[str, range]) -> Path:
    datasets.DatasetDict({name: table(seeds) for name, seeds in splits.items()}).save_to_disk(root)
    return root


def write_in_two(root: Path, splits: Mapping[str, range]) -> Path:
    """Each split in two parquet files in data/, as the Hub lays large ones out."""
    (root / "data").mkdir(parents=True)
    for name, seeds in splits.items():
        for part, some in enumerate((seeds[:2], seeds[2:])):
            table(some).to_parquet(root / f"data/{name}-0000{part}-of-00002.parquet")
    return root


LAYOUTS: dict[str, tuple[Callable[[Path, Mapping[str, range]], Path], str]] = {
    "class folders": (write_class_folders, "imagefolder"),
    "class folders of jpg": (lambda root, splits: write_class_folders(root, splits, extension="JPEG"), "imagefolder"),
    "parquet": (write_parquet, "parquet"),
    "parquet of one word": (lambda root, splits: write_parquet(root, splits, name="{}.parquet"), "parquet"),
    "parquet, numbered": (lambda root, splits: write_parquet(root, splits, name="{}_0.parquet"), "parquet"),
    "parquet of a configuration": (lambda root, splits: write_parquet(root / "plain", splits).parent, "parquet"),
    "parquet in parts": (write_in_two, "parquet"),
    "save_to_disk": (save_to_disk, "arrow"),
}


@pytest.mark.parametrize(
    ("layout", "streamed"),
    [
        *((layout, False) for layout in LAYOUTS),
        ("class folders", True),
        ("parquet in parts", True),
        ("save_to_disk", True),
    ],
)
def test_every_layout_gives_the_images(tmp_path: Path, layout: str, streamed: bool) -> None:
    write, revision = LAYOUTS[layout]
    folder = write(tmp_path / "animals", SPLITS)
    spec = DatasetSpec(name="me/animals", val_split="validation", streamed=streamed)
    found = load_images(spec, data={"animals": folder})
    assert (found.name, found.revision, found.classes, found.streamed) == ("me/animals", revision, CLASSES, streamed)
    for name, split in (("train", found.train), ("validation", found.val), ("test", found.test)):
        seeds = list(SPLITS[name])
        if revision == "imagefolder":
            seeds.sort(key=lambda seed: (label_of(seed), seed))
        assert split.labels.tolist() == [label_of(seed) for seed in seeds]
        assert split.indices.tolist() == list(range(len(seeds)))
        if layout == "class folders of jpg":
            continue
        for place, seed in enumerate(seeds):
            if isinstance(split, FileSplit):
                image = np.asarray(split.load(place))
            else:
                image = split.images[place].transpose(1, 2, 0)
            assert np.array_equal(image, pixels(seed))


def test_fingerprint_in_memory_does_not_depend_on_the_layout(tmp_path: Path) -> None:
    found = {
        load_images(SPEC, data={"animals": write(tmp_path / name, SPLITS)}).fingerprint
        for name, (write, revision) in LAYOUTS.items()
        if revision != "imagefolder"
    }
    assert len(found) == 1


@pytest.mark.parametrize(("called", "asked"), [("val", "validation"), ("valid", "validation"), ("validation", "val")])
@pytest.mark.parametrize("write", [write_class_folders, write_parquet, save_to_disk])
def test_validation_split_has_three_names(tmp_path: Path, called: str, asked: str, write) -> None:
    folder = write(tmp_path / "a", {"train": TRAIN, called: VAL})
    spec = DatasetSpec(name="me/animals", test_split=asked)
    assert len(load_images(spec, data={"animals": folder}).test) == 3


def test_imagenet_as_torchvision_lays_it_out(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "i", {"train": TRAIN, "val": TEST}, extension="JPEG")
    found = load_images("ILSVRC/imagenet-1k", data={"imagenet": tmp_path / "i"})
    assert isinstance(found.train, FileSplit)
    assert (len(found.train), len(found.val), len(found.test)) == (12, 0, 5)
    assert found.train.describe(0) == str(tmp_path / "i/train/ant/000.JPEG")


@pytest.mark.parametrize("streamed", [False, True])
def test_held_out_images_are_evenly_spaced_and_no_longer_trained_on(tmp_path: Path, streamed: bool) -> None:
    folder = write_parquet(tmp_path / "a", {"train": TRAIN, "test": TEST})
    spec = DatasetSpec(name="me/animals", held_out=5, streamed=streamed)
    found = load_images(spec, data={"animals": folder})
    assert found.val.indices.tolist() == [0, 2, 4, 7, 9]
    assert found.train.indices.tolist() == [1, 3, 5, 6, 8, 10, 11]
    for split in (found.train, found.val):
        for place, seed in enumerate(split.indices):
            image = (
                np.asarray(split.load(place))
                if isinstance(split, FileSplit)
                else split.images[place].transpose(1, 2, 0)
            )
            assert np.array_equal(image, pixels(int(seed)))
            assert split.labels[place] == label_of(int(seed))


def test_hidden_and_other_files_are_no_images(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "a", SPLITS)
    before = load_images(SPEC, data={"animals": folder}).fingerprint
    (folder / "train/ant/.DS_Store").write_bytes(b"x")
    (folder / "train/ant/._0.png").write_bytes(b"x")
    (folder / "train/ant/notes.txt").write_bytes(b"x")
    (folder / "train/.ipynb_checkpoints").mkdir()
    (folder / "train/README.md").write_bytes(b"x")
    os.symlink(folder, tmp_path / "b")
    assert load_images(SPEC, data={"animals": tmp_path / "b"}).fingerprint == before


def test_the_order_is_that_of_names_not_of_the_file_system(tmp_path: Path) -> None:
    for names in (("b", "a", "c"), ("c", "b", "a")):
        folder = tmp_path / names[0]
        for split in ("train", "test"):
            for name in names:
                (folder / split / f"class {name}").mkdir(parents=True)
                for file in names:
                    picture(ord(file)).save(folder / split / f"class {name}" / f"{file}.png")
        found = load_images(DatasetSpec(name="me/letters"), data={"letters": folder})
        assert found.classes == ("class a", "class b", "class c")
        assert isinstance(found.train, ImageSplit)
        for place, letter in enumerate("abc" * 3):
            assert np.array_equal(found.train.images[place].transpose(1, 2, 0), pixels(ord(letter)))


def test_a_rebuilt_folder_is_read_again(tmp_path: Path) -> None:
    """`datasets` caches what it read of a folder; the cache must not answer for other files of the same names."""
    found = []
    for seeds in (range(12), range(100, 112)):
        write_parquet(tmp_path / "a", {"train": seeds, "test": TEST})
        found.append(load_images(DatasetSpec(name="me/animals"), data={"animals": tmp_path / "a"}))
        _load.cache_clear()  # as in a new process
    for dataset, first in zip(found, (0, 100), strict=True):
        assert isinstance(dataset.train, ImageSplit)
        assert np.array_equal(dataset.train.images[0].transpose(1, 2, 0), pixels(first))


def test_folder_is_loaded_once_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_class_folders(tmp_path / "a", SPLITS)
    first = load_images(SPEC, data={"animals": tmp_path / "a"})
    monkeypatch.chdir(tmp_path)
    assert load_images(SPEC, data={"me/animals": "a", "else": "b"}) is first


def widened(folder: Path) -> None:
    picture(3, width=9).save(folder / "train/ant/003.png")


def broken(folder: Path) -> None:
    (folder / "test/ant/015.png").write_bytes(b"x")


def test_images_of_different_sizes_must_be_streamed(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "a", SPLITS)
    widened(folder)
    with pytest.raises(DatasetError) as error:
        load_images(SPEC, data={"animals": folder})
    assert f"{folder}/train/ant/003.png has 9 x 8 pixels" in error.value.problem
    assert "streamed=True" in str(error.value.fix)
    spec = DatasetSpec(name="me/animals", streamed=True)
    assert len(load_images(spec, data={"animals": folder}).train) == 12


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "broken image": (broken, r"test/ant/015\.png"),
    "no training images": (lambda folder: _remove(folder / "train"), r"no train/ with class folders"),
    "no test": (lambda folder: _remove(folder / "test"), r'no split "test".*There are: train, validation\.'),
    "no validation": (lambda folder: _remove(folder / "validation"), r'no split "validation"'),
    "a class more in test": (lambda folder: (folder / "test/dog").mkdir(), r"test/dog .*its 3 classes"),
    "loose images": (
        lambda folder: [_remove(folder / "test"), (folder / "test").mkdir(), picture(1).save(folder / "test/1.png")],
        r"test has no images.* 1\.png outside",
    ),
    "an empty split": (
        lambda folder: [_remove(folder / "test"), (folder / "test/ant").mkdir(parents=True)],
        r"test has no images in class folders; expected test/<class>/<image>",
    ),
    "no class folders": (
        lambda folder: [_remove(folder / "train"), (folder / "train").mkdir()],
        "train has no class folders",
    ),
}


@pytest.mark.parametrize(("damage", "message"), WRONG.values(), ids=list(WRONG))
def test_class_folders_are_refused(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    folder = write_class_folders(tmp_path / "a", SPLITS)
    damage(folder)
    with pytest.raises(DatasetError, match=message) as error:
        load_images(SPEC, data={"animals": folder})
    assert damage is broken or error.value.dataset == "me/animals"


def _remove(folder: Path) -> None:
    shutil.rmtree(folder)


def test_folder_that_is_missing_or_empty_or_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist") as error:
        load_images("cifar100", data={"cifar100": tmp_path / "none"})
    assert f"{tmp_path}/none" in error.value.problem
    assert error.value.dataset == "uoft-cs/cifar100"
    for text in ("about 160 MB", "--data cifar100=./folder in a shell"):
        assert text in str(error.value.fix)
    with pytest.raises(DatasetError, match=r"no train/ with class folders, no train\*\.parquet, no dataset_dict"):
        load_images("cifar100", data={"cifar100": tmp_path})
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(DatasetError, match=rf"^{tmp_path}/file, .* is a file; expected a folder"):
        load_images("cifar100", data={"cifar100": tmp_path / "file"})


def test_cifar_labels_and_held_out_images_are_read_from_parquet(tmp_path: Path) -> None:
    write_cifar(tmp_path, train=range(20), test=range(20, 27))
    fine = load_images("cifar100", data={"cifar100": tmp_path})
    assert (fine.name, fine.revision, fine.classes) == ("uoft-cs/cifar100", "parquet", CIFAR_FINE)
    assert fine.test.labels.tolist() == [seed % 10 for seed in range(20, 27)]
    spec = DatasetSpec(name="uoft-cs/cifar100", label_column="coarse_label", held_out=4)
    coarse = load_images(spec, data={"cifar100": tmp_path})
    assert coarse.classes == CIFAR_COARSE
    assert coarse.val.indices.tolist() == [0, 5, 10, 15]
    assert coarse.train.labels.tolist() == [place % 10 % 2 for place in range(20) if place % 5]


@pytest.mark.parametrize("place", [".", "cifar-100-python"])
def test_cifar_pickles_are_refused_with_the_way_to_parquet(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(exist_ok=True)
    for name in ("meta", "train", "test"):
        (tmp_path / place / name).write_bytes(b"never read")
    with pytest.raises(DatasetError, match="as Python pickles") as error:
        load_images("cifar100", data={"cifar100": tmp_path})
    assert "hf download uoft-cs/cifar100" in str(error.value.fix)
    assert error.value.dataset == "uoft-cs/cifar100"


COLUMNS: dict[str, tuple[dict[str, object], str]] = {
    "another image column": (
        {"image_column": "img"},
        r'no column "img"; its columns are image \(Image\), label \(ClassLabel\)\. .*image_column',
    ),
    "another label column": ({"label_column": "fine"}, r'no column "fine"; its columns are image \(Image\), label'),
    "labels for images": ({"image_column": "label"}, 'Column "label" of .* has type int64; expected images'),
    "images for labels": ({"label_column": "image"}, 'Column "image" of .* has type struct.*; expected whole numbers'),
    "another split": ({"train_split": "training"}, r'no split "training"\..* Nearest: train\.'),
    "another test split": ({"test_split": "tset"}, r'no split "tset"\..* Nearest: test\.'),
    "too many held out": ({"held_out": 12}, "held_out is 12 of 12 training images .*; expected fewer"),
}


@pytest.mark.parametrize(("change", "message"), COLUMNS.values(), ids=list(COLUMNS))
def test_table_refuses_missing_columns_and_splits(tmp_path: Path, change: dict, message: str) -> None:
    folder = write_parquet(tmp_path / "a", SPLITS)
    with pytest.raises(DatasetError, match=message):
        load_images(DatasetSpec(name="me/animals", **change), data={"animals": folder})


def write_table(folder: Path, columns: dict[str, object], features: dict[str, object] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for split in ("train", "test"):
        rows = datasets.Dataset.from_dict(columns, features=datasets.Features(features) if features else None)
        rows.to_parquet(folder / f"{split}.parquet")
    return folder


def test_table_refuses_to_choose_among_columns(tmp_path: Path) -> None:
    two = {"a": [picture(1)] * 2, "b": [picture(2)] * 2, "label": [0, 1]}
    kinds = {"a": datasets.Image(), "b": datasets.Image(), "label": datasets.ClassLabel(names=["x", "y"])}
    folder = write_table(tmp_path / "two", two, kinds)
    with pytest.raises(DatasetError, match=r"2 columns of kind Image; its columns are a \(Image\), b \(Image\), label"):
        load_images(DatasetSpec(name="me/two"), data={"two": folder})
    found = load_images(DatasetSpec(name="me/two", image_column="b"), data={"two": folder})
    assert isinstance(found.train, ImageSplit)
    assert np.array_equal(found.train.images[0].transpose(1, 2, 0), pixels(2))
    numbers = {"image": datasets.Image(), "label": datasets.Value("int32")}
    plain = write_table(tmp_path / "plain", {"image": [picture(1)] * 2, "label": [3, 0]}, numbers)
    with pytest.raises(DatasetError, match=r"has 0 columns of kind ClassLabel; .*Name one as label_column"):
        load_images(DatasetSpec(name="me/plain"), data={"plain": plain})
    found = load_images(DatasetSpec(name="me/plain", label_column="label"), data={"plain": plain})
    assert found.classes == ("0", "1", "2", "3")
    assert found.train.labels.tolist() == [3, 0]


def test_plain_parquet_of_bytes_and_numbers_is_read(tmp_path: Path) -> None:
    contents = [encoded(picture(seed)) for seed in range(4)]
    (tmp_path / "a").mkdir()
    for split, kind in (("train", pa.binary()), ("test", pa.large_binary())):
        rows = pa.table({"picture": pa.array(contents, kind), "class": pa.array([0, 1, 0, 1], pa.int8())})
        pyarrow.parquet.write_table(rows, tmp_path / f"a/{split}.parquet")
    spec = DatasetSpec(name="me/plain", image_column="picture", label_column="class")
    found = load_images(spec, data={"plain": tmp_path / "a"})
    assert isinstance(found.test, ImageSplit)
    assert np.array_equal(found.test.images[3].transpose(1, 2, 0), pixels(3))
    assert found.classes == ("0", "1")


def test_table_refuses_missing_and_unknown_labels(tmp_path: Path) -> None:
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["x", "y"])}
    spec = DatasetSpec(name="me/animals")
    unlabelled = write_table(tmp_path / "a", {"image": [picture(1)] * 2, "label": [1, -1]}, kinds)
    with pytest.raises(DatasetError, match=r'Split "train" of .* has label -1 at image 1; expected 0 to 1'):
        load_images(spec, data={"animals": unlabelled})
    missing = write_table(tmp_path / "b", {"image": [picture(1)] * 2, "label": [1, None]}, kinds)
    with pytest.raises(DatasetError, match=r'Column "label" of .* and 1 missing values'):
        load_images(spec, data={"animals": missing})
    none = write_table(tmp_path / "c", {"image": [], "label": []}, kinds)
    with pytest.raises(DatasetError, match=r"has no rows"):
        load_images(spec, data={"animals": none})


def test_splits_with_different_classes_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a", {"train": TRAIN})
    table(TEST, classes=("ant", "bee", "dog")).to_parquet(tmp_path / "a/test.parquet")
    with pytest.raises(DatasetError, match=r'Split "test" of "me/animals" has other classes than "train"'):
        load_images(DatasetSpec(name="me/animals"), data={"animals": tmp_path / "a"})


@pytest.mark.parametrize("write", [write_parquet, save_to_disk])
def test_damaged_tables_are_refused(tmp_path: Path, write) -> None:
    folder = write(tmp_path / "a", SPLITS)
    for path in folder.rglob("*"):
        if path.suffix in (".parquet", ".arrow"):
            path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DatasetError, match=r"a cannot be read as .me/animals.: \w+: .*[^.]\. Get"):
        load_images(SPEC, data={"animals": folder})


def test_parquet_of_two_configurations_needs_config(tmp_path: Path) -> None:
    for config, seeds in (("small", range(6)), ("large", TRAIN)):
        write_parquet(tmp_path / f"a/{config}", {"train": seeds, "test": TEST})
    with pytest.raises(DatasetError, match=r"has parquet files in 2 folders. Name one as config"):
        load_images(DatasetSpec(name="me/animals"), data={"animals": tmp_path / "a"})
    spec = DatasetSpec(name="me/animals", config="small")
    assert len(load_images(spec, data={"animals": tmp_path / "a"}).train) == 6


@pytest.mark.parametrize("field", ["image_column", "label_column"])
def test_class_folders_refuse_columns(tmp_path: Path, field: str) -> None:
    folder = write_class_folders(tmp_path / "a", SPLITS)
    fields: dict[str, Any] = {field: "fine"}
    spec = DatasetSpec(name="me/animals", **fields)
    with pytest.raises(DatasetError, match=f'{field} is "fine"'):
        load_images(spec, data={"animals": folder})
    with pytest.raises(DatasetError, match=f'{field} is "fine"'):
        load_images(DatasetSpec(name="imagenet", **fields), data={"imagenet": folder})


@pytest.mark.parametrize("config", ["../b", "/", "x/../../b"])
def test_config_outside_of_the_folder_is_refused(tmp_path: Path, config: str) -> None:
    write_parquet(tmp_path / "b", SPLITS)
    (tmp_path / "a/x").mkdir(parents=True)
    with pytest.raises(DatasetError, match="has no images of"):
        load_images(DatasetSpec(name="me/animals", config=config), data={"animals": tmp_path / "a"})


HOSTILE = "\x1b[2J\n"


@pytest.mark.parametrize("field", ["config", "image_column", "label_column", "train_split", "val_split", "test_split"])
def test_hostile_text_of_a_record_is_escaped(tmp_path: Path, field: str) -> None:
    fields: dict[str, Any] = {field: HOSTILE}
    for write in (write_parquet,) if field == "config" else (write_parquet, write_class_folders):
        folder = write(tmp_path / write.__name__, SPLITS)
        with pytest.raises(DatasetError) as error:
            load_images(DatasetSpec(name="me/animals", **fields), data={"animals": folder})
        assert str(error.value).isprintable()


def test_images_over_half_of_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 + 5 images of 8 x 8 x 3 bytes: more than half of 6,144 bytes."""
    folder = write_parquet(tmp_path / "a", {"train": TRAIN, "test": TEST})
    pages = {"SC_PHYS_PAGES": 3 * 2**30, "SC_PAGE_SIZE": 2}
    monkeypatch.setattr("vitzoo.images.assemble.os.sysconf", pages.__getitem__)
    load_images(DatasetSpec(name="me/animals"), data={"animals": folder})
    _load.cache_clear()
    pages |= {"SC_PHYS_PAGES": 2 * (len(TRAIN) + len(TEST)) * 8 * 8 * 3 - 2, "SC_PAGE_SIZE": 1}
    with pytest.raises(DatasetError, match='"me/animals" would take') as error:
        load_images(DatasetSpec(name="me/animals"), data={"animals": folder})
    assert "streamed=True" in str(error.value.fix)
    spec = DatasetSpec(name="me/animals", streamed=True)
    assert len(load_images(spec, data={"animals": folder}).train) == len(TRAIN)
