"""Several processes for one member: two ranks train the same weights as one, to rounding."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.forking import fork
from tests.text.tiny import execution, tiny_text
from tests.tiny import tiny
from training.member.report import Report
from training.member.train import train_member
from training.ranks import Ranks
from training.recipes.plan import plan_member
from training.recipes.recipe import Recipe
from training.recipes.training import Optimizer
from training.workspace import Workspace
from vitzoo.ids import MemberId
from vitzoo.models.registry import ZooModel
from vitzoo.records import layout
from vitzoo.sources.folder import FolderSource
from vitzoo.tables.catalogue import Catalogue

ROOT = Path(__file__).parents[3]
SGD = Optimizer(name="sgd", learning_rate=2e-2, weight_decay=1e-3, momentum=0.9)
MEMBERS = ("pt-0", "pt-0/ft-0", "pt-2")  # supervised, fine-tuned with mixing, contrastive
TEXT_MEMBERS = ("pt-0", "pt-0/ft-1")  # masked, fine-tuned with an MLP head


def recipe(epochs: int, *, texts: bool = False) -> Recipe:
    """Return the tiny recipe with SGD and no dropout. AdamW would make whole steps of the gradient's rounding."""
    small = tiny_text() if texts else tiny()
    sgd = replace(SGD, learning_rate=0.2) if texts else SGD
    parents = tuple(
        replace(parent, training=replace(parent.training, optimizer=sgd, clip_norm=1.0, epochs=epochs, dropout=0.0))
        for parent in small.parents
    )
    training = replace(small.children.training, epochs=epochs, dropout=0.0)
    return replace(small, parents=parents, children=replace(small.children, training=training, optimizers=(sgd,)))


def train(root: Path, *, epochs: int = 1, stop: int = -1, sentences: Path | None = None) -> None:
    """Train the members, of texts if there are sentences. End the process, as a kill would, after epoch ``stop``."""

    def report(report: Report) -> None:
        if (report.epoch, report.step) == (stop, 0):
            os._exit(9)

    planned = recipe(epochs, texts=sentences is not None)
    for member in MEMBERS if sentences is None else TEXT_MEMBERS:
        train_member(
            Workspace(root, planned),
            plan_member(planned, MemberId.parse(member)),
            execution=None if sentences is None else execution(sentences),
            report=report,
        )


def train_with_two_ranks(root: Path, *, epochs: int = 1, stop: int = -1) -> int:
    """Call `train` in two processes, and return the launcher's exit status."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, __file__, str(root), str(epochs), str(stop)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0 or stop >= 0, done.stderr
    return done.returncode


def train_as_rank(index: int, port: int, root: Path, sentences: Path | None) -> None:
    """Call `train` with the variables that the launcher sets."""
    ranks = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in ranks.items()} | {"MASTER_ADDR": "127.0.0.1"})
    train(root, sentences=sentences)
    torch.distributed.destroy_process_group()


def largest_difference(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - two[name]).abs().max()) for name in one)


@pytest.mark.parametrize("texts", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["images", "texts"])
def test_two_ranks_train_the_weights_of_one(texts: bool, tmp_path: Path, sentences: Path) -> None:
    folder = sentences if texts else None
    train(tmp_path / "one", sentences=folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [fork(train_as_rank, index, port, tmp_path / "two", folder) for index in range(2)]
    for rank in ranks:
        rank.join()
        assert rank.exitcode == 0
    zoos = [Catalogue(FolderSource(tmp_path / name)) for name in ("one", "two")]
    for member in map(MemberId.parse, TEXT_MEMBERS if texts else MEMBERS):
        start = ZooModel.from_pretrained(tmp_path / "one" / str(member), epoch=0).state_dict()
        one, two = (ZooModel.from_pretrained(zoo.source.root / str(member)).state_dict() for zoo in zoos)
        assert largest_difference(one, two) < 1e-5 < 1e-2 < largest_difference(one, start)
        assert [zoo.member_record(member).ranks for zoo in zoos] == [1, 2]
        for alone, together in zip(*(zoo.epoch_records(member) for zoo in zoos), strict=True):
            assert together.samples_seen == alone.samples_seen
            for name in ("train_loss_running", "train_loss", "val_loss", "test_loss", "test_knn_accuracy"):
                metrics = [getattr(record, name) for record in (alone, together)]
                assert metrics == [None, None] or metrics[1] == pytest.approx(metrics[0], rel=1e-4)


@pytest.mark.slow
def test_killed_ranks_resume_to_the_same_bytes(tmp_path: Path) -> None:
    train_with_two_ranks(tmp_path / "whole", epochs=2)
    assert train_with_two_ranks(tmp_path / "killed", epochs=2, stop=1) != 0
    train_with_two_ranks(tmp_path / "killed", epochs=2)
    for member in map(MemberId.parse, MEMBERS):
        path = layout.weights_file(member)
        assert (tmp_path / "killed" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()


@pytest.mark.parametrize(("count", "rows"), [(1, 4), (2, 7), (3, 0), (5, 1), (5, 64)])
def test_every_row_belongs_to_one_rank(count: int, rows: int) -> None:
    shares = [list(Ranks(index=index, count=count).rows(rows)) for index in range(count)]
    assert [row for share in shares for row in share] == list(range(rows))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


if __name__ == "__main__":
    train(Path(sys.argv[1]), epochs=int(sys.argv[2]), stop=int(sys.argv[3]))
    torch.distributed.destroy_process_group()  # as the command does: its threads may abort a process that ends
