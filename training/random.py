"""Draw every random number of a training as a pure function of its place: Philox4x32-10.

    key     = (seed, stream)
    counter = (epoch, sample, view, draw block)       augmentation, order, mixing (there, sample is the global step)
    counter = (block, tensor, 0, 0)                   initialisation (tensor is `tensor_id` of the parameter's name);
                                                      noise of erased pixels

Philox4x32-10 turns key and counter into four 32-bit words, in int64 tensor operations that give the same words on any
device. The generator has no state, so a resume, the number of ranks and the batch of a sample change no number. See
`training.images.draws` for how augmentation uses the numbers, and `training.member.initialisation` for first weights.
"""

import math
import zlib
from dataclasses import dataclass
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
    """The second word of the key: the purpose of a random number. The values are frozen, since recipes rest on them."""

    INITIALISATION = 0
    HEAD = 1
    ORDER = 2
    AUGMENTATION = 3
    MIXING = 4
    EVALUATION = 5
    NOISE = 6
    MASKING = 7
    DROPOUT = 8


def philox(key: tuple[int, int], counter: Int64[Tensor, "*shape 4"]) -> Int64[Tensor, "*shape 4"]:
    """Return four random words for each counter.

    Args:
        key: Two words, each in [0, 2^32).
        counter: Four words a row, each in [0, 2^32). Higher bits are dropped, since a check would wait for the device.

    Returns:
        Words in [0, 2^32), on the counter's device.

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
    """Keep the multipliers and the key of each round on the device, since a copy in each call would wait for it."""
    keys = [
        [(word + turn * step) & _MASK for word, step in zip(key, _KEY_STEPS, strict=True)] for turn in range(_ROUNDS)
    ]
    return torch.tensor([_MULTIPLIERS, *keys], device=device).unbind()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Draw:
    """The place of a batch's random numbers: one of them is a function of (seed, stream, epoch, sample, view) alone.

    Asking for more numbers, or for other samples in the same call, changes none of them.

    Args:
        seed: Seed of the order or of the augmentation, in [0, 2^32).
        epoch: Finished passes over the images, in [0, 2^32).
        samples: Index of each image in its data set, on the images' device. It is not checked, since a check would wait
            for the device. Mixing gives the global steps here.
        view: View of each image, in [0, 2^32); contrastive training has two.
        stream: Purpose of the numbers; `Stream.EVALUATION` gives views that training never draws.

    Raises:
        ValueError: Seed, epoch or view is out of range.
    """

    seed: int
    epoch: int
    samples: Int[Tensor, "samples"]
    view: int = 0
    stream: Stream = Stream.AUGMENTATION

    def __post_init__(self) -> None:
        for name in ("seed", "epoch", "view"):
            _check_word(name, getattr(self, name))

    def words(self, count: int) -> Int64[Tensor, "samples count"]:
        """Return ``count`` random words in [0, 2^32) for each sample, on the samples' device; at least 1."""
        _check_count(count)
        blocks = math.ceil(count / 4)
        counter = torch.empty((len(self.samples), blocks, 4), dtype=torch.int64, device=self.samples.device)
        counter[..., 0] = self.epoch
        counter[..., 1] = self.samples[:, None]
        counter[..., 2] = self.view
        counter[..., 3] = torch.arange(blocks, device=self.samples.device)
        return philox((self.seed, int(self.stream)), counter).flatten(1)[:, :count]

    def uniforms(self, count: int) -> Float32[Tensor, "samples count"]:
        """Return ``count`` uniform numbers in [0, 1) for each sample: the top 24 bits of `words`, as k * 2^-24."""
        return _to_uniforms(self.words(count))


def permutation(seed: int, *, epoch: int, count: int, device: torch.device | str = "cpu") -> Int64[Tensor, "count"]:
    """Return the order in which an epoch visits its samples: a stable argsort of one `Stream.ORDER` word a sample.

    Args:
        seed: Order seed, in [0, 2^32).
        epoch: Finished passes, in [0, 2^32).
        count: Number of samples, at least 1.
        device: Device of the order.

    Returns:
        The numbers 0 to count - 1, each once.
    """
    _check_count(count)
    draw = Draw(seed=seed, epoch=epoch, samples=torch.arange(count, device=device), stream=Stream.ORDER)
    return draw.words(1)[:, 0].argsort(stable=True)


def tensor_id(name: str) -> int:
    """Return the 32-bit word of a parameter in the counters of its initialisation: crc32 of its UTF-8 name."""
    return zlib.crc32(name.encode())


def normals(seed: int, stream: Stream, *, tensor: int, count: int) -> Float32[Tensor, "count"]:
    """Return standard normal numbers for one parameter, or for noise: Box and Muller's transform in float64.

    They are computed on the CPU, so that a model starts with the same weights on every device.

    Args:
        seed: Seed of the backbone or the head, in [0, 2^32).
        stream: `Stream.INITIALISATION` or `Stream.HEAD`; `Stream.NOISE` for erased pixels.
        tensor: `tensor_id` of the parameter's name.
        count: Numbers to return. A longer result begins with the shorter one.

    Returns:
        Numbers of mean 0 and standard deviation 1, at most sqrt(64 ln 2) = 6.7 in size.

    Source:
        Box, Muller, "A note on the generation of random normal deviates", 1958.
    """
    pairs = _tensor_words(seed, stream, tensor=tensor, count=count).unflatten(0, (-1, 2)).double()
    radius = (-2 * torch.log((pairs[:, 0] + 1) / _WORD)).sqrt()  # the logarithm's argument is in (0, 1]
    angle = pairs[:, 1] * (2 * math.pi / _WORD)
    return torch.stack((radius * angle.cos(), radius * angle.sin()), dim=1).flatten()[:count].float()


def tensor_uniforms(seed: int, stream: Stream, *, tensor: int, count: int) -> Float32[Tensor, "count"]:
    """Return uniform numbers k * 2^-24 in [0, 1) for one parameter, with the arguments of `normals`."""
    return _to_uniforms(_tensor_words(seed, stream, tensor=tensor, count=count)[:count])


def _tensor_words(seed: int, stream: Stream, *, tensor: int, count: int) -> Int64[Tensor, "words"]:
    """Return at least ``count`` words, a multiple of four, for one parameter."""
    _check_word("seed", seed)
    _check_word("tensor", tensor)
    _check_count(count)
    counter = torch.zeros((math.ceil(count / 4), 4), dtype=torch.int64)
    counter[:, 0] = torch.arange(len(counter))
    counter[:, 1] = tensor
    return philox((seed, int(stream)), counter).flatten()


def _to_uniforms(random_words: Int64[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """Return the top 24 bits as a fraction. float32 holds every such number exactly."""
    return (random_words >> 8).float() * 2.0**-24


def _check_word(name: str, value: int) -> None:
    if not 0 <= value < _WORD:
        raise ValueError(f"{name} is {value}; expected an integer from 0 to 2^32 - 1: the generator takes 32-bit words")


def _check_count(count: int) -> None:
    if count < 1:
        raise ValueError(f"count is {count}; expected at least 1 number")
