"""Several processes for one member: what two ranks train together is what one trains alone, to rounding."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.tiny import tiny
from training.member.report import Report
from training.member.train import train_member
from training.ranks import Ranks
from training.recipes.plan import plan_member
from training.recipes.recipe import Recipe
from training.recipes.training import Optimizer
from training.workspace import Workspace
from vitzoo.ids import MemberId
from vitzoo.models.vit import VitZooModel
from vitzoo.records import layout
from vitzoo.sources.folder import FolderSource
from vitzoo.tables.catalogue import Catalogue

ROOT = Path(__file__).parents[3]
SGD = Optimizer(name="sgd", learning_rate=2e-2, weight_decay=1e-3, momentum=0.9)
MEMBERS = ("pt-0", "pt-0/ft-0", "pt-2")  # supervised, fine-tuned with mixing, contrastive


def recipe() -> Recipe:
    """The tiny one with SGD, whose steps are as large as the gradient's rounding; AdamW makes whole steps of that."""
    small = tiny()
    parents = tuple(
        replace(parent, training=replace(parent.training, optimizer=SGD, clip_norm=1.0)) for parent in small.parents
    )
    return replace(small, parents=parents, children=replace(small.children, optimizers=(SGD,)))


def train(root: Path, *, stop: int = -1) -> None:
    """Train the members; end the process, as a kill would, once an epoch of the last one is finished."""

    def report(report: Report) -> None:
        if (report.epoch, report.step) == (stop, 0):
            os._exit(9)

    workspace = Workspace(root, recipe())
    for member in MEMBERS:
        train_member(workspace, plan_member(recipe(), MemberId.parse(member)), report=report)


def train_with_two_ranks(root: Path, *, stop: int = -1) -> int:
    """The same in two processes; the launcher's exit status."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, __file__, str(root), str(stop)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0 or stop >= 0, done.stderr
    return done.returncode


def largest_difference(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - two[name]).abs().max()) for name in one)


def test_two_ranks_train_what_one_does(tmp_path: Path) -> None:
    train(tmp_path / "one")
    train_with_two_ranks(tmp_path / "two")
    zoos = [Catalogue(FolderSource(tmp_path / name)) for name in ("one", "two")]
    for member in map(MemberId.parse, MEMBERS):
        start = VitZooModel.from_pretrained(tmp_path / "one" / str(member), epoch=0).state_dict()
        one, two = (VitZooModel.from_pretrained(zoo.source.root / str(member)).state_dict() for zoo in zoos)
        assert largest_difference(one, two) < 1e-5 < 1e-2 < largest_difference(one, start)
        assert [zoo.member_record(member).ranks for zoo in zoos] == [1, 2]
        for alone, together in zip(*(zoo.epoch_records(member) for zoo in zoos), strict=True):
            assert together.samples_seen == alone.samples_seen
            for name in ("train_loss_running", "train_loss", "val_loss", "test_loss", "test_knn_accuracy"):
                figures = [getattr(record, name) for record in (alone, together)]
                assert figures == [None, None] or figures[1] == pytest.approx(figures[0], rel=1e-4)


@pytest.mark.slow
def test_two_ranks_that_were_killed_end_with_the_same_bytes(tmp_path: Path) -> None:
    train_with_two_ranks(tmp_path / "whole")
    assert train_with_two_ranks(tmp_path / "killed", stop=1) != 0
    train_with_two_ranks(tmp_path / "killed")
    for member in map(MemberId.parse, MEMBERS):
        path = layout.weights_file(member)
        assert (tmp_path / "killed" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [0, 1, 4, 7, 64])
def test_every_row_has_one_rank(count: int, rows: int) -> None:
    shares = [list(Ranks(index=index, count=count).rows(rows)) for index in range(count)]
    assert [row for share in shares for row in share] == list(range(rows))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


if __name__ == "__main__":
    train(Path(sys.argv[1]), stop=int(sys.argv[2]))
    torch.distributed.destroy_process_group()  # as the command does: its threads may abort a process that ends
