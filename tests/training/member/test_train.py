"""One member, start to done: what stands on disk, what it says of itself, and that it can be interrupted anywhere."""

import getpass
import hashlib
import json
import re
import shutil
import socket
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch.nn import functional

from tests.images.oracles import augment
from tests.tiny import tiny
from training.lease import LeaseHeld, LeaseLost
from training.member.execution import Execution
from training.member.record import describe_divergence
from training.member.report import Report
from training.member.train import train_member
from training.random import Draw, Stream, permutation
from training.recipes.augmentation import Augmentation
from training.recipes.plan import PlannedMember, plan_member, plan_members
from training.recipes.recipe import Head, Recipe
from training.recipes.retention import Retention
from training.recipes.training import Mixing, Optimizer
from training.workspace import Workspace
from vitzoo import records
from vitzoo.errors import EpochNotFoundError, TrainingError, WeightsError
from vitzoo.ids import MemberId
from vitzoo.images import Preprocessing, load_images
from vitzoo.models.evaluation import evaluate, knn_accuracy
from vitzoo.models.vit import VitZooModel
from vitzoo.records import json_files, layout
from vitzoo.sources.folder import FolderSource
from vitzoo.tables.catalogue import build_tables
from vitzoo.zoo.zoo import Zoo

MEMBERS = [str(planned.id) for planned in plan_members(tiny())]
FILES = {
    "config.json",
    "preprocessor_config.json",
    "model.safetensors",
    "model.epoch-00.safetensors",
    "model.epoch-01.safetensors",
    "model.epoch-02.safetensors",
    "metrics.jsonl",
    "timing.jsonl",
    "member.json",
}


def planned_of(member: str) -> PlannedMember:
    return plan_member(tiny(), MemberId.parse(member))


def record_of(zoo: Path, member: str) -> records.MemberRecord:
    return records.load_member_record(zoo / layout.member_file(MemberId.parse(member)))


def metrics_of(zoo: Path, member: str) -> list[records.EpochRecord]:
    return records.load_epoch_records(zoo / layout.metrics_file(MemberId.parse(member)))


def weights_of(zoo: Path, member: str, epoch: int | None = None) -> dict[str, np.ndarray]:
    return load_file(zoo / layout.weights_file(MemberId.parse(member), epoch))


def content(folder: Path) -> dict[str, bytes]:
    """What a member's folder says but for clock times."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "timing.jsonl"}


def is_head(name: str) -> bool:
    return name.startswith("classifier.")


@pytest.mark.parametrize("member", MEMBERS)
def test_a_members_folder_holds_the_layouts_files_and_the_last_epoch_is_final(member: str, tiny_zoo: Path) -> None:
    folder = tiny_zoo / member
    assert {path.name for path in folder.iterdir() if path.is_file()} == FILES
    assert (folder / "model.safetensors").read_bytes() == (folder / "model.epoch-02.safetensors").read_bytes()
    assert (folder / "model.safetensors").samefile(folder / "model.epoch-02.safetensors")


@pytest.mark.parametrize("member", MEMBERS)
def test_the_records_agree_with_the_weights(member: str, tiny_zoo: Path) -> None:
    record, metrics = record_of(tiny_zoo, member), metrics_of(tiny_zoo, member)
    assert [weights.epoch for weights in record.weights] == [0, 1, 2, None]
    for weights in record.weights:
        stored = (tiny_zoo / layout.weights_file(record.member, weights.epoch)).read_bytes()
        assert (weights.size, weights.sha256) == (len(stored), hashlib.sha256(stored).hexdigest())
    start = weights_of(tiny_zoo, member, 0)
    assert record.num_parameters == sum(tensor.size for tensor in start.values())
    for epoch, figures in enumerate(metrics):
        tensors = weights_of(tiny_zoo, member, epoch)
        norm = np.sqrt(sum(np.square(tensor, dtype=np.float64).sum() for tensor in tensors.values()))
        moved = {name: tensor.astype(np.float64) - start[name] for name, tensor in tensors.items()}
        distance = np.sqrt(sum(np.square(tensor).sum() for tensor in moved.values()))
        assert figures.weight_norm == pytest.approx(norm, rel=1e-12)
        assert figures.distance_from_start == pytest.approx(distance, rel=1e-12)
        assert (figures.distance_from_start == 0) == (epoch == 0)
        parts = {
            name: f"{name} F32 {list(tensor.shape)} {hashlib.sha256(tensor.tobytes()).hexdigest()}\n".encode()
            for name, tensor in tensors.items()
        }
        assert figures.weights_id == hashlib.sha256(b"".join(parts[name] for name in sorted(parts))).hexdigest()
        backbone = [parts[name] for name in sorted(parts) if not is_head(name)]
        assert figures.backbone_id == hashlib.sha256(b"".join(backbone)).hexdigest()


@pytest.mark.parametrize("member", MEMBERS)
def test_the_records_agree_with_the_plan(member: str, tiny_zoo: Path) -> None:
    planned, record, metrics = planned_of(member), record_of(tiny_zoo, member), metrics_of(tiny_zoo, member)
    training, seeds = planned.training, planned.seeds
    steps = (649 if planned.id.is_parent else 429) // 64
    assert (record.id, record.parent) == (member, None if planned.id.is_parent else member.split("/")[0])
    assert record.stage == ("pretraining" if planned.id.is_parent else "finetuning")
    assert (record.init_seed, record.head_seed) == (seeds.init, seeds.head)
    assert (record.order_seed, record.augmentation_seed) == (seeds.order, seeds.augmentation)
    assert (record.init_group, record.replicate) == (planned.init_group, planned.replicate)
    assert (record.optimizer, record.learning_rate) == (training.optimizer.name, training.optimizer.learning_rate)
    assert (record.epochs, record.steps, record.batch_size) == (2, 2 * steps, 64)
    assert (record.n_train, record.n_train_evaluated) == (649 if planned.id.is_parent else 429, 64)
    assert (record.mixup, record.random_erasing) == (training.mixing.mixup, training.augmentation.erasing)
    assert record.deviations == ("tiny: nothing here is the paper's",)
    assert [(m.epoch, m.step, m.samples_seen) for m in metrics] == [(e, e * steps, e * steps * 64) for e in range(3)]
    assert metrics[0].train_loss_running is None
    assert all(metric.train_loss_running is not None for metric in metrics[1:])
    if training.schedule.name == "constant":
        assert {metric.learning_rate for metric in metrics} == {training.optimizer.learning_rate}
    else:  # 5 steps of warm-up: the first step's rate, the 10th's and the 20th's
        expected = [3e-3 / 5, 3e-3 * (1 + np.cos(np.pi * 4 / 15)) / 2, 3e-3 * (1 + np.cos(np.pi * 14 / 15)) / 2]
        assert [metric.learning_rate for metric in metrics] == pytest.approx(expected, rel=1e-12)
    if not planned.id.is_parent:
        parent = record_of(tiny_zoo, member.split("/")[0])
        assert (record.parent_epoch, record.parent_sha256) == (2, parent.final_weights.sha256)


def test_init_groups_and_gaps_are_as_defined(tiny_zoo: Path) -> None:
    rows = build_tables(FolderSource(tiny_zoo))["members"].to_pylist()
    groups = {row["id"]: row["init_group"] for row in rows}
    assert groups["pt-0"] == groups["pt-1"] == groups["pt-0/ft-3"] != groups["pt-2"]
    for row in rows:
        final = metrics_of(tiny_zoo, row["id"])[-1]
        gap = None if row["head_role"] == "embedding" else (final.train_accuracy or 0) - (final.test_accuracy or 0)
        assert row["gap"] == gap


def test_members_of_one_initialisation_start_alike_and_part(tiny_zoo: Path) -> None:
    zero, one, two = (metrics_of(tiny_zoo, member) for member in ("pt-0", "pt-1", "pt-2"))
    assert zero[0].weights_id == one[0].weights_id
    assert zero[1].weights_id != one[1].weights_id
    assert zero[0].backbone_id != two[0].backbone_id


@pytest.mark.parametrize("member", [member for member in MEMBERS if "/" in member])
def test_a_child_starts_from_its_parents_final_backbone_under_a_fresh_head(member: str, tiny_zoo: Path) -> None:
    child, parent = weights_of(tiny_zoo, member, 0), weights_of(tiny_zoo, member.split("/")[0])
    backbone = [name for name in child if not is_head(name)]
    assert sorted(backbone) == sorted(name for name in parent if not is_head(name))
    for name in backbone:
        assert child[name].tobytes() == parent[name].tobytes()
    assert metrics_of(tiny_zoo, member)[0].backbone_id == metrics_of(tiny_zoo, member.split("/")[0])[-1].backbone_id
    assert all(not np.array_equal(child[n], parent.get(n)) for n in child if is_head(n))  # type: ignore[arg-type]


def test_siblings_of_one_head_and_seed_are_equal_at_the_start(tmp_path: Path) -> None:
    recipe = tiny()
    optimizers = (Optimizer(name="sgd", learning_rate=0.05, momentum=0.9), Optimizer(name="adamw", learning_rate=1e-3))
    parent = replace(recipe.parents[0], training=replace(recipe.parents[0].training, epochs=1))
    training = replace(recipe.children.training, epochs=1)
    recipe = replace(
        recipe, parents=(parent,), children=replace(recipe.children, training=training, optimizers=optimizers)
    )
    workspace = Workspace(tmp_path, recipe)
    for planned in plan_members(recipe):
        train_member(workspace, planned)
    heads = {f"pt-0/ft-{child}": metrics_of(tmp_path, f"pt-0/ft-{child}")[0].weights_id for child in range(8)}
    by_cell: dict[tuple[object, int], set[str | None]] = {}
    for planned in plan_members(recipe)[1:]:
        by_cell.setdefault((planned.head, planned.replicate), set()).add(heads[str(planned.id)])
    assert len(by_cell) == 4
    assert all(len(same) == 1 for same in by_cell.values())
    assert len(set(heads.values())) == 4


@pytest.mark.parametrize("member", ["pt-0", "pt-2", "pt-0/ft-1", "pt-2/ft-0"])
@pytest.mark.parametrize("epoch", [0, 2])
def test_recorded_figures_are_measured_again_to_the_last_bit(member: str, epoch: int, tiny_zoo: Path) -> None:
    record, figures = record_of(tiny_zoo, member), metrics_of(tiny_zoo, member)[epoch]
    images = load_images(record.dataset)
    model = VitZooModel.from_pretrained(tiny_zoo / member, epoch=epoch)
    assert record.n_train_evaluated is not None
    splits = {"train": images.train.evenly(record.n_train_evaluated), "val": images.val, "test": images.test}
    measured = {
        part: evaluate(model, split, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)) for part, split in splits.items()
    }
    for part, evaluation in measured.items():
        if member == "pt-2":
            assert getattr(figures, f"{part}_accuracy") is None
            if part != "train":
                assert getattr(figures, f"{part}_knn_accuracy") == knn_accuracy(measured["train"], evaluation)
            continue
        assert getattr(figures, f"{part}_accuracy") == evaluation.accuracy
        assert getattr(figures, f"{part}_loss") == evaluation.loss
    if member != "pt-2":
        assert figures.val_knn_accuracy is figures.test_knn_accuracy is None


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_contrastive_loss_is_that_of_the_views_that_every_member_shares(part: str, tiny_zoo: Path) -> None:
    planned, split = planned_of("pt-2"), getattr(load_images("digits-0-5"), part)
    split = split.evenly(64) if part == "train" else split
    model = VitZooModel.from_pretrained(tiny_zoo / "pt-2").eval()
    losses = []
    order = permutation(0, epoch=0, count=len(split))  # shuffled: files may be sorted by class
    for chosen in order.split(64)[: len(split) // 64]:  # whole batches, as in training
        views = [
            augment(
                torch.from_numpy(split.images)[chosen],
                planned.training.augmentation,
                Draw(seed=0, epoch=0, samples=chosen, view=view, stream=Stream.EVALUATION),
                mean=(0.5, 0.5, 0.5),
                std=(0.5, 0.5, 0.5),
            )
            for view in (0, 1)
        ]
        with torch.no_grad():
            units = functional.normalize(model(pixel_values=torch.cat(views)).logits.double())
        scores = (units @ units.T / 0.2).exp().fill_diagonal_(0)
        pairs = torch.cat([scores.diagonal(64), scores.diagonal(-64)])
        losses.append(-(pairs / scores.sum(1)).log().mean())
    assert len(losses) == {"train": 1, "val": 3, "test": 3}[part]
    recorded = getattr(metrics_of(tiny_zoo, "pt-2")[-1], f"{part}_loss")
    assert recorded == pytest.approx(float(torch.stack(losses).mean()), rel=1e-6)


@pytest.mark.parametrize(("member", "share"), [("pt-0", 0.8), ("pt-2", 0.95)])
def test_training_teaches_something(member: str, share: float, tiny_zoo: Path) -> None:
    first, *_, last = metrics_of(tiny_zoo, member)
    assert first.train_loss is not None
    assert last.train_loss is not None
    assert last.train_loss < share * first.train_loss


def test_records_say_nothing_of_the_machine_its_user_or_the_time(tiny_zoo: Path) -> None:
    texts = {
        path.relative_to(tiny_zoo).as_posix(): path.read_text()
        for name in ("member.json", "metrics.jsonl", "zoo.json", "config.json", "preprocessor_config.json")
        for path in tiny_zoo.rglob(name)
    }
    assert len(texts) == 4 * len(MEMBERS) + 1
    secrets = [socket.gethostname(), str(Path.home()), str(tiny_zoo), str(Path.cwd()), "/tmp/"]
    if len(getpass.getuser()) > 4:  # "root" is a word of its own
        secrets.append(getpass.getuser())
    for name, text in texts.items():
        for secret in secrets:
            assert secret not in text, (name, secret)
        for value in strings(json.loads(text if name.endswith(".json") else f"[{','.join(text.splitlines())}]")):
            assert not value.startswith(("/", "~", "C:\\")), (name, value)
            assert re.search(r"\d{4}-\d\d-\d\d|\d\d:\d\d", value) is None, (name, value)
    for value in (json_files.as_json(record_of(tiny_zoo, "pt-0")), texts["pt-0/metrics.jsonl"]):
        assert not any(word in json.dumps(value) for word in ("time", "finished_at", "seconds", "hostname"))
    timing = [json.loads(line) for line in (tiny_zoo / "pt-0" / "timing.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in timing] == [0, 1, 2]
    assert timing[0]["finished_at"] <= timing[1]["finished_at"] <= timing[2]["finished_at"]


def strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


def test_a_finished_member_is_not_trained_again(tiny_copy: Path) -> None:
    workspace = Workspace(tiny_copy, tiny())
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (tiny_copy / "pt-0").rglob("*")}
    with workspace.hold(MemberId(0)) as work:
        work.resume_file.write_bytes(b"left over")
    reports: list[Report] = []
    train_member(workspace, planned_of("pt-0"), report=reports.append)
    assert reports == []
    after = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (tiny_copy / "pt-0").rglob("*")}
    assert after == before
    assert workspace.work_folder(MemberId(0)) is None


def epochs_of(reports: list[Report]) -> list[int]:
    """The epochs that were said to be finished."""
    return [report.epoch for report in reports if not report.step]


def unfinished(workspace: Workspace, planned: PlannedMember) -> Path:
    """The folder of a member while it is trained."""
    work = workspace.work_folder(planned.id)
    assert work is not None
    return work / "member"


class Interrupted(Exception):
    """What a test raises out of a report."""


@pytest.mark.parametrize("member", ["pt-0", "pt-2", "pt-1/ft-1"])
@pytest.mark.parametrize("stops", [(0,), (1,), (2,), (0, 1, 2)])
def test_interrupted_after_an_epoch_it_ends_with_the_same_bytes(
    member: str, stops: tuple[int, ...], tiny_copy: Path, tiny_zoo: Path
) -> None:
    shutil.rmtree(tiny_copy / member)
    workspace, planned = Workspace(tiny_copy, tiny()), planned_of(member)
    for stop in stops:

        def report(report: Report, *, stop: int = stop) -> None:
            if (report.epoch, report.step) == (stop, 0):
                raise Interrupted

        with pytest.raises(Interrupted):
            train_member(workspace, planned, report=report)
        assert not (tiny_copy / member).exists()
        work = workspace.work_folder(planned.id)
        assert work is not None
        assert (work / "resume.safetensors").is_file()
    reports: list[Report] = []
    train_member(workspace, planned, report=reports.append)
    assert epochs_of(reports) == list(range(stops[-1], 3))  # it went on where it stood
    assert content(tiny_copy / member) == content(tiny_zoo / member)
    assert {path.name for path in (tiny_copy / member).iterdir() if path.is_file()} == FILES
    timing = (tiny_copy / member / "timing.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in timing] == [0, 1, 2]
    assert workspace.work_folder(planned.id) is None
    assert workspace.holder(planned.id) is None


def test_a_damaged_resume_state_starts_anew_and_ends_with_the_same_bytes(tiny_copy: Path, tiny_zoo: Path) -> None:
    shutil.rmtree(tiny_copy / "pt-1" / "ft-0")
    workspace, planned = Workspace(tiny_copy, tiny()), planned_of("pt-1/ft-0")

    def report(report: Report) -> None:
        if (report.epoch, report.step) == (1, 0):
            raise Interrupted

    with pytest.raises(Interrupted):
        train_member(workspace, planned, report=report)
    weights = unfinished(workspace, planned) / "model.epoch-01.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    reports: list[Report] = []
    train_member(workspace, planned, report=reports.append)
    assert epochs_of(reports) == [0, 1, 2]
    assert content(tiny_copy / "pt-1" / "ft-0") == content(tiny_zoo / "pt-1" / "ft-0")


@pytest.mark.parametrize(
    ("keep", "kept"), [("all", [0, 1, 2]), ("every-2", [0, 2]), ("last-2", [1, 2]), ("last", [2]), ("every-5", [0, 2])]
)
def test_the_epochs_that_are_kept(keep: str, kept: list[int], tiny_copy: Path, tiny_zoo: Path) -> None:
    """The others' weights go, and nothing else: also where training was interrupted after each epoch."""
    shutil.rmtree(tiny_copy / "pt-1" / "ft-0")
    workspace, planned = Workspace(tiny_copy, tiny()), planned_of("pt-1/ft-0")
    execution = Execution(keep=Retention(keep))
    for stop in range(3):

        def report(report: Report, *, stop: int = stop) -> None:
            if (report.epoch, report.step) == (stop, 0):
                raise Interrupted

        with pytest.raises(Interrupted):
            train_member(workspace, planned, execution=execution, report=report)
    record = train_member(workspace, planned, execution=execution)
    assert record.saved_epochs == kept
    weights = {f"model.epoch-0{epoch}.safetensors" for epoch in kept}
    files = {path.name for path in (tiny_copy / "pt-1" / "ft-0").iterdir()}
    assert files == {name for name in FILES if "epoch-" not in name} | weights
    assert metrics_of(tiny_copy, "pt-1/ft-0") == metrics_of(tiny_zoo, "pt-1/ft-0")
    for name in (*weights, "model.safetensors"):
        assert (tiny_copy / "pt-1/ft-0" / name).read_bytes() == (tiny_zoo / "pt-1/ft-0" / name).read_bytes()


def test_what_a_kill_left_behind_does_not_stay(tiny_copy: Path, tiny_zoo: Path) -> None:
    """Weights that no record names: not yet deleted, or written before the state that would name them."""
    shutil.rmtree(tiny_copy / "pt-1" / "ft-0")
    workspace, planned = Workspace(tiny_copy, tiny()), planned_of("pt-1/ft-0")

    def report(report: Report) -> None:
        if (report.epoch, report.step) == (1, 0):
            raise Interrupted

    execution = Execution(keep=Retention("last"))
    with pytest.raises(Interrupted):
        train_member(workspace, planned, execution=execution, report=report)
    folder = unfinished(workspace, planned)
    for name in ("model.epoch-00.safetensors", "model.epoch-02.safetensors", ".model.epoch-02.safetensors.partial"):
        (folder / name).write_bytes(b"left over")
    train_member(workspace, planned, execution=execution)
    files = {path.name for path in (tiny_copy / "pt-1" / "ft-0").iterdir()}
    assert files == {name for name in FILES if "epoch-" not in name} | {"model.epoch-02.safetensors"}
    name = "pt-1/ft-0/model.safetensors"
    assert (tiny_copy / name).read_bytes() == (tiny_zoo / name).read_bytes()


def test_another_code_or_machine_begins_anew_and_says_why(tiny_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(tiny_copy / "pt-1" / "ft-0")
    workspace, planned = Workspace(tiny_copy, tiny()), planned_of("pt-1/ft-0")

    def report(report: Report) -> None:
        if (report.epoch, report.step) == (1, 0):
            raise Interrupted

    with pytest.raises(Interrupted):
        train_member(workspace, planned, execution=Execution(accumulation=2), report=report)
    reports: list[Report] = []
    train_member(workspace, planned, report=reports.append)
    assert epochs_of(reports) == [0, 1, 2]
    assert "pt-1.ft-0: 1 finished epochs restart" in caplog.text
    assert "accumulation was 2, now 1." in caplog.text


def test_a_child_waits_for_the_parent_whose_hash_it_is_handed(tiny_copy: Path, tiny_zoo: Path) -> None:
    """As where another machine has written it and this one does not see it yet."""
    shutil.rmtree(tiny_copy / "pt-1" / "ft-0")
    parent = tiny_copy / "pt-1"
    sha256 = record_of(tiny_copy, "pt-1").final_weights.sha256
    parent.rename(tiny_copy / "later")
    workspace = Workspace(tiny_copy, tiny())
    appears = threading.Timer(0.5, lambda: (tiny_copy / "later").rename(parent))
    appears.start()
    train_member(workspace, planned_of("pt-1/ft-0"), parent_sha256=sha256)
    appears.join()
    assert content(tiny_copy / "pt-1" / "ft-0") == content(tiny_zoo / "pt-1" / "ft-0")


def test_a_parent_with_another_hash_than_handed_is_refused(tiny_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(tiny_copy / "pt-1" / "ft-0")
    workspace, planned = Workspace(tiny_copy, tiny()), planned_of("pt-1/ft-0")
    message = (
        r"^pt-1/ft-0 starts from pt-1 with weights of sha256 f+, but in .* it has [0-9a-f]{64}: it was trained again"
    )
    with pytest.raises(TrainingError, match=message):
        train_member(workspace, planned, parent_sha256="f" * 64)
    monkeypatch.setattr("training.member.start._PATIENCE", 0.2)
    (tiny_copy / "pt-1").rename(tiny_copy / "away")
    with pytest.raises(
        TrainingError, match=r"pt-1/ft-0 starts from pt-1, which is not finished in .*\. Train pt-1 first"
    ):
        train_member(workspace, planned, parent_sha256="f" * 64)
    assert workspace.holder(planned.id) is None


def test_a_member_that_another_process_holds_is_left_to_it(tiny_copy: Path) -> None:
    shutil.rmtree(tiny_copy / "pt-1" / "ft-0")
    workspace, planned = Workspace(tiny_copy, tiny()), planned_of("pt-1/ft-0")
    with workspace.hold(planned.id), pytest.raises(LeaseHeld, match=r"pt-1\.ft-0 is held by process \d+ on "):
        train_member(workspace, planned)
    assert train_member(workspace, planned).status == "completed"


def test_a_process_that_was_taken_for_dead_leaves_the_member_to_the_other(tiny_copy: Path, tiny_zoo: Path) -> None:
    shutil.rmtree(tiny_copy / "pt-1" / "ft-0")
    workspace, planned = Workspace(tiny_copy, tiny()), planned_of("pt-1/ft-0")

    def taken_over(report: Report) -> None:
        if (report.epoch, report.step) == (1, 0):
            work = workspace.work_folder(planned.id)
            assert work is not None
            work.rename(work.with_name("pt-1.ft-0@another"))

    with pytest.raises(LeaseLost):
        train_member(workspace, planned, report=taken_over)
    assert not (tiny_copy / "pt-1" / "ft-0").exists()
    reports: list[Report] = []
    train_member(workspace, planned, report=reports.append)
    assert epochs_of(reports) == [1, 2]  # from what the other had taken over
    assert content(tiny_copy / "pt-1" / "ft-0") == content(tiny_zoo / "pt-1" / "ft-0")


def test_a_parent_of_another_recipe_is_refused(tiny_copy: Path, tmp_path: Path) -> None:
    other = parent_alone(epochs=1)
    train_member(Workspace(tmp_path / "other", other), plan_members(other)[0])
    shutil.rmtree(tiny_copy / "pt-0")
    shutil.copytree(tmp_path / "other" / "pt-0", tiny_copy / "pt-0")
    message = r"pt-0/ft-0 starts from pt-0, but that of .* is another recipe's: its epochs is 1, the recipe says 2"
    with pytest.raises(TrainingError, match=message):
        train_member(Workspace(tiny_copy, tiny()), planned_of("pt-0/ft-0"))


def test_bf16_is_of_the_forward_pass_alone(tmp_path: Path, tiny_zoo: Path) -> None:
    recipe = parent_alone(precision="bf16")
    record = train_member(Workspace(tmp_path / "zoo", recipe), plan_members(recipe)[0])
    assert record.precision == "bf16"
    weights = load_file(tmp_path / "zoo" / "pt-0" / "model.safetensors")
    assert {str(tensor.dtype) for tensor in weights.values()} == {"float32"}
    exact = load_file(tiny_zoo / "pt-0" / "model.safetensors")
    distances = [float(np.abs(weights[name] - exact[name]).max()) for name in exact]
    assert 0 < max(distances) < 0.05
    pairs = zip(metrics_of(tmp_path / "zoo", "pt-0"), metrics_of(tiny_zoo, "pt-0"), strict=True)
    for rounded, other in pairs:
        assert rounded.test_loss == pytest.approx(other.test_loss, rel=0.05)
        assert rounded.test_loss != other.test_loss
    member = Zoo(tmp_path / "zoo")["pt-0"]
    assert member.evaluate().loss == member.metrics_at().test_loss  # measured as it was trained


def test_where_links_are_refused_the_final_weights_are_a_copy(
    tmp_path: Path, tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError("no links on this file system")

    monkeypatch.setattr("os.link", refuse)
    train_member(Workspace(tmp_path, tiny()), planned_of("pt-0"))
    assert not (tmp_path / "pt-0" / "model.safetensors").samefile(tmp_path / "pt-0" / "model.epoch-02.safetensors")
    assert content(tmp_path / "pt-0") == content(tiny_zoo / "pt-0")


def test_a_child_without_its_parent_is_refused(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, tiny())
    with pytest.raises(
        TrainingError, match=r"pt-1/ft-0 starts from pt-1, which is not finished in .*\. Train pt-1 first"
    ):
        train_member(workspace, planned_of("pt-1/ft-0"))
    assert not (tmp_path / "pt-1").exists()


def test_a_parent_whose_weights_were_altered_is_refused(tiny_copy: Path) -> None:
    shutil.rmtree(tiny_copy / "pt-1" / "ft-0")
    weights = tiny_copy / "pt-1" / "model.safetensors"
    altered = bytearray(weights.read_bytes())
    altered[-2] ^= 1
    weights.unlink()
    weights.write_bytes(altered)
    with pytest.raises(WeightsError, match="pt-1"):
        train_member(Workspace(tiny_copy, tiny()), planned_of("pt-1/ft-0"))
    assert not (tiny_copy / "pt-1" / "ft-0").exists()


def parent_alone(**changes: object) -> Recipe:
    recipe = tiny()
    parent = recipe.parents[0]
    head = changes.pop("head", parent.head)
    training = replace(parent.training, **changes)  # type: ignore[arg-type]
    return replace(recipe, parents=(replace(parent, training=training, head=head, replicates=0),))  # type: ignore[arg-type]


def of_sixteen_pixels(preprocessing: Preprocessing, augmentation: Augmentation) -> Recipe:
    """A model of 16 x 16 pixels for images of 8 x 8; of one parent, without children."""
    recipe = tiny()
    parent = recipe.parents[0]
    dataset = replace(parent.training.dataset, preprocessing=preprocessing)
    training = replace(parent.training, dataset=dataset, augmentation=augmentation)
    return replace(
        recipe,
        architecture=replace(recipe.architecture, image_size=16),
        parents=(replace(parent, training=training, replicates=0),),
        children=replace(recipe.children, training=training),
    )


def test_images_of_sixteen_pixels_are_made_of_eight(tmp_path: Path) -> None:
    recipe = of_sixteen_pixels(Preprocessing(resize=16), Augmentation(resize=16))
    record = train_member(Workspace(tmp_path / "zoo", recipe), plan_members(recipe)[0])
    assert record.status == "completed"
    member = Zoo(tmp_path / "zoo")["pt-0"]
    assert member.evaluate().loss == member.metrics_at().test_loss


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            parent_alone(dataset=replace(tiny().parents[0].training.dataset, train_images=648)),
            "pt-0: the recipe says 648 training images of digits-0-5, there are 649. Fix the recipe",
        ),
        (
            parent_alone(head=Head(outputs=7)),
            "pt-0: the recipe's head has 7 outputs, digits-0-5 has 6 classes. Fix the recipe.",
        ),
        (
            of_sixteen_pixels(Preprocessing(), Augmentation()),
            "8 x 8 pixels, the model takes 16 x 16. Give the recipe's preprocessing a resize or a crop.",
        ),
        (
            of_sixteen_pixels(Preprocessing(resize=16), Augmentation()),
            "8 x 8 pixels, the model takes 16 x 16. Give the recipe's augmentation a resize or a crop.",
        ),
        (
            of_sixteen_pixels(Preprocessing(resize=16), Augmentation(random_crop=16)),
            "random_crop is 16, but the images of digits-0-5 are 8 x 8 pixels. Resize them first",
        ),
    ],
)
def test_data_that_are_not_the_recipes_are_refused(recipe: Recipe, message: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=re.escape(message)):
        train_member(Workspace(tmp_path, recipe), plan_members(recipe)[0])
    assert not (tmp_path / "pt-0").exists()


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({}, 1),  # the first step's loss is sound; the second's is that of the damage it did
        ({"batch_size": 649}, 1),  # one step an epoch: only the figures after it show the damage
    ],
)
def test_a_loss_that_is_no_longer_finite_is_an_outcome(changes: dict[str, object], step: int, tmp_path: Path) -> None:
    optimizer = Optimizer(name="sgd", learning_rate=1e18, momentum=0.9)
    recipe = parent_alone(optimizer=optimizer, mixing=Mixing(), **changes)
    workspace, planned = Workspace(tmp_path, recipe), plan_members(recipe)[0]
    reports: list[Report] = []
    record = train_member(workspace, planned, report=reports.append)
    assert epochs_of(reports) == [0]
    assert (record.status, record.diverged_step, record.last_good_epoch) == ("diverged", step, 0)
    assert (record.epochs, record.steps) == (planned.training.epochs, planned.training.steps)
    assert [weights.epoch for weights in record.weights] == [0]
    assert describe_divergence(record).startswith(
        f"its loss was not finite after step {step} of {planned.training.steps}, at a peak learning rate of 1e+18 "
    )
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "pt-0").iterdir()}
    assert train_member(workspace, planned) == record  # never again
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "pt-0").iterdir()} == before
    with pytest.raises(EpochNotFoundError, match="diverged"):
        VitZooModel.from_pretrained(tmp_path / "pt-0")
    assert VitZooModel.from_pretrained(tmp_path / "pt-0", epoch=0).config.num_labels == 6


def test_the_environment_changes_no_precision(tmp_path: Path, tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    workspace = Workspace(tmp_path / "zoo", tiny())
    train_member(workspace, plan_member(tiny(), MemberId(0)))
    name = layout.weights_file(MemberId(0))
    assert (tmp_path / "zoo" / name).read_bytes() == (tiny_zoo / name).read_bytes()
