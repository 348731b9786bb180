"""A release of language models in the authors' layout: tiny BERTs, true to the names and files of their code.

The networks are the authors' modules as far as a description of them goes: `BertForMaskedLM` of transformers in a
wrapper, and `BertModel` under an MLP. See `tests.interop.release` for vision models.
"""

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, BertModel

from tests.interop.release import save_from_gpu
from tests.interop.release_records import MASKED, SENTIMENT, ZOOS, Child, result_rows
from tests.text.sentences import tokenizer
from vitzoo.architectures.bert import BertSizes
from vitzoo.interop.authors.job import Import
from vitzoo.records.epochs import Epochs

CASED, UNCASED = 160, 176  # tokens
SIZES = BertSizes(
    vocab_size=CASED,
    max_position_embeddings=24,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=24,
)
EPOCHS = {"parent": 2, "child": 1}
_GRID = [(rate, decay) for rate in (1e-4, 5e-5, 3e-5) for decay in (1e-2, 1e-4)]
PARENTS = [("continued", *cell) for cell in _GRID] + [("scratch", 1e-4, decay) for decay in (1e-2, 1e-4)]
CHILDREN = [(rate, decay) for rate in (2e-5, 3e-5) for decay in (1e-2, 1e-3)]
FEW_PARENTS, FEW_CHILDREN = [PARENTS[0], PARENTS[1], PARENTS[6]], CHILDREN[:1]


def bert_config(vocab_size: int) -> BertConfig:
    return BertConfig(
        vocab_size=vocab_size,
        max_position_embeddings=SIZES.max_position_embeddings,
        hidden_size=SIZES.hidden_size,
        num_hidden_layers=SIZES.num_hidden_layers,
        num_attention_heads=SIZES.num_attention_heads,
        intermediate_size=SIZES.intermediate_size,
    )


class AuthorsMLM(nn.Module):
    """``models/bert_mlm.py``."""

    def __init__(self, vocab_size: int):
        super().__init__()
        self.bert = BertForMaskedLM(bert_config(vocab_size))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.bert(input_ids=tokens).logits


class AuthorsSST(nn.Module):
    """``models/bert_sst.py``, with narrower layers."""

    def __init__(self, vocab_size: int):
        super().__init__()
        self.bert = BertModel(bert_config(vocab_size))
        widths = (SIZES.hidden_size, 8, 4, 2)
        layers: list[nn.Module] = []
        for columns, rows in pairwise(widths):
            linear = nn.Linear(columns, rows)
            nn.init.kaiming_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU(), nn.Dropout(0.1)]
        self.classification_head = nn.Sequential(*layers[:-2])

    def forward(self, tokens: Tensor) -> Tensor:
        return self.classification_head(self.bert(input_ids=tokens).pooler_output)


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A model as it was written; ``states`` and ``checkpoints`` by finished epochs."""

    folder: Path
    parent: str | None
    network: nn.Module
    checkpoints: dict[int, Path] = field(default_factory=dict)
    states: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def place(self) -> str:
        return "/".join(self.folder.parts[-3 if self.parent else -2 :])


def write_language_release(
    root: Path,
    *,
    parents: Sequence[tuple[str, float, float]] = PARENTS,
    children: Sequence[tuple[float, float]] = CHILDREN,
    from_hub: bool = False,
) -> list[LanguageModel]:
    """Write a release, parents first.

    Args:
        root: Folder that gets ``pretraining`` and ``finetuning``.
        parents: Case, learning rate and weight decay of each.
        children: Learning rate and weight decay of each parent's.
        from_hub: Whether children start from the published BERT, as the authors' code does it, and not from a parent.
    """
    published = {case: _seeded(AuthorsMLM, tokens) for case, tokens in (("continued", CASED), ("scratch", UNCASED))}
    models: list[LanguageModel] = []
    for place, (case, rate, decay) in enumerate(parents):
        tokens = CASED if case == "continued" else UNCASED
        network = _seeded(AuthorsMLM, tokens)
        network.load_state_dict(published[case].state_dict())
        if case == "scratch":
            _draw_linear(network, seed=place)
        name = f"{case}_lr_{rate:.5f}_wd_{decay:g}"
        config = MASKED | _own(name, rate, decay) | {"pretraininig::case": case}
        config |= {"training::epochs_train": EPOCHS["parent"]}
        digits, first = ((6, 0), (4, 0), (1, 1))[place % 3]  # checkpoint_0 is after the first epoch, without one before
        parent = LanguageModel(folder=root / "pretraining" / name, parent=None, network=network)
        _train(parent, config, tokens, digits=digits, first=first)
        models.append(parent)
        for number, (child_rate, child_decay) in enumerate(children):
            child = _seeded(AuthorsSST, tokens)
            source = published["continued"] if from_hub else network
            if not from_hub or tokens == CASED:
                backbone = {key.removeprefix("bert."): value for key, value in source.state_dict().items()}
                child.load_state_dict(
                    {key: backbone[key] for key in child.state_dict() if key in backbone}, strict=False
                )
            child_name = f"{name}_sst_lr_{child_rate:.5f}_wd_{child_decay:g}"
            last = EPOCHS["parent"] - first
            config = (
                SENTIMENT
                | _own(child_name, child_rate, child_decay)
                | {
                    "pretraininig::case": case,
                    "pretraining::optim::lr": rate,
                    "pretraining::optim::wd": decay,
                    "pretraining::model::path": f"{ZOOS}/{name}/checkpoint_{last:0{digits}}/checkpoints",
                    "training::epochs_train": EPOCHS["child"],
                }
            )
            written = LanguageModel(folder=root / "finetuning" / name / child_name, parent=name, network=child)
            _train(written, config, tokens, digits=(6, 4)[number % 2], first=0)
            models.append(written)
    return sorted(models, key=lambda model: model.parent is not None)


def language_job(root: Path, zoo: Path, tokens: Path, **options: Any) -> Import:
    """Make the job of an import; ``tokens`` becomes the tokenizer's folder."""
    if not tokens.exists():
        tokens.mkdir(parents=True)
        tokenizer(CASED).write(tokens)
    options = {"epochs": Epochs("all"), "tokenizer": tokens, "model_types": {"bert_test": SIZES}} | options
    return Import(source=root, root=zoo, **options)


def _own(name: str, rate: float, decay: float) -> dict[str, Any]:
    return {"model::type": "bert_test", "model::name": name, "optim::lr": rate, "optim::wd": decay}


def _seeded(cls: Callable[[int], nn.Module], vocab_size: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return cls(vocab_size).eval()


def _draw_linear(network: nn.Module, *, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear) and not name.endswith("decoder"):
            nn.init.normal_(layer.weight, std=0.02, generator=generator)
            nn.init.zeros_(layer.bias)


def _train(model: LanguageModel, config: dict[str, Any], tokens: int, *, digits: int, first: int) -> None:
    """Change all weights a little each epoch, and write everything."""
    epochs = config["training::epochs_train"]
    model.folder.mkdir(parents=True)
    (model.folder / "config.json").write_text(json.dumps(config, indent=4))
    spec = Child(
        optimizer="adamw", learning_rate=config["optim::lr"], epochs=epochs, classes=2 if model.parent else tokens
    )
    rows = result_rows(spec, config, identity=model.folder.name)
    (model.folder / "result.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    generator = torch.Generator().manual_seed(zlib.crc32(model.folder.name.encode()))
    for epoch in range(epochs + 1):
        if epoch:
            with torch.no_grad():
                for parameter in model.network.parameters():
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.01)
        if epoch >= first:
            path = model.folder / f"checkpoint_{epoch - first:0{digits}}" / "checkpoints"
            path.parent.mkdir()
            save_from_gpu(model.network.state_dict(), path)
            model.checkpoints[epoch] = path
            model.states[epoch] = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
