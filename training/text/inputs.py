"""Load the texts of a member, and make batches, metrics and the tokenizer's files of them.

See `training.batch.Inputs` for the methods, and `loader.py` for the batches.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from training.batch import Batch, Measured, check_dataset
from training.ranks import Ranks
from training.recipes.data import TextData
from training.recipes.plan import PlannedMember
from training.text.loader import TextBatches
from training.text.tokenizer import make_tokenizer
from vitzoo.models.evaluation import EVALUATED_ROWS, evaluate_rows
from vitzoo.text.load import load_text
from vitzoo.text.masks import count_masks
from vitzoo.text.splits import TextSplit
from vitzoo.text.tokenizer import check_tokenizer


class TextInputs:
    """The texts of a member, compared with its recipe.

    Args:
        planned: Member to train.
        data: Folders of data sets on this machine, by name.
        tokenizer_sha256: Digest of the parent's tokenizer.json; None for a parent.

    Raises:
        DatasetError: The texts are not on this machine.
        ConfigError: Their tokenizer is not the parent's, or has ids that the model does not have.
        TrainingError: Their number or classes, or the size of the vocabulary, differ from the recipe's.
    """

    def __init__(self, planned: PlannedMember, *, data: Mapping[str, Path], tokenizer_sha256: str | None = None):
        recipe = cast(TextData, planned.training.dataset)
        self.planned, self._longest = planned, recipe.texts.max_length
        self.dataset = load_text(recipe.texts, tokenizer=make_tokenizer(planned, data=data), data=data)
        check_tokenizer(
            self.dataset.tokenizer,
            vocab_size=planned.architecture.vocab_size,
            sha256=tokenizer_sha256,
            by=str(planned.id.parent_id or planned.id),
        )
        check_dataset(planned, self.dataset)

    def batches(self, split: TextSplit | None = None, *, device: torch.device, **options: Any) -> TextBatches:
        """Make the batches of a split, by default of the training rows; see `training.batch.Inputs`."""
        rows = self.dataset.train if split is None else split
        return TextBatches(self.planned, rows, self.dataset.tokenizer, device=device, **options)

    def measure(self, model: Any, split: TextSplit, *, ranks: Ranks, workers: int) -> Measured:
        """Evaluate all rows of a split: every rank does the same, so that metrics do not depend on their number."""
        del ranks, workers
        precision, tokenizer = self.planned.training.precision, self.dataset.tokenizer
        return evaluate_rows(model, split, tokenizer=tokenizer, precision=precision, batch_size=EVALUATED_ROWS)

    def example(self, rows: int, *, device: torch.device) -> Batch:
        """Make a batch of the longest rows; see `training.batch.Inputs`."""
        training, outputs, length = self.planned.training, self.planned.head.outputs, self._longest
        inputs = {"input_ids": torch.zeros((rows, length), dtype=torch.int64, device=device)}
        if training.masking is None:
            return Batch(inputs=inputs, targets=torch.full((rows, outputs), 1 / outputs, device=device))
        masks = int(count_masks(np.array([length]), training.masking.share)[0])
        places = torch.arange(masks, device=device).expand(rows, masks)
        return Batch(inputs=inputs, targets=torch.zeros_like(places), positions=places, masks_per_row=masks)

    def save(self, folder: Path) -> None:
        """Write the tokenizer's two files."""
        self.dataset.tokenizer.write(folder, max_length=self._longest)
