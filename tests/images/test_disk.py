"""Data sets in folders: every layout gives the same images in a fixed order, and what is wrong is said."""

import io
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
from PIL import Image

from tests.images.pictures import (
    CIFAR_COARSE,
    CIFAR_FINE,
    CLASSES,
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


@pytest.mark.parametrize("streamed", [False, True], ids=["in memory", "streamed"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(tmp_path: Path, layout: str, streamed: bool) -> None:
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


def test_in_memory_fingerprints_say_what_the_images_are(tmp_path: Path) -> None:
    """Not where they lie: three layouts of the same rows have one."""
    found = {
        load_images(SPEC, data={"animals": write(tmp_path / name, SPLITS)}).fingerprint
        for name, (write, revision) in LAYOUTS.items()
        if revision != "imagefolder"
    }
    assert len(found) == 1


@pytest.mark.parametrize(("called", "asked"), [("val", "validation"), ("valid", "validation"), ("validation", "val")])
@pytest.mark.parametrize("write", [write_class_folders, write_parquet, save_to_disk])
def test_validation_has_three_names(tmp_path: Path, called: str, asked: str, write) -> None:
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


def test_loaded_once_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_class_folders(tmp_path / "a", SPLITS)
    first = load_images(SPEC, data={"animals": tmp_path / "a"})
    monkeypatch.chdir(tmp_path)
    assert load_images(SPEC, data={"me/animals": "a", "else": "b"}) is first


def widened(folder: Path) -> None:
    picture(3, width=9).save(folder / "train/ant/003.png")


def broken(folder: Path) -> None:
    (folder / "test/ant/015.png").write_bytes(b"x")


def test_images_of_different_sizes_are_streamed(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "a", SPLITS)
    widened(folder)
    with pytest.raises(DatasetError) as raised:
        load_images(SPEC, data={"animals": folder})
    assert str(raised.value) == (
        f'{folder}/train/ant/003.png has 9 x 8 pixels, the images of "me/animals" before it 8 x 8: images of different '
        "sizes are not held in memory. Set streamed=True in the DatasetSpec."
    )
    spec = DatasetSpec(name="me/animals", streamed=True)
    assert len(load_images(spec, data={"animals": folder}).train) == 12


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "broken image": (broken, r"test/ant/015\.png is no image that can be decoded"),
    "no training images": (
        lambda folder: _remove(folder / "train"),
        r"holds no images of .*: no train/ with class folders",
    ),
    "no test": (lambda folder: _remove(folder / "test"), r'has no split "test"\. There are: train, validation\.'),
    "no validation": (lambda folder: _remove(folder / "validation"), r'has no split "validation"'),
    "a class more in test": (
        lambda folder: (folder / "test/dog").mkdir(),
        r"test/dog is a class that train has not: it has 3",
    ),
    "loose images": (
        lambda folder: [_remove(folder / "test"), (folder / "test").mkdir(), picture(1).save(folder / "test/1.png")],
        r"test holds no images in class folders, but 1\.png outside of one; expected test/<class>/<image>",
    ),
    "an empty split": (
        lambda folder: [_remove(folder / "test"), (folder / "test/ant").mkdir(parents=True)],
        r"test holds no images in class folders; expected",
    ),
    "no class folders": (
        lambda folder: [_remove(folder / "train"), (folder / "train").mkdir()],
        "holds no class folders",
    ),
}


@pytest.mark.parametrize(("damage", "says"), WRONG.values(), ids=list(WRONG))
def test_class_folders_that_are_wrong(tmp_path: Path, damage: Callable[[Path], object], says: str) -> None:
    folder = write_class_folders(tmp_path / "a", SPLITS)
    damage(folder)
    with pytest.raises(DatasetError, match=says):
        load_images(SPEC, data={"animals": folder})


def _remove(folder: Path) -> None:
    shutil.rmtree(folder)


def test_a_folder_that_is_not_there_or_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as raised:
        load_images("cifar100", data={"cifar100": tmp_path / "none"})
    message = str(raised.value)
    assert f'The folder {tmp_path}/none that was named for "uoft-cs/cifar100" is not there.' in message
    assert "about 160 MB" in message
    assert "--data cifar100=./folder in a shell" in message
    with pytest.raises(
        DatasetError, match=r"holds no images of .*no train/ with class folders, no train\*\.parquet, no data"
    ):
        load_images("cifar100", data={"cifar100": tmp_path})
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(DatasetError, match=rf"^{tmp_path}/file, which was named for .*, is a file; expected a folder"):
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
    with pytest.raises(
        DatasetError, match=r"as Python pickles; .* Get it as parquet: hf download uoft-cs/cifar100"
    ) as raised:
        load_images("cifar100", data={"cifar100": tmp_path})
    assert raised.value.dataset == "uoft-cs/cifar100"  # type: ignore[attr-defined]


COLUMNS: dict[str, tuple[dict[str, object], str]] = {
    "another image column": (
        {"image_column": "img"},
        r'has no column "img"; it has image \(Image\), label \(ClassLabel\)\. Mend image_column',
    ),
    "another label column": ({"label_column": "fine"}, r'has no column "fine"; it has image \(Image\), label'),
    "labels for images": ({"image_column": "label"}, 'Column "label" holds int64; expected images'),
    "images for labels": ({"label_column": "image"}, 'Column "image" of .* holds struct.*; expected whole numbers'),
    "another split": ({"train_split": "training"}, r'has no split "training"\. Nearest: train\.'),
    "another test split": ({"test_split": "tset"}, r'has no split "tset"\. Nearest: test\.'),
    "too many held out": ({"held_out": 12}, "held_out is 12 of 12 training images .*; expected fewer"),
}


@pytest.mark.parametrize(("change", "says"), COLUMNS.values(), ids=list(COLUMNS))
def test_columns_and_splits_that_are_not_there(tmp_path: Path, change: dict, says: str) -> None:
    folder = write_parquet(tmp_path / "a", SPLITS)
    with pytest.raises(DatasetError, match=says):
        load_images(DatasetSpec(name="me/animals", **change), data={"animals": folder})


def write_table(folder: Path, columns: dict[str, object], features: dict[str, object] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for split in ("train", "test"):
        rows = datasets.Dataset.from_dict(columns, features=datasets.Features(features) if features else None)
        rows.to_parquet(folder / f"{split}.parquet")
    return folder


def test_columns_that_cannot_be_told_apart(tmp_path: Path) -> None:
    two = {"a": [picture(1)] * 2, "b": [picture(2)] * 2, "label": [0, 1]}
    kinds = {"a": datasets.Image(), "b": datasets.Image(), "label": datasets.ClassLabel(names=["x", "y"])}
    folder = write_table(tmp_path / "two", two, kinds)
    with pytest.raises(
        DatasetError, match=r"has 2 columns of kind Image; its columns are a \(Image\), b \(Image\), label"
    ):
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


def test_plain_parquet_without_datasets_own_types(tmp_path: Path) -> None:
    """As pyarrow or pandas writes it: bytes and numbers."""
    contents = []
    for seed in range(4):
        content = io.BytesIO()
        picture(seed).save(content, "PNG")
        contents.append(content.getvalue())
    (tmp_path / "a").mkdir()
    for split in ("train", "test"):
        rows = pa.table({"picture": pa.array(contents, pa.binary()), "class": pa.array([0, 1, 0, 1], pa.int8())})
        pyarrow.parquet.write_table(rows, tmp_path / f"a/{split}.parquet")
    spec = DatasetSpec(name="me/plain", image_column="picture", label_column="class")
    found = load_images(spec, data={"plain": tmp_path / "a"})
    assert isinstance(found.test, ImageSplit)
    assert np.array_equal(found.test.images[3].transpose(1, 2, 0), pixels(3))
    assert found.classes == ("0", "1")


def test_labels_that_are_missing_or_no_class(tmp_path: Path) -> None:
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["x", "y"])}
    spec = DatasetSpec(name="me/animals")
    unlabelled = write_table(tmp_path / "a", {"image": [picture(1)] * 2, "label": [1, -1]}, kinds)
    with pytest.raises(
        DatasetError, match=r'Split "train" of .* has label -1 at image 1; expected 0 to 1, one of its 2'
    ):
        load_images(spec, data={"animals": unlabelled})
    missing = write_table(tmp_path / "b", {"image": [picture(1)] * 2, "label": [1, None]}, kinds)
    with pytest.raises(DatasetError, match=r'Column "label" of .* with 1 values missing'):
        load_images(spec, data={"animals": missing})
    none = write_table(tmp_path / "c", {"image": [], "label": []}, kinds)
    with pytest.raises(DatasetError, match=r"cannot be read as .*no data"):
        load_images(spec, data={"animals": none})


def test_splits_of_other_classes(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a", {"train": TRAIN})
    table(TEST, classes=("ant", "bee", "dog")).to_parquet(tmp_path / "a/test.parquet")
    with pytest.raises(DatasetError, match=r'Split "test" of "me/animals" has other classes than "train" has'):
        load_images(DatasetSpec(name="me/animals"), data={"animals": tmp_path / "a"})
    saved = datasets.DatasetDict({"train": table(TRAIN), "test": table(TEST, classes=("ant", "bee", "dog"))})
    saved.save_to_disk(tmp_path / "b")
    with pytest.raises(DatasetError, match=r'Split "test" of "me/animals" has other classes than "train" has'):
        load_images(DatasetSpec(name="me/animals"), data={"animals": tmp_path / "b"})


@pytest.mark.parametrize("write", [write_parquet, save_to_disk])
def test_damaged_tables(tmp_path: Path, write) -> None:
    folder = write(tmp_path / "a", SPLITS)
    for path in folder.rglob("*"):
        if path.suffix in (".parquet", ".arrow"):
            path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DatasetError, match=r"a cannot be read as .me/animals.: \w+: .*[^.]\. Get the folder again"):
        load_images(SPEC, data={"animals": folder})


def test_two_configurations(tmp_path: Path) -> None:
    for config, seeds in (("small", range(6)), ("large", TRAIN)):
        write_parquet(tmp_path / f"a/{config}", {"train": seeds, "test": TEST})
    with pytest.raises(DatasetError, match=r"has parquet files in 2 folders. Name one as config"):
        load_images(DatasetSpec(name="me/animals"), data={"animals": tmp_path / "a"})
    spec = DatasetSpec(name="me/animals", config="small")
    assert len(load_images(spec, data={"animals": tmp_path / "a"}).train) == 6


def test_a_grey_picture_is_rgb(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "x").mkdir(parents=True)
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / split / "x/0.png")
    found = load_images(DatasetSpec(name="me/grey"), data={"grey": tmp_path})
    assert isinstance(found.train, ImageSplit)
    assert np.array_equal(found.train.images[0], np.repeat(np.arange(64).reshape(1, 8, 8), 3, axis=0))


@pytest.mark.parametrize("field", ["image_column", "label_column"])
def test_class_folders_have_no_columns(tmp_path: Path, field: str) -> None:
    folder = write_class_folders(tmp_path / "a", SPLITS)
    said: dict[str, Any] = {field: "fine"}
    spec = DatasetSpec(name="me/animals", **said)
    with pytest.raises(DatasetError) as raised:
        load_images(spec, data={"animals": folder})
    assert str(raised.value) == (
        f'{field} is "fine", but the folder that was named for "me/animals" holds class folders, which have no '
        f"columns. Take {field} out of the DatasetSpec, or name a folder of tables."
    )
    with pytest.raises(DatasetError, match=f'{field} is "fine", but'):
        load_images(DatasetSpec(name="imagenet", **said), data={"imagenet": folder})


@pytest.mark.parametrize("config", ["../b", "/", "x/../../b"])
def test_a_configuration_stays_in_the_folder(tmp_path: Path, config: str) -> None:
    write_parquet(tmp_path / "b", SPLITS)
    (tmp_path / "a/x").mkdir(parents=True)
    with pytest.raises(DatasetError, match=f'config is "{config}"; expected the name of a folder in {tmp_path}/a'):
        load_images(DatasetSpec(name="me/animals", config=config), data={"animals": tmp_path / "a"})


HOSTILE = "\x1b[2J\n"


@pytest.mark.parametrize("write", [write_parquet, write_class_folders])
@pytest.mark.parametrize("field", ["config", "image_column", "label_column", "train_split", "val_split", "test_split"])
def test_what_a_record_says_is_escaped(tmp_path: Path, write, field: str) -> None:
    folder = write(tmp_path / "a", SPLITS)
    said: dict[str, Any] = {field: HOSTILE}
    spec = DatasetSpec(name="me/animals", **said)
    if (write, field) == (write_class_folders, "config"):
        return  # of which class folders have none
    with pytest.raises(DatasetError) as raised:
        load_images(spec, data={"animals": folder})
    assert str(raised.value).isprintable()


def test_what_memory_cannot_hold_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 + 5 images of 8 x 8 x 3 bytes: more than half of 6,144 bytes."""
    folder = write_parquet(tmp_path / "a", {"train": TRAIN, "test": TEST})
    pages = {"SC_PHYS_PAGES": 3 * 2**30, "SC_PAGE_SIZE": 2}
    monkeypatch.setattr("vitzoo.images.assemble.os.sysconf", pages.__getitem__)
    load_images(DatasetSpec(name="me/animals"), data={"animals": folder})
    _load.cache_clear()
    pages |= {"SC_PHYS_PAGES": 2 * (len(TRAIN) + len(TEST)) * 8 * 8 * 3 - 2, "SC_PAGE_SIZE": 1}
    with pytest.raises(DatasetError) as raised:
        load_images(DatasetSpec(name="me/animals"), data={"animals": folder})
    assert str(raised.value) == (
        '"me/animals" would take 0.0 GiB of 0.0 GiB of memory; expected half of it at most. Set streamed=True in the '
        "DatasetSpec."
    )
    spec = DatasetSpec(name="me/animals", streamed=True)
    assert len(load_images(spec, data={"animals": folder}).train) == len(TRAIN)
