"""The whole augmentation: the order of its operations, and random numbers that depend on the sample alone.

The other files of this folder test each operation alone.
"""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.images.oracles import augment, by_pil, digits, photographs, to_pil, to_tensor
from training.images import augment as module
from training.images import draws
from training.images.blur import gaussian_blur
from training.images.colour import jitter
from training.images.crops import draw_boxes, draw_corners
from training.images.erasing import erase
from training.images.geometry import transform
from training.random import Draw, Stream
from training.recipes.augmentation import Augmentation, ColorJitter, GaussianBlur, RandomResizedCrop
from training.recipes.pipelines import CONTRASTIVE, FINE_TUNING, SUPERVISED
from vitzoo.images.resizing import resize_image
from vitzoo.models.evaluation import normalise

HALF = (0.5, 0.5, 0.5)
EVERYTHING = Augmentation(rotation=15.0, translate=0.12, scale=0.12, horizontal_flip=0.5, erasing=0.25)
COLOURED = Augmentation(
    random_resized_crop=RandomResizedCrop(size=21),
    horizontal_flip=0.5,
    color_jitter=ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.1, probability=0.8),
    grayscale=0.2,
    blur=GaussianBlur(kernel_size=5, probability=0.7),
    erasing=0.5,
    erasing_fill="noise",
)
TURNED = Augmentation(
    resize=40, random_crop=32, horizontal_flip=0.5, rotation=20.0, translate=0.1, scale=0.2, interpolation="nearest"
)
ALL = {
    "digits": EVERYTHING,
    "coloured": COLOURED,
    "turned": TURNED,
    "bilinear, coloured": replace(COLOURED, rotation=10.0, erasing_fill="zero"),
    "cropped alone": Augmentation(random_crop=20),
    "resized alone": Augmentation(resize=24),
}


def augmented(images: Tensor, augmentation: Augmentation, *, samples: Tensor | None = None, view: int = 0) -> Tensor:
    samples = torch.arange(len(images)) if samples is None else samples
    return augment(images, augmentation, Draw(seed=5, epoch=2, samples=samples, view=view), mean=HALF, std=HALF)


def test_no_augmentation_normalises_alone() -> None:
    assert torch.equal(augmented(digits(), Augmentation()), normalise(digits(), mean=HALF, std=HALF))


def test_affine_map_uses_the_draws_of_the_sample() -> None:
    samples = torch.tensor([3, 1000, 17])
    numbers = Draw(seed=5, epoch=2, samples=samples).uniforms(28).double()
    found = augmented(digits(3), Augmentation(rotation=15.0, translate=0.12, scale=0.2), samples=samples)
    signed = 2 * numbers - 1
    expected = transform(
        digits(3).float(),
        rotation=15 * signed[:, 0],
        right=0.12 * signed[:, 1],
        down=0.12 * signed[:, 2],
        scale=1 + 0.2 * signed[:, 3],
    )
    assert torch.equal(found, normalise(expected, mean=HALF, std=HALF))


@pytest.mark.parametrize("probability", [0.0, 0.4, 1.0])
def test_flip_has_its_probability(probability: float) -> None:
    images = digits(1).expand(2000, 3, 8, 8)
    found = augmented(images, Augmentation(horizontal_flip=probability))
    plain = normalise(images, mean=HALF, std=HALF)
    flipped = (found == plain.flip(-1)).all(dim=(1, 2, 3))
    assert torch.equal(~flipped, (found == plain).all(dim=(1, 2, 3)))
    assert flipped.float().mean().item() == pytest.approx(probability, abs=0.03 if 0 < probability < 1 else 0)


def drawn(count: int) -> list[list[float]]:
    return Draw(seed=5, epoch=2, samples=torch.arange(count)).uniforms(60).double().tolist()


def place(number: int) -> dict:
    return {"seed": 5, "epoch": 2, "samples": torch.tensor([number])}


def mirrored(image: Image.Image, numbers: list[float]) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if numbers[4] < 0.5 else image


def test_fine_tuning_augmentation_equals_pil() -> None:
    """Compare with Resize(256, bicubic), RandomCrop(224), flip, RandomRotation(10) of torchvision on PIL images."""
    images, numbers = photographs(8, 32, 32), drawn(8)

    def change(i: int, image: Image.Image) -> Image.Image:
        image = image.resize((256, 256), Image.Resampling.BICUBIC)
        sides = torch.tensor([256])
        top, left = draw_corners(224, Draw(**place(i)), heights=sides, widths=sides)[0].tolist()
        image = mirrored(image.crop((left, top, left + 224, top + 224)), numbers[i])
        return image.rotate(10 * (2 * numbers[i][0] - 1), Image.Resampling.NEAREST, fillcolor=0)

    expected = normalise(by_pil(images, change), mean=HALF, std=HALF)
    assert torch.equal(augmented(images, FINE_TUNING), expected)


@pytest.mark.parametrize("pipeline", [SUPERVISED, CONTRASTIVE, replace(CONTRASTIVE, blur=None)])
def test_pre_training_augmentation_equals_pil(pipeline: Augmentation) -> None:
    """Compare with RandomResizedCrop(224), flip, colours and grey of PIL. The blur is ours, since PIL has none."""
    images, numbers = photographs(8, 150, 200), drawn(8)
    uniform = torch.tensor(numbers).float()
    settings = pipeline.random_resized_crop
    assert settings is not None

    def change(i: int, image: Image.Image) -> Image.Image:
        sides = torch.tensor([150]), torch.tensor([200])
        top, left, height, width = draw_boxes(settings, Draw(**place(i)), heights=sides[0], widths=sides[1])[0].tolist()
        image = image.crop((left, top, left + width, top + height))
        image = mirrored(resize_image(image, height=224, width=224, resample="bilinear"), numbers[i])
        if pipeline.color_jitter is not None:
            image = to_pil(jitter(to_tensor(image)[None], pipeline.color_jitter, uniform[i : i + 1])[0])
        return image.convert("L").convert("RGB") if numbers[i][56] < pipeline.grayscale else image

    expected = by_pil(images, change)
    if pipeline.blur is not None:
        low, high = pipeline.blur.sigma
        sigmas = low + (high - low) * torch.tensor([number[58] for number in numbers], dtype=torch.float64)
        expected = gaussian_blur(expected, sigmas, kernel_size=pipeline.blur.kernel_size)
    assert torch.equal(augmented(images, pipeline), normalise(expected, mean=HALF, std=HALF))


def test_bilinear_map_is_rounded_before_colours() -> None:
    images = photographs(20, 30, 30)
    moved = augmented(images, Augmentation(rotation=20.0)) * 127.5 + 127.5
    found = augmented(images, Augmentation(rotation=20.0, color_jitter=ColorJitter(probability=0.0)))
    levels = found * 127.5 + 127.5
    assert (levels - levels.round()).abs().max() < 1e-4
    assert (levels - moved).abs().max() < 0.501


@pytest.mark.parametrize(
    ("first", "names"),
    [
        (0, "ROTATION RIGHT DOWN SCALE FLIP ERASE ERASE_TOP ERASE_LEFT"),
        (28, "CROP_TOP CROP_LEFT"),
        (50, "JITTER BRIGHTNESS CONTRAST SATURATION HUE ORDER GRAYSCALE BLUR SIGMA NOISE"),
    ],
)
def test_places_of_random_numbers_are_frozen(first: int, names: str) -> None:
    assert [getattr(draws, name) for name in names.split()] == [first + i for i in range(len(names.split()))]
    assert slice(8, 28) == draws.ERASE_SIZES
    assert slice(30, 50) == draws.BOX_SIZES


def images_for(augmentation: Augmentation, count: int = 24) -> Tensor:
    return digits(count) if augmentation is EVERYTHING else photographs(count, 26, 33)


@pytest.mark.parametrize("augmentation", ALL.values(), ids=ALL.keys())
def test_sample_is_the_same_in_every_batch(augmentation: Augmentation, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 64 if augmentation is EVERYTHING else 24
    images = images_for(augmentation, count)
    together = augmented(images, augmentation)
    assert together.dtype == torch.float32
    assert together.is_contiguous()
    for size in (1, 7):
        for start in range(0, count, size):
            rows = torch.arange(start, min(start + size, count))
            assert torch.equal(augmented(images[rows], augmentation, samples=rows), together[rows])
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    assert torch.equal(augmented(images[order], augmentation, samples=order), together[order])
    monkeypatch.setattr(module, "_CPU_BYTES", 5 * 4 * together[0].numel())
    assert torch.equal(augmented(images, augmentation), together)


class Waits(TorchDispatchMode):
    """Refuse operations for which a CPU waits for a device: numbers, and shapes that depend on them."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal")
        indices = args[1] if name.startswith(("index", "_index_put")) and isinstance(args[1], list) else []
        assert not any(index is not None and index.dtype == torch.bool for index in indices)
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("augmentation", ALL.values(), ids=ALL.keys())
def test_augmentation_does_not_wait_for_the_device(augmentation: Augmentation) -> None:
    images = images_for(augmentation)
    with Waits():
        augmented(images, augmentation)
        erase(torch.ones(24, 3, 8, 8), torch.rand(24, 60), COLOURED)


def test_strided_images_equal_contiguous_images() -> None:
    images = photographs(6, 40, 52)[:, :, ::2, 1::2]
    for augmentation in (EVERYTHING, COLOURED, TURNED, Augmentation(random_crop=9), Augmentation(horizontal_flip=0.5)):
        found = augmented(images, augmentation)
        assert found.is_contiguous()
        assert torch.equal(found, augmented(images.contiguous(), augmentation))


def test_augmentation_differs_by_view_epoch_seed_and_stream() -> None:
    images, samples = digits(8), torch.arange(8)
    keys = [(0, 0, 0, Stream.AUGMENTATION), (1, 0, 0, Stream.AUGMENTATION), (0, 1, 0, Stream.AUGMENTATION)]
    keys += [(0, 0, 1, Stream.AUGMENTATION), (0, 0, 0, Stream.EVALUATION)]
    found = [
        augment(
            images,
            EVERYTHING,
            Draw(seed=seed, epoch=epoch, samples=samples, view=view, stream=stream),
            mean=HALF,
            std=HALF,
        )
        for seed, epoch, view, stream in keys
    ]
    for i in range(8):
        assert len({tuple(result[i].flatten().tolist()) for result in found}) == len(keys)
