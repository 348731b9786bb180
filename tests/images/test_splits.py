"""Splits in memory and in files: evenly spaced subsets, parts, fingerprints, and use in workers."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.images.pictures import label_of, pixels, write_class_folders, write_parquet
from vitzoo.errors import DatasetError
from vitzoo.images import DatasetSpec, FileSplit, ImageDataset, ImageSplit, load_images
from vitzoo.images.sources import ImageFiles

SPEC = DatasetSpec(name="me/animals", streamed=True)
TRAIN, TEST = range(12), range(12, 18)


def memory() -> ImageSplit:
    split = load_images("digits-0-5").train
    assert isinstance(split, ImageSplit)
    return split


@pytest.fixture(params=["files", "rows"])
def streamed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageDataset:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    write = write_class_folders if request.param == "files" else write_parquet
    folder = write(tmp_path / "animals", {"train": TRAIN, "test": TEST})
    return load_images(SPEC, data={"animals": folder})


def files(dataset: ImageDataset) -> FileSplit:
    split = dataset.train
    assert isinstance(split, FileSplit)
    return split


EVENLY = [(1, [0]), (2, [0, 5]), (3, [0, 3, 6]), (4, [0, 2, 5, 7]), (5, [0, 2, 4, 6, 8]), (9, [*range(9)])]


@pytest.mark.parametrize(("count", "expected"), EVENLY)
def test_evenly_takes_evenly_spaced_images(count: int, expected: list[int]) -> None:
    split = memory()
    found = split.part(0, 10).evenly(count)
    assert found.indices.tolist() == split.indices[expected].tolist()
    assert np.array_equal(found.labels, split.labels[expected])
    assert np.array_equal(found.images, split.images[expected])


def test_evenly_takes_evenly_spaced_files(streamed: ImageDataset) -> None:
    split = files(streamed)
    found = split.part(0, 10).evenly(4)
    assert found.indices.tolist() == [0, 2, 5, 7]
    assert np.array_equal(found.labels, split.labels[[0, 2, 5, 7]])
    assert np.array_equal(np.asarray(found.load(2)), np.asarray(split.load(5)))


@pytest.mark.parametrize("count", [1, 7, 64, 128, 649])
def test_evenly_spaces_and_repeats_nothing(count: int) -> None:
    split = memory()
    places = np.searchsorted(split.indices, split.evenly(count).indices)
    assert len(places) == count
    assert places[0] == 0
    assert set(np.diff(places)) <= {len(split) // count, -(-len(split) // count)}


@pytest.mark.parametrize("count", [-1, 0, 650, 10**12])
def test_evenly_refuses_another_count(count: int) -> None:
    with pytest.raises(DatasetError, match=f"{count} .*; expected 1 to 649"):
        memory().evenly(count)


def test_parts_make_the_split(streamed: ImageDataset) -> None:
    split = memory()
    parts = [split.part(0, 300), split.part(300, 649)]
    assert np.array_equal(np.concatenate([part.images for part in parts]), split.images)
    assert np.shares_memory(parts[1].images, split.images)
    split = files(streamed)
    parts = [split.part(0, 5), split.part(5, 12)]
    assert list(map(len, parts)) == [5, 7]
    assert np.array_equal(np.concatenate([part.labels for part in parts]), split.labels)
    assert np.array_equal(np.asarray(parts[1].load(2)), np.asarray(split.load(7)))
    assert (len(split.part(3, 3)), len(split.part(10, 99))) == (0, 2)


def test_files_and_rows_are_decoded(streamed: ImageDataset) -> None:
    source = files(streamed).source
    seeds = [int(name[-7:-4]) for name in source.names] if isinstance(source, ImageFiles) else TRAIN
    assert sorted(seeds) == list(TRAIN)
    for place, seed in enumerate(seeds):
        image = files(streamed).load(place)
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), pixels(seed))
        assert files(streamed).labels[place] == label_of(seed)
    assert streamed.streamed
    assert (len(streamed.val), len(streamed.test)) == (0, 6)
    assert isinstance(streamed.val, FileSplit)


def test_fingerprint_of_streamed_images_covers_names_sizes_and_labels(streamed: ImageDataset) -> None:
    split = files(streamed)
    others = (replace(split, labels=1 - split.labels), split.part(0, 11), split.take(np.arange(12)[::-1].copy()))
    seen = {streamed.fingerprint, *(replace(streamed, train=other).fingerprint for other in others)}
    assert len(seen) == 4
    if isinstance(source := split.source, ImageFiles):
        path = source.root / source.names[0].decode()
        path.write_bytes(path.read_bytes() + b"\0")
        assert replace(streamed, name="as now").fingerprint not in seen
        moved = path.with_name("new.png")
        path.rename(moved)
        names = source.names.copy()
        names[0] = names[0].replace(path.name.encode(), b"new.png")
        renamed = replace(split, source=replace(source, names=names))
        assert replace(streamed, train=renamed).fingerprint not in seen


def test_fingerprint_does_not_depend_on_the_folder(tmp_path: Path) -> None:
    found = []
    for name in ("here", "there"):
        folder = write_class_folders(tmp_path / name, {"train": TRAIN, "test": TEST})
        found.append(load_images(SPEC, data={"animals": folder}).fingerprint)
    assert found[0] == found[1]


def test_splits_can_be_pickled(streamed: ImageDataset) -> None:
    split = files(streamed)
    copy = pickle.loads(pickle.dumps(split))
    for place in range(len(split)):
        assert np.array_equal(np.asarray(copy.load(place)), np.asarray(split.load(place)))
