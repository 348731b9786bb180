"""Populations in the layouts of other libraries: tiny ViTs and BERTs that transformers and torch write."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
)

from vitzoo.interop.checkpoints.job import Import
from vitzoo.interop.checkpoints.run import import_checkpoints
from vitzoo.interop.engine import ImportReport

VIT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 8,
    "patch_size": 4,
}
BERT: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
}
BERTS = {
    "classifier": BertForSequenceClassification,
    "masked": BertForMaskedLM,
    "pretraining": BertForPreTraining,
}


def make_vit(seed: int = 0, *, labels: int = 3, **changes: Any) -> ViTForImageClassification:
    """Make a ViT with the random weights of a seed."""
    torch.manual_seed(seed)
    return ViTForImageClassification(ViTConfig(**{**VIT, "num_labels": labels, **changes})).eval()


def make_child(parent: ViTForImageClassification, seed: int, *, labels: int = 4) -> ViTForImageClassification:
    """Make a ViT with a parent's backbone and a new head."""
    child = make_vit(seed, labels=labels)
    child.vit.load_state_dict(parent.vit.state_dict())
    return child


def make_bert(kind: str, seed: int = 0, **changes: Any) -> Any:
    """Make a BERT with the random weights of a seed."""
    torch.manual_seed(seed)
    return BERTS[kind](BertConfig(**{**BERT, **changes})).eval()


def move(model: nn.Module, seed: int) -> None:
    """Add noise to the weights, as a training does."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))


def save_pickle(model: PreTrainedModel, folder: Path) -> None:
    """Write a model as transformers did before safetensors."""
    folder.mkdir(parents=True)
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write a table with the columns of all rows."""
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def import_rows(folder: Path, rows: Iterable[Mapping[str, Any]], **options: Any) -> ImportReport:
    """Import rows of a table in a folder into ``zoo`` beside them."""
    return import_checkpoints(Import(table=write_csv(folder / "t.csv", rows), root=folder / "zoo", **options))


def write_trainer_run(run: Path, parent: ViTForImageClassification, *, seed: int, steps: tuple[int, ...]) -> None:
    """Write the output of transformers' Trainer, with a card that names its base model."""
    model, log = make_child(parent, seed), []
    for step in steps:
        if step:
            move(model, seed + step)
        log.append({"epoch": step / 100, "step": step, "loss": 2.0, "learning_rate": 1e-4})
        log.append({"epoch": step / 100, "step": step, "eval_loss": 1.5, "eval_accuracy": 0.5, "eval_runtime": 3.2})
        folder = run / f"checkpoint-{step}"
        model.save_pretrained(folder)
        state = {"global_step": step, "epoch": step / 100, "log_history": log}
        (folder / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
        (folder / "optimizer.pt").write_bytes(b"not read")
        (folder / "training_args.bin").write_bytes(b"not read")
    (run / "README.md").write_text(
        "---\nbase_model: org/base\n---\n\n### Training hyperparameters\n\n- learning_rate: 0.0001\n"
        "- train_batch_size: 32\n- seed: 42\n- optimizer: Use adamw_torch with betas=(0.9,0.999)\n"
        "- lr_scheduler_type: linear\n",
        encoding="utf-8",
    )
