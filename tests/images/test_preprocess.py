"""Preprocessing: the same bytes by our batches, by PIL, and by transformers' own processor."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, ViTImageProcessorPil, pipeline

from tests.images.pictures import write_class_folders
from vitzoo.errors import ConfigError, DatasetError
from vitzoo.images import DatasetSpec, FileSplit, ImageSplit, Preprocessing, load_images
from vitzoo.images.preprocess import iter_preprocessed, preprocess, preprocess_image
from vitzoo.images.processor import ExactSize, load_processor_json, preprocessing_of, processor_arguments
from vitzoo.models.evaluation import evaluate, normalise
from vitzoo.models.vit import VitZooConfig, VitZooModel

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CPU = torch.device("cpu")
SIZES = [(32, 32), (40, 32), (32, 41), (70, 37), (37, 100), (375, 500), (8, 8), (29, 28)]


def noise(height: int, width: int, *, count: int = 2) -> np.ndarray:
    """Draw noise, the hardest case for a resize, because every value takes part in rounding."""
    return np.random.default_rng(height * width).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


WAYS = [
    (Preprocessing(resize=32, crop=28, resample="bicubic"), 28),
    (Preprocessing(resize=36, crop=28), 28),
    (Preprocessing(resize=40, crop=33, resample="bilinear"), 33),
    (Preprocessing(crop=8), 8),
    (Preprocessing(resize=24, resample="bicubic"), 24),
]


@pytest.mark.parametrize(("preprocessing", "side"), WAYS)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_batches_pil_and_transformers_give_the_same_bytes(
    tmp_path: Path, preprocessing: Preprocessing, side: int, height: int, width: int
) -> None:
    pictures = noise(height, width)
    ours = preprocess(torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy()), preprocessing)
    assert preprocessing.crop is None or ours.shape == (2, 3, side, side)
    arguments = processor_arguments(preprocessing, image_size=side, mean=MEAN, std=STD)
    ViTImageProcessorPil(**arguments).save_pretrained(tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    opened = [Image.fromarray(picture) for picture in pictures]
    raw = processor(opened, return_tensors="pt", do_rescale=False, do_normalize=False)["pixel_values"]
    assert torch.equal(raw, ours)
    for image, expected in zip(opened, ours, strict=True):
        assert np.array_equal(np.asarray(preprocess_image(image, preprocessing)).transpose(2, 0, 1), expected.numpy())
    seen = processor(opened, return_tensors="pt")["pixel_values"]
    assert (seen - normalise(ours, mean=MEAN, std=STD)).abs().max() < 1e-6  # transformers rounds 1 / 255 first


@pytest.mark.parametrize(("preprocessing", "levels"), [(WAYS[0][0], 32), (WAYS[1][0], 1)], ids=["bicubic", "bilinear"])
def test_tall_images_differ_from_the_processor_by_a_few_levels(preprocessing: Preprocessing, levels: int) -> None:
    pictures = noise(100, 37)
    ours = preprocess(torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy()), preprocessing)
    processor = ViTImageProcessorPil(**processor_arguments(preprocessing, image_size=28, mean=MEAN, std=STD))
    for picture, expected in zip(pictures, ours, strict=True):
        image = Image.fromarray(picture)
        assert np.array_equal(np.asarray(preprocess_image(image, preprocessing)).transpose(2, 0, 1), expected.numpy())
        raw = processor(image, return_tensors="pt", do_rescale=False, do_normalize=False)["pixel_values"][0]
        assert (raw.int() - expected.int()).abs().max() <= levels


def test_default_preprocessing_returns_the_images() -> None:
    images = torch.from_numpy(noise(8, 9).transpose(0, 3, 1, 2).copy())
    assert preprocess(images, Preprocessing()) is images
    image = Image.fromarray(noise(8, 9)[0])
    assert preprocess_image(image, Preprocessing()) is image


def test_image_smaller_than_the_crop_is_refused() -> None:
    with pytest.raises(DatasetError, match="crop is 28 for an image of 40 x 27 pixels"):
        preprocess(torch.zeros(1, 3, 27, 40, dtype=torch.uint8), Preprocessing(crop=28))
    with pytest.raises(DatasetError, match="crop is 28 for an image of 24 x 24 pixels"):
        preprocess_image(Image.new("RGB", (30, 30)), Preprocessing(resize=24, crop=28))


EVERY = [
    Preprocessing(),
    Preprocessing(resize=256, crop=224),
    Preprocessing(resize=256, crop=224, resample="bicubic"),
    Preprocessing(resize=224),
    Preprocessing(resize=224, resample="bicubic"),
    Preprocessing(crop=224),
]


@pytest.mark.parametrize("preprocessing", EVERY, ids=str)
def test_processor_file_round_trips(tmp_path: Path, preprocessing: Preprocessing) -> None:
    arguments = processor_arguments(preprocessing, image_size=224, mean=MEAN, std=STD)
    processor = ViTImageProcessorPil(**arguments)
    processor.save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    values = load_processor_json(path, model={"image_size": 224, "num_channels": 3})
    whole = ExactSize(height=224, width=224, filter=2)  # leaves images of the model's size as they are
    assert preprocessing_of(values) == (whole if preprocessing == Preprocessing() else preprocessing)
    assert (values["image_mean"], values["image_std"]) == (list(MEAN), list(STD))
    again = AutoImageProcessor.from_pretrained(tmp_path)
    again.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again/preprocessor_config.json").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("preprocessing", [Preprocessing(resize=256), Preprocessing(resize=256, crop=192)])
def test_preprocessing_of_another_size_than_the_model_is_refused(preprocessing: Preprocessing) -> None:
    with pytest.raises(ValueError, match=r"images of \d+ pixels, but the model takes 224"):
        processor_arguments(preprocessing, image_size=224, mean=MEAN, std=STD)


CROPPED = processor_arguments(Preprocessing(resize=256, crop=224), image_size=224, mean=MEAN, std=STD)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"crop_size": {"height": 224, "width": 192}}, "crop_size"),
        ({"crop_size": {"height": 10**9, "width": 10**9}}, "crop_size"),
        ({"crop_size": 224}, "crop_size"),
        ({"crop_size": None}, "crop_size"),
        ({"do_center_crop": False}, "do_center_crop"),
        ({"do_center_crop": 1}, "do_center_crop"),
        ({"crop_size": ...}, "crop_size"),
        ({"do_center_crop": ...}, "crop_size"),
        ({"do_resize": False}, "do_resize"),
        ({"do_resize": None}, "do_resize"),
        ({"size": {"height": 256, "width": 256}}, "do_resize"),
        ({"do_resize": False, "size": {"height": 8, "width": 8}, "crop_size": ..., "do_center_crop": ...}, "do_resize"),
        ({"size": {"shortest_edge": 0}}, "size"),
        ({"size": {"shortest_edge": 256, "longest_edge": 300}}, "size"),
        ({"size": {"longest_edge": 300}}, "size"),
        ({"size": {"shortest_edge": 4 * 224 + 1}}, "size"),
        ({"resample": 1}, "resample"),
        ({"crop_size": {"height": 192, "width": 192}}, "size"),
        ({"crop_size": ..., "do_center_crop": ...}, "size"),
        ({"do_pad": True}, "do_pad"),
        ({"auto_map": {"AutoImageProcessor": "evil--x.y"}}, "auto_map"),
    ],
)
def test_processor_file_with_another_value_is_refused(tmp_path: Path, change: dict[str, object], key: str) -> None:
    ViTImageProcessorPil(**CROPPED).save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    values = json.loads(path.read_text()) | change
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not ...}))
    with pytest.raises(ConfigError) as error:
        load_processor_json(path, model={"image_size": 224, "num_channels": 3})
    assert (error.value.path, error.value.key) == (path, key)
    assert str(path) in error.value.problem


def test_processor_resizes_to_four_times_the_model_at_most(tmp_path: Path) -> None:
    arguments = processor_arguments(Preprocessing(resize=64, crop=16), image_size=16, mean=MEAN, std=STD)
    ViTImageProcessorPil(**arguments).save_pretrained(tmp_path)
    load_processor_json(tmp_path / "preprocessor_config.json", model={"image_size": 16, "num_channels": 3})
    with pytest.raises(ValueError, match="over 4 times the model's 16 pixels"):
        processor_arguments(Preprocessing(resize=65, crop=16), image_size=16, mean=MEAN, std=STD)


def animals(folder: Path, *, streamed: bool) -> ImageSplit | FileSplit:
    write_class_folders(folder, {"train": range(20), "test": range(20, 31)})
    return load_images(DatasetSpec(name="me/animals", streamed=streamed), data={"animals": folder}).test


def model() -> VitZooModel:
    torch.manual_seed(0)
    config = VitZooConfig(
        image_size=8, patch_size=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        initializer_range=0.3, id2label={0: "a", 1: "b", 2: "c"}, label2id={"a": 0, "b": 1, "c": 2},
    )  # fmt: skip
    return VitZooModel(config).eval()


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_images_equal_images_in_memory(tmp_path: Path, workers: int) -> None:
    memory, streamed = (animals(tmp_path / str(way), streamed=way) for way in (False, True))
    for preprocessing in (Preprocessing(), Preprocessing(resize=10, crop=8, resample="bicubic")):
        batches = [
            torch.cat(list(iter_preprocessed(split, preprocessing, batch_size=4, workers=workers, device=CPU)))
            for split in (memory, streamed)
        ]
        assert torch.equal(*batches)
        found = [
            evaluate(model(), split, mean=MEAN, std=STD, preprocessing=preprocessing, batch_size=4, workers=workers)
            for split in (memory, streamed)
        ]
        assert torch.equal(found[0].logits, found[1].logits)
        assert torch.equal(found[0].features, found[1].features)
        assert torch.equal(found[0].labels, found[1].labels)


def test_pipeline_equals_evaluation(tmp_path: Path) -> None:
    split = animals(tmp_path / "animals", streamed=True)
    assert isinstance(split, FileSplit)
    preprocessing = Preprocessing(resize=11, crop=8, resample="bicubic")
    built = model()
    found = evaluate(built, split, mean=MEAN, std=STD, preprocessing=preprocessing)
    processor = ViTImageProcessorPil(**processor_arguments(preprocessing, image_size=8, mean=MEAN, std=STD))
    classify = pipeline("image-classification", model=built, image_processor=processor)
    shares = found.logits.softmax(1)
    for place in range(len(split)):
        (best, *_) = classify(split.load(place), top_k=3)
        assert best["label"] == "abc"[int(shares[place].argmax())]
        assert best["score"] == pytest.approx(float(shares[place].max()), abs=1e-5)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_streamed_image_is_named(tmp_path: Path, workers: int) -> None:
    split = animals(tmp_path, streamed=True)
    assert isinstance(split, FileSplit)
    path = Path(split.describe(6))
    Image.new("RGB", (8, 9)).save(path)
    with pytest.raises(DatasetError, match=rf"^{path} has 8 x 9 pixels, {split.describe(4)} 8 x 8") as error:
        evaluate(model(), split, mean=MEAN, std=STD, workers=workers, batch_size=4)
    assert error.value.expected == "one size"
    path.write_bytes(b"x")
    with pytest.raises(DatasetError, match=rf"^{path} cannot be decoded"):
        evaluate(model(), split, mean=MEAN, std=STD, workers=workers, batch_size=4)


@pytest.mark.parametrize(
    ("size", "resized"), [((65000, 1), "16,640,000 x 256 pixels"), ((1, 65000), "256 x 16,640,000 pixels")]
)
def test_small_file_of_a_huge_image_is_refused(tmp_path: Path, size: tuple[int, int], resized: str) -> None:
    split = animals(tmp_path, streamed=True)
    assert isinstance(split, FileSplit)
    path = Path(split.describe(6))
    Image.new("RGB", size).save(path)
    assert path.stat().st_size < 1000
    ways = Preprocessing(resize=256, crop=8)
    with pytest.raises(DatasetError, match=rf"^{path} has {size[0]} x {size[1]} pixels .*{resized}"):
        list(iter_preprocessed(split, ways, batch_size=4, workers=0, device=CPU))
    batch = torch.zeros((1, 3, size[1], size[0]), dtype=torch.uint8)
    with pytest.raises(DatasetError, match=f"An image has .*{resized}"):
        preprocess(batch, ways)
