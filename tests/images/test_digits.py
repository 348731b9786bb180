"""The digits splits, frozen: which images, in which order, with which pixels."""

import re
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
    ("name", "sizes", "fingerprint"),
    [
        ("digits-0-5", (649, 217, 217), "820988d370ccec6c3f0fe14797914b3cf7187395f5b745cf5161cbfdc85ccc8e"),
        ("digits-6-9", (429, 142, 143), "539e76cbff8fbaa8ad2efdf05b2d6e9fe2c559294864eb6c18b646faf2ef5cab"),
    ],
)
def test_digits_are_frozen(name: str, sizes: tuple[int, ...], fingerprint: str) -> None:
    dataset = load_images(name)
    assert dataset.name == name
    assert re.fullmatch(r"scikit-learn \d+\.\d+.*", dataset.revision)
    assert dataset.classes == tuple("012345" if name == "digits-0-5" else "6789")
    assert tuple(map(len, splits(dataset))) == sizes
    assert all(split.images.shape[1:] == (3, 8, 8) for split in splits(dataset))
    assert dataset.fingerprint == fingerprint


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


def test_no_image_is_in_two_parts_or_two_data_sets() -> None:
    every = [split for name in NAMES for split in splits(load_images(name))]
    indices = np.concatenate([split.indices for split in every])
    assert sorted(indices) == list(range(1797))
    contents = [image.tobytes() for split in every for image in split.images]
    assert len(set(contents)) == 1797  # no duplicates among the pixels either


def test_data_set_is_loaded_once(dataset: ImageDataset) -> None:
    assert load_images(dataset.name) is dataset


def test_fingerprint_covers_every_array_of_every_part(dataset: ImageDataset) -> None:
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
    assert renamed.fingerprint == dataset.fingerprint  # the name is not part of it
    strided = replace(dataset.train, images=np.asfortranarray(splits(dataset)[0].images))
    assert replace(dataset, train=strided).fingerprint == dataset.fingerprint


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("digits-0-6", "Nearest: digits-0-5, digits-6-9."),
        ("cifar01", "Nearest: cifar10, cifar100."),
        ("", "There are: digits-0-5, digits-6-9, uoft-cs/cifar100, cifar100, ILSVRC/"),
        ("me/x@main", "There are: "),
        ("a/b/c", "data={"),
    ],
)
def test_load_images_refuses_an_unknown_name(name: str, fix: str) -> None:
    with pytest.raises(DatasetError) as error:
        load_images(name)
    assert f'"{name}"' in error.value.problem
    assert "<owner>/<name>" in str(error.value.expected)
    assert fix in str(error.value.fix)
    assert error.value.dataset == name


def test_digits_refuse_other_splits() -> None:
    with pytest.raises(DatasetError, match=r"held_out=5"):
        load_images(DatasetSpec(name="digits-0-5", held_out=5))


def test_digits_do_not_import_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)  # importing it would fail
    assert len(digits.load_digits_named("digits-6-9").train) == 429


def test_digits_without_scikit_learn_say_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DatasetError, match="pip install scikit-learn"):
        digits.load_digits_named("digits-0-5")


def test_digits_name_the_missing_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "_FILE", Path("datasets/data/absent.csv.gz"))
    with pytest.raises(DatasetError, match=r"absent\.csv\.gz"):
        digits.load_digits_named("digits-0-5")
