"""Trackers: every epoch's figures to TensorBoard, Trackio or Weights & Biases, by Accelerate.

A member is a run, called by its id; its zoo is the project. What trackers keep is beside the record, never the record:
that is metrics.jsonl.
"""

import dataclasses
from importlib.util import find_spec
from pathlib import Path

import msgspec
from accelerate import Accelerator

from training.recipes.plan import PlannedMember
from vitzoo.errors import TrainingError
from vitzoo.records import EpochRecord


class Tracking:
    """The trackers of one member.

    Args:
        accelerator: That has them: made with ``log_with``.
        planned: The member.
        root: The zoo folder.
    """

    def __init__(self, accelerator: Accelerator, planned: PlannedMember, root: Path):
        self._accelerator = accelerator
        if not accelerator.log_with:
            return
        name, folder = str(planned.id), Path(accelerator.project_dir)
        folder.mkdir(parents=True, exist_ok=True)
        accelerator.init_trackers(
            root.resolve().name,
            config=_flat(dataclasses.asdict(planned.training)),
            init_kwargs={"wandb": {"name": name, "dir": str(folder)}, "trackio": {"name": name}},
        )

    def log(self, record: EpochRecord) -> None:
        """Tell the figures of an epoch."""
        figures = {
            name: value for name, value in msgspec.structs.asdict(record).items() if isinstance(value, int | float)
        }
        self._accelerator.log(figures, step=record.epoch)

    def close(self) -> None:
        """Write what is left to write."""
        for tracker in self._accelerator.trackers:
            tracker.finish()


def check_trackers(names: tuple[str, ...]) -> None:
    """Check that trackers are installed.

    Raises:
        TrainingError: One is not.
    """
    for name in names:
        if find_spec(name) is None:
            raise TrainingError(f"{name} is not installed: pip install {name}, or leave out --track {name}.")


def _flat(values: dict, prefix: str = "") -> dict[str, int | float | str]:
    """Nested settings as trackers take them: ``optimizer.learning_rate`` to a number or a text."""
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, int | float | str) else str(value)
    return flat
