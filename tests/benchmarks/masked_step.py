"""Compare a masked training step with transformers' way, by the time of one real token.

Ours: rows that are packed full, and logits of masked tokens alone. The naive way: sentences in random batches, padded
to the longest, masked by transformers' collator, with the logits of all tokens. Optimizer and sizes are equal. Run it:
``python -m tests.benchmarks.masked_step``.
"""

import statistics
import time
from dataclasses import replace
from itertools import islice
from typing import cast

import numpy as np
import torch
from transformers import BertConfig, BertForMaskedLM, DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from training.member.start import build_model, load_inputs
from training.member.step import Stepper, make_optimizer
from training.recipes.data import TextData
from training.recipes.plan import plan_member
from training.recipes.snippets import snippets
from vitzoo.ids import MemberId
from vitzoo.text import TextSpec, load_text

_ROUNDS, _STEPS, _ROWS = 7, 30, 32


def main() -> None:
    """Print the microseconds of a real token, and their ratio."""
    torch.set_num_threads(1)
    planned = plan_member(snippets(), MemberId(0))
    texts = TextSpec(name="snippets-all", packed=True, max_length=48)  # as long as the naive way's rows
    dataset = TextData(texts=texts, train_rows=15_071, evaluated_train_rows=512, test_rows=3_745)
    planned = replace(planned, training=replace(planned.training, dataset=dataset, batch_size=_ROWS))
    inputs = load_inputs(planned, data={})
    tokenizer, training = inputs.dataset.tokenizer, planned.training
    spec = TextSpec(name="snippets-others", max_length=48)
    rows = load_text(spec, tokenizer=tokenizer).train
    model = build_model(planned, ())
    optimizer = make_optimizer(training.optimizer, model)
    stepper = Stepper(model, optimizer, training)
    batches = inputs.batches(device=torch.device("cpu")).epoch(0)

    naive = BertForMaskedLM(cast(BertConfig, model.config))
    naive_optimizer = make_optimizer(training.optimizer, naive)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer._fast, **tokenizer.config())
    share = training.masking.share if training.masking else 0.3
    collator = DataCollatorForLanguageModeling(fast, mlm_probability=share)
    order = iter(np.random.default_rng(0).permutation(len(rows)).tolist() * 4)

    def ours() -> tuple[float, int]:
        started, tokens = time.perf_counter(), 0
        for number, batch in enumerate(islice(batches, _STEPS)):
            stepper(batch, number)
            tokens += batch.inputs["input_ids"].numel()
        return time.perf_counter() - started, tokens

    def naively() -> tuple[float, int]:
        started, tokens = time.perf_counter(), 0
        for _ in range(_STEPS):
            batch = collator([{"input_ids": rows.row(place).tolist()} for place in islice(order, _ROWS)])
            naive(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(naive.parameters(), 1.0)
            naive_optimizer.step()
            naive_optimizer.zero_grad()
            tokens += int(batch["attention_mask"].sum())
        return time.perf_counter() - started, tokens

    for way in (ours, naively):
        way()  # warms up
    times: dict[str, list[float]] = {"ours": [], "naive": []}
    for _ in range(_ROUNDS):
        for name, way in (("ours", ours), ("naive", naively)):
            seconds, tokens = way()
            times[name].append(1e6 * seconds / tokens)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:6} {value:6.1f} µs a real token, {min(times[name]):.1f} to {max(times[name]):.1f}")
    print(f"ratio  {medians['ours'] / medians['naive']:.2f}")


if __name__ == "__main__":
    main()
