"""The generator against Random123's known answers and its definition in numpy, and the properties of its numbers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from training.random import Draw, Stream, normals, permutation, philox, tensor_id, tensor_uniforms

word = st.integers(0, 2**32 - 1)

# Random123, tests/kat_vectors, the lines of philox4x32 with 10 rounds: counter, key, answer.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def hexadecimal(text: str) -> list[int]:
    return [int(part, 16) for part in text.split()]


def reference_philox(key: tuple[int, int], counter: np.ndarray) -> np.ndarray:
    """Compute Philox4x32-10 as the paper defines it, one word at a time, in uint64."""
    mask, low = np.uint64(0xFFFFFFFF), np.uint64(32)
    c0, c1, c2, c3 = (counter[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = key
    for _ in range(10):
        first, second = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (
            (second >> low) ^ c1 ^ np.uint64(k0),
            second & mask,
            (first >> low) ^ c3 ^ np.uint64(k1),
            first & mask,
        )
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return np.stack((c0, c1, c2, c3), axis=1)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers_of_random123(counter: str, key: str, answer: str) -> None:
    first, second = hexadecimal(key)
    assert philox((first, second), torch.tensor(hexadecimal(counter))).tolist() == hexadecimal(answer)


@settings(max_examples=30)
@given(st.tuples(word, word), st.lists(st.tuples(word, word, word, word), min_size=1, max_size=9))
def test_philox_agrees_with_its_definition(key: tuple[int, int], counters: list[tuple[int, ...]]) -> None:
    expected = reference_philox(key, np.array(counters, dtype=np.uint64))
    assert np.array_equal(philox(key, torch.tensor(counters)).numpy().astype(np.uint64), expected)


def test_philox_keeps_leading_axes() -> None:
    counter = torch.arange(24).reshape(2, 3, 4)
    assert torch.equal(philox((1, 2), counter), philox((1, 2), counter.reshape(6, 4)).reshape(2, 3, 4))


def test_streams_are_frozen() -> None:
    names = ["INITIALISATION", "HEAD", "ORDER", "AUGMENTATION", "MIXING", "EVALUATION", "NOISE"]
    names += ["MASKING", "DROPOUT"]
    assert [stream.name for stream in sorted(Stream)] == names
    assert sorted(Stream) == list(range(9))


def test_the_counter_is_epoch_sample_view_block() -> None:
    words = Draw(seed=7, stream=Stream.MIXING, epoch=3, samples=torch.tensor([11, 12]), view=1).words(6)
    counters = np.array([[3, sample, 1, block] for sample in (11, 12) for block in (0, 1)], dtype=np.uint64)
    assert np.array_equal(words.numpy(), reference_philox((7, 4), counters).reshape(2, 8)[:, :6])


@settings(max_examples=30)
@given(word, st.integers(0, 500), st.integers(1, 13), st.lists(st.integers(0, 99), min_size=1, max_size=20))
def test_numbers_of_a_sample_do_not_depend_on_other_samples_or_the_count(
    seed: int, epoch: int, draws: int, samples: list[int]
) -> None:
    every = Draw(seed=seed, epoch=epoch, samples=torch.arange(100)).uniforms(13)
    some = Draw(seed=seed, epoch=epoch, samples=torch.tensor(samples)).uniforms(draws)
    assert torch.equal(some, every[samples, :draws])


def test_every_part_of_the_key_and_counter_changes_the_words() -> None:
    samples = torch.arange(50)
    base = Draw(seed=1, stream=Stream.ORDER, epoch=1, samples=samples, view=1).words(4)
    others = [
        Draw(seed=2, stream=Stream.ORDER, epoch=1, samples=samples, view=1).words(4),
        Draw(seed=1, stream=Stream.MIXING, epoch=1, samples=samples, view=1).words(4),
        Draw(seed=1, stream=Stream.ORDER, epoch=2, samples=samples, view=1).words(4),
        Draw(seed=1, stream=Stream.ORDER, epoch=1, samples=samples + 50, view=1).words(4),
        Draw(seed=1, stream=Stream.ORDER, epoch=1, samples=samples, view=2).words(4),
    ]
    assert len(torch.cat([base, *others]).unique()) == 6 * 50 * 4


def test_uniforms_are_exact_multiples_of_two_to_the_minus_24() -> None:
    numbers = Draw(seed=5, stream=Stream.EVALUATION, epoch=0, samples=torch.arange(5000)).uniforms(10)
    raw = Draw(seed=5, stream=Stream.EVALUATION, epoch=0, samples=torch.arange(5000)).words(10)
    assert numbers.dtype == torch.float32
    assert torch.equal(numbers.double() * 2**24, (raw // 256).double())
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert stats.kstest(numbers.flatten().numpy(), "uniform").pvalue > 0.01


def test_largest_uniform_is_below_one() -> None:
    from training.random import _to_uniforms

    assert _to_uniforms(torch.tensor([2**32 - 1, 0, 256])).tolist() == [1 - 2**-24, 0, 2**-24]


@settings(max_examples=30)
@given(word, st.integers(0, 1000), st.integers(1, 300))
def test_permutation_has_each_number_once(seed: int, epoch: int, count: int) -> None:
    assert torch.equal(permutation(seed, epoch=epoch, count=count).sort().values, torch.arange(count))


def test_permutations_differ_by_epoch_and_seed() -> None:
    orders = [tuple(permutation(seed, epoch=epoch, count=64).tolist()) for seed in range(8) for epoch in range(8)]
    assert len(set(orders)) == 64


def test_permutations_put_every_sample_at_every_place() -> None:
    places = torch.stack([permutation(3, epoch=epoch, count=6) for epoch in range(600)])
    counts = torch.stack([(places == sample).sum(0) for sample in range(6)])
    assert stats.chisquare(counts.flatten().numpy()).pvalue > 0.01


def test_normals_have_the_moments_of_the_normal() -> None:
    numbers = normals(1, Stream.INITIALISATION, tensor=tensor_id("vit.layernorm.weight"), count=200_001)
    assert numbers.dtype == torch.float32
    assert numbers.shape == (200_001,)
    assert abs(numbers.mean()) < 0.01
    assert abs(numbers.var() - 1) < 0.02
    assert abs((numbers**3).mean()) < 0.03
    assert abs((numbers**4).mean() - 3) < 0.1
    assert stats.kstest(numbers.numpy(), "norm").pvalue > 0.01
    assert abs(np.corrcoef(numbers[:-1:2], numbers[1::2])[0, 1]) < 0.01


def test_normals_are_box_and_muller_of_the_words() -> None:
    raw = reference_philox((9, 1), np.array([[0, 77, 0, 0], [1, 77, 0, 0]], dtype=np.uint64)).flatten().tolist()
    expected = []
    for first, second in zip(raw[::2], raw[1::2], strict=True):
        radius = math.sqrt(-2 * math.log((first + 1) / 2**32))
        expected += [radius * math.cos(2 * math.pi * second / 2**32), radius * math.sin(2 * math.pi * second / 2**32)]
    assert normals(9, Stream.HEAD, tensor=77, count=7).tolist() == pytest.approx(expected[:7], rel=1e-6)
    fractions = [(value >> 8) / 2**24 for value in raw[:7]]
    assert tensor_uniforms(9, Stream.HEAD, tensor=77, count=7).tolist() == fractions


def test_longer_results_begin_with_the_shorter() -> None:
    longer, shorter = (normals(2, Stream.HEAD, tensor=5, count=count) for count in (101, 10))
    assert torch.equal(longer[:10], shorter)


def test_tensor_id_is_crc32() -> None:
    assert tensor_id("123456789") == 0xCBF43926  # the check value of CRC-32/ISO-HDLC


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_outside_32_bits_is_refused(seed: int) -> None:
    for draw in (
        lambda: Draw(seed=seed, epoch=0, samples=torch.arange(2)),
        lambda: permutation(seed, epoch=0, count=2),
        lambda: normals(seed, Stream.HEAD, tensor=0, count=2),
    ):
        with pytest.raises(ValueError, match=f"seed is {seed}; expected an integer"):
            draw()


def test_other_values_out_of_range_are_refused() -> None:
    samples = torch.arange(2)
    for problem, draw in (
        ("epoch is -1", lambda: Draw(seed=0, epoch=-1, samples=samples)),
        ("view is -1", lambda: Draw(seed=0, epoch=0, samples=samples, view=-1)),
        ("count is 0", lambda: Draw(seed=0, epoch=0, samples=samples).words(0)),
        ("count is 0", lambda: permutation(0, epoch=0, count=0)),
        ("count is 0", lambda: tensor_uniforms(0, Stream.HEAD, tensor=0, count=0)),
        ("tensor is 4294967296", lambda: normals(0, Stream.HEAD, tensor=2**32, count=1)),
        ("key is -3", lambda: philox((-3, 0), torch.zeros(4, dtype=torch.int64))),
    ):
        with pytest.raises(ValueError, match=problem):
            draw()
