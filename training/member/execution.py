"""How a member is carried out, as opposed to what it is: choices of a machine, which never change its inputs.

They may change its bits, so those that do are part of a training's identity (`train.py`) and of the record. What
precision is trained in is the recipe's; environment variables are `training/environment.py`'s.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from training.recipes.checks import check_one_of, check_positive
from training.recipes.retention import Retention

_DECODERS = 16  # beyond that a card is fed
TRACKERS = ("tensorboard", "trackio", "wandb")
COMPILE_MODES = ("none", "default", "max-autotune-no-cudagraphs")


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """How members are carried out on this machine.

    Args:
        compile: Mode of `torch.compile`; ``none`` for eager; None for ``default`` on a GPU and ``none`` elsewhere.
        deterministic: Whether equal runs on one card give equal bits, at a cost (docs/benchmarks.md). CPUs always do.
        accumulation: Parts that each rank's batch is cut into, one after another: memory against time.
        loader_workers: Processes that decode streamed images, for each rank; None for as many as there are cores, up
            to 16.
        keep: Epochs whose weights are kept.
        track: Trackers that are told every epoch's figures: tensorboard, trackio, wandb.
        data: Folders of data sets on this machine, by name.

    Raises:
        ValueError: A field outside its range.
    """

    compile: Literal["none", "default", "max-autotune-no-cudagraphs"] | None = None
    deterministic: bool = False
    accumulation: int = 1
    loader_workers: int | None = None
    keep: Retention = field(default_factory=Retention)
    track: tuple[str, ...] = ()
    data: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.compile is not None:
            check_one_of("compile", self.compile, COMPILE_MODES)
        check_positive("accumulation", self.accumulation)
        if self.loader_workers is not None and self.loader_workers < 0:
            raise ValueError(f"loader_workers is {self.loader_workers}; expected a number from 0 on")
        for tracker in self.track:
            check_one_of("track", tracker, TRACKERS)

    @property
    def compile_mode(self) -> str:
        """The mode of `torch.compile` on this machine; ``none`` for eager."""
        import torch  # seconds, which the driver of a run does not spend

        return self.compile or ("default" if torch.cuda.is_available() else "none")

    @property
    def decoders(self) -> int:
        """Processes that decode streamed images, for each rank on this machine."""
        return self.decoders_among(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))

    def decoders_among(self, processes: int) -> int:
        """Processes that decode streamed images, for each of several trainings that share this machine's cores."""
        if self.loader_workers is not None:
            return self.loader_workers
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, min(_DECODERS, cores // processes))


def prepare_process(execution: Execution) -> None:
    """Set what holds for a whole process, before a member is trained in it; what decides bits is fixed here.

    fp32 means fp32: TF32 stays off, also where torch's default is on (convolutions). Deterministic kernels leave flash
    and plain attention: the backward pass of the others adds up in any order.
    """
    import torch

    if execution.compile_mode != "none":
        import torch._dynamo.config as dynamo

        dynamo.recompile_limit = 64  # shapes that one process may meet; beyond that it would run eagerly unsaid
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
        return
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.use_deterministic_algorithms(execution.deterministic)
    torch.backends.cuda.enable_cudnn_sdp(not execution.deterministic)
    torch.backends.cuda.enable_mem_efficient_sdp(not execution.deterministic)
    if execution.deterministic:
        # A search for errors, not for bits.
        torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
        import torch._inductor.config as inductor

        inductor.deterministic = True  # kernels chosen by rule, not by timing
