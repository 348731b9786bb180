"""The demo zoo in the wheel: what its name means, and that every later version reads its files.

`python -m tests.demo` trains it again.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tests.conftest import ROOT
from tests.published import zoo_files
from vitzoo import VitZooConfig, VitZooModel, Zoo
from vitzoo.cli import app
from vitzoo.errors import DatasetError, MemberIdError, MemberNotFoundError, ZooNotFoundError
from vitzoo.images.load import _load
from vitzoo.sources.folder import DEMO_FOLDER
from vitzoo.tables.columns import TABLES
from vitzoo.tables.read import load_table
from vitzoo.verification.verify import verify_zoo

CHILD = "pt-0/ft-1"


def test_every_record_of_the_demo_zoo_is_read() -> None:
    """These files stay as they are once the format is frozen."""
    zoo = Zoo("demo")
    assert [str(member.id) for member in zoo.parents] == ["pt-0", "pt-1"]
    assert {member.factors["head_type"] for member in zoo.parents[0].children} == {"linear", "mlp"}
    assert {member.record.objective for member in zoo.parents} == {"supervised", "contrastive"}
    assert all(member.record.weights for member in zoo)
    assert [load_table(zoo.source, name).num_rows for name in TABLES] == [10, 40, 190]
    assert len(zoo.select(epoch="all")) == 40
    result = verify_zoo(zoo, evaluate=2)
    assert not result.problems
    assert (result.members, [comparison.agrees for comparison in result.evaluations]) == (10, [True, True])


def test_demo_zoo_fits_into_the_wheel() -> None:
    """The wheel has the files of the package that git tracks."""
    files = {name: DEMO_FOLDER / name for name in [*zoo_files(DEMO_FOLDER), "manifest.json"]}
    assert sum(path.stat().st_size for path in files.values()) <= 3_000_000
    listed = subprocess.run(["git", "ls-files", "vitzoo/demo"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name.removeprefix("vitzoo/demo/") for name in listed.stdout.split()} == files.keys()


def test_demo_means_the_zoo_in_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = VitZooModel.from_pretrained(DEMO_FOLDER / CHILD, epoch=2).state_dict()
    for model in (
        VitZooModel.from_pretrained(f"demo/{CHILD}@2"),
        VitZooModel.from_pretrained(f"demo/{CHILD}", variant="epoch-02"),
        VitZooModel.from_pretrained("demo", subfolder=CHILD, epoch=2),
    ):
        found = model.state_dict()
        assert all(torch.equal(tensor, expected[key]) for key, tensor in found.items())
    zoo = Zoo("demo")
    assert repr(zoo).startswith("Zoo('demo'")
    assert str(zoo.select(epoch=0)[0]) == "demo/pt-0@0"
    assert zoo["pt-0"].load().name_or_path == "demo/pt-0"
    zoo.assert_no_leaks({"train": ["demo/pt-0", f"{DEMO_FOLDER}/pt-0/ft-0"], "test": ["demo/pt-1"]})
    assert VitZooConfig.from_pretrained("demo/pt-0/ft-2").head_type == "mlp"
    tree = CliRunner().invoke(app, ["tree", "demo"]).stdout
    assert "recipe demo, 10 members" in tree
    ids = CliRunner().invoke(app, ["select", "demo", "--where", "head_type=mlp", "--quiet"]).stdout.split()
    assert ids[0] == "demo/pt-0/ft-2"
    monkeypatch.setenv("VITZOO_ZOO", "demo")
    assert len(Zoo()) == 10
    assert VitZooConfig.from_pretrained(f"zoo/{CHILD}").head_type == "linear"


def test_unknown_members_of_the_demo_zoo_are_refused() -> None:
    with pytest.raises(MemberNotFoundError):
        VitZooModel.from_pretrained("demo/pt-9")
    for name in ("demo", "demo/pt-01"):
        with pytest.raises(MemberIdError):
            VitZooModel.from_pretrained(name)
    with pytest.raises(ZooNotFoundError):
        Zoo(Path("demo"))  # a path object is a folder


def test_a_local_folder_wins_over_the_demo_zoo() -> None:
    model = VitZooModel.from_pretrained("demo/pt-0/ft-0")
    model.save_pretrained("demo")
    model.save_pretrained("demo/pt-0")
    assert len(Zoo("demo")) == 10  # ./demo is not a zoo
    for name in ("demo", "demo/pt-0"):
        assert VitZooModel.from_pretrained(name).config.num_labels == 4  # of the saved child, not of a parent
    shutil.rmtree("demo")
    shutil.copytree(DEMO_FOLDER, "demo", ignore=shutil.ignore_patterns("pt-1"))
    assert len(Zoo("demo")) == 5
    with pytest.raises(MemberNotFoundError):
        VitZooModel.from_pretrained("demo/pt-1")


def test_evaluation_needs_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    member = Zoo("demo")[CHILD]
    assert member.evaluate(part="test").accuracy == pytest.approx(member.metrics[-1].test_accuracy, abs=0.01)
    monkeypatch.setattr("vitzoo.images.load._load", _load.__wrapped__)  # without its cache
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DatasetError) as raised:
        member.evaluate(part="test")
    assert raised.value.fix == "Run: pip install scikit-learn."
