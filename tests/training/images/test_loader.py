"""The batches of an epoch: images and order depend on seeds, epoch and step alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.images.oracles import augment
from tests.tiny import tiny
from training.batch import Batch
from training.images import loader
from training.images.loader import ImageBatches
from training.images.mixing import draw_mixes, mix
from training.random import Draw, permutation
from training.recipes.augmentation import Augmentation
from training.recipes.data import Dataset
from training.recipes.plan import PlannedMember
from training.recipes.recipe import Head, Seeds
from training.recipes.training import Mixing, Optimizer, Training
from vitzoo.ids import MemberId
from vitzoo.images import DatasetSpec, ImageSplit

COUNT, SIZE, CLASSES = 50, 8, 5
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
# Every pixel of image i is i, so that the output shows the image.
IMAGES = torch.arange(COUNT, dtype=torch.uint8)[:, None, None, None].expand(COUNT, 3, 6, 6).contiguous()
NOISE = torch.randint(0, 256, (COUNT, 3, 6, 6), generator=torch.Generator().manual_seed(0)).byte()
LABELS = torch.arange(COUNT) % CLASSES
SEEDS = Seeds(init=1, head=2, order=3, augmentation=4)
PLAIN = Training(
    objective="supervised",
    dataset=Dataset(images=DatasetSpec(name="none"), train_images=COUNT, evaluated_train_images=COUNT),
    optimizer=Optimizer(name="adamw", learning_rate=1e-3),
    epochs=3,
    batch_size=SIZE,
)
CONTRASTIVE = replace(PLAIN, objective="contrastive", temperature=0.1)
AUGMENTATION = Augmentation(rotation=20.0, translate=0.1, scale=0.1, horizontal_flip=0.5, erasing=0.5)
MIXING = Mixing(mixup=0.8, cutmix=1.0, label_smoothing=0.1)


def batches(training: Training, *, epoch: int = 0, images: Tensor = IMAGES, seeds: Seeds = SEEDS) -> list[Batch]:
    split = ImageSplit(images=images.numpy(), labels=LABELS.numpy(), indices=np.arange(COUNT))
    architecture = replace(tiny().architecture, image_size=6, patch_size=3, mean=MEAN, std=STD)
    planned = PlannedMember(
        id=MemberId(0),
        architecture=architecture,
        head=Head(outputs=CLASSES),
        training=training,
        seeds=seeds,
        replicate=0,
    )
    return list(ImageBatches(planned, split, device=torch.device("cpu")).epoch(epoch))


def numbers(pixels: Tensor) -> list[int]:
    """Return the number of each image."""
    return ((pixels[:, 0, 0, 0] * STD[0] + MEAN[0]) * 255).round().int().tolist()


def equal(one: list[Batch], two: list[Batch]) -> bool:
    def same(a: Tensor | None, b: Tensor | None) -> bool:
        return a is b is None or (a is not None and b is not None and torch.equal(a, b))

    return len(one) == len(two) and all(
        same(a.inputs["pixel_values"], b.inputs["pixel_values"]) and same(a.targets, b.targets)
        for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("epoch", [0, 7])
def test_epoch_visits_no_image_twice(epoch: int) -> None:
    given = batches(PLAIN, epoch=epoch)
    assert len(given) == PLAIN.steps_per_epoch == 6  # 50 = 6 x 8 + 2: the last two are left out
    seen = [number for batch in given for number in numbers(batch.inputs["pixel_values"])]
    assert len(seen) == len(set(seen)) == 48
    assert seen == permutation(SEEDS.order, epoch=epoch, count=COUNT)[:48].tolist()
    for batch in given:
        assert batch.targets is not None
        assert batch.targets.argmax(1).tolist() == [
            number % CLASSES for number in numbers(batch.inputs["pixel_values"])
        ]
        assert batch.targets.sum(1).tolist() == [1.0] * SIZE


def test_order_depends_on_epoch_and_order_seed_alone() -> None:
    def order(epoch: int, seeds: Seeds = SEEDS) -> list[int]:
        return [n for batch in batches(PLAIN, epoch=epoch, seeds=seeds) for n in numbers(batch.inputs["pixel_values"])]

    assert len({tuple(order(epoch)) for epoch in range(5)}) == 5
    assert order(0, replace(SEEDS, order=4)) != order(0)
    assert order(0, Seeds(init=9, head=9, order=SEEDS.order, augmentation=9)) == order(0)


@pytest.mark.parametrize(
    "training",
    [replace(PLAIN, augmentation=AUGMENTATION, mixing=MIXING), replace(CONTRASTIVE, augmentation=AUGMENTATION)],
)
@pytest.mark.parametrize("steps_at_once", [1, 4, 5])
def test_batches_are_the_same_for_any_steps_at_once(
    training: Training, steps_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = batches(training, epoch=1, images=NOISE)
    views = 2 if training.objective == "contrastive" else 1
    monkeypatch.setattr(loader, "_CHUNK_BYTES", steps_at_once * SIZE * views * 3 * 6 * 6 * 4)
    assert equal(batches(training, epoch=1, images=NOISE), whole)
    monkeypatch.setattr(loader, "_CHUNK_BYTES", 1)  # less than a step
    assert equal(batches(training, epoch=1, images=NOISE), whole)


def test_contrastive_batch_has_first_views_then_second_views() -> None:
    for batch in batches(CONTRASTIVE):
        assert batch.targets is None
        assert batch.inputs["pixel_values"].shape == (2 * SIZE, 3, 6, 6)
        first, second = batch.inputs["pixel_values"].split(SIZE)
        assert numbers(first) == numbers(second)
        assert len(set(numbers(first))) == SIZE
    order = permutation(SEEDS.order, epoch=2, count=COUNT)
    for step, batch in enumerate(batches(replace(CONTRASTIVE, augmentation=AUGMENTATION), epoch=2, images=NOISE)):
        samples = order[step * SIZE : (step + 1) * SIZE]
        views = [
            augment(NOISE[samples], AUGMENTATION, Draw(seed=4, epoch=2, samples=samples, view=view), mean=MEAN, std=STD)
            for view in (0, 1)
        ]
        assert not torch.equal(*views)
        assert torch.equal(batch.inputs["pixel_values"], torch.cat(views))


def test_step_is_mixed_by_its_global_number() -> None:
    training = replace(PLAIN, augmentation=AUGMENTATION, mixing=MIXING)
    order = permutation(SEEDS.order, epoch=2, count=COUNT)
    kinds = set()
    for step, batch in enumerate(batches(training, epoch=2, images=NOISE)):
        samples = order[step * SIZE : (step + 1) * SIZE]
        plain = augment(NOISE[samples], AUGMENTATION, Draw(seed=4, epoch=2, samples=samples), mean=MEAN, std=STD)
        (drawn,) = draw_mixes(MIXING, seed=4, epoch=2, steps=range(12 + step, 13 + step), height=6, width=6)
        pixels, targets = mix(plain, LABELS[samples], drawn, classes=CLASSES, label_smoothing=0.1)
        assert torch.equal(batch.inputs["pixel_values"], pixels)
        assert batch.targets is not None
        assert torch.equal(batch.targets, targets)
        kinds.add(drawn.kind)
    assert kinds == {"mixup", "cutmix"}


def test_epoch_does_not_depend_on_earlier_epochs() -> None:
    training = replace(PLAIN, augmentation=AUGMENTATION, mixing=MIXING)
    for epoch in range(2):
        batches(training, epoch=epoch, images=NOISE)
    torch.manual_seed(1)
    one = batches(training, epoch=2, images=NOISE)
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    assert equal(batches(training, epoch=2, images=NOISE), one)
    torch.random.set_rng_state(state)
    assert not equal(batches(training, epoch=1, images=NOISE), one)
