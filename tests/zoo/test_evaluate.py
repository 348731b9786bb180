"""Evaluation of a model of one's own: the numbers of the member's own evaluation for any form of the same samples."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, recall_score
from transformers import AutoImageProcessor, AutoModelForImageClassification, AutoTokenizer

from vitzoo import Member, VitZooModel, Zoo, ZooModel, evaluate
from vitzoo.errors import ConfigError, DatasetError, EmbeddingHeadError
from vitzoo.images import ImageSplit


@pytest.fixture
def member(tiny_zoo: Path) -> Member:
    return Zoo(tiny_zoo)["pt-0/ft-0"]


@pytest.fixture
def split(member: Member) -> ImageSplit:
    return member.load_images().test


def pictures(split: ImageSplit) -> list[Image.Image]:
    return [Image.fromarray(image.transpose(1, 2, 0)) for image in split.images]


def names(member: Member, split: ImageSplit) -> list[str]:
    return [member.record.classes[label] for label in split.labels]


def test_member_model_and_plain_model_give_the_member_s_own_outputs(
    member: Member, split: ImageSplit, tiny_zoo: Path
) -> None:
    expected = member.evaluate()
    plain = AutoModelForImageClassification.from_pretrained(tiny_zoo, subfolder="pt-0/ft-0")
    processor = AutoImageProcessor.from_pretrained(tiny_zoo, subfolder="pt-0/ft-0")
    for found in (
        evaluate(member, split),
        evaluate(member.load(), split),
        evaluate(plain, split, processor=member),
        evaluate(plain, split, processor=processor),
        evaluate(torch.nn.DataParallel(member.load()), split),
    ):
        assert torch.equal(found.logits, expected.logits)
        assert torch.equal(found.features, expected.features)
        assert found.accuracy == member.metrics_at().test_accuracy
        assert found.classes == ("6", "7", "8", "9")


def test_metrics_equal_those_of_scikit_learn(member: Member, split: ImageSplit) -> None:
    found = evaluate(member, split)
    predictions = found.logits.argmax(1)
    assert np.array_equal(found.confusion, confusion_matrix(split.labels, predictions, labels=range(4)))
    np.testing.assert_allclose(found.class_accuracy, recall_score(split.labels, predictions, average=None), atol=1e-12)  # pyright: ignore[reportArgumentType]
    assert repr(found) == f"Evaluation(samples=143, classes=4, accuracy={found.accuracy:.4g}, loss={found.loss:.4g})"


def test_every_form_of_the_same_images_gives_the_same_outputs(
    member: Member, split: ImageSplit, tmp_path: Path
) -> None:
    expected, images, classes = evaluate(member, split), pictures(split), names(member, split)
    shuffled = ["9", "6", "8", "7"]  # matched by name
    table = datasets.Dataset.from_dict(
        {"image": images, "label": classes},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=shuffled)}),
    )
    for samples, labels in (
        (images, classes),
        (split.images, split.labels),
        (torch.from_numpy(split.images), torch.from_numpy(split.labels)),
        (list(split.images), classes),
        (table, None),
        (table.remove_columns("label"), classes),
    ):
        found = evaluate(member, samples, labels=labels)
        assert torch.equal(found.logits, expected.logits)
        assert torch.equal(found.labels, expected.labels)
    for place, (image, name) in enumerate(zip(images, classes, strict=True)):
        (tmp_path / name).mkdir(exist_ok=True)
        image.save(tmp_path / name / f"{place:03}.png")
    order = np.argsort(split.labels, kind="stable")  # by folder, then by file
    found = evaluate(member, tmp_path)
    assert torch.equal(found.logits, evaluate(member, split.take(order)).logits)
    assert found.accuracy == expected.accuracy


def test_images_of_another_size_are_resized_as_transformers_does(member: Member, split: ImageSplit) -> None:
    large = [image.resize((19 + place, 23)) for place, image in enumerate(pictures(split)[:9])]
    found = evaluate(member, large, labels=split.labels[:9])
    pixels = member.load_image_processor()(large, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = member.load()(pixels).logits
    np.testing.assert_allclose(found.logits, expected, atol=1e-5)


def test_changed_model_has_the_preprocessing_of_its_member(member: Member, split: ImageSplit, tmp_path: Path) -> None:
    model = member.load()
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([0.0, 0.0, 1.0, 0.0]))
    found = evaluate(model, split)
    assert found.accuracy == (split.labels == 2).mean()
    assert found.class_accuracy.tolist() == [0.0, 0.0, 1.0, 0.0]
    model.save_pretrained(tmp_path)
    loaded = VitZooModel.from_pretrained(tmp_path)
    with pytest.raises(DatasetError) as caught:
        evaluate(loaded, split)
    assert "processor=" in (caught.value.fix or "")
    member.load_image_processor().save_pretrained(tmp_path)
    assert torch.equal(evaluate(loaded, split).logits, found.logits)


def test_one_image_and_one_class(member: Member, split: ImageSplit) -> None:
    one = evaluate(member, split.images[:1], labels=split.labels[:1])
    assert one.accuracy in (0.0, 1.0)
    assert int(one.confusion.sum()) == 1
    constant = evaluate(member, np.full_like(split.images[:3], 7), labels=["6"] * 3)
    assert int(constant.confusion[0].sum()) == 3
    assert constant.class_accuracy[1:].isnan().all()


@pytest.mark.parametrize(
    ("samples", "labels"),
    [
        (np.zeros((2, 3, 8, 8), np.uint8), None),
        (np.zeros((2, 3, 8, 8), np.uint8), [0]),
        (np.zeros((2, 3, 8, 8), np.uint8), [0, 4]),
        (np.zeros((2, 3, 8, 8), np.uint8), [0, -1]),
        (np.zeros((2, 3, 8, 8), np.uint8), [0, "cat"]),
        (np.zeros((2, 3, 8, 8), np.uint8), [0, True]),
        (np.zeros((0, 3, 8, 8), np.uint8), []),
        (np.zeros((2, 8, 8, 3), np.uint8), [0, 1]),
        (np.zeros((2, 3, 8, 8), np.float32), [0, 1]),
        ([], []),
        ([np.zeros((3, 8, 8), np.uint8), np.zeros((3, 9, 8), np.uint8)], [0, 1]),
        ("nowhere", None),
        (3, [0]),
    ],
)
def test_other_samples_and_labels_are_refused(member: Member, samples: Any, labels: Any) -> None:
    with pytest.raises(DatasetError):
        evaluate(member, samples, labels=labels)


def test_class_that_the_model_does_not_have_is_refused(member: Member, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    with pytest.raises(DatasetError) as caught:
        evaluate(member, tmp_path)
    assert '"cat"' in caught.value.problem


def test_other_models_are_refused(tiny_zoo: Path, member: Member, split: ImageSplit) -> None:
    with pytest.raises(EmbeddingHeadError):
        evaluate(Zoo(tiny_zoo)["pt-2"], split)
    for model in ("pt-0", torch.nn.Linear(2, 2), member.load().vit):
        with pytest.raises(ConfigError):
            evaluate(model, split)
    with pytest.raises(ConfigError):
        evaluate(member, split, processor=3)
    model = member.load()
    model.classifier.bias.data[1] = float("nan")
    with pytest.raises(DatasetError) as caught:
        evaluate(model, split)
    assert "143 of 143" in caught.value.problem


def test_texts(text_zoo: Path, sentences: Path) -> None:
    zoo, data = Zoo(text_zoo), {"animals": sentences}
    member = zoo["pt-0/ft-0"]
    rows, expected = member.load_part("test", data=data), member.evaluate(data=data)
    found = evaluate(member, rows)
    assert torch.equal(found.logits, expected.logits)
    tokenizer = AutoTokenizer.from_pretrained(text_zoo, subfolder="pt-0/ft-0")
    model = ZooModel.from_pretrained(text_zoo / "pt-0/ft-0")
    texts, labels = ["a cat and a dog", "the dog", "one bird"], [0, 1, 1]
    of_member = evaluate(member, texts, labels=labels)
    inputs = tokenizer(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        np.testing.assert_allclose(of_member.logits, model(**inputs).logits, atol=1e-5)
    table = datasets.Dataset.from_dict({"text": texts, "label": labels})
    for again in (
        evaluate(model, texts, labels=labels),
        evaluate(model, texts, labels=labels, processor=tokenizer),
        evaluate(member, table),
    ):
        assert torch.equal(again.logits, of_member.logits)
        assert again.labels.tolist() == labels
    for wrong, given in (("a cat", [0]), ([], []), (["a", None], [0, 1]), (["a", ("b", "c")], [0, 1]), (["a"], None)):
        with pytest.raises(DatasetError):
            evaluate(member, wrong, labels=given)
    with pytest.raises(DatasetError):
        evaluate(zoo["pt-0"], rows)  # a masked model
