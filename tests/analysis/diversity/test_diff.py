"""Two checkpoints compared: records, weights by layer, predictions, and the reasons for what is not compared."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import cohen_kappa_score

from tests.test_cli import Here
from vitzoo import Zoo, diff
from vitzoo.errors import EpochNotFoundError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_differences_equal_those_of_the_population_and_of_scikit_learn(tiny_zoo: Path) -> None:
    zoo = Zoo(tiny_zoo)
    one, two = zoo["pt-0/ft-0"], zoo["pt-0/ft-2"]
    found = diff(one, two, epochs=(1, None))
    expected = {name: (one.factors[name], two.factors[name]) for name in one.factors}
    assert {name: pair for name, pair in expected.items() if pair[0] != pair[1]} == found.records
    assert found.records.keys() == {"head_seed", "order_seed", "augmentation_seed", "replicate"}
    assert found.metrics["epoch"] == (1, 2)
    assert found.metrics["test_loss"] == (one.metrics_at(1).test_loss, two.metrics_at().test_loss)
    weights = zoo.weights(zoo.select(id="pt-0/ft-0", epoch=1) | zoo.select(id="pt-0/ft-2"))
    l2, cosine = (weights.distances(metric, by="layer", part="all") for metric in ("l2", "cosine"))
    matrix = weights.matrix(part="all", dtype="float64")
    norms = {
        layer: np.linalg.norm(np.concatenate([matrix.values[0, entry.span] for entry in entries]))
        for layer, entries in matrix.index.layers.items()
    }
    assert [each.layer for each in found.layers] == [*(l2.names or ()), "all"]
    for each, distance, angle in zip(found.layers, l2.values[:, 0, 1], cosine.values[:, 0, 1], strict=False):
        assert each.l2 == pytest.approx(distance, rel=1e-9)
        assert each.relative_l2 == pytest.approx(distance / norms[each.layer], rel=1e-9)
        assert each.cosine == pytest.approx(1 - angle, abs=1e-9)
    whole = found.layers[-1]
    assert whole.l2 == pytest.approx(weights.distances("l2", part="all").values[0, 1], rel=1e-9)
    assert whole.parameters == one.record.num_parameters
    predictions = found.predictions
    assert predictions is not None
    left, right = (member.evaluate(epoch=epoch) for member, epoch in ((one, 1), (two, None)))
    assert predictions.accuracies == (left.accuracy, right.accuracy)
    assert predictions.agreement == float((left.predictions == right.predictions).double().mean())
    kappa = cohen_kappa_score(left.predictions, right.predictions)
    assert predictions.kappa == pytest.approx(kappa, abs=1e-12)
    consistency = cohen_kappa_score(left.predictions == left.labels, right.predictions == right.labels)
    assert predictions.error_consistency == pytest.approx(consistency, abs=1e-12)


def test_member_and_itself_do_not_differ(tiny_zoo: Path) -> None:
    member = Zoo(tiny_zoo)["pt-0/ft-0"]
    for epochs in ((None, None), (None, 2)):  # the last epoch is the final weights
        found = diff(member, member, epochs=epochs)
        assert found.records == found.metrics == {}
        assert {each.l2 for each in found.layers} == {0.0}
        assert [each.cosine for each in found.layers] == pytest.approx([1.0] * len(found.layers), abs=1e-12)
        assert found.predictions is not None
        assert (found.predictions.agreement, found.unmatched, found.reason) == (1.0, (), None)


def test_parent_and_child_share_the_backbone_at_epoch_0(tiny_zoo: Path) -> None:
    zoo = Zoo(tiny_zoo)
    found = diff(zoo["pt-0"], zoo["pt-0/ft-0"], epochs=(None, 0))
    assert found.records["stage"] == ("pretraining", "finetuning")
    assert {each.l2 for each in found.layers} == {0.0}
    assert found.unmatched == ("classifier.weight", "classifier.bias")
    assert found.predictions is None
    assert '"digits-0-5" and "digits-6-9"' in (found.reason or "")


def test_other_architecture_shares_no_tensor(tiny_zoo: Path, text_zoo: Path) -> None:
    found = diff(Zoo(tiny_zoo)["pt-0/ft-0"], Zoo(text_zoo)["pt-0/ft-0"])
    assert found.layers == ()
    assert len(found.unmatched) > 20
    assert found.predictions is None


def test_embeddings_and_missing_data_are_a_reason(tiny_zoo: Path, text_zoo: Path) -> None:
    zoo, texts = Zoo(tiny_zoo), Zoo(text_zoo)
    embeddings = diff(zoo["pt-2"], zoo["pt-2"], epochs=(1, 2))
    assert embeddings.predictions is None
    assert "embedding" in (embeddings.reason or "")
    without_data = diff(texts["pt-0/ft-0"], texts["pt-0/ft-1"])
    assert without_data.predictions is None
    assert "animals" in (without_data.reason or "")
    assert len(without_data.layers) > 2


def test_members_of_two_zoos_are_compared(tiny_zoo: Path, tiny_copy: Path) -> None:
    here, copied = Zoo(tiny_zoo), Zoo(tiny_copy)
    within, across = (diff(here["pt-0/ft-0"], zoo["pt-0/ft-2"]) for zoo in (here, copied))
    assert across.refs[1].zoo == str(tiny_copy)
    assert repr(across.layers) == repr(within.layers)
    assert repr(across.predictions) == repr(within.predictions)
    path = tiny_copy / "pt-0/ft-0/model.safetensors"
    tensors = load_file(path)
    tensors["classifier.bias"] += 3.0
    save_file(tensors, path, metadata={"format": "pt"})
    found = diff(here["pt-0/ft-0"], copied["pt-0/ft-0"])
    assert {each.layer: each.l2 for each in found.layers if each.l2} == {
        "classifier": pytest.approx(6.0, rel=1e-6),  # of four classes
        "all": pytest.approx(6.0, rel=1e-6),
    }


def test_zero_weights_have_no_cosine(tiny_copy: Path) -> None:
    path = tiny_copy / "pt-0/ft-0/model.epoch-01.safetensors"
    save_file({name: torch.zeros_like(t) for name, t in load_file(path).items()}, path, metadata={"format": "pt"})
    member = Zoo(tiny_copy)["pt-0/ft-0"]
    found = diff(member, member, epochs=(1, 2))
    assert all(math.isnan(each.cosine) and math.isnan(each.relative_l2) for each in found.layers)


def test_unknown_epoch_is_refused(tiny_zoo: Path) -> None:
    member = Zoo(tiny_zoo)["pt-0"]
    with pytest.raises(EpochNotFoundError):
        diff(member, member, epochs=(None, 7))


def test_command_prints_a_table_or_json(
    tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = Here(monkeypatch, capsys)
    done = here("diff", f"{tiny_zoo}/pt-0/ft-0", f"{tiny_zoo}/pt-0/ft-2@1")
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("head_seed", "layer.0", "error consistency", "143 of digits-6-9"):
        assert text in done.stdout
    written = here("diff", f"{tiny_zoo}/pt-0/ft-0", f"{tiny_zoo}/pt-0/ft-2@1", "--json")
    values = json.loads(written.stdout)
    found = diff(Zoo(tiny_zoo)["pt-0/ft-0"], Zoo(tiny_zoo)["pt-0/ft-2"], epochs=(None, 1))
    assert values["refs"] == [f"{tiny_zoo}/pt-0/ft-0", f"{tiny_zoo}/pt-0/ft-2@1"]
    assert values["records"]["head_seed"] == [100, 101]
    assert values["layers"][-1]["l2"] == found.layers[-1].l2
    assert found.predictions is not None
    assert values["predictions"]["agreement"] == found.predictions.agreement
    parent = here("diff", f"{tiny_zoo}/pt-0", f"{tiny_zoo}/pt-0/ft-2", "--json")
    values = json.loads(parent.stdout)
    assert values["predictions"] is None
    assert "dataset is" in values["reason"]
    missing = here("diff", f"{tiny_zoo}/pt-0", f"{tiny_zoo}/pt-9")
    assert missing.returncode == 1
