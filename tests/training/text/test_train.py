"""The training of language models: equal bytes after any interruption, and recorded metrics that anyone measures."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn, optim

from tests.berts import MASKED, make_model
from tests.conftest import ROOT
from tests.hub import Hub
from tests.text.sentences import sentence
from tests.text.tiny import SIZES, SUPERVISED, execution, tiny_text, train_texts
from tests.tiny import MEMBER_FILES
from training.member.report import Report
from training.member.start import build_model, load_backbone, load_inputs, saved_tensors
from training.member.step import Stepper, learning_rate
from training.member.train import train_member
from training.publish.plan import plan_publication
from training.publish.push import publish
from training.recipes.data import TokenizerSpec
from training.recipes.plan import PlannedMember, plan_member, plan_members
from training.recipes.recipe import Recipe, Start
from training.recipes.training import Schedule, Training
from training.workspace import Workspace
from vitzoo.architectures import is_head
from vitzoo.errors import ConfigError, DatasetError
from vitzoo.ids import MemberId, MemberRef
from vitzoo.models.bert import BertZooForSequenceClassification
from vitzoo.models.evaluation import evaluate_rows
from vitzoo.models.registry import ZooModel, load_model
from vitzoo.sources.folder import FolderSource
from vitzoo.tables.catalogue import Catalogue
from vitzoo.text import TextSplit, load_text, load_tokenizer, prepare_texts, train_bpe
from vitzoo.text.batches import padded
from vitzoo.verification.verify import verify_zoo
from vitzoo.zoo.zoo import Zoo

MEMBERS = [str(planned.id) for planned in plan_members(tiny_text())]
FILES = MEMBER_FILES | {"tokenizer.json", "tokenizer_config.json"}


def planned_of(member: str, recipe: Recipe | None = None) -> PlannedMember:
    return plan_member(recipe or tiny_text(), MemberId.parse(member))


def content(folder: Path) -> dict[str, bytes]:
    """Return the bytes of a member's files, but the times."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "timing.jsonl"}


@pytest.fixture
def text_copy(text_zoo: Path, tmp_path: Path) -> Path:
    """Return a copy of the zoo that the test may change."""
    return Path(shutil.copytree(text_zoo, tmp_path / "zoo"))


@pytest.mark.parametrize("member", MEMBERS)
def test_member_folder_has_weights_of_each_epoch_and_the_tokenizer(member: str, text_zoo: Path) -> None:
    folder = text_zoo / member
    assert {path.name for path in folder.iterdir() if path.is_file()} == FILES
    record = Catalogue(FolderSource(text_zoo)).member_record(MemberId.parse(member))
    assert record.tokenizer_sha256 == load_tokenizer(folder).sha256
    assert (folder / "tokenizer.json").read_bytes() == (text_zoo / "pt-0/tokenizer.json").read_bytes()
    assert record.text_spec == planned_of(member).training.dataset.spec


@pytest.mark.parametrize("member", ["pt-0", "pt-1", "pt-0/ft-1"])
def test_two_trainings_give_equal_bytes(member: str, text_copy: Path, text_zoo: Path, sentences: Path) -> None:
    """Dropout is on in pt-0 and in the children."""
    shutil.rmtree(text_copy / member)
    torch.manual_seed(9)
    train_member(Workspace(text_copy, tiny_text()), planned_of(member), execution=execution(sentences))
    assert content(text_copy / member) == content(text_zoo / member)


class Interrupted(Exception):
    """A report of this test interrupted the training."""


@pytest.mark.parametrize("member", ["pt-0", "pt-1/ft-0"])
@pytest.mark.parametrize("stop", [0, 1])
def test_interrupted_training_ends_with_the_same_bytes(
    member: str, stop: int, text_copy: Path, text_zoo: Path, sentences: Path
) -> None:
    shutil.rmtree(text_copy / member)
    workspace, planned = Workspace(text_copy, tiny_text()), planned_of(member)

    def report(report: Report) -> None:
        if (report.epoch, report.step) == (stop, 0):
            raise Interrupted

    with pytest.raises(Interrupted):
        train_member(workspace, planned, execution=execution(sentences), report=report)
    assert not (text_copy / member).exists()
    train_member(workspace, planned, execution=execution(sentences))
    assert content(text_copy / member) == content(text_zoo / member)


KILLED = """
import os, sys
from pathlib import Path
from tests.text.tiny import execution, tiny_text
from training.member.train import train_member
from training.recipes.plan import plan_member
from training.workspace import Workspace
from vitzoo.ids import MemberId

def kill(report):
    if (report.epoch, report.step) == (1, 0):
        os._exit(9)

workspace = Workspace(Path(sys.argv[1]), tiny_text())
train_member(workspace, plan_member(tiny_text(), MemberId(0)), execution=execution(Path(sys.argv[2])), report=kill)
"""


@pytest.mark.slow
def test_killed_process_resumes_to_the_same_bytes(text_copy: Path, text_zoo: Path, sentences: Path) -> None:
    shutil.rmtree(text_copy / "pt-0")
    command = [sys.executable, "-c", KILLED, str(text_copy), str(sentences)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False, timeout=300)
    assert done.returncode == 9
    train_member(Workspace(text_copy, tiny_text()), planned_of("pt-0"), execution=execution(sentences))
    assert content(text_copy / "pt-0") == content(text_zoo / "pt-0")


@pytest.mark.parametrize("member", ["pt-0/ft-0", "pt-0/ft-1", "pt-1/ft-0"])
def test_child_starts_from_its_parents_final_backbone_under_a_fresh_head(member: str, text_zoo: Path) -> None:
    child = MemberId.parse(member)
    parent = MemberId(child.parent)
    catalogue = Catalogue(FolderSource(text_zoo))
    assert catalogue.epoch_records(child)[0].backbone_id == catalogue.epoch_records(parent)[-1].backbone_id
    weights = saved_tensors(BertZooForSequenceClassification.from_pretrained(text_zoo / member, epoch=0))
    before = load_backbone(Workspace(text_zoo, tiny_text()), catalogue.member_record(parent))
    own = {name: tensor for name, tensor in weights.items() if not is_head(name)}
    assert own.keys() == before.keys()
    assert all(torch.equal(own[name], before[name]) for name in own)
    assert {name for name in weights if is_head(name)} >= {"bert.pooler.dense.weight"}


def test_child_with_another_tokenizer_than_its_parents_is_refused(
    text_zoo: Path, sentences: Path, text_copy: Path, tmp_path: Path
) -> None:
    shutil.rmtree(text_copy / "pt-0/ft-0")
    planned = planned_of("pt-0/ft-0")
    other = train_bpe(map(sentence, range(300, 500)), 160)
    prepare_texts([planned.training.dataset.spec], tmp_path / "other", tokenizer=other, data={"animals": sentences})
    own = load_tokenizer(text_zoo / "pt-0")
    with pytest.raises(ConfigError, match=f"{other.sha256[:16]}.*pt-0 {own.sha256[:16]}") as refused:
        train_member(Workspace(text_copy, tiny_text()), planned, execution=execution(tmp_path / "other"))
    assert (refused.value.key, refused.value.expected) == ("tokenizer_sha256", "the same")
    assert not (text_copy / "pt-0/ft-0").exists()


def test_parent_from_a_published_model_and_its_child(hub: Hub, text_zoo: Path, sentences: Path, tmp_path: Path) -> None:
    published, repo = make_model(MASKED, sizes=SIZES, seed=9), hub.create_repo("google-bert/tiny")
    published.save_pretrained(tmp_path / "published")
    load_tokenizer(text_zoo / "pt-0").write(tmp_path / "published")
    files = {path.name: path.read_bytes() for path in (tmp_path / "published").iterdir()}
    commit = repo.commit(files).sha
    start_sha256, tokenizer_sha256 = (
        hashlib.sha256(files[name]).hexdigest() for name in ("model.safetensors", "tokenizer.json")
    )
    repo.commit({"model.safetensors": b"moved on"})
    recipe = tiny_text()
    start = Start(repo=repo.id, commit=commit, sha256=start_sha256)
    tokenizer = TokenizerSpec(vocab_size=SIZES.vocab_size, repo=repo.id, commit=commit, sha256=tokenizer_sha256)
    recipe = replace(recipe, parents=(replace(recipe.parents[0], start=start),), tokenizer=tokenizer)
    train_texts(recipe, tmp_path / "zoo", sentences=sentences)
    zoo = Zoo(tmp_path / "zoo")
    assert zoo.source.record.recipe["parents"][0]["start"] == {
        "repo": repo.id,
        "commit": commit,
        "sha256": start_sha256,
    }
    for member in zoo:
        record = member.record
        assert (record.start_sha256, record.tokenizer_sha256) == (start_sha256, tokenizer_sha256)
        assert record.init_group == f"google-bert/tiny@{commit[:12]}"
    first, before = zoo["pt-0"].load(epoch=0).state_dict(), published.state_dict()
    assert all(torch.equal(first[name], tensor) for name, tensor in before.items())
    child = zoo["pt-0/ft-0"]
    assert child.record.parent_sha256 == zoo["pt-0"].record.final_weights.sha256
    assert child.metrics[0].backbone_id == zoo["pt-0"].metrics[-1].backbone_id != zoo["pt-0"].metrics[0].backbone_id
    assert verify_zoo(zoo).problems == ()


def test_frozen_backbone_keeps_the_backbones_bytes(text_copy: Path, sentences: Path) -> None:
    recipe = tiny_text()
    children = replace(recipe.children, training=replace(recipe.children.training, frozen_backbone=True))
    recipe = replace(recipe, children=children)
    root = text_copy.parent / "frozen"
    workspace = Workspace(root, recipe)
    for member in ("pt-1", "pt-1/ft-1"):
        train_member(workspace, planned_of(member, recipe), execution=execution(sentences))
    first, *others = workspace.catalogue.epoch_records(MemberId.parse("pt-1/ft-1"))
    assert {epoch.backbone_id for epoch in others} == {first.backbone_id}
    assert len({epoch.weights_id for epoch in (first, *others)}) == 3
    assert workspace.catalogue.member_record(MemberId.parse("pt-1/ft-1")).frozen_backbone


@pytest.mark.parametrize("warmup", [0, 4])
def test_linear_schedule_is_that_of_a_lambda(warmup: int) -> None:
    training = replace(SUPERVISED, schedule=Schedule(name="linear", warmup_steps=warmup))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return (training.steps - step) / (training.steps - warmup)

    assert_rates(training, lambda optimizer: optim.lr_scheduler.LambdaLR(optimizer, factor))


def test_one_cycle_is_torchs() -> None:
    assert_rates(
        SUPERVISED,
        lambda optimizer: optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=SUPERVISED.optimizer.learning_rate,
            total_steps=SUPERVISED.steps,
            div_factor=25,
            final_div_factor=1e4,
            cycle_momentum=False,
        ),
    )


def assert_rates(training: Training, make: Callable[[optim.Optimizer], optim.lr_scheduler.LRScheduler]) -> None:
    optimizer = optim.AdamW([nn.Parameter(torch.zeros(1))], lr=training.optimizer.learning_rate)
    scheduler = make(optimizer)
    for step in range(training.steps):
        assert learning_rate(training, step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("member", ["pt-0", "pt-1", "pt-0/ft-1"])
def test_recorded_metrics_are_the_measured_ones(member: str, text_zoo: Path, sentences: Path) -> None:
    catalogue = Catalogue(FolderSource(text_zoo))
    record = catalogue.member_record(MemberId.parse(member))
    assert record.text_spec is not None
    tokenizer = load_tokenizer(text_zoo / member)
    texts = load_text(record.text_spec, tokenizer=tokenizer, data={"animals": sentences})
    splits = {"train": texts.train.evenly(record.n_train_evaluated or 0), "val": texts.val, "test": texts.test}
    for recorded in catalogue.epoch_records(MemberId.parse(member)):
        model = load_model(FolderSource(text_zoo), MemberRef(MemberId.parse(member), None, recorded.epoch))
        for part, split in splits.items():
            measured = evaluate_rows(model, split, tokenizer=tokenizer)
            assert (measured.loss, measured.accuracy) == (
                getattr(recorded, f"{part}_loss"),
                getattr(recorded, f"{part}_accuracy"),
            )


def test_verify_evaluates_members_of_each_kind(text_zoo: Path, sentences: Path) -> None:
    verification = verify_zoo(Zoo(text_zoo), evaluate=len(MEMBERS), data={"animals": sentences})
    assert verification.problems == ()
    assert len(verification.evaluations) == len(MEMBERS)


def test_text_member_has_no_images_and_needs_its_sentences(text_zoo: Path, tmp_path: Path) -> None:
    member = Zoo(text_zoo)["pt-0"]
    for load in (member.load_images, member.load_image_processor):
        with pytest.raises(DatasetError, match="pt-0 reads text; expected images") as images:
            load()
        assert images.value.fix == "Use load_texts and load_tokenizer."
    (unknown,) = verify_zoo(Zoo(text_zoo), evaluate=1).problems
    assert unknown.what.startswith('No data set of texts is called "animals"; expected <owner>/<name>')
    assert "--data NAME=FOLDER" in unknown.fix
    (nowhere,) = verify_zoo(Zoo(text_zoo), evaluate=1, data={"animals": tmp_path / "nowhere"}).problems
    assert nowhere.what.endswith('nowhere, which data names for "animals", does not exist')
    assert "--data animals=./folder" in nowhere.fix


@pytest.mark.parametrize("member", ["pt-0", "pt-1"])
@pytest.mark.parametrize("accumulation", [2, 4])
def test_accumulated_gradients_are_those_of_the_batch(member: str, accumulation: int, sentences: Path) -> None:
    """Rows of a masked batch mask different numbers of tokens."""
    planned = planned_of(member)
    planned = replace(planned, training=replace(planned.training, dropout=0.0, clip_norm=None))
    gradients = []
    for parts in (1, accumulation):
        inputs = load_inputs(planned, data={"animals": sentences})
        model = build_model(planned, inputs.dataset.classes)
        optimizer = Recorder(model.parameters())
        stepper = Stepper(model, optimizer, planned.training, accumulation=parts)
        batches = inputs.batches(device=torch.device("cpu"))
        stepper(next(iter(batches.epoch(0))), 0)
        gradients.append(optimizer.gradients)
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-7)


class Recorder(optim.SGD):
    """An optimizer that keeps its gradients and changes nothing."""

    gradients: tuple[torch.Tensor, ...] = ()

    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        del closure
        weights = self.param_groups[0]["params"]
        self.gradients = tuple(weight.grad.clone() for weight in weights if weight.grad is not None)


AUTO = """
import json, sys, torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer
for cls, member in ((AutoModelForMaskedLM, "pt-0"), (AutoModelForSequenceClassification, "pt-0/ft-0")):
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], subfolder=member)
    model = cls.from_pretrained(sys.argv[1], subfolder=member, variant="epoch-01")
    assert "vitzoo" not in sys.modules
    texts = tokenizer(json.loads(sys.argv[2]), padding=True, return_tensors="pt")
    with torch.inference_mode():
        print(json.dumps([texts["input_ids"].tolist(), model(**texts).logits.tolist()]), flush=True)
"""


@pytest.mark.slow
def test_auto_classes_without_vitzoo_compute_the_same_bits(text_zoo: Path) -> None:
    texts = [sentence(1000), sentence(1001)]
    command = [sys.executable, "-c", AUTO, str(text_zoo), json.dumps(texts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    own = load_tokenizer(text_zoo / "pt-0")
    encoded = own.encode(texts, max_length=60)
    for member, line in zip(("pt-0", "pt-0/ft-0"), done.stdout.splitlines(), strict=True):
        ids, logits = map(torch.tensor, json.loads(line))
        inputs = padded(
            TextSplit(labels=np.zeros(2, dtype=np.int64), indices=np.arange(2), **encoded._asdict()),
            [0, 1],
            pad=own.pad_id,
        )
        assert torch.equal(ids, inputs["input_ids"])
        with torch.inference_mode():
            assert torch.equal(ZooModel.from_pretrained(text_zoo / member, epoch=1)(**inputs).logits, logits)


def test_published_text_zoo_is_read_back(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, text_zoo: Path, sentences: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", str(hub.add_token("org", role="write")))
    publication = plan_publication(FolderSource(text_zoo), to="org/text-zoo")
    publish(publication)
    files = hub.repo("org/text-zoo").files()
    card = files["README.md"].decode()
    assert f"A population of {len(MEMBERS)} language models with a family tree" in card
    assert "pipeline_tag: text-classification" in card
    assert "AutoModelForSequenceClassification.from_pretrained(" in card
    assert "image" not in card
    assert "vision transformers" not in card
    assert {path for path in files if path.endswith("tokenizer.json")} >= {
        f"{member}/tokenizer.json" for member in MEMBERS
    }
    assert not any(sentence(seed).encode() in data for seed in range(3) for data in files.values())
    zoo = Zoo("org/text-zoo")
    assert [str(member) for member in zoo.table("members")["id"]] == MEMBERS
    remote, local = (ZooModel.from_pretrained(f"{place}/pt-0/ft-1") for place in ("org/text-zoo", text_zoo))
    assert all(torch.equal(one, two) for one, two in zip(remote.parameters(), local.parameters(), strict=True))
    assert (
        zoo["pt-0/ft-1"].evaluate(data={"animals": sentences}).accuracy
        == Zoo(text_zoo)["pt-0/ft-1"].evaluate(data={"animals": sentences}).accuracy
    )
