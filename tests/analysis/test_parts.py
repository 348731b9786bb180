"""Applications read only the weights that they need: of a Hub zoo, and of a partial copy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.hub.server import Hub
from tests.published import REPO, plant
from vitzoo import Zoo, lineage, merge, path, prediction
from vitzoo.analysis.prediction.predictors import read_moves, read_statistics
from vitzoo.errors import EpochNotFoundError, SelectionError, VitZooError
from vitzoo.sources.folder import DEMO_FOLDER

ONE, TWO = "pt-0/ft-0", "pt-0/ft-1"  # two children with linear heads
LINEAR = {"stage": "finetuning", "head_type": "linear"}
Application = Callable[[Zoo], object]


@pytest.fixture
def copy(hub: Hub, tmp_path: Path) -> Zoo:
    """A partial copy with the final weights of the children with linear heads."""
    plant(hub, DEMO_FOLDER)
    Zoo(REPO).select(**LINEAR).download(tmp_path / "copy", progress=False)
    return Zoo(tmp_path / "copy")


@pytest.mark.parametrize(
    ("application", "files", "most"),
    [
        (lambda zoo: lineage(zoo.select(parent="pt-0"), method="digest"), [], 0),
        (lambda zoo: lineage(zoo.select(id=["pt-0", ONE])), ["pt-0/model", f"{ONE}/model"], 0),
        (lambda zoo: merge(zoo.select(id=[ONE, TWO])), [f"{ONE}/model", f"{TWO}/model"], 6),
        (
            lambda zoo: merge(zoo.select(id=[ONE, TWO]), method="stock"),
            [f"{ONE}/model", f"{TWO}/model", f"{ONE}/model.epoch-00"],
            6,
        ),
        (lambda zoo: path(zoo[ONE], zoo[TWO], points=2), [f"{ONE}/model", f"{TWO}/model"], 8),
        (lambda zoo: prediction(zoo.select(stage="finetuning"), "test_accuracy").targets, [], 0),
        (lambda zoo: read_statistics(zoo.select(id=ONE)), [f"{ONE}/model"], 0),
        (lambda zoo: read_moves(zoo.select(id=ONE)), [f"{ONE}/model", "pt-0/model"], 0),
    ],
    ids=["digest", "lineage", "merge", "stock", "path", "prediction", "statistics", "moves"],
)
def test_application_reads_only_the_weights_that_it_needs_of_a_hub_zoo(
    hub: Hub, application: Application, files: list[str], most: int
) -> None:
    """Beside the tables and weights there are at most ``most`` requests, for configs and processors."""
    plant(hub, DEMO_FOLDER)
    zoo = Zoo(REPO)
    zoo.select()  # reads the manifest and the tables
    zoo[ONE].metrics  # noqa: B018
    with hub.recorded() as requests:
        application(zoo)
    asked = {request.path.partition("/resolve/")[2].partition("/")[2] for request in requests.of(host="hub")}
    assert {name for name in asked if name.endswith("safetensors")} == {f"{name}.safetensors" for name in files}
    assert len(requests.of(host="hub", path=r"(?<!safetensors)$")) <= most, str(requests)


def test_application_works_on_a_partial_copy(copy: Zoo) -> None:
    whole = Zoo(DEMO_FOLDER)
    one, two = ([zoo[member] for member in (ONE, TWO)] for zoo in (copy, whole))
    assert path(*one, points=3).barrier.equals(path(*two, points=3).barrier)
    own, its = (zoo.select(**LINEAR) for zoo in (copy, whole))
    assert [str(ref.member) for ref in own] == [str(ref.member) for ref in its]
    assert lineage(own, families=2).evidence.equals(lineage(its, families=2).evidence)
    assert np.array_equal(read_statistics(own), read_statistics(its))
    assert np.array_equal(prediction(own, "test_accuracy").targets, prediction(its, "test_accuracy").targets)
    soups = [merge(zoo.select(id=[ONE, TWO])).to_model().state_dict() for zoo in (copy, whole)]
    assert all(torch.equal(tensor, soups[1][name]) for name, tensor in soups[0].items())


@pytest.mark.parametrize(
    ("application", "error", "option"),
    [
        (lambda zoo: lineage(zoo.select(), method="nearest"), SelectionError, "id=pt-0|pt-1,status=any"),
        (lambda zoo: merge(zoo.select(id=[ONE, TWO]), method="stock"), EpochNotFoundError, f"id={ONE},status=any"),
        (lambda zoo: path(zoo[ONE], f"{zoo.source.root}/{ONE}@1"), EpochNotFoundError, "--epochs 1 "),
        (lambda zoo: read_moves(zoo.select()), SelectionError, f"id={ONE},status=any"),
        (lambda zoo: zoo.select(head_type="mlp"), SelectionError, "id=pt-0/ft-2|pt-0/ft-3|pt-1/ft-2|pt-1/ft-3,"),
        (lambda zoo: zoo.select(stage="pretraining"), SelectionError, "id=pt-0|pt-1,status=any"),
        (lambda zoo: zoo.select(epoch=1), SelectionError, "--epochs 1 "),
    ],
    ids=["lineage", "stock", "path", "moves", "head", "parents", "epoch"],
)
def test_weights_that_a_partial_copy_lacks_are_an_error_with_the_command(
    copy: Zoo, application: Application, error: type[VitZooError], option: str
) -> None:
    with pytest.raises(error) as raised:
        application(copy)
    fix = getattr(raised.value, "fix", None)
    assert fix is not None
    assert f"vitzoo download {REPO} --revision " in fix
    assert option in fix
