"""What the process that publishes beside training is told, and what it tells; data, light to import.

`training.publish.beside` is what it does, `training.population.publisher` the driver's side.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vitzoo.records.epochs import Epochs

if TYPE_CHECKING:  # it imports torch, which the driver needs not
    from training.publish.push import PushResult

_ALL = Epochs("all")

Wish = Literal["check", "publish", "finish"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Publishing:
    """What is published, where, and how often.

    Args:
        root: The zoo folder.
        to: The model repo, ``org/name``.
        metadata_to: The dataset repo; None for ``<to>-metadata``.
        epochs: Which weights go along with the final ones.
        private: Whether repos that are made are private.
        interval: Seconds between the end of a pass and the next, at least.
        pause: Seconds after a pass that failed; doubled each time.
    """

    root: Path
    to: str
    metadata_to: str | None = None
    epochs: Epochs = _ALL
    private: bool = False
    interval: float = 300.0
    pause: float = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What the publishing process tells its driver.

    Args:
        kind: ``line`` (something to show), ``progress`` (a file was verified or stored, or a commit made), ``began``
            and ``ended`` (a pass), ``ready`` or ``refused`` (what was checked), ``published`` (all of it is there) or
            ``gave up`` (once training is over: trying again would fail again).
        text: What there is to say.
        result: Of the last publication, for ``published``.
    """

    kind: Literal["line", "progress", "began", "ended", "ready", "refused", "published", "gave up"]
    text: str = ""
    result: "PushResult | None" = None
