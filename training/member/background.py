"""Work beside the training: weights leave the device behind what is queued there, and a thread writes them.

An epoch's files are written while the next one trains. Jobs are done one after another, and at most one waits, so no
more than two checkpoints are in memory.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor


class Background:
    """A thread that does one job at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._last: Future[None] | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Do a job soon, once the last one is done; raises what that one raised."""
        self.wait()
        self._last = self._pool.submit(job)

    def check(self) -> None:
        """Raise what the last job raised, if it has ended."""
        if self._last is not None and self._last.done():
            self.wait()

    def wait(self) -> None:
        """Wait until everything is done; raises what a job raised."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def close(self) -> None:
        """End the thread once its job is done, whatever became of that."""
        self._pool.shutdown()


class HostCopy:
    """A copy of tensors in the host's memory, as they were when it was made.

    On a GPU it is made behind the work that is queued there, into pinned memory, without waiting.

    Args:
        tensors: What is copied.
    """

    def __init__(self, tensors: Mapping[str, Tensor]):
        self._arrived: torch.cuda.Event | None = None
        if not any(tensor.device.type == "cuda" for tensor in tensors.values()):
            self._tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
            return
        self._tensors = {}
        for name, tensor in tensors.items():
            host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._tensors[name] = host.copy_(tensor.detach(), non_blocking=True)
        self._arrived = torch.cuda.Event()
        self._arrived.record()

    def wait(self) -> dict[str, Tensor]:
        """The tensors, contiguous and on the CPU, once they have arrived; for any thread."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._tensors
