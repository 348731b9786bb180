"""Behaviour: outputs equal the recorded metrics' to the bit, come from the cache once computed, and fit together."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import krippendorff
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.conftest import ROOT
from vitzoo import Selection, Zoo
from vitzoo.analysis import behaviour as module
from vitzoo.analysis.behaviour import behaviour
from vitzoo.errors import DatasetError, SelectionError


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("behaviour")


def children(zoo: Path, **conditions: Any) -> Selection:
    return Zoo(zoo).select(stage="finetuning", **conditions)


def test_outputs_are_those_of_the_recorded_metrics(tiny_zoo: Path, cache: Path) -> None:
    selection = children(tiny_zoo, epoch="all")
    found = behaviour(selection, cache=cache, progress=False)
    assert found.accuracy.tolist() == selection.epochs_table.column("test_accuracy").to_pylist()
    member = Zoo(tiny_zoo)["pt-0/ft-1"]
    place = list(selection).index(next(ref for ref in selection if str(ref.member) == "pt-0/ft-1" and ref.epoch == 1))
    assert np.array_equal(found.logits[place], member.evaluate(epoch=1).logits.numpy())
    assert np.array_equal(found.labels, member.load_images().test.labels)
    assert (
        repr(found)
        == f"Behaviour({len(selection)} checkpoints on {len(found.labels)} samples of test: logits, predictions)"
    )


def test_second_call_runs_no_model(tiny_zoo: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    selection = children(tiny_zoo)
    first = behaviour(selection, cache=cache, progress=False)
    monkeypatch.setattr(module, "_run", lambda *args, **kwargs: pytest.fail("a model was run"))
    assert np.array_equal(behaviour(selection, cache=cache, progress=False).logits, first.logits)
    with pytest.raises(pytest.fail.Exception):
        behaviour(selection, cache=cache, part="val", progress=False)
    with pytest.raises(pytest.fail.Exception):
        behaviour(selection, cache=cache, batch_size=7, progress=False)


def test_logits_are_kept_with_features(tiny_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    selection = children(tiny_zoo)[:1]
    both = behaviour(selection, cache=tmp_path, keep=("features",), progress=False)
    monkeypatch.setattr(module, "_run", lambda *args, **kwargs: pytest.fail("a model was run"))
    assert np.array_equal(behaviour(selection, cache=tmp_path, progress=False).logits, both.logits)


def test_equal_checkpoints_agree_on_everything(tiny_copy: Path, tmp_path: Path) -> None:
    zoo = Zoo(tiny_copy)
    ref = zoo.select(id="pt-0/ft-1")[0]
    selection = zoo.select(stage="finetuning").with_refs([ref, ref])
    found = behaviour(selection, cache=tmp_path, progress=False)
    assert found.pairs("agreement").values.tolist() == [[1, 1], [1, 1]]
    assert found.pairs("hellinger").values[0, 1] == pytest.approx(0, abs=1e-6)
    assert zoo.weights(selection).distances("l2").values.tolist() == [[0, 0], [0, 0]]


def test_outputs_that_are_not_finite_are_refused(tiny_copy: Path, tmp_path: Path) -> None:
    file = tiny_copy / "pt-0/ft-1/model.safetensors"
    weights = load_file(file)
    weights["vit.layernorm.bias"][0] = np.nan
    file.unlink()
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(DatasetError) as caught:
        behaviour(children(tiny_copy), cache=tmp_path / "cache", progress=False)
    assert caught.value.problem == "The outputs of pt-0/ft-1 are not finite"
    assert [file for file in (tmp_path / "cache").iterdir() if load_file(file)]  # those before it are kept


def test_file_that_was_cut_short_is_written_again(tiny_zoo: Path, tmp_path: Path) -> None:
    selection = children(tiny_zoo)
    first = behaviour(selection, cache=tmp_path, progress=False)
    whole = first.files[0].read_bytes()
    first.files[0].write_bytes(whole[:-5])
    behaviour(selection, cache=tmp_path, progress=False)
    assert first.files[0].read_bytes() == whole


def test_features_are_the_layers_pooled_outputs(tiny_zoo: Path, tmp_path: Path) -> None:
    zoo = Zoo(tiny_zoo)
    selection = zoo.select(id="pt-0/ft-0")
    found = behaviour(selection, cache=tmp_path, keep=("features",), progress=False)
    member = zoo["pt-0/ft-0"]
    blocks = [f"layer.{number}" for number in range(member.load().config.num_hidden_layers)]
    assert found.layers == ("embeddings", *blocks, "layernorm")
    assert np.array_equal(found.features("layernorm")[0], member.evaluate().features.numpy())
    model, processor = member.load(), member.load_image_processor()
    images = [image.transpose(1, 2, 0) for image in member.load_images().test.images[:20]]
    pixels = processor(images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        embedded = model.vit.embeddings(pixels)
    np.testing.assert_allclose(found.features("embeddings", pool="mean")[0, :20], embedded[:, 1:].mean(1), atol=1e-5)
    with pytest.raises(SelectionError) as unknown:
        found.features("layer.9")
    assert "layer." in (unknown.value.fix or "")
    with pytest.raises(SelectionError):
        found.features(blocks[0], pool="max")
    with pytest.raises(SelectionError) as not_kept:
        _ = behaviour(selection, cache=tmp_path / "other", progress=False).layers
    assert not_kept.value.problem == "features were not kept"


def test_pairs_and_groups(tiny_zoo: Path, cache: Path) -> None:
    found = behaviour(children(tiny_zoo), cache=cache, progress=False)
    for measure in ("agreement", "kappa", "error_consistency", "capa", "hellinger"):
        compared = found.pairs(measure)
        assert compared.values.shape == (len(found), len(found))
        assert compared.refs == found.refs
        assert np.allclose(compared.values, compared.values.T, equal_nan=True)
    assert found.pairs("agreement").values.diagonal().tolist() == [1.0] * len(found)
    alpha = krippendorff.alpha(found.predictions.astype(float), level_of_measurement="nominal")
    assert found.group("krippendorff") == pytest.approx(alpha, abs=1e-12)
    with pytest.raises(SelectionError) as caught:
        found.pairs("kapa")
    assert "kappa" in (caught.value.fix or "")


def test_other_members_are_refused(tiny_zoo: Path, tmp_path: Path) -> None:
    zoo = Zoo(tiny_zoo)
    with pytest.raises(SelectionError) as mixed:
        behaviour(zoo.select(), cache=tmp_path)
    assert "pt-0" in mixed.value.problem
    assert "dataset" in mixed.value.problem
    embeddings = behaviour(zoo.select(id="pt-2"), cache=tmp_path, keep=("features",), progress=False)
    with pytest.raises(SelectionError) as caught:
        _ = embeddings.predictions
    assert caught.value.problem == "pt-2 has an embedding head, which predicts no class"
    assert embeddings.cka("layernorm").values.shape == (1, 1)
    with pytest.raises(SelectionError) as keep:
        behaviour(children(tiny_zoo), keep=("logit",), cache=tmp_path)
    assert "logits" in (keep.value.fix or "")


def test_texts(text_zoo: Path, sentences: Path, tmp_path: Path) -> None:
    zoo, data = Zoo(text_zoo), {"animals": sentences}
    selection = zoo.select(id="pt-0/ft-0")
    found = behaviour(selection, cache=tmp_path, keep=("logits", "features"), data=data, progress=False)
    evaluation = zoo["pt-0/ft-0"].evaluate(data=data)
    assert np.array_equal(found.logits[0], evaluation.logits.numpy())
    assert np.array_equal(found.features(found.layers[-1])[0], evaluation.features.numpy())
    assert found.layers[0] == "embeddings"
    with pytest.raises(DatasetError) as masked:
        behaviour(zoo.select(id="pt-0"), cache=tmp_path, data=data)
    assert masked.value.problem == "pt-0 is a masked model, which answers no class for a text"


@pytest.mark.slow
def test_processes_share_the_checkpoints(tiny_zoo: Path, cache: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    command += ["tests.analysis.ranks", str(tiny_zoo), str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"ACCELERATE_USE_CPU": "1"}, check=True, timeout=600)
    alone = behaviour(children(tiny_zoo), cache=cache, progress=False)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(file.name for file in alone.files)
    for file in alone.files:
        assert np.array_equal(load_file(tmp_path / file.name)["logits"], load_file(file)["logits"])
