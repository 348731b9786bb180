"""Import a release of language models: every member, parent and epoch by the weights, and each fault named."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, BertForPreTraining

from tests.interop import damage
from tests.interop.imported import contents, problems
from tests.interop.language_release import (
    CASED,
    FEW_CHILDREN,
    FEW_PARENTS,
    SIZES,
    UNCASED,
    LanguageModel,
    language_job,
    write_language_release,
)
from tests.interop.release_records import PRIVATE
from tests.text.sentences import tokenizer
from vitzoo import Zoo
from vitzoo.architectures import is_head
from vitzoo.errors import ReleaseError
from vitzoo.ids import MemberId
from vitzoo.interop.authors.facts import MODEL_TYPES
from vitzoo.interop.authors.run import import_release, plan_release
from vitzoo.interop.bert_names import from_bert_state
from vitzoo.interop.engine import ImportReport
from vitzoo.models.registry import ZooModel
from vitzoo.records import layout

Few = tuple[Path, list[LanguageModel]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[LanguageModel], ImportReport]:
    """The 40 and their zoo."""
    folder = tmp_path_factory.mktemp("language")
    models = write_language_release(folder / "dataset")
    report = import_release(language_job(folder / "dataset", folder / "zoo", folder / "tokens", check=4))
    return folder / "zoo", models, report


@pytest.fixture(scope="module")
def few_written(tmp_path_factory: pytest.TempPathFactory) -> Few:
    root = tmp_path_factory.mktemp("few") / "dataset"
    return root, write_language_release(root, parents=FEW_PARENTS, children=FEW_CHILDREN)


@pytest.fixture
def few(few_written: Few, tmp_path: Path) -> Few:
    """Two continued parents, one from scratch, each with a child, to be damaged."""
    root = Path(shutil.copytree(few_written[0], tmp_path / "dataset"))
    models = [
        LanguageModel(
            folder=root / model.place,
            parent=model.parent,
            network=model.network,
            checkpoints={epoch: root / path.relative_to(few_written[0]) for epoch, path in model.checkpoints.items()},
            states=model.states,
        )
        for model in few_written[1]
    ]
    return root, models


def import_few(root: Path, tmp_path: Path, **options: Any) -> ImportReport:
    return import_release(language_job(root, tmp_path / "zoo", tmp_path / "tokens", **options))


def test_every_member_parent_and_epoch_is_found(whole: tuple[Path, list[LanguageModel], ImportReport]) -> None:
    root, models, report = whole
    assert (report.skipped, len(report.taken), len(models)) == ({}, 40, 40)
    by_place = {model.place: model for model in models}
    zoo = Zoo(root)
    for name, place in report.taken.items():
        model, member = by_place[place], zoo[name]
        assert sorted(member.epochs) == sorted(model.checkpoints)
        assert (member.parent is None) == (model.parent is None)
        if member.parent is not None:
            assert report.taken[str(member.parent.id)] == f"pretraining/{model.parent}"
            start = load_file(root / layout.weights_file(member.id, 0))
            source = load_file(root / layout.weights_file(member.parent.id))
            assert all(torch.equal(start[key], source[key]) for key in start if not is_head(key))
    order = [place.partition("/")[2] for name, place in report.taken.items() if "/" not in name]
    assert [place.split("_")[0] for place in order] == ["continued"] * 6 + ["scratch"] * 2
    assert order[:2] == ["continued_lr_0.00010_wd_0.0001", "continued_lr_0.00010_wd_0.01"]
    assert problems(root) == []


def test_logits_are_the_authors_modules(whole: tuple[Path, list[LanguageModel], ImportReport]) -> None:
    root, models, report = whole
    assert len(report.checked) == 4
    assert max(report.checked.values()) < 1e-6
    by_place = {model.place: model for model in models}
    tokens = torch.randint(CASED, (3, 11), generator=torch.Generator().manual_seed(1))
    for name in ("pt-0", "pt-0/ft-2", "pt-7", "pt-7/ft-3"):
        original = by_place[report.taken[name]].network
        loaded = ZooModel.from_pretrained(f"{root}/{name}")
        with torch.inference_mode():
            torch.testing.assert_close(loaded(input_ids=tokens).logits, original(tokens), rtol=1e-6, atol=1e-6)
    plain = AutoModelForMaskedLM.from_pretrained(root, subfolder="pt-0", variant="epoch-01")
    state = by_place[report.taken["pt-0"]].states[1]
    assert torch.equal(
        plain.bert.embeddings.word_embeddings.weight, state["bert.bert.embeddings.word_embeddings.weight"]
    )


def test_records_say_the_training(whole: tuple[Path, list[LanguageModel], ImportReport]) -> None:
    root, _, report = whole
    zoo = Zoo(root)
    parent, child = zoo["pt-0"].record, zoo["pt-0/ft-0"].record
    assert (parent.objective, parent.dataset, parent.head_role, parent.masking) == (
        "masked",
        "Skylion007/openwebtext",
        "masked",
        0.15,
    )
    assert (parent.optimizer, parent.learning_rate, parent.dropout, parent.classes) == ("adam", 1e-4, 0.1, ())
    assert (child.objective, child.classes, child.head_width) == ("supervised", ("negative", "positive"), 8)
    assert parent.tokenizer_sha256 == child.tokenizer_sha256 == tokenizer(CASED).sha256
    assert (parent.max_length, child.max_length) == (24, 24)
    assert child.text_spec is None
    assert zoo["pt-0"].load_tokenizer() == tokenizer(CASED)
    assert parent.origin is not None
    assert parent.origin.release.endswith("TransformerModelZooDataset")
    epochs = zoo["pt-0/ft-0"].metrics
    assert epochs[1].test_accuracy is not None
    assert zoo["pt-0"].metrics[1].test_accuracy is None
    notes = " ".join(line for lines in report.notes.values() for line in lines)
    assert f"has {UNCASED} token vectors, but its data are of a tokenizer of {CASED} tokens" in notes
    for name, content in contents(root).items():
        assert not [secret for secret in PRIVATE if secret.encode() in content], name


def test_children_of_the_published_model_are_named(tmp_path: Path) -> None:
    """As the authors' code starts them."""
    models = write_language_release(tmp_path / "dataset", parents=FEW_PARENTS[:2], children=FEW_CHILDREN, from_hub=True)
    report = import_few(tmp_path / "dataset", tmp_path)
    children = [model.place for model in models if model.parent]
    assert sorted(report.skipped) == sorted(children)
    for model in models:
        if model.parent is not None:
            assert "before its own first step" in report.skipped[model.place]
            assert f"not those of its parent {model.parent}" in report.skipped[model.place]
    assert len(report.taken) == 2


def test_contradicting_case_is_noted_and_the_weights_count(few: Few, tmp_path: Path) -> None:
    root, models = few
    child = next(model for model in models if model.parent)
    damage.change_config(child.folder / "config.json", **{"pretraininig::case": "scratch", "cuda": "True"})
    report = import_few(root, tmp_path)
    assert report.complete
    assert any(
        "pretraining::case is scratch, but its parent is called continued" in line for line in report.notes[child.place]
    )


def _rename(state: dict[str, Any]) -> dict[str, Any]:
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in state.items()
    }
    return renamed | {
        "bert.bert.embeddings.position_ids": torch.arange(24),
        "bert.bert.pooler.dense.bias": torch.zeros(16),
    }


def _with_next_sentence(state: dict[str, Any]) -> dict[str, Any]:
    """Add the head for next sentences of the student project that the authors' language models come from."""
    return state | {
        "bert.cls.seq_relationship.weight": torch.full((2, 16), 0.5),
        "bert.cls.seq_relationship.bias": torch.zeros(2),
        "bert.bert.pooler.dense.weight": torch.eye(16),
        "bert.bert.pooler.dense.bias": torch.zeros(16),
    }


def test_old_names_buffers_and_other_heads_are_known(few: Few, tmp_path: Path) -> None:
    root, models = few
    for path in models[0].checkpoints.values():
        damage.change(path, _rename)
    report = import_few(root, tmp_path)
    assert report.complete
    name = next(name for name, place in report.taken.items() if place == models[0].place)
    found = load_file(tmp_path / "zoo" / layout.weights_file(MemberId.parse(name), 2))
    state = models[0].states[2]
    assert all(torch.equal(tensor, state[f"bert.{name}"]) for name, tensor in found.items())


def test_head_for_next_sentences_is_kept(few: Few, tmp_path: Path) -> None:
    root, models = few
    for path in models[0].checkpoints.values():
        damage.change(path, _with_next_sentence)
    report = import_few(root, tmp_path, check=1)
    assert report.complete
    assert max(report.checked.values()) < 1e-6
    name = next(name for name, place in report.taken.items() if place == models[0].place)
    plain: Any = BertForPreTraining.from_pretrained(tmp_path / "zoo", subfolder=name, variant="epoch-01")
    assert torch.equal(plain.cls.seq_relationship.weight, torch.full((2, 16), 0.5))
    assert torch.equal(plain.bert.pooler.dense.weight, torch.eye(16))
    assert problems(tmp_path / "zoo") == []


def test_checkpoint_with_another_head_than_the_last_costs_its_epoch_alone(few: Few, tmp_path: Path) -> None:
    root, models = few
    damage.change(models[0].checkpoints[1], _with_next_sentence)
    report = import_few(root, tmp_path)
    assert any("epoch 1 is not taken" in line for line in report.notes[models[0].place]), report.notes
    assert problems(tmp_path / "zoo") == []


FAULTS = (  # changes of checkpoints after epoch 1, and texts of the report
    (
        lambda state: state | {"bert.cls.predictions.decoder.weight": torch.ones(CASED, 16)},
        "decoder.weight differs from",
    ),
    (
        lambda state: {"vit.cls_token": torch.zeros(1, 1, 16)},
        'holds "vit.cls_token"; expected names such as "bert.',
    ),
    (
        lambda state: {name: tensor for name, tensor in state.items() if "intermediate.dense.bias" not in name},
        "intermediate.dense.bias is missing",
    ),
)


def test_damaged_checkpoint_costs_its_epoch_alone(few: Few, tmp_path: Path) -> None:
    root, models = few
    for model, (change, _) in zip(models[:3], FAULTS, strict=True):
        damage.change(model.checkpoints[1], change)
    report = import_few(root, tmp_path)
    assert len(report.taken) == 6
    for model, (_, text) in zip(models[:3], FAULTS, strict=True):
        assert any(text in line for line in report.notes[model.place]), report.notes


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"bert.embeddings.LayerNorm.gamma": torch.ones(16)}, "embeddings.LayerNorm.weight twice"),
        ({"bert.bert.embeddings.LayerNorm.weight": torch.ones(16), "cls.x": torch.ones(1)}, r"beside bert\.bert"),
        ({"classification_head.1.weight": torch.ones(2, 2)}, "expected places 0, 3, 6"),
        ({"cls.predictions.decoder.bias": torch.ones(4)}, "decoder.bias differs from cls.predictions.bias"),
    ],
)
def test_names_that_contradict_each_other_are_refused(change: dict[str, torch.Tensor], text: str) -> None:
    names = ("bert.embeddings.word_embeddings.weight", "bert.embeddings.LayerNorm.weight", "cls.predictions.bias")
    sound = {name: torch.zeros(4) for name in names}
    assert from_bert_state(sound) == sound
    with pytest.raises(ValueError, match=text):
        from_bert_state(sound | change)
    with pytest.raises(ValueError, match=r"has no bert\.embeddings\.word_embeddings\.weight"):
        from_bert_state({"cls.predictions.bias": torch.zeros(4)})


def test_vision_checkpoint_or_config_does_not_pass_for_a_language_model(few: Few, tmp_path: Path) -> None:
    root, models = few
    damage.change_config(
        models[0].folder / "config.json",
        **{"model::type": "vit_s_16", "dataset::name": "ImageNet1K", "optim::optimizer": "adamw"},
    )
    types = MODEL_TYPES | {"bert_test": SIZES}
    with pytest.raises(ReleaseError, match="holds vision and language models") as refused:
        plan_release(language_job(root, tmp_path / "zoo", tmp_path / "tokens", model_types=types))
    assert refused.value.path == root
    (tmp_path / "both").mkdir()
    shutil.move(root, tmp_path / "both/language")
    (tmp_path / "both/vision").mkdir()
    with pytest.raises(ReleaseError, match="Import vision and language apart"):
        plan_release(language_job(tmp_path / "both", tmp_path / "zoo", tmp_path / "tokens"))


def test_tokenizer_is_required_and_must_fit(few: Few, tmp_path: Path) -> None:
    root, _ = few
    with pytest.raises(ReleaseError, match="tokenizer of the language models is not given") as refused:
        import_few(root, tmp_path, tokenizer=None)
    assert "bert-base-cased" in (refused.value.fix or "")
    large = tmp_path / "large"
    large.mkdir()
    tokenizer(UNCASED).write(large)
    report = import_few(root, tmp_path, tokenizer=large)
    assert len(report.taken) == 2
    assert report.skipped["pretraining/continued_lr_0.00010_wd_0.01"] == (
        f"The tokenizer has {UNCASED} tokens, continued_lr_0.00010_wd_0.01 has a vocab_size of {CASED}; expected at "
        f"most {CASED} tokens. Name the tokenizer of its data: --tokenizer ./bert-base-cased"
    )
    with pytest.raises(ReleaseError, match="was imported with the tokenizer"):
        import_few(root, tmp_path)


def test_killed_import_resumes(few: Few, tmp_path: Path) -> None:
    root, _ = few
    done = 0

    def kill(work: str, size: int, total: int) -> None:
        nonlocal done
        done += work == "importing"
        if done == 8:
            os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        import_few(root, tmp_path, jobs=1, progress=kill)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    before = list((tmp_path / "zoo").glob("pt-*/member.json"))
    assert before
    report = import_few(root, tmp_path)
    assert (report.complete, len(report.taken)) == (True, 6)
    assert problems(tmp_path / "zoo") == []
