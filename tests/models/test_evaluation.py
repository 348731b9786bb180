"""Metrics of a model by hand, and compared with transformers' processor and model and with scikit-learn."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn
from transformers import ViTForImageClassification, ViTImageProcessorPil

from vitzoo.images import ImageSplit, Preprocessing, load_images
from vitzoo.models.evaluation import Evaluation, evaluate, knn_accuracy, normalise
from vitzoo.models.vit import VitZooConfig, VitZooModel

MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)


def of_logits(logits: Tensor, labels: list[int]) -> Evaluation:
    return Evaluation(logits=logits, features=torch.zeros(len(labels), 1), labels=torch.tensor(labels))


def of_features(features: Tensor, labels: Tensor) -> Evaluation:
    return Evaluation(logits=torch.zeros(len(labels), 1), features=features, labels=labels)


def split_of(name: str, part: str) -> ImageSplit:
    split = getattr(load_images(name), part)
    assert isinstance(split, ImageSplit)
    return split


def model(**kwargs: object) -> VitZooModel:
    """Build a small model with weights large enough that images differ."""
    sizes = {"image_size": 8, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = VitZooConfig(**(sizes | {"intermediate_size": 32, "initializer_range": 0.3, "num_labels": 4} | kwargs))  # pyright: ignore[reportArgumentType]
    return VitZooModel(config)


def test_accuracy_and_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [0.0, math.log(3)], [5.0, 4.0]])
    found = of_logits(logits, [0, 0, 0, 1])
    # the first of equal logits wins: right, right, wrong, wrong
    assert found.accuracy == 0.5
    terms = [math.log(2), math.log(4 / 3), math.log(4), math.log(1 + math.e)]
    assert found.loss == pytest.approx(sum(terms) / 4, rel=1e-7)
    assert found.first(3).accuracy == pytest.approx(2 / 3)
    assert found.first(9).accuracy == found.accuracy


def test_loss_is_summed_in_float64() -> None:
    logits = torch.zeros(1_000_000, 2)
    logits[:, 0] = 20.0
    # log(1 + exp(-20)) is 2e-9, below the last bit of 20 in float32
    assert of_logits(logits, [0] * 1_000_000).loss == pytest.approx(math.log1p(math.exp(-20)), rel=1e-6)


@pytest.mark.parametrize("head", [{}, {"head_type": "mlp", "head_width": 5}], ids=["linear", "mlp"])
def test_evaluate_is_a_plain_forward(head: dict[str, object]) -> None:
    split = split_of("digits-6-9", "test")
    built = model(**head).eval()
    found = evaluate(built, split, mean=MEAN, std=STD)
    pixels = normalise(torch.from_numpy(split.images), mean=MEAN, std=STD)
    with torch.no_grad():
        output = built(pixel_values=pixels, output_hidden_states=True)
        features = built.vit(pixels).last_hidden_state[:, 0]
    assert torch.equal(found.logits, output.logits)
    assert torch.equal(found.features, features)
    assert torch.equal(found.labels, torch.from_numpy(split.labels))
    assert found.logits.shape == (143, 4)
    assert found.features.shape == (143, 16)
    assert torch.unique(found.logits.argmax(1)).numel() > 1  # the images do differ


def test_evaluate_equals_transformers(tmp_path: Path) -> None:
    split = split_of("digits-6-9", "val")
    built = model()
    built.save_pretrained(tmp_path)
    ViTImageProcessorPil(
        size={"height": 8, "width": 8}, image_mean=list(MEAN), image_std=list(STD), do_convert_rgb=True
    ).save_pretrained(tmp_path)
    processor = ViTImageProcessorPil.from_pretrained(tmp_path)
    plain = ViTForImageClassification.from_pretrained(tmp_path)
    pictures = [Image.fromarray(image.transpose(1, 2, 0)) for image in split.images]
    pixels = processor(pictures, return_tensors="pt")["pixel_values"]
    expected = normalise(torch.from_numpy(split.images), mean=MEAN, std=STD)
    assert (pixels - expected).abs().max() < 1e-6  # transformers rounds 1 / 255 first
    with torch.no_grad():
        logits = plain(pixel_values=pixels).logits
    found = evaluate(built, split, mean=MEAN, std=STD)
    assert (found.logits - logits).abs().max() < 1e-5
    assert found.accuracy == (logits.argmax(1).numpy() == split.labels).mean()


def test_batches_change_nothing_but_rounding() -> None:
    split = split_of("digits-6-9", "test")
    built = model()
    whole = evaluate(built, split, mean=MEAN, std=STD)
    for batch_size in (1, 10, 143, 1000):
        found = evaluate(built, split, mean=MEAN, std=STD, batch_size=batch_size)
        assert torch.allclose(found.logits, whole.logits, atol=1e-5)
        assert torch.equal(found.labels, whole.labels)


def test_dropout_is_off_and_every_mode_is_restored() -> None:
    split = split_of("digits-6-9", "test").evenly(16)
    built = model(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    expected = evaluate(built.eval(), split, mean=MEAN, std=STD)
    assert not any(module.training for module in built.modules())
    built.train()
    built.vit.embeddings.eval()  # frozen by its user, say
    modes = [module.training for module in built.modules()]
    assert torch.equal(evaluate(built, split, mean=MEAN, std=STD).logits, expected.logits)
    assert [module.training for module in built.modules()] == modes
    wrong = replace(split, images=split.images[:, :1])
    with pytest.raises(ValueError, match="1 channels"):
        evaluate(built, wrong, mean=MEAN, std=STD)
    assert [module.training for module in built.modules()] == modes


def test_outputs_are_float32_and_can_be_trained_on() -> None:
    split = split_of("digits-6-9", "test").evenly(8)
    found = evaluate(model().bfloat16(), split, mean=MEAN, std=STD)
    assert found.logits.dtype == found.features.dtype == torch.float32
    probe = nn.Linear(16, 4)
    probe(found.features).sum().backward()  # an inference tensor would refuse
    assert probe.weight.grad is not None


def test_normalise_gives_the_same_bits_for_whole_numbers_of_either_type() -> None:
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    as_bytes, as_floats = (normalise(pixels, mean=(0.1307,), std=(0.3081,)) for pixels in (images, images.float()))
    assert torch.equal(as_bytes, as_floats)
    expected = (np.arange(256, dtype=np.float32) / np.float32(255) - np.float32(0.1307)) / np.float32(0.3081)
    assert np.array_equal(as_bytes.flatten().numpy(), expected)


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.5,)), ((0.5,) * 3, (0.5,)), ((), ())])
def test_normalise_refuses_other_numbers_of_channels(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="3 channels"):
        normalise(torch.zeros(2, 3, 4, 4), mean=mean, std=std)


@pytest.mark.parametrize("neighbours", [1, 20])
def test_knn_accuracy_equals_scikit_learn(neighbours: int) -> None:
    pixels, digits = load_digits(return_X_y=True)
    features, labels = np.asarray(pixels, dtype=np.float32), np.asarray(digits)
    classifier = KNeighborsClassifier(neighbours, metric="cosine").fit(features[:500], labels[:500])
    votes = classifier.predict_proba(features[500:])
    untied = (votes == votes.max(1, keepdims=True)).sum(1) == 1  # scikit-learn breaks ties by the smaller label
    expected = classifier.score(features[500:][untied], labels[500:][untied])
    found = knn_accuracy(
        of_features(torch.from_numpy(features[:500]), torch.from_numpy(labels[:500])),
        of_features(torch.from_numpy(features[500:][untied]), torch.from_numpy(labels[500:][untied])),
        neighbours=neighbours,
    )
    assert untied.sum() > 1200  # more than one chunk
    assert found == pytest.approx(expected, abs=1e-9)


def test_ties_go_to_the_nearer_class() -> None:
    degrees = torch.tensor([2.0, 5.0, 6.0, 9.0, 60.0]).deg2rad()
    features = torch.stack((degrees.cos(), degrees.sin()), dim=1) * torch.tensor([[3.0], [1], [1], [1], [1]])
    references = of_features(features, torch.tensor([4, 7, 7, 4, 1]))

    def accuracy(label: int, neighbours: int) -> float:
        query = of_features(torch.tensor([[1.0, 0.0]]), torch.tensor([label]))
        return knn_accuracy(references, query, neighbours=neighbours)

    assert accuracy(4, neighbours=4) == 1.0  # two each, class 4 nearest
    assert accuracy(7, neighbours=3) == 1.0  # two against one
    assert accuracy(1, neighbours=1) == 0.0


def test_knn_accuracy_refuses_neighbours_out_of_range_and_no_queries() -> None:
    three = of_features(torch.eye(3), torch.arange(3))
    for neighbours in (-1, 0, 4):
        with pytest.raises(ValueError, match=f"neighbours is {neighbours}"):
            knn_accuracy(three, three, neighbours=neighbours)
    with pytest.raises(ValueError, match="0 queries"):
        knn_accuracy(three, of_features(torch.eye(3)[:0], torch.arange(0)), neighbours=1)


def test_a_label_that_no_reference_has_is_wrong() -> None:
    references = of_features(torch.eye(3), torch.arange(3))
    assert knn_accuracy(references, of_features(torch.eye(3), torch.tensor([0, 1, 9])), neighbours=1) == 2 / 3


def test_an_empty_split_is_refused() -> None:
    split = split_of("digits-6-9", "test")
    with pytest.raises(ValueError, match="0 samples"):
        evaluate(model(), split.part(0, 0), mean=MEAN, std=STD)


def test_bf16_is_autocast_around_the_forward_pass() -> None:
    split = split_of("digits-6-9", "test")
    built = model().eval()
    found = evaluate(built, split, mean=MEAN, std=STD, precision="bf16", batch_size=len(split))
    pixels = normalise(torch.from_numpy(split.images), mean=MEAN, std=STD)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = built.vit(pixels).last_hidden_state[:, 0]
        logits = built.classifier(hidden)
    assert logits.dtype == torch.bfloat16
    assert torch.equal(found.logits, logits.float())
    assert torch.equal(found.features, hidden.float())
    assert found.logits.dtype == found.features.dtype == torch.float32
    exact = evaluate(built, split, mean=MEAN, std=STD)
    assert 0 < (found.logits - exact.logits).abs().max() < 0.2
    assert all(parameter.dtype == torch.float32 for parameter in built.parameters())


def test_evaluate_ignores_an_outer_autocast() -> None:
    """A trainer measures in its own precision in any context."""
    split = split_of("digits-6-9", "test")
    built = model().eval()
    plain = evaluate(built, split, mean=MEAN, std=STD)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(evaluate(built, split, mean=MEAN, std=STD).logits, plain.logits)


def test_evaluate_resizes_and_crops_images() -> None:
    split = split_of("digits-6-9", "test").evenly(9)
    built = model().eval()
    preprocessing = Preprocessing(resize=12, crop=8, resample="bicubic")
    found = evaluate(built, split, mean=MEAN, std=STD, preprocessing=preprocessing)
    pictures = [
        Image.fromarray(image.transpose(1, 2, 0)).resize((12, 12), 3).crop((2, 2, 10, 10)) for image in split.images
    ]
    images = np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in pictures])
    expected = evaluate(built, replace(split, images=images), mean=MEAN, std=STD)
    assert torch.equal(found.logits, expected.logits)
