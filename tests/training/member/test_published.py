"""A parent that starts from a published model: its weights from a Hub, by commit and hash, and each refusal."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from tests.berts import MASKED, SIZES, make_model
from tests.hub import Hub
from tests.hub.faults import gated
from tests.text.sentences import tokenizer
from training.member.published import load_start
from training.member.record import planned_fields
from training.member.start import build_model, saved_tensors
from training.recipes.data import TextData, TokenizerSpec
from training.recipes.plan import PlannedMember, plan_members
from training.recipes.recipe import Children, Head, Parent, Recipe, Seeds, Start
from training.recipes.training import Masking, Optimizer, Training
from training.text.tokenizer import make_tokenizer
from vitzoo.architectures import is_head
from vitzoo.errors import ConfigError, HubError, NotCachedError, RecordError, TrainingError, ZooNotFoundError
from vitzoo.records.dataset_spec import TextSpec
from vitzoo.sources.published import fetch_published

REPO, WEIGHTS, CONFIG = "google-bert/tiny", "model.safetensors", "config.json"


def plan(start: Start | None, *, supervised: bool = False, **sizes: Any) -> PlannedMember:
    """Plan a parent that starts from a model, and its child."""
    texts = TextSpec(name="snippets-films", max_length=16)
    data = TextData(texts=texts, train_rows=64, evaluated_train_rows=8)
    optimizer = Optimizer(name="adamw", learning_rate=1e-3)
    tuned = Training(objective="supervised", dataset=data, optimizer=optimizer, epochs=1, batch_size=8)
    masked = replace(
        tuned,
        objective="masked",
        dataset=replace(data, texts=TextSpec(name="snippets-all", max_length=16, packed=True)),
        masking=Masking(share=0.2),
    )
    architecture = replace(SIZES, **sizes)
    head = Head(outputs=2) if supervised else Head(outputs=architecture.vocab_size, role="masked")
    recipe = Recipe(
        name="starts",
        source="tests",
        architecture=architecture,
        parents=(
            Parent(training=tuned if supervised else masked, head=head, seeds=Seeds.same(3), replicates=1, start=start),
        ),
        children=Children(training=tuned, heads=(Head(outputs=2),), optimizers=(optimizer,), seeds=(5,)),
        tokenizer=TokenizerSpec(vocab_size=50, repo=REPO),
    )
    parent, child = plan_members(recipe)
    assert child.init_group == parent.init_group
    return parent


def published(folder: Path) -> dict[str, bytes]:
    """Return the files of a published model as its authors wrote them years ago."""
    model = make_model(MASKED, seed=9)
    model.save_pretrained(folder)
    old = {".LayerNorm.weight": ".LayerNorm.gamma", ".LayerNorm.bias": ".LayerNorm.beta"}
    weights: dict[str, Tensor] = {}
    for name, tensor in load((folder / WEIGHTS).read_bytes()).items():
        for new, before in old.items():
            name = name.replace(new, before)
        weights[name] = tensor
    weights["bert.pooler.dense.weight"] = torch.zeros(8, 8)
    weights["cls.seq_relationship.bias"] = torch.zeros(2)
    return {WEIGHTS: save(weights), CONFIG: (folder / CONFIG).read_bytes()}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    return published(tmp_path / "published")


def publish(hub: Hub, files: dict[str, bytes]) -> Start:
    repo = hub.create_repo(REPO)
    commit = repo.commit(files).sha
    repo.commit({"later.txt": b"moved on"})
    return Start(repo=REPO, commit=commit, sha256=sha256(files.get(WEIGHTS, b"")).hexdigest())


def test_masked_parent_starts_from_the_published_backbone_and_head(hub: Hub, files: dict[str, bytes]) -> None:
    start = publish(hub, files)
    planned = plan(start)
    model: Any = build_model(planned, (), first=load_start(planned))
    expected = saved_tensors(make_model(MASKED, seed=9))
    found = saved_tensors(model)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert planned.init_group == f"{REPO}@{start.commit and start.commit[:12]}"
    assert planned_fields(planned)["start_sha256"] == start.sha256


def test_supervised_parent_takes_the_backbone_alone(hub: Hub, files: dict[str, bytes]) -> None:
    planned = plan(publish(hub, files), supervised=True)
    model = build_model(planned, ("a", "b"), first=load_start(planned))
    expected = saved_tensors(make_model(MASKED, seed=9))
    drawn = saved_tensors(build_model(planned, ("a", "b")))
    for name, tensor in saved_tensors(model).items():
        assert torch.equal(tensor, (drawn if is_head(name) else expected)[name]), name


def test_random_start_reads_nothing() -> None:
    assert load_start(plan(None)) is None


def _resized(files: dict[str, bytes]) -> dict[str, bytes]:
    return files | {CONFIG: files[CONFIG].replace(b'"num_attention_heads": 2', b'"num_attention_heads": 4')}


def _changed(files: dict[str, bytes], name: str, tensor: Tensor | None) -> dict[str, bytes]:
    weights = {other: value for other, value in load(files[WEIGHTS]).items() if other != name}
    return files | {WEIGHTS: save(weights if tensor is None else weights | {name: tensor})}


DECODER = "cls.predictions.decoder.weight"
REFUSED: dict[str, tuple[Callable[[dict[str, bytes]], dict[str, bytes]], type[Exception], str]] = {
    "other heads": (_resized, TrainingError, "num_attention_heads is 4"),
    "missing tensor": (
        lambda files: _changed(files, "bert.encoder.layer.1.output.dense.bias", None),
        TrainingError,
        "output.dense.bias is missing",
    ),
    "half precision": (
        lambda files: _changed(files, "cls.predictions.bias", torch.zeros(50, dtype=torch.float16)),
        TrainingError,
        "float16",
    ),
    "untied": (lambda files: _changed(files, DECODER, torch.ones(50, 8)), TrainingError, f"{DECODER} differs"),
    "pickle only": (
        lambda files: {CONFIG: files[CONFIG], "pytorch_model.bin": b"pickle"},
        RecordError,
        "has no model.safetensors, but pytorch_model.bin",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unfit_model_is_refused(hub: Hub, files: dict[str, bytes], case: str) -> None:
    change, error, text = REFUSED[case]
    with pytest.raises(error, match=text):
        load_start(plan(publish(hub, change(files))))


def test_start_without_commit_or_with_another_hash_is_refused(hub: Hub, files: dict[str, bytes]) -> None:
    start = publish(hub, files)
    with pytest.raises(TrainingError, match="does not say its commit and sha256") as unpinned:
        load_start(plan(Start(repo=REPO)))
    assert REPO in (unpinned.value.fix or "")
    with pytest.raises(TrainingError, match=f"has sha256 {start.sha256}"):
        load_start(plan(replace(start, sha256="0" * 64)))
    with pytest.raises(TrainingError, match="hidden_size is 8"):
        load_start(plan(start, hidden_size=4))


def test_start_with_another_tokenizer_is_refused(hub: Hub, files: dict[str, bytes]) -> None:
    planned = plan(publish(hub, files | {"tokenizer.json": tokenizer(50).content}))
    assert load_start(planned, tokenizer(50)) is not None
    with pytest.raises(ConfigError, match=f"{tokenizer(49).sha256[:16]}.*{REPO} {tokenizer(50).sha256[:16]}") as other:
        load_start(planned, tokenizer(49))
    assert (other.value.key, "TokenizerSpec(repo=" in str(other.value.fix)) == ("tokenizer_sha256", True)
    with pytest.raises(ConfigError, match=f"has 51 tokens, {REPO} has a vocab_size of 50"):
        load_start(planned, tokenizer(51))


def test_private_gated_and_unknown_repos_are_refused(hub: Hub, files: dict[str, bytes]) -> None:
    start = publish(hub, files)
    commit = str(start.commit)
    hub.create_repo("google-bert/private", private=True)
    for repo in ("google-bert/private", "google-bert/nothing"):
        with pytest.raises(ZooNotFoundError) as refused:
            fetch_published(repo, commit, files=(CONFIG,))
        assert refused.value.zoo == repo
    with hub.fault(gated()), pytest.raises(ZooNotFoundError, match=f'no repo "{REPO}" that you may read') as refused:
        load_start(plan(start))
    assert refused.value.fix == "The repo is gated: ask for access on its page."
    with pytest.raises(HubError, match='"main" is not a commit'):
        fetch_published(REPO, "main", files=(CONFIG,))


def test_offline_start_is_refused_unless_it_is_in_the_cache(
    hub: Hub, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan(publish(hub, files))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(NotCachedError) as refused:
        load_start(planned)
    assert refused.value.repo == REPO
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    load_start(planned)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load_start(planned) is not None


def test_published_tokenizer_is_taken_by_its_hash(hub: Hub, tmp_path: Path) -> None:
    made = tokenizer()
    made.write(tmp_path)
    repo = hub.create_repo(REPO)
    commit = repo.commit({path.name: path.read_bytes() for path in tmp_path.glob("tokenizer*.json")}).sha
    spec = TokenizerSpec(vocab_size=160, repo=REPO, commit=commit, sha256=made.sha256)
    planned = replace(plan(None), tokenizer=spec)
    assert make_tokenizer(planned, data={}) == made
    for wrong, text in (
        (replace(spec, sha256="0" * 64), f"has sha256 {made.sha256}"),
        (replace(spec, vocab_size=50), "has 160 tokens"),
        (TokenizerSpec(vocab_size=160, repo=REPO), "does not say its commit and sha256"),
    ):
        with pytest.raises(TrainingError, match=text):
            make_tokenizer(replace(planned, tokenizer=wrong), data={})
