"""A zoo of tiny, untrained BERTs: a masked parent, a child with a linear head and one with an MLP head.

The records are those of the tiny zoo, with other weights. See `tests.tiny` for members that are trained.
"""

import json
import shutil
from pathlib import Path

import torch

from training.member.initialisation import initialise, initialise_head
from vitzoo.architectures import is_head
from vitzoo.architectures.bert import BertSizes
from vitzoo.models.bert import BertZooForMaskedLM, BertZooForSequenceClassification
from vitzoo.models.loading import MemberModel
from vitzoo.records.files import file_sha256
from vitzoo.sources.folder import FolderSource
from vitzoo.tables.catalogue import write_tables
from vitzoo.tensors.content import load_content
from vitzoo.text.tokenizer import train_bpe

SIZES = BertSizes(
    vocab_size=50,
    max_position_embeddings=16,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=12,
    initializer_range=0.1,
)
MASKED, LINEAR, MLP = "pt-0", "pt-0/ft-0", "pt-0/ft-1"
SENTENCES = (
    "a good film",
    "a bad film",
    "not a good idea",
    "what a bad plot",
    "some clever actors play",
    "the music is dull",
) * 8
CLASSES = ("negative", "positive")


def make_model(member: str, *, sizes: BertSizes = SIZES, seed: int = 0) -> MemberModel:
    """Make a member's model with the first weights of a seed."""
    if member == MASKED:
        cls, head = BertZooForMaskedLM, {"outputs": sizes.vocab_size, "role": "masked"}
    else:
        cls, head = BertZooForSequenceClassification, {"outputs": 2, "role": "classifier", "classes": CLASSES}
        head["head_width"] = (6, 4) if member == MLP else None
    model = cls(cls.config_for(sizes, dropout=0.1, **head))
    initialise(model, init_seed=seed, head_seed=seed)
    return model.eval()


def write_bert_zoo(root: Path, tiny_zoo: Path) -> None:
    """Write the zoo into a new folder, with epochs 0, 1 and 2 of each member."""
    root.mkdir(parents=True)
    tokenizer = train_bpe(SENTENCES, SIZES.vocab_size)
    parent = make_model(MASKED)
    _write_member(root, tiny_zoo, MASKED, parent)
    for number, member in enumerate((LINEAR, MLP)):
        child = make_model(member)
        backbone = {name: value for name, value in parent.state_dict().items() if not is_head(name)}
        child.load_state_dict({name: backbone[name] for name in backbone if name in child.state_dict()}, strict=False)
        initialise_head(child, 100 + number)
        _write_member(root, tiny_zoo, member, child)
    for member in (MASKED, LINEAR, MLP):
        tokenizer.write(root / member, max_length=SIZES.max_position_embeddings)
    shutil.copyfile(tiny_zoo / "zoo.json", root / "zoo.json")  # last: a model is never saved in a member's folder
    write_tables(FolderSource(root))


def _write_member(root: Path, tiny_zoo: Path, member: str, model: MemberModel) -> None:
    folder, source = root / member, tiny_zoo / member
    folder.mkdir(parents=True, exist_ok=True)
    record = json.loads((source / "member.json").read_text())
    lines = [json.loads(line) for line in (source / "metrics.jsonl").read_text().splitlines()]
    weights = []
    for epoch, line in enumerate(lines):
        for number, parameter in enumerate(model.parameters() if epoch else ()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter.data.add_(noise, alpha=0.01)
        model.save_pretrained(folder, variant=f"epoch-{epoch:02d}")
        file = folder / f"model.epoch-{epoch:02d}.safetensors"
        content = load_content(file, is_head=is_head)
        line |= {"weights_id": content.weights_id, "backbone_id": content.backbone_id}
        weights.append({"epoch": epoch, "size": file.stat().st_size, "sha256": file_sha256(file)})
        (folder / "model.safetensors").unlink(missing_ok=True)
        (folder / "model.safetensors").hardlink_to(file)
    weights.append(weights[-1] | {"epoch": None})
    record |= {
        "weights": weights,
        "classes": [] if member == MASKED else list(CLASSES),
        "head_type": model.config.head_type,
        "head_width": model.config.head_width,
        "head_role": model.config.head_role,
        "num_parameters": model.num_parameters(),
    }
    (folder / "member.json").write_text(json.dumps(record))
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
