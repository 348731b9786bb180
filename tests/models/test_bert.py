"""BERT members: loaded by every class, equal to transformers' own, and refused where they are wrong."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from peft import AutoPeftModel, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    Trainer,
    TrainingArguments,
    pipeline,
)

from tests.berts import CLASSES, LINEAR, MASKED, MLP, SIZES, make_model
from tests.hub.server import Hub
from tests.models.test_assembling import describe
from tests.published import REPO, plant
from vitzoo import (
    BertZooConfig,
    BertZooForMaskedLM,
    BertZooForSequenceClassification,
    VitZooConfig,
    VitZooModel,
    Zoo,
    ZooModel,
)
from vitzoo.architectures import load_config_json
from vitzoo.errors import ConfigError, VitZooError, WeightsError
from vitzoo.models.loading import MemberModel

TEXTS = {
    "input_ids": torch.tensor([[2, 7, 9, 3], [2, 8, 3, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
}
CLASS_OF: dict[str, Any] = {
    MASKED: BertZooForMaskedLM,
    LINEAR: BertZooForSequenceClassification,
    MLP: BertZooForSequenceClassification,
}


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(**TEXTS).logits


@pytest.mark.parametrize("member", [MASKED, LINEAR, MLP])
def test_each_form_of_an_id_loads_the_class_that_the_config_says(bert_zoo: Path, member: str, tmp_path: Path) -> None:
    expected = load_file(bert_zoo / member / "model.epoch-01.safetensors")
    for model in (
        ZooModel.from_pretrained(bert_zoo / member, epoch=1),
        ZooModel.from_pretrained(f"{bert_zoo}/{member}@1", verify=True),
        ZooModel.from_pretrained(bert_zoo, subfolder=member, variant="epoch-01", mmap=False),
        CLASS_OF[member].from_pretrained(bert_zoo / member, epoch=1),
        Zoo(bert_zoo)[member].load(epoch=1),
    ):
        assert type(model) is CLASS_OF[member]
        assert not model.training
        state = {name: tensor for name, tensor in model.state_dict().items() if name not in model.architecture.tied}
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
        assert model.num_parameters() == sum(tensor.numel() for tensor in expected.values())
    model.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == (bert_zoo / member / "config.json").read_bytes()
    saved = ZooModel.from_pretrained(tmp_path)
    assert torch.equal(logits(saved), logits(model))
    assert saved.config.shape == model.config.shape


@pytest.mark.parametrize("options", [{}, {"mmap": False}, {"dtype": torch.float32}], ids=str)
def test_head_for_next_sentences_is_kept(bert_zoo: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    plain: Any = BertForPreTraining(BertConfig.from_pretrained(bert_zoo / MASKED))
    plain.eval().save_pretrained(tmp_path / "plain")
    model: Any = ZooModel.from_pretrained(tmp_path / "plain", **options)
    assert type(model) is BertZooForMaskedLM
    assert model.config.next_sentence
    head: Any = model.cls.seq_relationship
    with torch.inference_mode():
        expected, follows = plain(**TEXTS), head(model.bert(**TEXTS).pooler_output)
    assert torch.equal(logits(model), expected.prediction_logits)
    assert torch.equal(follows, expected.seq_relationship_logits)
    model.save_pretrained(tmp_path / "saved")
    again: Any = BertForPreTraining.from_pretrained(tmp_path / "saved")
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in plain.state_dict().items())
    classifier: Any = BertZooForSequenceClassification.from_pretrained(
        tmp_path / "saved", num_labels=2, ignore_mismatched_sizes=True
    )
    assert torch.equal(classifier.bert.pooler.dense.weight, plain.bert.pooler.dense.weight)


@pytest.mark.parametrize("member", [MASKED, LINEAR, MLP])
@pytest.mark.parametrize("mmap", [True, False])
def test_assembled_model_is_that_of_transformers(bert_zoo: Path, member: str, mmap: bool) -> None:
    with patch("transformers.PreTrainedModel.from_pretrained", side_effect=AssertionError):
        model = ZooModel.from_pretrained(bert_zoo / member, epoch=1, mmap=mmap)
    with patch.object(MemberModel, "_assemble", return_value=None):
        expected = ZooModel.from_pretrained(bert_zoo / member, epoch=1, mmap=mmap)
    assert describe(vars(model)) == describe(vars(expected))
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in expected.named_parameters()]
    assert torch.equal(logits(model), logits(expected))
    if member == MASKED:
        assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
        assert model.cls.predictions.decoder.bias is model.cls.predictions.bias


@pytest.mark.parametrize(
    "options", [{"dtype": torch.float64}, {"attn_implementation": "eager"}, {"device_map": "cpu"}], ids=str
)
def test_other_arguments_go_through_transformers(bert_zoo: Path, options: dict[str, Any]) -> None:
    for member in (MASKED, MLP):
        model = ZooModel.from_pretrained(bert_zoo / member, **options)
        torch.testing.assert_close(
            logits(model).float(), logits(ZooModel.from_pretrained(bert_zoo / member)), rtol=0, atol=1e-6
        )
        assert model.num_parameters() == ZooModel.from_pretrained(bert_zoo / member).num_parameters()


@pytest.mark.filterwarnings("ignore:Could not find a config file", "ignore:`is_gradient_checkpointing`")
def test_adapter_is_saved_loaded_and_merged(bert_zoo: Path, tmp_path: Path) -> None:
    peft: Any = get_peft_model(
        ZooModel.from_pretrained(bert_zoo / MASKED, epoch=1),
        LoraConfig(target_modules=["query", "value"], init_lora_weights=False),
    )
    peft.save_pretrained(tmp_path / "adapter")
    again: Any = AutoPeftModel.from_pretrained(tmp_path / "adapter", import_allowlist=["vitzoo"])
    assert torch.equal(logits(again.eval()), logits(peft.eval()))
    merged = again.merge_and_unload()
    assert type(merged) is BertZooForMaskedLM
    merged.save_pretrained(tmp_path / "merged")
    assert torch.equal(logits(ZooModel.from_pretrained(tmp_path / "merged")), logits(merged))


AUTO = """
import json, sys, torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification
texts = {name: torch.tensor(value) for name, value in json.loads(sys.argv[2]).items()}
for cls, member in ((AutoModelForMaskedLM, "pt-0"), (AutoModelForSequenceClassification, "pt-0/ft-0")):
    model = cls.from_pretrained(sys.argv[1], subfolder=member, variant="epoch-01")
    assert "vitzoo" not in sys.modules
    with torch.inference_mode():
        print(type(model).__name__, json.dumps(model(**texts).logits.tolist()), flush=True)
try:
    AutoModelForSequenceClassification.from_pretrained(sys.argv[1], subfolder="pt-0/ft-1")
except ValueError as error:
    assert "bertzoo" in str(error), error
"""


@pytest.mark.slow
def test_auto_classes_without_vitzoo_compute_the_same_bits(bert_zoo: Path) -> None:
    texts = json.dumps({name: value.tolist() for name, value in TEXTS.items()})
    command = [sys.executable, "-c", AUTO, str(bert_zoo), texts]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    for member, name, line in zip(
        (MASKED, LINEAR), ("BertForMaskedLM", "BertForSequenceClassification"), done.stdout.splitlines(), strict=True
    ):
        found, values = line.split(maxsplit=1)
        assert found == name
        assert torch.equal(
            logits(ZooModel.from_pretrained(bert_zoo / member, epoch=1)), torch.tensor(json.loads(values))
        )


def test_auto_classes_with_vitzoo(bert_zoo: Path) -> None:
    assert isinstance(AutoConfig.from_pretrained(bert_zoo, subfolder=MLP), BertZooConfig)
    mlp = AutoModelForSequenceClassification.from_pretrained(bert_zoo, subfolder=MLP)
    assert torch.equal(logits(mlp), logits(ZooModel.from_pretrained(bert_zoo / MLP)))
    backbone = AutoModel.from_pretrained(bert_zoo, subfolder=MLP)
    assert torch.equal(backbone(**TEXTS).pooler_output, mlp.bert(**TEXTS).pooler_output)
    assert type(AutoModelForMaskedLM.from_pretrained(bert_zoo, subfolder=MASKED)) is BertForMaskedLM


@pytest.mark.parametrize("member", [MASKED, LINEAR])
def test_plain_model_that_transformers_saves_is_loaded(bert_zoo: Path, member: str, tmp_path: Path) -> None:
    cls = BertForMaskedLM if member == MASKED else BertForSequenceClassification
    plain = cls.from_pretrained(bert_zoo, subfolder=member)
    plain.save_pretrained(tmp_path)
    assert load_config_json(tmp_path / "config.json")["architectures"] == [cls.__name__]
    assert torch.equal(logits(ZooModel.from_pretrained(tmp_path)), logits(plain))


def test_wrong_classes_name_the_right_one(bert_zoo: Path, tiny_zoo: Path, tmp_path: Path) -> None:
    wrong: list[tuple[Any, Path, str]] = [
        (VitZooModel, bert_zoo / MASKED, "BertZooForMaskedLM"),
        (VitZooModel, bert_zoo / LINEAR, "BertZooForSequenceClassification"),
        (BertZooForMaskedLM, bert_zoo / MLP, "BertZooForSequenceClassification"),
        (BertZooForSequenceClassification, bert_zoo / MASKED, "BertZooForMaskedLM"),
        (BertZooForMaskedLM, tiny_zoo / "pt-2", "VitZooModel"),
        (VitZooConfig, bert_zoo / MASKED, "BertZooConfig"),
        (BertZooConfig, tiny_zoo / "pt-0", "VitZooConfig"),
    ]
    ZooModel.from_pretrained(bert_zoo / MASKED).save_pretrained(tmp_path / "saved")
    for cls, path, right in [*wrong, (VitZooModel, tmp_path / "saved", "BertZooConfig")]:
        with pytest.raises(ConfigError) as error:
            cls.from_pretrained(path)
        assert f"{right}.from_pretrained" in (error.value.fix or "")
        assert error.value.key == "model_type"
    assert type(ZooModel.from_pretrained(tiny_zoo / "pt-2")) is VitZooModel
    with pytest.raises(TypeError, match="ZooModel has no instances"):
        ZooModel()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text(
        '{"model_type": "bert", "architectures": ["BertForTokenClassification"]}'
    )
    with pytest.raises(ConfigError, match="BertForTokenClassification"):
        ZooModel.from_pretrained(tmp_path / "other")


def test_new_head_on_a_masked_parent_and_on_a_child(bert_zoo: Path) -> None:
    parent = ZooModel.from_pretrained(bert_zoo / MASKED)
    options: dict[str, Any] = {"num_labels": 3, "ignore_mismatched_sizes": True}
    for member, more in ((MASKED, {}), (LINEAR, {}), (MASKED, {"head_type": "mlp", "head_widths": [5]}), (MLP, {})):
        model = BertZooForSequenceClassification.from_pretrained(bert_zoo / member, **options, **more)
        assert logits(model).shape == (2, 3)
        assert model.config.to_dict()["architectures"][0].endswith("ForSequenceClassification")
        if member == MASKED:
            for name, tensor in parent.bert.state_dict().items():
                assert torch.equal(model.bert.state_dict()[name], tensor)
    with pytest.raises(WeightsError, match="does not fit the arguments given"):
        BertZooForSequenceClassification.from_pretrained(bert_zoo / LINEAR, num_labels=3)


def change_config(zoo: Path, member: str, **changes: Any) -> Path:
    file = zoo / member / "config.json"
    values = {key: value for key, value in (json.loads(file.read_text()) | changes).items() if value is not ...}
    file.write_text(json.dumps(values))
    return zoo / member


@pytest.fixture
def bert_copy(bert_zoo: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bert_zoo, tmp_path / "berts"))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"is_decoder": True}, "is_decoder"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"auto_map": {"AutoModel": "evil--code.Model"}}, "auto_map"),
        ({"type_vocab_size": 0}, "type_vocab_size"),
        ({"num_hidden_layers": 2**20 + 1}, "num_hidden_layers"),
        ({"pad_token_id": 50}, "pad_token_id"),
        ({"pad_token_id": -1}, "pad_token_id"),
        ({"architectures": ...}, "architectures"),
        ({"architectures": ["BertForTokenClassification"]}, "architectures"),
        ({"head_role": "masked"}, "head_role"),
        ({"head_type": "mlp", "head_widths": [4]}, "model_type"),
        ({"model_type": "bertzoo", "head_type": "mlp", "head_widths": [4]}, "head_type"),
        ({"model_type": "bertzoo", "head_widths": [0]}, "head_widths"),
        ({"model_type": "bertzoo", "head_widths": [4] * 17}, "head_widths"),
        ({"model_type": "vit"}, "add_cross_attention"),
        ({"classifier_dropout": 2.0}, "classifier_dropout"),
        ({"hidden_size": 9}, None),
    ],
    ids=str,
)
def test_config_of_no_member_is_refused(bert_copy: Path, change: dict[str, Any], key: str | None) -> None:
    path = change_config(bert_copy, MASKED, **change)
    with pytest.raises(ConfigError) as error:
        ZooModel.from_pretrained(path)
    assert (error.value.path, error.value.key) == (path / "config.json", key)


@pytest.mark.parametrize(
    "change",
    [
        {"is_decoder": True},
        {"tie_word_embeddings": False},
        {"head_type": "mlp"},
        {"head_widths": [3]},
        {"head_type": "mlp", "head_widths": [0]},
        {"head_type": "mlp", "head_widths": [3], "head_role": "masked"},
        {"head_role": "embedding"},
        {"next_sentence": True},
        {"hidden_size": 7},
        {"pad_token_id": 50},
    ],
    ids=str,
)
def test_contradictory_fields_are_refused(change: dict[str, Any]) -> None:
    sizes: dict[str, Any] = {"vocab_size": 50, "hidden_size": 8, "num_attention_heads": 2}
    with pytest.raises(StrictDataclassError):
        BertZooConfig(**(sizes | change))


def replace_weights(zoo: Path, member: str, change: Any) -> Path:
    """Change the tensors of a member's final file, and its size in the record."""
    file = zoo / member / "model.safetensors"
    tensors = load_file(file)
    tensors = change(tensors) or tensors
    file.unlink()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata={"format": "pt"})
    record = json.loads((zoo / member / "member.json").read_text())
    record["weights"][-1]["size"] = file.stat().st_size
    (zoo / member / "member.json").write_text(json.dumps(record))
    return zoo / member


def renamed(old: str, new: str) -> Any:
    return lambda tensors: {name.replace(old, new): tensor for name, tensor in tensors.items()}


WORDS = "bert.embeddings.word_embeddings.weight"
DAMAGE: list[tuple[str, Any, str]] = [
    (MASKED, lambda t: t.update({"cls.predictions.decoder.weight": t[WORDS] + 1}), f"repeats {WORDS}"),
    (MASKED, lambda t: t.update({"cls.predictions.decoder.weight": t[WORDS].clone()}), f"repeats {WORDS}"),
    (
        LINEAR,
        lambda t: {name: t[name] for name in t if name != "bert.pooler.dense.weight"},
        "bert.pooler.dense.weight is missing",
    ),
    (MASKED, renamed("LayerNorm.weight", "LayerNorm.gamma"), "LayerNorm.gamma is an old name of"),
    (MASKED, renamed("LayerNorm.bias", "LayerNorm.beta"), "LayerNorm.beta is an old name of"),
    (MASKED, lambda t: t.update({"bert.embeddings.position_ids": torch.arange(16.0)}), "position_ids is not a weight"),
    (MASKED, renamed("bert.", "vit."), "the tensors are of architecture vit, not bert"),
]


@pytest.mark.parametrize(("member", "change", "says"), DAMAGE, ids=[says for *_, says in DAMAGE])
def test_other_tensors_are_refused(bert_copy: Path, member: str, change: Any, says: str) -> None:
    path = replace_weights(bert_copy, member, change)
    with pytest.raises(WeightsError) as error:
        ZooModel.from_pretrained(path)
    assert says in str(error.value)
    assert error.value.path == path / "model.safetensors"


def test_million_layers_cost_nothing(bert_copy: Path) -> None:
    with pytest.raises(WeightsError, match="the config's layers have 16777226 tensors"):
        ZooModel.from_pretrained(change_config(bert_copy, MASKED, num_hidden_layers=2**20))


def test_files_of_another_architecture_are_refused(bert_copy: Path, tiny_zoo: Path, tmp_path: Path) -> None:
    vits = Path(shutil.copytree(tiny_zoo, tmp_path / "vits"))
    for here, there in ((bert_copy / MASKED, vits / "pt-1"), (vits / "pt-0", bert_copy / LINEAR)):
        (here / "model.safetensors").unlink()
        shutil.copyfile(there / "model.safetensors", here / "model.safetensors")
        record = json.loads((here / "member.json").read_text())
        record["weights"][-1]["size"] = (here / "model.safetensors").stat().st_size
        (here / "member.json").write_text(json.dumps(record))
        with pytest.raises(WeightsError, match="the tensors are of architecture"):
            ZooModel.from_pretrained(here)


def test_saved_model_outside_a_zoo_is_checked_too(bert_zoo: Path, tmp_path: Path) -> None:
    model = ZooModel.from_pretrained(bert_zoo / MASKED)
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")

    def save(changed: dict[str, torch.Tensor]) -> None:
        save_file(changed, tmp_path / "model.safetensors", metadata={"format": "pt"})

    save(tensors | {"cls.predictions.decoder.weight": tensors[WORDS] + 1})
    with pytest.raises(WeightsError, match="which differ"):
        ZooModel.from_pretrained(tmp_path)
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor for name, tensor in tensors.items()}
    old = {name.replace("LayerNorm.bias", "LayerNorm.beta"): tensor for name, tensor in old.items()}
    save(old | {"bert.embeddings.position_ids": torch.arange(16)[None], "cls.seq_relationship.bias": torch.zeros(2)})
    assert torch.equal(logits(ZooModel.from_pretrained(tmp_path)), logits(model))  # transformers renames them
    save({name: tensor for name, tensor in tensors.items() if "layer.1.output" not in name})
    with pytest.raises(WeightsError) as error:
        ZooModel.from_pretrained(tmp_path)
    assert error.value.missing[0] == "bert.encoder.layer.1.output.dense.weight"


class TestStateDict:
    def test_file_and_state_dict_are_loaded_with_tied_tensors(self, bert_zoo: Path) -> None:
        saved = load_file(bert_zoo / MASKED / "model.epoch-01.safetensors")
        expected = ZooModel.from_pretrained(bert_zoo / MASKED, epoch=1)
        for assign in (False, True):
            for state in (dict(saved), expected.state_dict()):
                model: Any = make_model(MASKED, seed=3)
                assert model.load_state_dict(state, assign=assign).missing_keys == []
                assert torch.equal(logits(model), logits(expected))
                assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
                assert len(list(model.parameters())) == len(saved)

    def test_two_values_are_refused(self) -> None:
        model: Any = make_model(MASKED)
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        state["cls.predictions.decoder.weight"] += 1
        with pytest.raises(WeightsError, match="which differ"):
            model.load_state_dict(state)

    def test_inside_another_module(self) -> None:
        model: Any = make_model(MASKED)
        outer = torch.nn.ModuleDict({"inner": make_model(MASKED, seed=5)})
        saved = {name: tensor for name, tensor in model.state_dict().items() if name not in model.architecture.tied}
        outer.load_state_dict({f"inner.{name}": tensor for name, tensor in saved.items()})
        assert torch.equal(logits(outer["inner"]), logits(model))


def test_iterated_models_are_the_loaded_ones(bert_zoo: Path) -> None:
    seen = []
    zoo = Zoo(bert_zoo)
    for ref, model in zoo.weights(zoo.select(epoch="all")).iter_models():
        assert torch.equal(logits(model), logits(ZooModel.from_pretrained(bert_zoo / str(ref.member), epoch=ref.epoch)))
        seen.append(type(model))
    assert len(seen) == 9


def test_members_are_trained_by_trainer_and_resumed(bert_zoo: Path, tmp_path: Path) -> None:
    model = ZooModel.from_pretrained(bert_zoo / MASKED)
    rows = [{"input_ids": [2, 7, 9, 3], "attention_mask": [1] * 4, "labels": [-100, 7, 9, -100]}] * 4
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        save_steps=1,
        per_device_train_batch_size=2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    Trainer(model=model, args=arguments, train_dataset=rows).train()  # pyright: ignore[reportArgumentType]
    again: Any = make_model(MASKED, seed=9)
    Trainer(model=again, args=arguments, train_dataset=rows).train(str(tmp_path / "checkpoint-1"))  # pyright: ignore
    assert torch.equal(logits(again.eval()), logits(model.eval()))
    saved = load_file(tmp_path / "checkpoint-2/model.safetensors")
    assert saved.keys() == model.config.shape.tensor_shapes().keys()
    assert type(ZooModel.from_pretrained(tmp_path / "checkpoint-2")) is BertZooForMaskedLM


def test_pipelines_find_model_and_tokenizer(bert_zoo: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bert_zoo, subfolder=LINEAR)
    for member in (LINEAR, MLP):
        model = ZooModel.from_pretrained(bert_zoo / member)
        answer = pipeline("text-classification", model=model, tokenizer=tokenizer)("a good film")[0]
        with torch.inference_mode():
            chances = model(**tokenizer("a good film", return_tensors="pt")).logits.softmax(1)[0]
        assert answer["score"] == pytest.approx(chances.max().item(), rel=1e-6)
        assert answer["label"] == CLASSES[int(chances.argmax())]
    plain = AutoModelForMaskedLM.from_pretrained(bert_zoo, subfolder=MASKED, variant="epoch-01")
    ours = ZooModel.from_pretrained(bert_zoo / MASKED, epoch=1)
    answers = [pipeline("fill-mask", model=model, tokenizer=tokenizer)("a [MASK] film") for model in (plain, ours)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("member", [MASKED, LINEAR, MLP])
def test_pushed_model_brings_its_tokenizer_and_a_card(
    hub: Hub, bert_zoo: Path, monkeypatch: pytest.MonkeyPatch, member: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.add_token("someone", role="write").value)
    model = ZooModel.from_pretrained(bert_zoo / member, epoch=1)
    model.push_to_hub("someone/one-model")
    files = hub.repo("someone/one-model").files()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert files[name] == (bert_zoo / member / name).read_bytes()
    card, task = files["README.md"].decode(), "fill-mask" if member == MASKED else "text-classification"
    assert f"pipeline_tag: {task}\n" in card
    assert "A language model" in card
    assert "equal to the member's" in card
    assert ("from vitzoo import BertZooForSequenceClassification" in card) == (member == MLP)
    assert pipeline(task, model="someone/one-model")("a [MASK] film")
    assert torch.equal(logits(ZooModel.from_pretrained("someone/one-model")), logits(model))


def test_members_of_a_hub_repo(hub: Hub, bert_zoo: Path) -> None:
    plant(hub, bert_zoo)
    for member in (MASKED, MLP):
        expected = logits(ZooModel.from_pretrained(bert_zoo / member, epoch=1))
        assert torch.equal(logits(ZooModel.from_pretrained(f"{REPO}/{member}@1", verify=True)), expected)
        assert torch.equal(logits(ZooModel.from_pretrained(REPO, subfolder=member, variant="epoch-01")), expected)
    plain = AutoModelForMaskedLM.from_pretrained(REPO, subfolder=MASKED, variant="epoch-01")
    assert type(plain) is BertForMaskedLM
    with pytest.raises(ConfigError) as error:
        VitZooModel.from_pretrained(f"{REPO}/{MASKED}")
    assert "BertZooForMaskedLM.from_pretrained" in (error.value.fix or "")


def test_class_names_and_losses(bert_zoo: Path) -> None:
    model = ZooModel.from_pretrained(bert_zoo / MLP)
    assert tuple(model.config.id2label.values()) == CLASSES
    output = model(**TEXTS, labels=torch.tensor([0, 1]))
    expected = -output.logits.log_softmax(1)[torch.arange(2), torch.tensor([0, 1])].mean()
    torch.testing.assert_close(output.loss, expected)
    masked = ZooModel.from_pretrained(bert_zoo / MASKED)
    assert masked(**TEXTS, labels=TEXTS["input_ids"]).loss > 0
    assert masked.config.shape == SIZES.shape(outputs=2, head_width=None, role="masked")
    assert VitZooError in WeightsError.__mro__
