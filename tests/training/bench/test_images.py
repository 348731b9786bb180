"""Generated images have the sizes and formats that the real ones have."""

from pathlib import Path

import numpy as np
from PIL import Image

from training.bench.images import photographs, small_images, write_cifar, write_photographs
from training.bench.scale import scale_for
from vitzoo.images import load_images


def test_photographs_are_jpegs_of_the_size_of_imagenets(tmp_path: Path) -> None:
    files = write_photographs(tmp_path, count=4, size=(500, 375))
    paths = sorted(tmp_path.iterdir())
    assert [path.name.encode() for path in paths] == files.names.tolist()
    for path in paths:
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (500, 375))
        assert 80_000 < path.stat().st_size < 140_000  # the mean of ImageNet's is 110 kB
    assert len({path.read_bytes() for path in paths}) == 4


def test_a_few_files_stand_for_a_whole_data_set(tmp_path: Path) -> None:
    planned = scale_for("cpu").members["supervised"]
    split = photographs(write_photographs(tmp_path, count=3, size=(40, 30)), planned)
    assert len(split) == planned.training.dataset.train_images == 12_811
    assert split.indices.tolist() == [0, 1, 2] * 4270 + [0]
    assert (split.labels.min(), split.labels.max()) == (0, 999)
    assert np.array_equal(np.asarray(split.load(1)), np.asarray(split.load(4)))


def test_small_images_are_of_cifars_size() -> None:
    planned = scale_for("cpu", quick=True).members["fine-tuning"]
    split = small_images(planned)
    assert split.images.shape == (planned.training.dataset.train_images, 3, 32, 32)
    assert (split.images.min(), split.images.max()) == (0, 255)
    assert set(split.labels.tolist()) <= set(range(100))


def test_the_cifar_folder_is_read_as_the_authors(tmp_path: Path) -> None:
    folder = write_cifar(tmp_path, train=150, test=20)
    images = load_images("cifar100", data={"cifar100": folder})
    assert (len(images.train), len(images.test), len(images.classes)) == (150, 20, 100)
    assert images.train.labels.tolist() == [*range(100), *range(50)]
