"""What a model sees of an image: the same bytes by our batches, by PIL, and by transformers' own processor."""

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
from vitzoo.images.processor import load_processor_json, preprocessing_of, processor_arguments
from vitzoo.models.evaluation import evaluate, normalise
from vitzoo.models.vit import VitZooConfig, VitZooModel

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CPU = torch.device("cpu")
SIZES = [
    (32, 32),
    (40, 32),
    (32, 41),
    (47, 31),
    (70, 37),
    (37, 100),
    (256, 256),
    (375, 500),
    (500, 333),
    (8, 8),
    (29, 28),
]


def noise(height: int, width: int, *, count: int = 2) -> np.ndarray:
    """The hardest for a resize: every value takes part in rounding."""
    return np.random.default_rng(height * width).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


WAYS = [
    (Preprocessing(resize=32, crop=28, resample="bicubic"), 28),
    (Preprocessing(resize=36, crop=28), 28),
    (Preprocessing(resize=40, crop=33, resample="bilinear"), 33),
    (Preprocessing(crop=8), 8),
]


@pytest.mark.parametrize(("preprocessing", "side"), WAYS)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_three_ways_to_the_same_bytes(
    tmp_path: Path, preprocessing: Preprocessing, side: int, height: int, width: int
) -> None:
    pictures = noise(height, width)
    ours = preprocess(torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy()), preprocessing)
    assert ours.shape == (2, 3, side, side)
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
def test_tall_images_are_the_same_under_every_pillow(preprocessing: Preprocessing, levels: int) -> None:
    """Ours, in batches and by PIL; the processor takes the order of the Pillow that is installed."""
    pictures = noise(100, 37)
    ours = preprocess(torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy()), preprocessing)
    processor = ViTImageProcessorPil(**processor_arguments(preprocessing, image_size=28, mean=MEAN, std=STD))
    for picture, expected in zip(pictures, ours, strict=True):
        image = Image.fromarray(picture)
        assert np.array_equal(np.asarray(preprocess_image(image, preprocessing)).transpose(2, 0, 1), expected.numpy())
        raw = processor(image, return_tensors="pt", do_rescale=False, do_normalize=False)["pixel_values"][0]
        assert (raw.int() - expected.int()).abs().max() <= levels


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
def test_a_resize_without_a_crop(tmp_path: Path, resample) -> None:
    preprocessing = Preprocessing(resize=24, resample=resample)
    picture = noise(32, 32, count=1)
    ours = preprocess(torch.from_numpy(picture.transpose(0, 3, 1, 2).copy()), preprocessing)
    processor = ViTImageProcessorPil(**processor_arguments(preprocessing, image_size=24, mean=MEAN, std=STD))
    raw = processor(Image.fromarray(picture[0]), return_tensors="pt", do_rescale=False, do_normalize=False)
    assert torch.equal(raw["pixel_values"], ours)
    expected = Image.fromarray(picture[0]).resize((24, 24), Image.Resampling[resample.upper()])
    assert np.array_equal(ours[0].numpy().transpose(1, 2, 0), np.asarray(expected))


def test_nothing_is_done_by_default() -> None:
    images = torch.from_numpy(noise(8, 9).transpose(0, 3, 1, 2).copy())
    assert preprocess(images, Preprocessing()) is images
    image = Image.fromarray(noise(8, 9)[0])
    assert preprocess_image(image, Preprocessing()) is image


def test_images_smaller_than_the_crop() -> None:
    with pytest.raises(
        DatasetError, match=r"A square of 28 pixels was to be cut from an image of 40 x 27\. Set resize"
    ):
        preprocess(torch.zeros(1, 3, 27, 40, dtype=torch.uint8), Preprocessing(crop=28))
    with pytest.raises(DatasetError, match="A square of 28 pixels was to be cut from an image of 24 x 24"):
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
def test_processor_files_round_trip(tmp_path: Path, preprocessing: Preprocessing) -> None:
    arguments = processor_arguments(preprocessing, image_size=224, mean=MEAN, std=STD)
    processor = ViTImageProcessorPil(**arguments)
    processor.save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    said = load_processor_json(path, model={"image_size": 224, "num_channels": 3})
    assert preprocessing_of(said) == preprocessing
    assert (said["image_mean"], said["image_std"]) == (list(MEAN), list(STD))
    again = AutoImageProcessor.from_pretrained(tmp_path)
    again.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again/preprocessor_config.json").read_bytes() == path.read_bytes()


def test_a_processor_without_preprocessing_is_what_it_was(tmp_path: Path) -> None:
    """The file of every member so far, to the byte."""
    before = ViTImageProcessorPil(
        size={"height": 8, "width": 8}, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_convert_rgb=True
    )
    now = processor_arguments(Preprocessing(), image_size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    before.save_pretrained(tmp_path / "before")
    ViTImageProcessorPil(**now).save_pretrained(tmp_path / "now")
    name = "preprocessor_config.json"
    assert (tmp_path / "now" / name).read_bytes() == (tmp_path / "before" / name).read_bytes()


@pytest.mark.parametrize("preprocessing", [Preprocessing(resize=256), Preprocessing(resize=256, crop=192)])
def test_preprocessing_for_another_model(preprocessing: Preprocessing) -> None:
    with pytest.raises(ValueError, match=r"gives images of \d+ pixels, but the model takes 224"):
        processor_arguments(preprocessing, image_size=224, mean=MEAN, std=STD)


CROPPED = processor_arguments(Preprocessing(resize=256, crop=224), image_size=224, mean=MEAN, std=STD)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"crop_size": {"height": 224, "width": 192}}, "expected equal height and width of 1 to 4096"),
        ({"crop_size": {"height": 10**9, "width": 10**9}}, "expected equal height and width"),
        ({"crop_size": 224}, "expected equal height and width"),
        ({"crop_size": None}, "expected equal height and width"),
        ({"do_center_crop": False}, 'says "do_center_crop": false; expected true'),
        ({"do_center_crop": 1}, 'says "do_center_crop": 1; expected true'),
        ({"crop_size": ...}, 'says one of "do_center_crop" and "crop_size"; expected both or neither'),
        ({"do_center_crop": ...}, 'says one of "do_center_crop" and "crop_size"; expected both or neither'),
        ({"do_resize": False}, "no resize and a crop"),
        ({"do_resize": None}, 'says "do_resize": null; expected true or false'),
        ({"size": {"height": 256, "width": 256}}, "a size of height, width, with a crop; expected a resize"),
        ({"size": {"shortest_edge": 0}}, "expected height and width of 1 to 4096, or a shortest_edge"),
        ({"size": {"shortest_edge": 256, "longest_edge": 300}}, "expected height and width"),
        ({"size": {"longest_edge": 300}}, "expected height and width"),
        ({"resample": 1}, 'says "resample": 1; expected 2 or 3, bilinear or bicubic, of a shortest_edge'),
        ({"crop_size": {"height": 192, "width": 192}}, "the model beside it takes 224 pixels and 3 channels"),
        ({"crop_size": ..., "do_center_crop": ...}, r"makes images of .*256.* but the model beside it takes 224"),
        ({"do_pad": True}, 'says "do_pad", which no zoo member may say'),
        ({"auto_map": {"AutoImageProcessor": "evil--x.y"}}, '"auto_map", which no zoo member may say'),
    ],
)
def test_a_processor_file_that_says_something_else(tmp_path: Path, change: dict[str, object], says: str) -> None:
    ViTImageProcessorPil(**CROPPED).save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    said = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in said.items() if value is not ...}))
    with pytest.raises(ConfigError, match=says):
        load_processor_json(path, model={"image_size": 224, "num_channels": 3})


def test_a_processor_resizes_to_four_times_the_model_s_side_at_most(tmp_path: Path) -> None:
    arguments = processor_arguments(Preprocessing(resize=64, crop=16), image_size=16, mean=MEAN, std=STD)
    ViTImageProcessorPil(**arguments).save_pretrained(tmp_path)
    path, model = tmp_path / "preprocessor_config.json", {"image_size": 16, "num_channels": 3}
    load_processor_json(path, model=model)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"size": {"shortest_edge": 65}}))
    with pytest.raises(ConfigError) as raised:
        load_processor_json(path, model=model)
    assert str(raised.value) == (
        f"{path} resizes images to a shortest_edge of 65, of which the model beside it takes 16 pixels; expected 64 at "
        "most. Get both files again."
    )
    with pytest.raises(ValueError, match="resizes to 65 pixels, of which the model takes 16; expected 64 at most"):
        processor_arguments(Preprocessing(resize=65, crop=16), image_size=16, mean=MEAN, std=STD)


def test_no_resize_and_no_crop(tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    ViTImageProcessorPil(size={"height": 8, "width": 8}, do_convert_rgb=True).save_pretrained(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_resize": False}))
    with pytest.raises(ConfigError, match='says "do_resize": false and a size of height, width, without a crop'):
        load_processor_json(path)


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
def test_streamed_images_are_the_same_as_those_in_memory(tmp_path: Path, workers: int) -> None:
    memory, streamed = (animals(tmp_path / str(way), streamed=way) for way in (False, True))
    for preprocessing in (Preprocessing(), Preprocessing(resize=10, crop=8, resample="bicubic"), Preprocessing(crop=8)):
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


def test_a_pipeline_sees_what_evaluation_sees(tmp_path: Path) -> None:
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
def test_what_is_wrong_with_a_streamed_image_is_said(tmp_path: Path, workers: int) -> None:
    split = animals(tmp_path, streamed=True)
    assert isinstance(split, FileSplit)
    path = Path(split.describe(6))
    Image.new("RGB", (8, 9)).save(path)
    with pytest.raises(DatasetError) as raised:
        evaluate(model(), split, mean=MEAN, std=STD, workers=workers, batch_size=4)
    assert str(raised.value) == (
        f"{path} has 8 x 9 pixels, {split.describe(4)} 8 x 8: expected one size. Set resize and crop in the "
        "Preprocessing."
    )
    path.write_bytes(b"x")
    with pytest.raises(DatasetError, match=rf"^{path} is no image that can be decoded"):
        evaluate(model(), split, mean=MEAN, std=STD, workers=workers, batch_size=4)


@pytest.mark.parametrize(
    ("size", "would_be"), [((65000, 1), "16,640,000 x 256 pixels"), ((1, 65000), "256 x 16,640,000 pixels")]
)
def test_a_small_file_that_would_be_a_huge_image(tmp_path: Path, size: tuple[int, int], would_be: str) -> None:
    split = animals(tmp_path, streamed=True)
    assert isinstance(split, FileSplit)
    path = Path(split.describe(6))
    Image.new("RGB", size).save(path)
    assert path.stat().st_size < 1000
    ways = Preprocessing(resize=256, crop=8)
    with pytest.raises(DatasetError) as raised:
        list(iter_preprocessed(split, ways, batch_size=4, workers=0, device=CPU))
    assert str(raised.value) == (
        f"{path} has {size[0]} x {size[1]} pixels and, its shorter side resized to 256, would be {would_be}; expected "
        "at most 67,108,864 in all. Cut it to a shorter one, or take it away."
    )
    batch = torch.zeros((1, 3, size[1], size[0]), dtype=torch.uint8)
    with pytest.raises(DatasetError, match=f"An image has .* would be {would_be}"):
        preprocess(batch, ways)
