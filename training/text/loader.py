"""Make the batches of a member's training from the tokens of a data set, which are on the device.

Order, masks and lengths are functions of the seeds, the epoch and the step (see `training.random`). So a batch is the
same on any rank and after any resume. Rows of sentences differ in length. Batches then have rows of similar length, and
each is padded to its longest row.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from training.batch import Batch
from training.images.mixing import soft_targets
from training.random import Draw, Stream, permutation
from training.ranks import Ranks
from training.recipes.plan import PlannedMember
from training.text.masking import mask_rows
from vitzoo.records.dataset_spec import TextSpec
from vitzoo.text.masks import count_masks, maskable_tokens
from vitzoo.text.splits import TextSplit
from vitzoo.text.tokenizer import Tokenizer

_WINDOW = 16  # steps whose rows are sorted by length together
_CHUNK = (
    32  # steps that are masked together, where all rows have one length: on a CPU the calls cost more than the work
)
_MULTIPLE = 8  # of a padded length: few shapes to compile, and fast products on a GPU


class TextBatches:
    """All batches of a member that trains on texts.

    Args:
        planned: Member to train.
        split: Training rows.
        tokenizer: Tokenizer of the rows.
        device: Device of the batches.
        ranks: Processes that train together.
        workers: Not used: tokens are in memory.
    """

    def __init__(
        self,
        planned: PlannedMember,
        split: TextSplit,
        tokenizer: Tokenizer,
        *,
        device: torch.device,
        ranks: Ranks | None = None,
        workers: int = 0,
    ):
        del workers
        self._planned, self._training, self._tokenizer = planned, planned.training, tokenizer
        self._device, self._rows = device, (ranks or Ranks()).rows(planned.training.batch_size)
        self._longest = cast(TextSpec, planned.training.dataset.spec).max_length
        self._tokens = torch.from_numpy(split.token_ids).to(device)
        self._starts, self._lengths = (
            torch.from_numpy(values).to(device) for values in (split.offsets[:-1], split.lengths)
        )
        self._labels = torch.from_numpy(split.labels).to(device)
        self._second = None if split.second is None else torch.from_numpy(split.second).to(device)
        self._is_even = bool((split.lengths == split.lengths[0]).all())
        maskable = maskable_tokens(np.arange(tokenizer.vocab_size), tokenizer)
        self._maskable = torch.from_numpy(maskable).to(device)
        self._counts: Tensor | None = None
        if self._training.masking is not None:
            numbers = np.add.reduceat(maskable[split.token_ids], split.offsets[:-1], dtype=np.int64)
            self._counts = torch.from_numpy(count_masks(numbers, self._training.masking.share)).to(device)

    def close(self) -> None:
        """Do nothing: there are no other processes."""

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield this rank's rows of each batch of a pass, in order, after ``epoch`` finished passes."""
        steps = self._order(epoch)
        # One wait an epoch, for the shapes of all steps.
        lengths = self._lengths[steps].amax(1).tolist()
        counts = None if self._counts is None else self._counts[steps]
        most = [0] * len(steps) if counts is None else counts.amax(1).tolist()
        means = [0.0] * len(steps) if counts is None else counts.double().mean(1).tolist()
        own = steps[:, self._rows.start : self._rows.stop]
        together = _CHUNK if self._is_even else 1
        for start in range(0, len(steps), together):
            rows = own[start : start + together]
            length = (
                lengths[start] if self._is_even else min(-(-lengths[start] // _MULTIPLE) * _MULTIPLE, self._longest)
            )
            batch = self._make(rows.flatten(), length, max(most[start : start + together]), epoch=epoch)
            for step, part in enumerate(batch.split(len(rows)), start=start):
                yield replace(part, masks_per_row=means[step])

    def _order(self, epoch: int) -> Int64[Tensor, "steps batch"]:
        """Return the rows of each step; rows of different lengths are sorted inside windows of steps."""
        training, seed = self._training, self._planned.seeds.order
        order = permutation(seed, epoch=epoch, count=len(self._labels), device=self._device)
        steps = order[: training.steps_per_epoch * training.batch_size]
        if self._is_even:
            return steps.unflatten(0, (-1, training.batch_size))
        batches = [
            window[self._lengths[window].sort(stable=True).indices].unflatten(0, (-1, training.batch_size))
            for window in steps.split(_WINDOW * training.batch_size)
        ]
        # Shuffled again, or every window would end with its longest rows.
        numbers = torch.arange(training.steps_per_epoch, device=self._device)
        draw = Draw(seed=seed, epoch=epoch, samples=numbers, view=1, stream=Stream.ORDER)
        return torch.cat(batches)[draw.words(1)[:, 0].argsort(stable=True)]

    def _make(self, rows: Int64[Tensor, "rows"], length: int, most: int, *, epoch: int) -> Batch:
        """Pad rows to a length, and mask at most so many tokens of each."""
        places = torch.arange(length, device=self._device)
        inside = places < self._lengths[rows][:, None]
        ids = self._tokens[(self._starts[rows][:, None] + places).clamp(max=len(self._tokens) - 1)].long()
        ids = torch.where(inside, ids, self._tokenizer.pad_id)
        inputs = {"input_ids": ids}
        if not self._is_even:
            inputs["attention_mask"] = inside.long()
        if self._second is not None:
            inputs["token_type_ids"] = ((places >= self._second[rows][:, None]) & inside).long()
        if self._counts is None:
            smoothing = self._training.mixing.label_smoothing
            classes = self._planned.head.outputs
            return Batch(
                inputs=inputs, targets=soft_targets(self._labels[rows], classes=classes, label_smoothing=smoothing)
            )
        masked = mask_rows(
            ids,
            inside & self._maskable[ids],
            self._counts[rows],
            Draw(seed=self._planned.seeds.augmentation, epoch=epoch, samples=rows, stream=Stream.MASKING),
            most=most,
            vocab_size=self._tokenizer.vocab_size,
            mask_id=self._tokenizer.mask_id,
        )
        inputs["input_ids"] = masked.input_ids
        return Batch(inputs=inputs, targets=masked.targets, positions=masked.positions)
