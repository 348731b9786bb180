"""What is read off the device while an epoch runs: the running loss, the speed, and whether the loss is still finite.

Sums stay on the device. Now and then they are copied to the host behind the work that is queued, and read when they
have arrived: nothing waits, so the device never runs dry. At the end of the epoch they are read for good.
"""

import time
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from training.member.report import Diverged
from training.ranks import Ranks

_SECONDS_BETWEEN_LOOKS = 1.0


class Watch:
    """One epoch under way.

    Args:
        device: That the losses are on.
        first_step: Finished steps before the epoch.
        images_per_step: Images of a step, over all ranks.
        ranks: The processes that train together.
        look: Told now and then (finished steps of the epoch, mean loss, images a second).
    """

    def __init__(
        self,
        device: torch.device,
        *,
        first_step: int,
        images_per_step: int,
        ranks: Ranks,
        look: Callable[[int, float, float], None],
    ):
        self._first, self._images, self._ranks, self._look = first_step, images_per_step, ranks, look
        # The sum of the losses, and after how many steps it was finite: once it is not, it never is again.
        self._total = torch.zeros((), dtype=torch.float32, device=device)
        self._finite = torch.zeros((), dtype=torch.float32, device=device)
        self._steps = 0
        self._started = self._looked = time.perf_counter()
        self._copy: tuple[int, Tensor, torch.cuda.Event | None] | None = None

    def step(self, loss: Float[Tensor, ""]) -> None:
        """Count a step.

        Args:
            loss: On the device, detached.

        Raises:
            Diverged: An earlier step's loss was not finite. With several ranks only `end` says so: all at once.
        """
        self._total += loss
        self._finite += self._total.isfinite()
        self._steps += 1
        if self._copy is None and time.perf_counter() - self._looked > _SECONDS_BETWEEN_LOOKS:
            self._copy = (self._steps, *_copy_to_host(torch.stack((self._total, self._finite))))
        if self._copy is not None and (self._copy[2] is None or self._copy[2].query()):
            steps, figures, _ = self._copy
            self._copy, self._looked = None, time.perf_counter()
            total, finite = figures.tolist()
            if finite < steps and self._ranks.count == 1:
                raise self._diverged(int(finite))
            self._look(steps, total / steps, steps * self._images / (self._looked - self._started))

    def end(self) -> tuple[float, float]:
        """Wait for the epoch's last step.

        Returns:
            The mean loss of the epoch's steps over all ranks, and the seconds that the epoch took.

        Raises:
            Diverged: A step's loss was not finite.
        """
        figures = self._ranks.gather(torch.stack((self._total, self._finite))[None], self._ranks.count).tolist()
        seconds = time.perf_counter() - self._started
        finite = min(int(finite) for _, finite in figures)
        if finite < self._steps:
            raise self._diverged(finite)
        return sum(total for total, _ in figures) / len(figures) / self._steps, seconds

    def _diverged(self, step: int) -> Diverged:
        return Diverged(self._first + step, "the loss")


def _copy_to_host(figures: Tensor) -> tuple[Tensor, "torch.cuda.Event | None"]:
    if figures.device.type != "cuda":
        return figures, None
    host = torch.empty(figures.shape, dtype=figures.dtype, pin_memory=True)
    host.copy_(figures, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return host, arrived
