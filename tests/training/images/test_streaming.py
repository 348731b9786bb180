"""Streamed crops: the bytes of images in memory, for any workers, ranks and resume."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.images.pictures import picture, table, write_class_folders
from tests.tiny import CONTRASTIVE, tiny
from training.images.crops import crop, draw_boxes
from training.images.streaming import Crops, CropStream
from training.random import Draw, Stream, permutation
from training.recipes.augmentation import Augmentation, RandomResizedCrop
from training.recipes.plan import plan_member
from training.recipes.recipe import Seeds
from vitzoo.errors import DatasetError
from vitzoo.ids import MemberId
from vitzoo.images import DatasetSpec, FileSplit, ImageSplit, load_images

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


def crops_of(split: FileSplit, augmentation: Augmentation = BOXES, **options: Any) -> Crops:
    architecture = replace(tiny().architecture, image_size=SIZE, patch_size=3)
    training, seeds = replace(CONTRASTIVE, augmentation=augmentation), Seeds(init=0, head=0, order=0, augmentation=7)
    planned = replace(plan_member(tiny(), MemberId(2)), architecture=architecture, training=training, seeds=seeds)
    return Crops(planned, split, **options)


def stream_of(split: FileSplit, augmentation: Augmentation = BOXES, *, workers: int = 0) -> closing[CropStream]:
    return closing(CropStream(crops_of(split, augmentation), workers=workers))


def samples_of(epoch: int) -> Tensor:
    return permutation(5, epoch=epoch, count=COUNT)[: STEPS * BATCH].unflatten(0, (STEPS, BATCH))


def images_of(stream: CropStream, epoch: int) -> Tensor:
    return torch.stack(list(stream.epoch(epoch, samples_of(epoch))))


def expected(folder: Path, augmentation: Augmentation, epoch: int) -> Tensor:
    """Crop the same images in memory."""
    split = load_images(DatasetSpec(name="me/animals"), data={"animals": folder}).train
    assert isinstance(split, ImageSplit)
    order = samples_of(epoch).flatten()
    images = torch.from_numpy(split.images)[order]
    draws = (Draw(seed=7, epoch=epoch, samples=order, view=view) for view in (0, 1))
    return torch.stack([crop(images, augmentation, draw).unflatten(0, (STEPS, BATCH)) for draw in draws], 1)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS.values(), ids=list(AUGMENTATIONS))
def test_streamed_crops_equal_crops_in_memory(folder: Path, augmentation: Augmentation) -> None:
    with stream_of(split_of(folder), augmentation) as stream:
        for epoch in (0, 3):
            images = images_of(stream, epoch)
            assert images.dtype == torch.uint8
            assert images.shape == (STEPS, 2, BATCH, 3, SIZE, SIZE)
            assert torch.equal(images, expected(folder, augmentation, epoch))


def test_crops_differ_by_view_epoch_and_stream(folder: Path) -> None:
    samples = samples_of(0)[0]
    crops = crops_of(split_of(folder))
    evaluation = crops_of(split_of(folder), stream=Stream.EVALUATION).load(0, samples)
    found = [*crops.load(0, samples), *crops.load(1, samples), *evaluation]
    assert len({image.numpy().tobytes() for image in found}) == 6


def test_workers_and_resume_change_nothing(folder: Path) -> None:
    for epochs in ((0, 1, 2), (1, 2)):
        with stream_of(split_of(folder), workers=2) as stream:
            for epoch in epochs:
                assert torch.equal(images_of(stream, epoch), expected(folder, BOXES, epoch))


@pytest.mark.parametrize("workers", [0, 2])
def test_new_epoch_ends_the_one_before(folder: Path, workers: int) -> None:
    with stream_of(split_of(folder), workers=workers) as stream:
        old = stream.epoch(0, samples_of(0))
        next(old)
        assert torch.equal(images_of(stream, 1), expected(folder, BOXES, 1))
        with pytest.raises(RuntimeError, match="epoch 0 of the images is over"):
            next(old)
        assert list(stream.epoch(2, samples_of(2)[:0])) == []
        assert len(list(stream.epoch(2, samples_of(2)[:1, :3]))) == 1


def sizes(seed: int) -> tuple[int, int]:
    return 7 + seed * 5 % 23, 7 + seed * 11 % 29


def test_crops_of_images_of_any_size_equal_pil(tmp_path: Path) -> None:
    for seed in range(BATCH):
        path = tmp_path / f"any/train/x/{seed:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = sizes(seed)
        picture(seed, height=height, width=width).save(path)
    (tmp_path / "any/test/x").mkdir(parents=True)
    picture(0).save(tmp_path / "any/test/x/0.png")
    samples = torch.arange(BATCH)
    images = crops_of(split_of(tmp_path / "any")).load(0, samples)
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


def test_rows_of_a_table_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "animals").mkdir()
    table(range(COUNT)).to_parquet(tmp_path / "animals/train.parquet")
    table(range(2)).to_parquet(tmp_path / "animals/test.parquet")
    with stream_of(split_of(tmp_path / "animals"), workers=2) as stream:
        assert torch.equal(images_of(stream, 0), expected(tmp_path / "animals", BOXES, 0))


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_image_is_named_and_the_next_epoch_works(folder: Path, workers: int) -> None:
    split = split_of(folder)
    path = Path(split.describe(int(samples_of(0)[1, 0])))
    content = path.read_bytes()
    path.write_bytes(content[:40])
    with stream_of(split, workers=workers) as stream:
        batches = stream.epoch(0, samples_of(0))
        next(batches)
        with pytest.raises(DatasetError, match=rf"^{path} cannot be decoded"):
            next(batches)
        path.write_bytes(content)
        assert torch.equal(images_of(stream, 0), expected(folder, BOXES, 0))


@pytest.mark.parametrize(
    ("augmentation", "size", "required"),
    [
        (Augmentation(), (8, 8), "6 x 6"),
        (Augmentation(resize=7), (7, 7), "6 x 6"),
        (AUGMENTATIONS["no resize"], (7, 5), "6 x 6 or more"),
    ],
)
def test_image_that_does_not_fit_the_crop_is_refused(
    folder: Path, augmentation: Augmentation, size: tuple[int, int], required: str
) -> None:
    split = split_of(folder)
    if augmentation.resize is None:
        Image.new("RGB", size).save(split.describe(2))
    with pytest.raises(DatasetError, match=f"has {size[0]} x {size[1]} pixels when it is cropped") as error:
        crops_of(split, augmentation).load(0, torch.tensor([2]))
    assert error.value.expected == required


@pytest.mark.parametrize("augmentation", [SQUARES, Augmentation(resize=SIZE)], ids=["squares", "resized"])
def test_small_file_of_a_huge_image_is_refused(folder: Path, augmentation: Augmentation) -> None:
    split = split_of(folder)
    path = Path(split.describe(7))
    Image.new("L", (1, 60_000_000 // 6)).save(path)
    with pytest.raises(DatasetError, match=f"^{path} has 1 x 10000000 pixels"):
        crops_of(split, augmentation).load(0, torch.tensor([6, 7]))
    draw = Draw(seed=7, epoch=0, samples=torch.tensor([0]))
    with pytest.raises(DatasetError, match="1 x 10000000 pixels"):
        crop(torch.zeros((1, 3, 10_000_000, 1), dtype=torch.uint8), augmentation, draw)


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "resource_tracker" not in " ".join(child.cmdline())]


def test_workers_end_with_the_stream(folder: Path) -> None:
    before = set(children())
    stream = CropStream(crops_of(split_of(folder)), workers=2)
    batches = stream.epoch(0, samples_of(0))
    next(batches)
    assert len(set(children()) - before) == 2
    stream.close()
    assert set(children()) == before
    with pytest.raises(RuntimeError, match="epoch 0 of the images is over"):
        next(batches)
    with pytest.raises(RuntimeError, match="is closed"):
        next(stream.epoch(1, samples_of(1)))
