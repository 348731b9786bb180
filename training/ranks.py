"""Communicate between the processes that train one member together.

Every rank draws the random numbers of the global batch and makes its own rows, so any number of ranks trains on the
same inputs. DistributedDataParallel averages the gradients; see `training.member.train`.
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
    """This process among the processes of a member.

    Args:
        index: Index of this process, from 0. Rank 0 alone reads and writes the zoo.
        count: Number of processes.
    """

    index: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Return whether this rank reads and writes the zoo."""
        return self.index == 0

    def rows(self, count: int) -> range:
        """Return this rank's rows of ``count``: contiguous, and each row belongs to one rank."""
        return range(self.index * count // self.count, (self.index + 1) * count // self.count)

    def gather(self, rows: Shaped[Tensor, "rows ..."], count: int) -> Shaped[Tensor, "count ..."]:
        """Gather the rows of all ranks in order, split like `rows`, without gradients.

        Args:
            rows: This rank's rows.
            count: Rows of all ranks together.
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
        """Gather equal numbers of rows of all ranks in order, with gradients.

        If every rank computes the same loss from all rows, DistributedDataParallel averages to the gradient of that
        loss: each row sums one gradient from every rank, and the average divides by the number of ranks.
        """
        return rows if self.count == 1 else _Gather.apply(rows, self)  # pyright: ignore[reportReturnType]

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value, any picklable object, on every rank."""
        if self.count == 1:
            return value
        box = [value if self.is_main else None]
        dist.broadcast_object_list(box)
        return box[0]

    def barrier(self) -> None:
        """Wait for every rank."""
        if self.count > 1:
            dist.barrier()


class _Gather(torch.autograd.Function):
    """Gather all ranks' rows forward. Sum this rank's gradients over the ranks backward."""

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
