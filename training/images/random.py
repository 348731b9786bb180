"""The counter-based generator: every random number of a training is a pure function of where it is used.

    key     = (seed, stream)
    counter = (epoch, sample, view, draw block)       augmentation, order, mixing (there, sample is the global step)
    counter = (block, tensor, 0, 0)                   initialisation (tensor is `tensor_id` of the parameter's name);
                                                      noise of erased pixels

Philox4x32-10 turns key and counter into four 32-bit words, in int64 tensor operations that give the same words on any
device. Nothing here has state, so neither resume, nor ranks, nor the batch that a sample falls into can change a draw.
What is done with the numbers lives elsewhere: `draws.py`, `training/member/initialisation.py`.
"""

import math
import zlib
from enum import IntEnum
from functools import lru_cache

import torch
from jaxtyping import Float32, Int, Int64
from torch import Tensor

_WORD = 1 << 32
_MASK = _WORD - 1
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


class Stream(IntEnum):
    """What a random number is for: the second word of the key. Its values are frozen: recipes rest on them."""

    INITIALISATION = 0
    HEAD = 1
    ORDER = 2
    AUGMENTATION = 3
    MIXING = 4
    EVALUATION = 5
    NOISE = 6


def philox(key: tuple[int, int], counter: Int64[Tensor, "*shape 4"]) -> Int64[Tensor, "*shape 4"]:
    """Philox4x32-10: four random words for each counter.

    Args:
        key: two words, each in [0, 2^32).
        counter: four words a row, each in [0, 2^32); higher bits are dropped: a check would wait for the device.

    Returns:
        Words in [0, 2^32), on the counter's device.

    Raises:
        ValueError: a key word outside [0, 2^32).

    Source:
        Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3 and
        Random123's `philox.h`.
    """
    for word in key:
        _check_word("key", word)
    multipliers, *round_keys = _constants(key, counter.device)
    pairs = (counter & _MASK).unflatten(-1, (2, 2))
    even, odd = pairs[..., 0], pairs[..., 1]  # words (0, 2) and (1, 3): one operation serves both halves of the network
    for round_key in round_keys:
        # int64 products wrap modulo 2^64, which keeps all 64 bits; the mask undoes the sign that >> drags in.
        product = (even * multipliers).flip(-1)
        even = ((product >> 32) & _MASK) ^ odd ^ round_key
        odd = product & _MASK
    return torch.stack((even, odd), dim=-1).flatten(-2)


@lru_cache(maxsize=64)
def _constants(key: tuple[int, int], device: torch.device) -> tuple[Int64[Tensor, "2"], ...]:
    """The multipliers and the key of each round, kept on the device: a copy in each call would wait for it."""
    keys = [
        [(word + turn * step) & _MASK for word, step in zip(key, _KEY_STEPS, strict=True)] for turn in range(_ROUNDS)
    ]
    return torch.tensor([_MULTIPLIERS, *keys], device=device).unbind()


def words(
    seed: int, stream: Stream, *, epoch: int, samples: Int[Tensor, "samples"], view: int = 0, draws: int
) -> Int64[Tensor, "samples draws"]:
    """Random words for each sample; asking for more draws, or for other samples beside it, changes none of them.

    Args:
        seed: in [0, 2^32).
        stream: what the words are for.
        epoch: in [0, 2^32).
        samples: index of each sample in its data set, in [0, 2^32) (not checked: that would wait for the device).
        view: which of a sample's views, in [0, 2^32).
        draws: words a sample, at least 1.

    Returns:
        Words in [0, 2^32), on the samples' device.

    Raises:
        ValueError: seed, epoch, view or draws outside its range.
    """
    _check_word("seed", seed)
    _check_word("epoch", epoch)
    _check_word("view", view)
    if draws < 1:
        raise ValueError(f"draws is {draws}; expected at least 1")
    blocks = math.ceil(draws / 4)
    counter = torch.empty((len(samples), blocks, 4), dtype=torch.int64, device=samples.device)
    counter[..., 0] = epoch
    counter[..., 1] = samples[:, None]
    counter[..., 2] = view
    counter[..., 3] = torch.arange(blocks, device=samples.device)
    return philox((seed, int(stream)), counter).flatten(1)[:, :draws]


def uniforms(
    seed: int, stream: Stream, *, epoch: int, samples: Int[Tensor, "samples"], view: int = 0, draws: int
) -> Float32[Tensor, "samples draws"]:
    """Uniform numbers in [0, 1) for each sample: the top 24 bits of `words`, so each is exactly k * 2^-24.

    Args:
        seed: in [0, 2^32).
        stream: what the numbers are for.
        epoch: in [0, 2^32).
        samples: index of each sample in its data set, in [0, 2^32).
        view: which of a sample's views, in [0, 2^32).
        draws: numbers a sample, at least 1.

    Returns:
        Numbers in [0, 1), on the samples' device.

    Raises:
        ValueError: seed, epoch, view or draws outside its range.
    """
    return _to_uniforms(words(seed, stream, epoch=epoch, samples=samples, view=view, draws=draws))


def permutation(seed: int, *, epoch: int, count: int, device: torch.device | str = "cpu") -> Int64[Tensor, "count"]:
    """The order in which an epoch visits its samples: a stable argsort of one `Stream.ORDER` word a sample.

    Args:
        seed: the order seed, in [0, 2^32).
        epoch: in [0, 2^32).
        count: number of samples, at least 1.
        device: where the order is wanted.

    Returns:
        The numbers 0 to count - 1, each once.

    Raises:
        ValueError: seed, epoch or count outside its range.
    """
    if count < 1:
        raise ValueError(f"count is {count}; an epoch visits at least 1 sample: give the size of the training set")
    samples = torch.arange(count, device=device)
    return words(seed, Stream.ORDER, epoch=epoch, samples=samples, draws=1)[:, 0].argsort(stable=True)


def tensor_id(name: str) -> int:
    """The 32-bit word that stands for a parameter in the counters of its initialisation: crc32 of its UTF-8 name."""
    return zlib.crc32(name.encode())


def normals(seed: int, stream: Stream, *, tensor: int, count: int) -> Float32[Tensor, "count"]:
    """Standard normal numbers for one parameter's initialisation, or for noise: Box and Muller's transform in float64.

    They are computed on the CPU, so that a model starts alike on every device.

    Args:
        seed: in [0, 2^32).
        stream: `Stream.INITIALISATION` or `Stream.HEAD`; `Stream.NOISE` for erased pixels.
        tensor: `tensor_id` of the parameter's name.
        count: how many; a longer answer begins with the shorter one.

    Returns:
        Numbers of mean 0 and standard deviation 1, at most sqrt(64 ln 2) = 6.7 in size.

    Raises:
        ValueError: seed, tensor or count outside its range.

    Source:
        Box, Muller, "A note on the generation of random normal deviates", 1958.
    """
    pairs = _tensor_words(seed, stream, tensor=tensor, count=count).unflatten(0, (-1, 2)).double()
    radius = (-2 * torch.log((pairs[:, 0] + 1) / _WORD)).sqrt()  # the logarithm's argument lies in (0, 1]
    angle = pairs[:, 1] * (2 * math.pi / _WORD)
    return torch.stack((radius * angle.cos(), radius * angle.sin()), dim=1).flatten()[:count].float()


def tensor_uniforms(seed: int, stream: Stream, *, tensor: int, count: int) -> Float32[Tensor, "count"]:
    """Uniform numbers in [0, 1) for the initialisation of one parameter, keyed as `normals` and exact as `uniforms`.

    Args:
        seed: in [0, 2^32).
        stream: `Stream.INITIALISATION` or `Stream.HEAD`.
        tensor: `tensor_id` of the parameter's name.
        count: how many; a longer answer begins with the shorter one.

    Returns:
        Numbers k * 2^-24 in [0, 1).

    Raises:
        ValueError: seed, tensor or count outside its range.
    """
    return _to_uniforms(_tensor_words(seed, stream, tensor=tensor, count=count)[:count])


def _tensor_words(seed: int, stream: Stream, *, tensor: int, count: int) -> Int64[Tensor, "words"]:
    """At least `count` words, a multiple of four, for one parameter."""
    _check_word("seed", seed)
    _check_word("tensor", tensor)
    if count < 1:
        raise ValueError(f"count is {count}; expected at least 1, the number of the parameter's elements")
    counter = torch.zeros((math.ceil(count / 4), 4), dtype=torch.int64)
    counter[:, 0] = torch.arange(len(counter))
    counter[:, 1] = tensor
    return philox((seed, int(stream)), counter).flatten()


def _to_uniforms(random_words: Int64[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """The top 24 bits as a fraction: float32 holds every such number exactly."""
    return (random_words >> 8).float() * 2.0**-24


def _check_word(name: str, value: int) -> None:
    if not 0 <= value < _WORD:
        raise ValueError(f"{name} is {value}; expected an integer from 0 to 2^32 - 1: the generator takes 32-bit words")
