"""Mixing equals values by hand and its definition; Beta equals scipy's."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from training.images.mixing import Mix, draw_mixes, mix, soft_targets, symmetric_beta
from training.random import Draw, Stream
from training.recipes.training import Mixing

BOTH = Mixing(mixup=0.8, cutmix=1.0, label_smoothing=0.1)


def drawn(mixing: Mixing, steps: int = 2000, *, seed: int = 3, epoch: int = 1) -> list[Mix]:
    return draw_mixes(mixing, seed=seed, epoch=epoch, steps=range(steps), height=8, width=8)


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 20.0])
def test_symmetric_beta_equals_scipy(alpha: float) -> None:
    random_words = Draw(seed=1, stream=Stream.MIXING, epoch=0, samples=torch.arange(20_000)).words(2).tolist()
    numbers = [symmetric_beta(alpha, first, second) for first, second in random_words]
    assert stats.kstest(numbers, stats.beta(alpha, alpha).cdf).pvalue > 0.01


@pytest.mark.parametrize("alpha", [1e-3, 0.8, 1.0, 1e3])
def test_symmetric_beta_is_a_weight_for_extreme_words(alpha: float) -> None:
    for first, second in product((0, 1, 2**31, 2**32 - 2, 2**32 - 1), (0, 2**30, 2**31, 2**32 - 1)):
        assert 0 <= symmetric_beta(alpha, first, second) <= 1


def test_symmetric_beta_by_hand() -> None:
    # u = 1/4, v = 1/2, alpha = 1: t^2 = 2 (4 - 1) = 6, so 1/2 - sqrt(6 / 8) / 2
    assert symmetric_beta(1.0, 2**30 - 1, 2**31) == pytest.approx(0.5 - math.sqrt(0.75) / 2)


def test_kinds_have_their_probability() -> None:
    kinds = [one.kind for one in drawn(BOTH)]
    assert kinds.count("mixup") + kinds.count("cutmix") == 2000
    assert kinds.count("cutmix") == pytest.approx(1000, abs=70)
    assert {one.kind for one in drawn(Mixing(mixup=0.8))} == {"mixup"}
    assert {one.kind for one in drawn(Mixing(cutmix=1.0))} == {"cutmix"}
    assert {one.kind for one in drawn(Mixing(mixup=0.8, cutmix=1.0, switch=0.0))} == {"mixup"}
    assert {one.kind for one in drawn(Mixing(mixup=0.8, cutmix=1.0, switch=1.0))} == {"cutmix"}
    assert {one.kind for one in drawn(Mixing())} == {"none"}


def test_mix_depends_on_seed_epoch_and_step_alone() -> None:
    assert draw_mixes(BOTH, seed=3, epoch=1, steps=range(7, 9), height=8, width=8) == drawn(BOTH)[7:9]
    assert drawn(BOTH, seed=4)[0] != drawn(BOTH)[0] != drawn(BOTH, epoch=2)[0]
    assert draw_mixes(BOTH, seed=3, epoch=1, steps=range(0), height=8, width=8) == []


def test_cutmix_boxes_equal_timm_and_weight_is_the_rest_of_the_area() -> None:
    random_words = Draw(seed=3, stream=Stream.MIXING, epoch=1, samples=torch.arange(2000)).words(6).tolist()
    steps = draw_mixes(Mixing(cutmix=1.0), seed=3, epoch=1, steps=range(2000), height=6, width=9)
    for one, (size, angle, _, row, column, partner) in zip(steps, random_words, strict=True):
        share = math.sqrt(1 - symmetric_beta(1.0, size, angle))
        tall, wide = int(6 * share), int(9 * share)
        y, x = math.floor(row / 2**32 * 6), math.floor(column / 2**32 * 9)
        box = (max(y - tall // 2, 0), min(y + tall // 2, 6), max(x - wide // 2, 0), min(x + wide // 2, 9))
        assert one.box == box
        assert one.partner == partner
        kept = torch.ones(6, 9)
        kept[box[0] : box[1], box[2] : box[3]] = 0
        assert one.weight == pytest.approx(kept.mean().item(), abs=1e-6)


@pytest.mark.parametrize("mixing", [Mixing(mixup=0.8), Mixing(cutmix=1.0)])
def test_mix_equals_the_papers_definition(mixing: Mixing) -> None:
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(6, 3, 8, 8, generator=generator), torch.tensor([0, 1, 2, 3, 1, 0])
    for one in drawn(mixing, 50):
        mixed, targets = mix(images, labels, one, classes=4)
        for i in range(6):
            j = (i - 1 - one.partner % 5) % 6
            own = torch.full((8, 8), one.weight)
            if one.kind == "cutmix":
                own = torch.ones(8, 8)
                own[one.box[0] : one.box[1], one.box[2] : one.box[3]] = 0
            assert torch.allclose(mixed[i], own * images[i] + (1 - own) * images[j], atol=1e-6)
            share = own.mean().item()  # of the label: of the pixels, too
            expected = torch.zeros(4)
            expected[labels[i]] += share
            expected[labels[j]] += 1 - share
            assert torch.allclose(targets[i], expected, atol=1e-6)


def test_mixup_equals_values_by_hand() -> None:
    images = torch.tensor([1.0, 10.0, 100.0]).reshape(3, 1, 1, 1)
    # partner word 3: 1 + 3 % 2 = 2 places before, cyclically: images 1, 2, 0
    one = Mix(kind="mixup", weight=0.75, box=(0, 0, 0, 0), partner=3)
    mixed, targets = mix(images, torch.tensor([0, 1, 1]), one, classes=2)
    assert mixed.flatten().tolist() == [0.75 + 2.5, 7.5 + 25, 75 + 0.25]
    assert targets.tolist() == [[0.75, 0.25], [0, 1], [0.25, 0.75]]


def test_cutmix_equals_values_by_hand() -> None:
    images = torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1).repeat(1, 2, 2, 4)
    one = Mix(kind="cutmix", weight=5 / 8, box=(0, 1, 1, 4), partner=0)
    mixed, targets = mix(images, torch.tensor([2, 0]), one, classes=3)
    assert mixed[0].tolist() == [[[1, 2, 2, 2], [1, 1, 1, 1]]] * 2
    assert mixed[1].tolist() == [[[2, 1, 1, 1], [2, 2, 2, 2]]] * 2
    assert targets.tolist() == [[3 / 8, 0, 5 / 8], [5 / 8, 0, 3 / 8]]
    assert images.unique().tolist() == [1, 2]  # the caller's images are unchanged


def test_mix_of_no_kind_smooths_labels_alone() -> None:
    images, labels = torch.rand(5, 3, 8, 8), torch.arange(5)
    one = Mix(kind="none", weight=1.0, box=(0, 0, 0, 0), partner=0)
    same, targets = mix(images, labels, one, classes=5, label_smoothing=0.1)
    assert torch.equal(same, images)
    assert torch.equal(targets, soft_targets(labels, classes=5, label_smoothing=0.1))


def test_soft_targets_equal_timm() -> None:
    found = soft_targets(torch.tensor([1, 3]), classes=4, label_smoothing=0.2)
    assert found.flatten().tolist() == pytest.approx([0.05, 0.85, 0.05, 0.05, 0.05, 0.05, 0.05, 0.85])


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 7), st.floats(0, 0.99))
def test_targets_sum_to_one_and_no_image_is_its_own_partner(
    seed: int, batch: int, classes: int, smoothing: float
) -> None:
    one = draw_mixes(BOTH, seed=seed, epoch=0, steps=range(5, 6), height=8, width=8)[0]
    images = torch.arange(batch).float().reshape(batch, 1, 1, 1).expand(batch, 3, 8, 8)
    mixed, targets = mix(images, torch.arange(batch) % classes, one, classes=classes, label_smoothing=smoothing)
    assert torch.allclose(targets.sum(1), torch.ones(batch), atol=1e-6)
    own = (one.weight * images).mean() + (1 - one.weight) * images.mean()
    assert mixed.mean().item() == pytest.approx(own.item(), abs=1e-4)  # partners are a permutation of the batch
    assert batch == 1 or one.weight == 1 or not (mixed == images).all(dim=(1, 2, 3)).any()


@pytest.mark.parametrize("kind", ["none", "mixup", "cutmix"])
def test_rows_of_a_rank_equal_rows_of_the_whole_batch(kind: str) -> None:
    images = torch.rand(12, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(12) % 5
    for word in range(24):
        drawn = Mix(kind=kind, weight=0.3, box=(1, 4, 0, 5), partner=word)  # type: ignore[arg-type]
        whole, targets = mix(images, labels, drawn, classes=5, label_smoothing=0.1)
        for rows in (range(4), range(4, 8), range(8, 12), range(12)):
            own, own_targets = mix(images, labels, drawn, classes=5, label_smoothing=0.1, rows=rows)
            assert torch.equal(own, whole[rows.start : rows.stop])
            assert torch.equal(own_targets, targets[rows.start : rows.stop])
