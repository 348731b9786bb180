"""Several processes that train one member together: who they are, and what they tell one another.

Every rank draws the whole global batch's random numbers and makes its own rows of it, so any number of ranks trains on
the same inputs. Gradients are averaged by DistributedDataParallel, which `train.py` wraps the model in.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor

# torch 2.13 has a new name for it and warns of the old one.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """This process among those that train a member.

    Args:
        index: From 0; rank 0 alone reads and writes the zoo.
        count: How many there are.
    """

    index: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this rank reads and writes the zoo."""
        return self.index == 0

    def rows(self, count: int) -> range:
        """This rank's places in something of ``count`` rows: contiguous, and for the ranks together each place once."""
        return range(self.index * count // self.count, (self.index + 1) * count // self.count)

    def gather(self, rows: Shaped[Tensor, "rows ..."], count: int) -> Shaped[Tensor, "count ..."]:
        """The rows of all ranks in order, of a tensor that is split as `rows` says; no gradient flows.

        Args:
            rows: This rank's.
            count: How many there are in all.
        """
        if self.count == 1:
            return rows
        most = -(-count // self.count)
        padded = rows.new_zeros((most, *rows.shape[1:]))
        padded[: len(rows)] = rows
        gathered = rows.new_empty((self.count * most, *rows.shape[1:]))
        _all_gather(gathered, padded)
        sizes = [len(Ranks(index=index, count=self.count).rows(count)) for index in range(self.count)]
        return torch.cat([part[:size] for part, size in zip(gathered.split(most), sizes, strict=True)])

    def gather_with_gradient(self, rows: Float[Tensor, "rows dim"]) -> Float[Tensor, "all dim"]:
        """The rows of all ranks, as many of each, in order; the gradients that every rank has for them flow back.

        If every rank computes the same loss from all rows, the gradients that DistributedDataParallel averages are
        those of that loss: each rank's row collects one gradient from every rank, and the average divides by them.
        """
        return rows if self.count == 1 else _Gather.apply(rows, self)  # pyright: ignore[reportReturnType]

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank; any picklable object."""
        if self.count == 1:
            return value
        box = [value if self.is_main else None]
        dist.broadcast_object_list(box)
        return box[0]

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.count > 1:
            dist.barrier()


class _Gather(torch.autograd.Function):
    """All ranks' rows forward; backward the sum over the ranks of what belongs to this rank's."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        gathered = rows.new_empty((ranks.count * len(rows), *rows.shape[1:]))
        _all_gather(gathered, rows.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ranks: Ranks = ctx.ranks
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(ranks.count)[ranks.index], None
