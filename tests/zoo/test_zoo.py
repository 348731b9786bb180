"""Zoo and Member: order, lineage, factors, metrics and weights."""

from pathlib import Path

import pytest
import torch

from vitzoo import Member, MemberId, VitZooModel, Zoo
from vitzoo.records import FACTORS

IDS = [
    *("pt-0", "pt-0/ft-0", "pt-0/ft-1", "pt-0/ft-2", "pt-0/ft-3"),
    *("pt-1", "pt-1/ft-0", "pt-1/ft-1"),
    *("pt-2", "pt-2/ft-0", "pt-2/ft-1"),
]


@pytest.fixture
def zoo(tiny_zoo: Path) -> Zoo:
    return Zoo(tiny_zoo)


def test_members_are_in_order(zoo: Zoo, tiny_zoo: Path) -> None:
    assert len(zoo) == 11
    assert [str(member.id) for member in zoo] == IDS
    assert [str(member.id) for member in zoo.parents] == ["pt-0", "pt-1", "pt-2"]
    assert "pt-1/ft-1" in zoo
    assert MemberId(1, 1) in zoo
    assert "pt-1/ft-2" not in zoo
    assert zoo["pt-1"] in zoo
    assert zoo["pt-1/ft-1"] == zoo[MemberId(1, 1)] == Member(zoo.catalogue, MemberId(1, 1))
    assert len({zoo["pt-1"], zoo["pt-1"], zoo["pt-2"]}) == 2
    assert repr(zoo["pt-1/ft-1"]) == "Member('pt-1/ft-1')"
    assert repr(zoo) == f"Zoo({str(tiny_zoo)!r}, 11 members)"
    assert zoo.recipe["name"] == "tiny"


def test_lineage_is_recorded(zoo: Zoo) -> None:
    child = zoo["pt-1/ft-1"]
    assert child.parent == zoo["pt-1"]
    assert zoo["pt-1"].parent is None
    assert child.parent is not None
    assert child.parent.id == child.id.parent_id == MemberId(child.id.parent)
    assert child.record.parent == str(child.id.parent_id)
    assert zoo["pt-1"].children == [zoo["pt-1/ft-0"], child]
    assert child.children == []
    assert child.record.parent_sha256 == zoo["pt-1"].record.final_weights.sha256
    assert child.record.parent_epoch == zoo["pt-1"].epochs[-1]
    assert zoo["pt-0"].record.init_group == child.record.init_group != zoo["pt-2"].record.init_group


def test_factors_are_the_recipes(zoo: Zoo) -> None:
    factors = zoo["pt-0/ft-3"].factors
    assert tuple(factors) == FACTORS
    expected = {"stage": "finetuning", "head_type": "mlp", "head_width": 8, "optimizer": "sgd", "replicate": 1}
    assert expected.items() <= factors.items()
    assert zoo["pt-2"].factors["objective"] == "contrastive"
    assert zoo["pt-2"].factors["head_role"] == "embedding"


def test_trajectory_has_every_epoch(zoo: Zoo, tiny_zoo: Path) -> None:
    member = zoo["pt-0/ft-1"]
    assert member.epochs == [0, 1, 2]
    models = list(member.trajectory())
    assert [epoch for epoch, _ in models] == [0, 1, 2]
    start = dict(models[0][1].named_parameters())
    for (epoch, model), record in zip(models, member.metrics, strict=True):
        assert record.epoch == epoch
        distance = sum(
            float((p.detach().double() - start[name].detach().double()).square().sum())
            for name, p in model.named_parameters()
        )
        assert distance**0.5 == pytest.approx(record.distance_from_start, abs=1e-9)
    assert isinstance(models[-1][1], VitZooModel)
    final = member.load()
    assert all(torch.equal(a, b) for a, b in zip(final.parameters(), models[-1][1].parameters(), strict=True))
    assert final.config.name_or_path == f"{tiny_zoo}/pt-0/ft-1"


def test_metrics_follow_the_objective(zoo: Zoo) -> None:
    supervised, contrastive = zoo["pt-0"].metrics, zoo["pt-2"].metrics
    assert [record.step for record in supervised] == [0, 10, 20]
    assert [record.samples_seen for record in supervised] == [0, 640, 1280]
    assert supervised[0].train_loss_running is None
    assert all(record.test_accuracy is not None and record.test_knn_accuracy is None for record in supervised)
    assert all(record.test_accuracy is None and record.test_knn_accuracy is not None for record in contrastive)
    siblings = [zoo[name].metrics[0] for name in ("pt-0/ft-0", "pt-0/ft-2")]
    assert siblings[0].backbone_id == siblings[1].backbone_id == supervised[-1].backbone_id
    assert siblings[0].weights_id != siblings[1].weights_id


def test_zoo_ignores_a_later_working_directory(tiny_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_zoo.parent)
    opened = Zoo(f"./{tiny_zoo.name}")
    monkeypatch.chdir(tmp_path)
    assert opened["pt-0"].metrics
    assert opened["pt-0"] == Zoo(tiny_zoo)["pt-0"]


def test_load_takes_the_arguments_of_from_pretrained(zoo: Zoo) -> None:
    assert zoo["pt-0"].load(dtype=torch.float16).dtype == torch.float16
    processor = zoo["pt-0"].load_image_processor()
    assert (list(processor.image_mean), processor.size["height"]) == ([0.5, 0.5, 0.5], 8)


def test_growing_zoo_lists_finished_members(tiny_copy: Path) -> None:
    (tiny_copy / "pt-3").mkdir()
    (tiny_copy / "pt-02").mkdir()
    (tiny_copy / "pt-x").mkdir()
    (tiny_copy / "pt-1/ft-0/member.json").unlink()
    assert [str(member.id) for member in Zoo(tiny_copy)] == [name for name in IDS if name != "pt-1/ft-0"]
