"""Epochs that are saved in bfloat16: their files, records, resume, and how readers see them."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import tiny
from training.member.execution import Execution
from training.member.report import Report
from training.member.train import train_member
from training.recipes.cost import estimate
from training.recipes.plan import plan_members
from training.recipes.retention import Retention
from training.workspace import Workspace
from vitzoo.models.vit import VitZooModel
from vitzoo.records import load_member_record
from vitzoo.tables.catalogue import write_tables
from vitzoo.verification.verify import verify_zoo
from vitzoo.zoo.zoo import Zoo

HALF = Execution(dtype="bf16")
RECIPE = replace(tiny(), parents=tiny().parents[:1])
MEMBERS = [planned for planned in plan_members(RECIPE) if str(planned.id) in ("pt-0", "pt-0/ft-0")]


class Interrupted(Exception):
    """A report of this test interrupted the training."""


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a zoo of a parent and a child, each interrupted after epoch 1, whose weights are bfloat16."""
    root = tmp_path_factory.mktemp("half")

    def report(report: Report) -> None:
        if (report.epoch, report.step) == (1, 0):
            raise Interrupted

    workspace = Workspace(root, RECIPE)
    for planned in MEMBERS:
        with pytest.raises(Interrupted):
            train_member(workspace, planned, execution=HALF, report=report)
        train_member(workspace, planned, execution=HALF)
    write_tables(workspace.source)
    return root


@pytest.mark.parametrize("member", ["pt-0", "pt-0/ft-0"])
def test_epochs_between_the_first_and_the_last_are_the_rounded_weights(member: str, half: Path, tiny_zoo: Path) -> None:
    for name in ("epoch-00", "epoch-02"):
        file = Path(member, f"model.{name}.safetensors")
        assert (half / file).read_bytes() == (tiny_zoo / file).read_bytes()
    file = Path(member, "model.epoch-01.safetensors")
    rounded, whole = load_file(half / file), load_file(tiny_zoo / file)
    assert {name: tensor.dtype for name, tensor in rounded.items()} == dict.fromkeys(whole, torch.bfloat16)
    assert all(torch.equal(tensor, whole[name].bfloat16()) for name, tensor in rounded.items())
    record = load_member_record(half / member / "member.json")
    assert {each.epoch: each.dtype for each in record.weights} == {
        0: "float32",
        1: "bfloat16",
        2: "float32",
        None: "float32",
    }


def test_zoo_of_bfloat16_epochs_is_sound_and_its_table_says_the_type(half: Path) -> None:
    assert verify_zoo(Zoo(half)).problems == ()
    rows = Zoo(half).table("epochs").select(["id", "epoch", "dtype"]).to_pylist()
    assert {row["dtype"] for row in rows if row["epoch"] == 1} == {"bfloat16"}
    assert {row["dtype"] for row in rows if row["epoch"] != 1} == {"float32"}


def test_verify_finds_a_file_of_another_type_than_its_record(half: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(half, tmp_path / "zoo"))
    record = root / "pt-0" / "member.json"
    record.write_text(record.read_text().replace("bfloat16", "float32"))
    problems = [problem.what for problem in verify_zoo(Zoo(root)).problems if str(problem.member) == "pt-0"]
    assert any("is BF16; member.json says F32" in what for what in problems)


def test_bfloat16_epoch_loads_as_a_float32_model(half: Path) -> None:
    saved = load_file(half / "pt-0" / "model.epoch-01.safetensors")
    member = Zoo(half)["pt-0"]
    (_, reused), *_ = Zoo(half).weights(Zoo(half).select(id="pt-0", epoch=1)).iter_models(progress=False)
    for model in (VitZooModel.from_pretrained(half / "pt-0", epoch=1), member.load(epoch=1), reused):
        assert model.dtype == torch.float32
        assert torch.equal(model.state_dict()["classifier.weight"], saved["classifier.weight"].float())
    own = VitZooModel.from_pretrained(half / "pt-0", epoch=1, dtype=torch.bfloat16)
    assert torch.equal(own.state_dict()["classifier.weight"], saved["classifier.weight"])


def test_checkpoints_of_both_types_are_one_float32_matrix(half: Path) -> None:
    zoo = Zoo(half)
    weights = zoo.weights(zoo.select(id="pt-0", epoch="all"))
    matrix = weights.matrix(part="all")
    assert matrix.values.dtype == np.float32
    saved = load_file(half / "pt-0" / "model.epoch-01.safetensors")
    assert np.array_equal(
        matrix.index.unflatten(matrix.values[1])["classifier.bias"], saved["classifier.bias"].float().numpy()
    )
    distances = np.linalg.norm(matrix.values[:, None].astype(np.float64) - matrix.values, axis=2)
    np.testing.assert_allclose(weights.distances(part="all").values, distances, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("keep", ["all", "last", "every-2"])
def test_estimated_disk_counts_both_types(keep: str, half: Path) -> None:
    whole = estimate(MEMBERS, keep=Retention(keep)).bytes
    found = estimate(MEMBERS, keep=Retention(keep), dtype="bf16").bytes
    assert found == {"all": round(whole * 5 / 6), "last": whole, "every-2": whole}[keep]
    files = [each.stat().st_size for each in half.rglob("model.epoch-*.safetensors")]
    if keep == "all":
        assert found == pytest.approx(sum(files), rel=0.04)  # headers are not halved
