"""Describe an import of the authors' release. See `run` for its execution."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vitzoo.architectures import Sizes
from vitzoo.errors import ReleaseError
from vitzoo.interop.authors.facts import MODEL_TYPES
from vitzoo.interop.engine import ImportReport
from vitzoo.records.epochs import Epochs

if TYPE_CHECKING:
    from vitzoo.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Import:
    """Import of the authors' release into a zoo folder.

    Args:
        source: The release's folder, with ``pretraining/`` and ``finetuning/``.
        root: The zoo folder: new, empty, or of an earlier import of that release with the same epochs.
        epochs: Epochs to keep beside the final weights: ``all``, ``last`` (none), ``every-10`` or ``0,10``. The start
            of a child is always kept.
        jobs: Models that are converted at a time. Each takes a core and the memory of four checkpoints.
        check: Number of members, evenly spaced, whose logits are compared with their original checkpoints.
        tokenizer: Folder of the tokenizer of language models, with tokenizer.json and tokenizer_config.json. A release
            has none, and its data are of bert-base-cased. None for vision models.
        model_types: Sizes by ``model::type``, for models of other sizes than ViT-S/16 and BERT-base.
        progress: Called with the work, the models or bytes that are done, and their total.
        report: Filled while the import is planned and run.

    Raises:
        ValueError: ``jobs`` is below 1 or ``check`` below 0.
    """

    source: Path
    root: Path
    epochs: Epochs = field(default_factory=lambda: Epochs("all"))
    jobs: int = 2
    check: int = 0
    tokenizer: Path | None = None
    model_types: Mapping[str, Sizes] = field(default_factory=lambda: MODEL_TYPES)
    progress: Callable[[str, int, int], None] = lambda work, done, total: None
    report: ImportReport = field(default_factory=ImportReport)

    def load_tokenizer(self) -> "Tokenizer":
        """Load the tokenizer of language models.

        Raises:
            ReleaseError: There is none.
            ConfigError: It is damaged, or has a part that no member may have.
        """
        if self.tokenizer is None:
            raise ReleaseError(
                "The tokenizer of the language models is not given, and the release has none",
                expected="--tokenizer FOLDER with tokenizer.json and tokenizer_config.json of their data's tokenizer",
                fix="Get it: hf download google-bert/bert-base-cased tokenizer.json tokenizer_config.json "
                "--local-dir ./bert-base-cased",
                path=self.source,
            )
        from vitzoo.text.tokenizer import load_tokenizer  # numpy: not for vision models

        return load_tokenizer(self.tokenizer)

    def __post_init__(self) -> None:
        if self.jobs < 1 or self.check < 0:
            raise ValueError(f"jobs is {self.jobs} and check {self.check}; expected 1 and 0 at least")
