"""Streamed crops: the bytes of images in memory, whoever decodes them, for any workers, ranks and resume."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.images.pictures import picture, table, write_class_folders
from training.images.crops import crop, draw_boxes
from training.images.streaming import Crops, CropStream
from training.random import Draw, Stream, permutation
from training.recipes.augmentation import Augmentation, RandomResizedCrop
from vitzoo.errors import DatasetError
from vitzoo.images import DatasetSpec, FileSplit, ImageSplit, load_images

ROOT = Path(__file__).parents[3]
COUNT, BATCH, STEPS, SIZE = 26, 8, 3, 6
BOXES = Augmentation(random_resized_crop=RandomResizedCrop(size=SIZE))
SQUARES = Augmentation(resize=9, random_crop=SIZE)
AUGMENTATIONS = {"boxes": BOXES, "squares": SQUARES, "no resize": Augmentation(random_crop=SIZE)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_class_folders(tmp_path / "animals", {"train": range(COUNT), "test": range(2)})


def split_of(folder: Path) -> FileSplit:
    split = load_images(DatasetSpec(name="me/animals", streamed=True), data={"animals": folder}).train
    assert isinstance(split, FileSplit)
    return split


def stream_of(split: FileSplit, augmentation: Augmentation = BOXES, **options: Any) -> CropStream:
    usual: dict[str, Any] = {"batch_size": BATCH, "views": 2, "rank": 0, "ranks": 1, "workers": 0, "image_size": SIZE}
    usual |= {"order_seed": 5, "augmentation_seed": 7} | options
    return CropStream(split, augmentation, **usual)


def all_of(batches: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    samples, images = zip(*batches, strict=True)
    return torch.stack(samples), torch.stack(images)


def expected(folder: Path, augmentation: Augmentation, epoch: int, **options: Any) -> tuple[Tensor, Tensor]:
    """By the way of images that are held in memory."""
    split = load_images(DatasetSpec(name="me/animals"), data={"animals": folder}).train
    assert isinstance(split, ImageSplit)
    order = permutation(5, epoch=epoch, count=COUNT)[: STEPS * BATCH]
    images = torch.from_numpy(split.images)[order]
    views = [
        crop(images, augmentation, Draw(seed=7, epoch=epoch, samples=order, view=view, **options)).unflatten(
            0, (STEPS, BATCH)
        )
        for view in (0, 1)
    ]
    return order.unflatten(0, (STEPS, BATCH)), torch.stack(views, 1)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS.values(), ids=list(AUGMENTATIONS))
def test_the_bytes_of_images_in_memory(folder: Path, augmentation: Augmentation) -> None:
    with stream_of(split_of(folder), augmentation) as stream:
        for epoch in (0, 3):
            samples, images = all_of(stream.epoch(epoch, STEPS))
            assert images.dtype == torch.uint8
            assert images.shape == (STEPS, 2, BATCH, 3, SIZE, SIZE)
            for found, right in zip((samples, images), expected(folder, augmentation, epoch), strict=True):
                assert torch.equal(found, right)


def test_views_and_epochs_differ(folder: Path) -> None:
    with stream_of(split_of(folder)) as stream:
        first, second = (all_of(stream.epoch(epoch, STEPS))[1] for epoch in (0, 1))
    assert not torch.equal(first[:, 0], first[:, 1])
    assert not torch.equal(first, second)


def test_views_that_training_never_sees(folder: Path) -> None:
    with stream_of(split_of(folder), stream=Stream.EVALUATION) as stream:
        _, images = all_of(stream.epoch(0, STEPS))
    assert torch.equal(images, expected(folder, BOXES, 0, stream=Stream.EVALUATION)[1])
    assert not torch.equal(images, expected(folder, BOXES, 0)[1])


@pytest.mark.parametrize(("workers", "method"), [(1, "fork"), (2, "fork"), (2, "spawn")])
def test_workers_change_nothing(folder: Path, workers: int, method: str) -> None:
    with stream_of(split_of(folder), workers=workers, start_method=method) as stream:
        for epoch in (0, 1):
            samples, images = all_of(stream.epoch(epoch, STEPS))
            right = expected(folder, BOXES, epoch)
            assert torch.equal(samples, right[0])
            assert torch.equal(images, right[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_ranks_have_their_rows(folder: Path, workers: int) -> None:
    right = expected(folder, BOXES, 2)
    found = []
    for rank in (0, 1):
        with stream_of(split_of(folder), rank=rank, ranks=2, workers=workers) as stream:
            found.append(all_of(stream.epoch(2, STEPS)))
    assert torch.equal(torch.cat([samples for samples, _ in found], 1), right[0])
    assert torch.equal(torch.cat([images for _, images in found], 2), right[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_at_an_epoch(folder: Path, workers: int) -> None:
    with stream_of(split_of(folder), workers=workers) as stream:
        whole = [all_of(stream.epoch(epoch, STEPS)) for epoch in range(4)]
    with stream_of(split_of(folder), workers=workers) as stream:
        for epoch in (2, 3):
            for found, right in zip(all_of(stream.epoch(epoch, STEPS)), whole[epoch], strict=True):
                assert torch.equal(found, right)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_left_of_an_epoch_is_thrown_away(folder: Path, workers: int) -> None:
    with stream_of(split_of(folder), workers=workers) as stream:
        left = stream.epoch(0, STEPS)
        next(left)
        _, images = all_of(stream.epoch(1, STEPS))
        assert torch.equal(images, expected(folder, BOXES, 1)[1])
        with pytest.raises(RuntimeError, match="epoch 0 of the images is over"):
            next(left)
        assert list(stream.epoch(2, 0)) == []
        assert len(list(stream.epoch(2, 1))) == 1


def sizes(seed: int) -> tuple[int, int]:
    return 7 + seed * 5 % 23, 7 + seed * 11 % 29


def test_images_of_any_size(tmp_path: Path) -> None:
    """Against PIL, one by one, at the boxes that are drawn for each image's own size."""
    from PIL import Image

    for seed in range(BATCH):
        path = tmp_path / f"any/train/x/{seed:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = sizes(seed)
        picture(seed, height=height, width=width).save(path)
    (tmp_path / "any/test/x").mkdir(parents=True)
    picture(0).save(tmp_path / "any/test/x/0.png")
    with stream_of(split_of(tmp_path / "any")) as stream:
        ((samples, images),) = stream.epoch(0, 1)
    heights, widths = (torch.tensor([sizes(place)[side] for place in samples.tolist()]) for side in (0, 1))
    for view in (0, 1):
        boxes = draw_boxes(
            RandomResizedCrop(size=SIZE),
            Draw(seed=7, epoch=0, samples=samples, view=view),
            heights=heights,
            widths=widths,
        )
        for row, place in enumerate(samples.tolist()):
            top, left, height, width = boxes[row].tolist()
            whole = picture(place, height=sizes(place)[0], width=sizes(place)[1])
            cut = whole.crop((left, top, left + width, top + height))
            cut = cut.resize((SIZE, height), Image.Resampling.BILINEAR).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
            assert np.array_equal(images[view, row].permute(1, 2, 0).numpy(), np.asarray(cut))


def test_rows_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "animals").mkdir()
    table(range(COUNT)).to_parquet(tmp_path / "animals/train.parquet")
    table(range(2)).to_parquet(tmp_path / "animals/test.parquet")
    with stream_of(split_of(tmp_path / "animals"), workers=2) as stream:
        _, images = all_of(stream.epoch(0, STEPS))
    assert torch.equal(images, expected(tmp_path / "animals", BOXES, 0)[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_named_and_the_next_epoch_goes_on(folder: Path, workers: int) -> None:
    split = split_of(folder)
    place = int(permutation(5, epoch=0, count=COUNT)[BATCH])  # in the second step
    path = Path(split.describe(place))
    content = path.read_bytes()
    path.write_bytes(content[:40])
    with stream_of(split, workers=workers) as stream:
        batches = stream.epoch(0, STEPS)
        next(batches)
        with pytest.raises(DatasetError, match=rf"^{path} is no image that can be decoded"):
            next(batches)
        path.write_bytes(content)
        assert torch.equal(all_of(stream.epoch(0, STEPS))[1], expected(folder, BOXES, 0)[1])


@pytest.mark.parametrize(
    ("augmentation", "says"),
    [
        (Augmentation(), r"has 8 x 8 pixels when it is cropped; expected 6 x 6\. Set resize and random_crop"),
        (Augmentation(resize=7), "has 7 x 7 pixels when it is cropped; expected 6 x 6"),
    ],
)
def test_an_augmentation_that_gives_another_size(folder: Path, augmentation: Augmentation, says: str) -> None:
    with stream_of(split_of(folder), augmentation) as stream, pytest.raises(DatasetError, match=says):
        next(stream.epoch(0, 1))


def test_an_image_that_is_smaller_than_the_crop(folder: Path) -> None:
    split = split_of(folder)
    Image.new("RGB", (7, 5)).save(split.describe(2))
    crops = Crops(split, AUGMENTATIONS["no resize"], views=1, seed=7, image_size=SIZE)
    says = r"has 7 x 5 pixels when it is cropped; expected 6 x 6 or more\. Set"
    with pytest.raises(DatasetError, match=says):
        crops.load(0, torch.tensor([1, 2]))


@pytest.mark.parametrize("augmentation", [SQUARES, Augmentation(resize=SIZE)], ids=["squares", "resized"])
def test_a_small_file_that_would_be_a_huge_image(folder: Path, augmentation: Augmentation) -> None:
    split = split_of(folder)
    path = Path(split.describe(7))
    Image.new("L", (1, 60_000_000 // 6)).save(path)
    size = augmentation.resize
    assert size is not None
    crops = Crops(split, augmentation, views=1, seed=7, image_size=SIZE)
    with pytest.raises(DatasetError) as raised:
        crops.load(0, torch.tensor([6, 7]))
    assert str(raised.value).startswith(
        f"{path} has 1 x 10000000 pixels and, its shorter side resized to {size}, would be"
    )
    assert f"would be {size} x {size * 10_000_000:,} pixels; expected at most 67,108,864" in str(raised.value)
    with pytest.raises(DatasetError, match="would be"):
        crop(
            torch.zeros((1, 3, 1, 10_000_000), dtype=torch.uint8),
            augmentation,
            Draw(seed=7, epoch=0, samples=torch.tensor([0])),
        )


def test_a_resize_alone(folder: Path) -> None:
    with stream_of(split_of(folder), Augmentation(resize=SIZE)) as stream:
        assert torch.equal(all_of(stream.epoch(0, STEPS))[1], expected(folder, Augmentation(resize=SIZE), 0)[1])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rank": 2, "ranks": 2}, "rank 2 of 2 for batches of 8; expected ranks that divide a batch"),
        ({"rank": -1, "ranks": 2}, "rank -1 of 2"),
        ({"ranks": 3}, "rank 0 of 3 for batches of 8"),
        ({"image_size": 8}, "the augmentation cuts squares of 6 pixels; expected the model's 8"),
    ],
)
def test_what_cannot_be(folder: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        stream_of(split_of(folder), **options)


@pytest.mark.parametrize("steps", [-1, 4])
def test_more_steps_than_there_are(folder: Path, steps: int) -> None:
    with stream_of(split_of(folder)) as stream, pytest.raises(ValueError, match=f"steps is {steps} for 26 images"):
        next(stream.epoch(0, steps))


def test_crops_of_chosen_images(folder: Path) -> None:
    crops = Crops(split_of(folder), BOXES, views=2, seed=7, image_size=SIZE)
    samples, images = expected(folder, BOXES, 0)
    chosen = samples.flatten()[[3, 1, 20]]
    assert torch.equal(crops.load(0, chosen), images.transpose(1, 2).flatten(0, 1)[[3, 1, 20]].transpose(0, 1))


def test_waiting_is_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of our own: decoding an image takes a second on it, and a step of training ten."""
    now = [0.0]
    monkeypatch.setattr("training.images.streaming.time.perf_counter", lambda: now[0])
    load = FileSplit.load

    def slow(split: FileSplit, place: int):
        now[0] += 1
        return load(split, place)

    monkeypatch.setattr(FileSplit, "load", slow)
    with stream_of(split_of(folder)) as stream:
        for epoch in (0, 1):
            assert stream.waited_seconds == (0 if epoch == 0 else STEPS * BATCH)
            for _ in stream.epoch(epoch, STEPS):
                now[0] += 10
            assert stream.waited_seconds == STEPS * BATCH


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "resource_tracker" not in " ".join(child.cmdline())]


def test_workers_end_with_the_stream(folder: Path) -> None:
    before = set(children())
    stream = stream_of(split_of(folder), workers=2)
    batches = stream.epoch(0, STEPS)
    next(batches)
    assert len(set(children()) - before) == 2
    stream.close()
    assert set(children()) == before
    with pytest.raises(RuntimeError, match="epoch 0 of the images is over: the stream was closed"):
        next(batches)
    with pytest.raises(RuntimeError, match="the stream of images is closed"):
        next(stream.epoch(1, STEPS))


_OWNER = """
import sys, time
from pathlib import Path
from tests.training.images.test_streaming import split_of, stream_of
import psutil
stream = stream_of(split_of(Path(sys.argv[1])), workers=2)
batches = stream.epoch(0, 3)
next(batches)
print(*[child.pid for child in psutil.Process().children()], flush=True)
time.sleep(600)
"""


def test_workers_end_with_an_owner_that_is_killed(folder: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", _OWNER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    workers = [psutil.Process(int(pid)) for pid in owner.stdout.readline().split()]
    assert len(workers) == 2
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 60  # torch's workers look for their owner every five seconds
    while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.2)
