"""Choose how this machine trains members: compilation, accumulation, workers, trackers. Inputs never depend on it.

Choices that change bits are part of a training's identity (`train.py`) and of the record. See
`training.recipes.training` for the precision, and `training.environment` for environment variables.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, structs

from training.environment import usable_cores
from training.recipes.data import Dataset, TextData
from training.recipes.plan import PlannedMember
from training.recipes.retention import Retention
from vitzoo.errors import TrainingError
from vitzoo.records import EpochRecord
from vitzoo.records.fields import Count, PositiveInt, check_fields
from vitzoo.records.json_files import as_json

if TYPE_CHECKING:
    from accelerate import Accelerator

_Tracker = Annotated[str, Meta(pattern="^(tensorboard|trackio|wandb)$", description="tensorboard, trackio or wandb")]
_DECODERS = 16  # more do not speed a card up


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """Choices of this machine for the training of members.

    Args:
        compile: Mode of `torch.compile`; ``none`` for eager; None for ``default`` on a GPU and ``none`` elsewhere.
        deterministic: Whether equal runs on one card give equal bits, at a cost (docs/benchmarks.md). CPUs always do.
        accumulation: Parts of each rank's batch that run one after another, which saves memory and takes time.
        loader_workers: Processes that decode streamed images, for each rank; None for one a core, up to 16.
        keep: Epochs whose weights are saved.
        track: Trackers that log every epoch's metrics: tensorboard, trackio, wandb.
        data: Folders of data sets on this machine, by name.

    Raises:
        FieldError: A field has the wrong type or is out of range.
    """

    compile: Literal["none", "default", "max-autotune-no-cudagraphs"] | None = None
    deterministic: bool = False
    accumulation: PositiveInt = 1
    loader_workers: Count | None = None
    keep: Retention = field(default_factory=Retention)
    track: tuple[_Tracker, ...] = ()
    data: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def compile_mode(self) -> str:
        """Return the mode of `torch.compile` on this machine; ``none`` for eager."""
        import torch  # takes seconds, which the driver of a run does not spend

        return self.compile or ("default" if torch.cuda.is_available() else "none")

    @property
    def decoders(self) -> int:
        """Return the number of processes that decode streamed images, for each rank on this machine."""
        return self.decoders_among(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))

    def decoders_among(self, processes: int) -> int:
        """Return the number of decoding processes for each of several trainings that share this machine."""
        if self.loader_workers is not None:
            return self.loader_workers
        return max(1, min(_DECODERS, usable_cores() // processes))


def prepare_process(execution: Execution) -> None:
    """Fix the settings of a process that decide bits, before it trains a member.

    fp32 means fp32: TF32 stays off, also where torch's default is on (convolutions). Deterministic kernels leave flash
    and plain attention, since the backward pass of the others sums in any order.
    """
    import torch

    if execution.compile_mode != "none":
        import torch._dynamo.config as dynamo

        dynamo.recompile_limit = 64  # shapes of one process; beyond that it would silently run eagerly
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
        return
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.use_deterministic_algorithms(execution.deterministic)
    torch.backends.cuda.enable_cudnn_sdp(not execution.deterministic)
    torch.backends.cuda.enable_mem_efficient_sdp(not execution.deterministic)
    if execution.deterministic:
        # This setting helps to find errors and costs time. It changes no bits.
        torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
        import torch._inductor.config as inductor

        inductor.deterministic = True  # kernels chosen by rule, not by timing


class Tracking:
    """The trackers of one member: TensorBoard, Trackio or Weights & Biases, through Accelerate.

    A member is a run with its id as name, grouped by parent, and its zoo is the project. The record is metrics.jsonl,
    not the trackers.

    Args:
        accelerator: Accelerator that was made with ``log_with``.
        planned: Member of the run.
        root: Zoo folder.
    """

    def __init__(self, accelerator: "Accelerator", planned: PlannedMember, root: Path):
        self._accelerator = accelerator
        if not accelerator.log_with:
            return
        name, folder = str(planned.id), Path(accelerator.project_dir)
        folder.mkdir(parents=True, exist_ok=True)
        accelerator.init_trackers(
            root.resolve().name,
            config=_flat(as_json(planned.training)),
            init_kwargs={
                "wandb": {"name": name, "group": str(planned.id.parent_id or planned.id), "dir": str(folder)},
                "trackio": {"name": name},
            },
        )

    def log(self, record: EpochRecord) -> None:
        """Log the metrics of an epoch."""
        values = structs.asdict(record) | record.extra
        metrics = {name: value for name, value in values.items() if isinstance(value, int | float)}
        self._accelerator.log(metrics, step=record.epoch)

    def close(self) -> None:
        """Write the remaining values."""
        for tracker in self._accelerator.trackers:
            tracker.finish()


def check_inputs(members: Iterable[PlannedMember], execution: Execution) -> None:
    """Check within moments, without torch, that this machine can begin to train members.

    Raises:
        TrainingError: A tracker is not installed.
        DatasetError: A data set has no folder, and is neither bundled nor in the cache or on the Hub.
    """
    check_trackers(execution.track)
    for data in {member.training.dataset.name: member.training.dataset for member in members}.values():
        if isinstance(data, TextData):
            from vitzoo.text.load import check_text

            check_text(data.texts, data=execution.data)
        elif isinstance(data, Dataset):
            from vitzoo.images.load import check_images

            check_images(data.images, data=execution.data)


def check_trackers(names: tuple[str, ...]) -> None:
    """Check that trackers are installed.

    Raises:
        TrainingError: A tracker is not installed.
    """
    for name in names:
        if find_spec(name) is None:
            raise TrainingError(f"{name} is not installed", fix=f"pip install {name}, or leave out --track {name}.")


def _flat(values: dict, prefix: str = "") -> dict[str, int | float | str]:
    """Flatten nested settings for trackers: ``optimizer.learning_rate`` to a number or a text."""
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, int | float | str) else str(value)
    return flat
