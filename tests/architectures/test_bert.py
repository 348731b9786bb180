"""The frozen names of a BERT compared with transformers' files, and shapes, first values and order."""

import random
from dataclasses import replace
from math import prod, sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import BertConfig, BertForMaskedLM, BertForPreTraining, BertForSequenceClassification

from tests.berts import LINEAR, MASKED, MLP, SIZES, make_model
from vitzoo.architectures import describe_misfit, disk_name, is_head, memory_name, of_tensors, owner_of
from vitzoo.architectures.bert import BERT, BertSizes
from vitzoo.models.bert import BertZooForMaskedLM, BertZooForSequenceClassification
from vitzoo.records.fields import FieldError

# Never change them: every published file has these names.
EMBEDDINGS = [
    ("bert.embeddings.word_embeddings.weight", (50, 8)),
    ("bert.embeddings.position_embeddings.weight", (16, 8)),
    ("bert.embeddings.token_type_embeddings.weight", (2, 8)),
    ("bert.embeddings.LayerNorm.weight", (8,)),
    ("bert.embeddings.LayerNorm.bias", (8,)),
]
BLOCK = [
    ("attention.self.query.weight", (8, 8)),
    ("attention.self.query.bias", (8,)),
    ("attention.self.key.weight", (8, 8)),
    ("attention.self.key.bias", (8,)),
    ("attention.self.value.weight", (8, 8)),
    ("attention.self.value.bias", (8,)),
    ("attention.output.dense.weight", (8, 8)),
    ("attention.output.dense.bias", (8,)),
    ("attention.output.LayerNorm.weight", (8,)),
    ("attention.output.LayerNorm.bias", (8,)),
    ("intermediate.dense.weight", (12, 8)),
    ("intermediate.dense.bias", (12,)),
    ("output.dense.weight", (8, 12)),
    ("output.dense.bias", (8,)),
    ("output.LayerNorm.weight", (8,)),
    ("output.LayerNorm.bias", (8,)),
]
MASKED_HEAD = [
    ("cls.predictions.transform.dense.weight", (8, 8)),
    ("cls.predictions.transform.dense.bias", (8,)),
    ("cls.predictions.transform.LayerNorm.weight", (8,)),
    ("cls.predictions.transform.LayerNorm.bias", (8,)),
    ("cls.predictions.bias", (50,)),
]
POOLER = [("bert.pooler.dense.weight", (8, 8)), ("bert.pooler.dense.bias", (8,))]
PRETRAINING_HEAD = [
    *POOLER,
    *MASKED_HEAD,
    ("cls.seq_relationship.weight", (2, 8)),
    ("cls.seq_relationship.bias", (2,)),
]
LINEAR_HEAD = [*POOLER, ("classifier.weight", (2, 8)), ("classifier.bias", (2,))]
MLP_HEAD = [
    *POOLER,
    ("classifier.fc1.weight", (6, 8)),
    ("classifier.fc1.bias", (6,)),
    ("classifier.fc2.weight", (4, 6)),
    ("classifier.fc2.bias", (4,)),
    ("classifier.fc3.weight", (2, 4)),
    ("classifier.fc3.bias", (2,)),
]
BACKBONE = [
    *EMBEDDINGS,
    *((f"bert.encoder.layer.{layer}.{name}", shape) for layer in range(2) for name, shape in BLOCK),
]
TABLES = {MASKED: BACKBONE + MASKED_HEAD, LINEAR: BACKBONE + LINEAR_HEAD, MLP: BACKBONE + MLP_HEAD}
BASE = BertSizes(
    vocab_size=28_996,
    max_position_embeddings=512,
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
)


def plain(member: str) -> Any:
    values = {name: getattr(SIZES, name) for name in BERT.recipe_keys}
    return (BertForMaskedLM if member == MASKED else BertForSequenceClassification)(BertConfig(**values))


@pytest.mark.parametrize(
    ("member", "make"),
    [(MASKED, plain), (LINEAR, plain), (MASKED, make_model), (LINEAR, make_model), (MLP, make_model)],
)
def test_names_and_shapes_are_those_of_the_file(member: str, make: Any, tmp_path: Path) -> None:
    model, table = make(member), TABLES[member]
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()} == dict(table)  # noqa: SIM118
    state = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert {name: shape for name, shape in state.items() if name not in BERT.tied} == dict(table)
    for name, _ in table:
        assert disk_name(name) == memory_name(name) == name
        assert is_head(name) == (name not in dict(BACKBONE))
    if make is make_model:
        shape = model.config.shape
        assert list(shape.tensor_shapes().items()) == table
        assert shape.num_tensors == len(table)
        assert model.num_parameters() == sum(map(prod, dict(table).values()))


def test_head_for_next_sentences_has_the_names_of_transformers(tmp_path: Path) -> None:
    config = BertConfig(**{name: getattr(SIZES, name) for name in BERT.recipe_keys})
    BertForPreTraining(config).save_pretrained(tmp_path)
    shape = replace(SIZES.shape(outputs=50, head_width=None, role="masked"), next_sentence=True)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert found == shape.tensor_shapes() == dict(BACKBONE + PRETRAINING_HEAD)
    assert shape.num_tensors == len(found)
    assert BERT.network_order(found) == list(shape.tensor_shapes())
    assert all(is_head(name) for name, _ in PRETRAINING_HEAD)


@pytest.mark.parametrize(
    ("role", "outputs", "expected", "tensors"),
    [("masked", 28_996, 108_340_804, 10 + 16 * 12), ("classifier", 2, 108_311_810, 9 + 16 * 12)],
)
def test_parameters_of_bert_base(role: str, outputs: int, expected: int, tensors: int) -> None:
    shape = BASE.shape(outputs=outputs, head_width=None, role=role)
    assert sum(map(prod, shape.tensor_shapes().values())) == expected
    assert shape.num_tensors == len(shape.tensor_shapes()) == tensors
    cls = BertZooForMaskedLM if role == "masked" else BertZooForSequenceClassification
    model = cls.build_empty(cls.config_for(BASE, outputs=outputs, role=role, classes=("a", "b")[: outputs % 100]))
    assert model.num_parameters() == expected
    assert owner_of(BASE) is BERT


def test_operations_are_those_of_the_literature() -> None:
    """.545 and .588 GFLOP a token, forward and backward, with logits at 15% of the tokens."""
    head = 0.15 * (768**2 + 768 * 28_996) * 2
    for tokens, expected in ((128, 0.545e9), (512, 0.588e9)):
        assert 3 * (BASE.flops(tokens=tokens) / tokens + head) == pytest.approx(expected, rel=0.003)
    assert BASE.flops() == BASE.flops(tokens=512)


@pytest.mark.parametrize(
    ("head_width", "role"), [((4,), "masked"), (4, "masked"), (None, "embedding"), ((4,) * 17, "classifier")]
)
def test_other_heads_are_refused(head_width: Any, role: str) -> None:
    with pytest.raises(FieldError):
        SIZES.shape(outputs=2, head_width=head_width, role=role)


@pytest.mark.parametrize("member", [MASKED, LINEAR, MLP])
def test_order_is_the_network_s(member: str) -> None:
    names = [name for name, _ in TABLES[member]]
    shuffled = random.Random(0).sample([*names, "stranger.weight"], len(names) + 1)
    assert BERT.network_order(shuffled) == [*names, "stranger.weight"]
    assert of_tensors(names) is of_tensors(names[-5:]) is BERT or member != MASKED


def test_tied_names_are_those_of_transformers_and_of_one_tensor_on_disk() -> None:
    assert dict(BERT.tied) == plain(MASKED).all_tied_weights_keys
    for name, source in BERT.tied.items():
        assert disk_name(name) == source
        assert memory_name(name) == name
        assert is_head(name) == is_head(source)


@pytest.mark.parametrize(
    ("name", "layer", "module"),
    [
        ("bert.embeddings.LayerNorm.bias", "embeddings", "bert.embeddings.LayerNorm"),
        ("bert.encoder.layer.11.output.dense.bias", "layer.11", "bert.encoder.layer.11.output.dense"),
        ("bert.pooler.dense.weight", "pooler", "bert.pooler.dense"),
        ("cls.predictions.transform.dense.bias", "cls", "cls.predictions.transform.dense"),
        ("cls.predictions.bias", "cls", "cls.predictions"),
        ("cls.predictions.decoder.weight", "embeddings", "bert.embeddings.word_embeddings"),
        ("classifier.fc2.bias", "classifier", "classifier.fc2"),
    ],
)
def test_layers_and_modules(name: str, layer: str, module: str) -> None:
    assert (BERT.layer_name(name), BERT.module_name(name)) == (layer, module)


def test_first_values() -> None:
    model: Any = make_model(MLP)
    config = {"initializer_range": SIZES.initializer_range}
    shapes = model.config.shape.tensor_shapes()
    for name, tensor in model.state_dict().items():
        rule = BERT.first_value(name, shapes, config)
        if name.endswith("bias"):
            assert (rule.rule, rule.value) == ("constant", 0.0)
            assert not tensor.any()
        elif "LayerNorm" in name:
            assert torch.equal(tensor, torch.ones_like(tensor))
        else:
            kaiming = name.startswith("classifier.fc")
            std = sqrt(2 / tensor.shape[1]) if kaiming else 0.1
            assert (rule.rule, rule.value) == ("normal", std)
            assert tensor.std().item() == pytest.approx(std, rel=0.5)
    with pytest.raises(ValueError, match=r"no rule initialises bert\.other"):
        BERT.first_value("bert.other", {}, config)


def test_files_of_other_programs_are_described() -> None:
    shape = SIZES.shape(outputs=50, head_width=None, role="masked")
    assert describe_misfit(shape, shape.tensor_shapes()) is None
    for name in ("bert.x.LayerNorm.gamma", "cls.predictions.decoder.bias", "bert.embeddings.token_type_ids"):
        assert name in (BERT.describe_stranger(name) or "")
    assert BERT.describe_stranger("bert.x") is None
