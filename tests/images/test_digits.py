"""The digits splits, frozen: which images, in which order, with which pixels."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from vitzoo.errors import DatasetError
from vitzoo.images import DatasetSpec, ImageDataset, ImageSplit, digits, load_images

NAMES = ("digits-0-5", "digits-6-9")
PARTS = ("train", "val", "test")
BLOCKS = {"train": range(1078), "val": range(1078, 1437), "test": range(1437, 1797)}
PIXELS, DIGITS = (np.asarray(array) for array in load_digits(return_X_y=True))


@pytest.fixture(params=NAMES)
def dataset(request: pytest.FixtureRequest) -> ImageDataset:
    return load_images(request.param)


def splits(dataset: ImageDataset) -> list[ImageSplit]:
    return [split for part in PARTS if isinstance(split := getattr(dataset, part), ImageSplit)]


@pytest.mark.parametrize(
    ("name", "sizes", "classes"),
    [
        ("digits-0-5", (649, 217, 217), ("0", "1", "2", "3", "4", "5")),
        ("digits-6-9", (429, 142, 143), ("6", "7", "8", "9")),
    ],
)
def test_sizes_and_classes(name: str, sizes: tuple[int, ...], classes: tuple[str, ...]) -> None:
    dataset = load_images(name)
    assert dataset.name == name
    assert re.fullmatch(r"scikit-learn \d+\.\d+.*", dataset.revision)
    assert tuple(map(len, splits(dataset))) == sizes
    assert dataset.classes == classes
    for split, size in zip(splits(dataset), sizes, strict=True):
        assert split.images.shape == (size, 3, 8, 8)
        assert split.labels.shape == split.indices.shape == (size,)
        assert (split.images.dtype, split.labels.dtype, split.indices.dtype) == (np.uint8, np.int64, np.int64)
        assert set(split.labels) == set(range(len(classes)))  # every class in every part


@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [
        ("digits-0-5", "820988d370ccec6c3f0fe14797914b3cf7187395f5b745cf5161cbfdc85ccc8e"),
        ("digits-6-9", "539e76cbff8fbaa8ad2efdf05b2d6e9fe2c559294864eb6c18b646faf2ef5cab"),
    ],
)
def test_fingerprints_are_frozen(name: str, fingerprint: str) -> None:
    assert load_images(name).fingerprint == fingerprint


def test_parts_are_contiguous_blocks_filtered_by_class(dataset: ImageDataset) -> None:
    wanted = [int(name) for name in dataset.classes]
    for part, split in zip(PARTS, splits(dataset), strict=True):
        assert split.indices.tolist() == [i for i in BLOCKS[part] if DIGITS[i] in wanted]
        assert [dataset.classes[label] for label in split.labels] == [str(DIGITS[i]) for i in split.indices]


def test_pixels_are_scikit_learns_rounded_and_grey(dataset: ImageDataset) -> None:
    for split in splits(dataset):
        expected = [[round(float(value) * 255 / 16) for value in PIXELS[i]] for i in split.indices]
        for channel in range(3):
            assert split.images[:, channel].reshape(len(split), 64).tolist() == expected
    assert {int(value) for split in splits(dataset) for value in np.unique(split.images)} == {
        *(0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255)
    }


def test_no_image_is_on_two_sides_or_in_two_data_sets() -> None:
    every = [split for name in NAMES for split in splits(load_images(name))]
    indices = np.concatenate([split.indices for split in every])
    assert sorted(indices) == list(range(1797))
    contents = [image.tobytes() for split in every for image in split.images]
    assert len(set(contents)) == 1797  # by what they show, too


def test_a_data_set_is_loaded_once(dataset: ImageDataset) -> None:
    assert load_images(dataset.name) is dataset


def test_a_fingerprint_sees_every_array_of_every_part(dataset: ImageDataset) -> None:
    seen = {dataset.fingerprint}
    for part, split in zip(PARTS, splits(dataset), strict=True):
        changed = split.images.copy()
        changed[-1, -1, -1, -1] ^= 1
        for other in (
            replace(split, images=changed),
            replace(split, labels=split.labels[::-1]),
            replace(split, indices=split.indices + 1),
            replace(split, images=split.images.reshape(len(split), 3, 4, 16)),
        ):
            seen.add(replace(dataset, **{part: other}).fingerprint)
    assert len(seen) == 13
    renamed = replace(dataset, name="other", revision="other")
    assert renamed.fingerprint == dataset.fingerprint  # the images, whatever they are called
    strided = replace(dataset.train, images=np.asfortranarray(splits(dataset)[0].images))
    assert replace(dataset, train=strided).fingerprint == dataset.fingerprint


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("digits-0-6", 'No image data set is called "digits-0-6". Nearest: digits-0-5, digits-6-9. Those of the Hub'),
        ("cifar10", 'No image data set is called "cifar10". Nearest: cifar100, uoft-cs/cifar100. Those of the Hub'),
        ("", 'No image data set is called "". There are: digits-0-5, digits-6-9, uoft-cs/cifar100, cifar100, ILSVRC/'),
        ("me/x@main", 'No image data set is called "me/x@main". There are: '),
        ("a/b/c", "<owner>/<name>, of letters, digits, - _ and full stops; those of a folder are named by data."),
    ],
)
def test_an_unknown_name(name: str, says: str) -> None:
    with pytest.raises(DatasetError) as raised:
        load_images(name)
    assert says in str(raised.value)
    assert vars(raised.value)["dataset"] == name


def test_bundled_splits_are_as_they_are() -> None:
    with pytest.raises(DatasetError, match=r"is bundled with its splits, but .*held_out=5"):
        load_images(DatasetSpec(name="digits-0-5", held_out=5))


def test_scikit_learn_is_not_imported() -> None:
    code = (
        "import sys; from vitzoo.images import load_images; load_images('digits-6-9'); print('sklearn' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DatasetError, match=r"which is not installed: pip install scikit-learn"):
        digits.load_digits_named("digits-0-5")


def test_scikit_learn_without_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "_FILE", Path("datasets/data/absent.csv.gz"))
    with pytest.raises(DatasetError, match=r"not in .*absent\.csv\.gz, where scikit-learn 1\.9 has them"):
        digits.load_digits_named("digits-0-5")
