"""The training of one member: its files, its records, and interruptions at any epoch."""

import getpass
import hashlib
import json
import re
import shutil
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch.nn import functional

from tests.images.oracles import augment
from tests.tiny import MEMBER_FILES, tiny
from training.lease import LeaseHeld, LeaseLost
from training.member.checkpoint import encode_weights
from training.member.execution import Execution
from training.member.record import describe_divergence
from training.member.report import Report
from training.member.start import build_model, saved_tensors
from training.member.train import train_member
from training.random import Draw, Stream, permutation
from training.recipes.augmentation import Augmentation
from training.recipes.plan import PlannedMember, plan_member, plan_members
from training.recipes.recipe import Head, Recipe
from training.recipes.retention import Retention
from training.recipes.training import Mixing, Optimizer
from training.workspace import Workspace, flat, work_root
from vitzoo import architectures, records
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
FILES = MEMBER_FILES | {"preprocessor_config.json"}


def work_folder(workspace: Workspace, member: MemberId) -> Path | None:
    """Return the folder of a member's unfinished work."""
    return next(work_root(workspace.root).glob(f"{flat(member)}@*"), None)


def planned_of(member: str) -> PlannedMember:
    return plan_member(tiny(), MemberId.parse(member))


def record_of(zoo: Path, member: str) -> records.MemberRecord:
    return records.load_member_record(zoo / layout.member_file(MemberId.parse(member)))


def metrics_of(zoo: Path, member: str) -> list[records.EpochRecord]:
    return records.load_epoch_records(zoo / layout.metrics_file(MemberId.parse(member)))


def weights_of(zoo: Path, member: str, epoch: int | None = None) -> dict[str, np.ndarray]:
    return load_file(zoo / layout.weights_file(MemberId.parse(member), epoch))


def content(folder: Path) -> dict[str, bytes]:
    """Return the bytes of a member's files, without timing.jsonl."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "timing.jsonl"}


def is_head(name: str) -> bool:
    return name.startswith("classifier.")


@pytest.mark.parametrize("member", MEMBERS)
def test_member_folder_has_the_layouts_files_and_the_last_epoch_is_final(member: str, tiny_zoo: Path) -> None:
    folder = tiny_zoo / member
    assert {path.name for path in folder.iterdir() if path.is_file()} == FILES
    assert (folder / "model.safetensors").read_bytes() == (folder / "model.epoch-02.safetensors").read_bytes()
    assert (folder / "model.safetensors").samefile(folder / "model.epoch-02.safetensors")


@pytest.mark.parametrize("member", MEMBERS)
def test_records_agree_with_the_weights(member: str, tiny_zoo: Path) -> None:
    record, metrics = record_of(tiny_zoo, member), metrics_of(tiny_zoo, member)
    assert [weights.epoch for weights in record.weights] == [0, 1, 2, None]
    for weights in record.weights:
        stored = (tiny_zoo / layout.weights_file(record.member, weights.epoch)).read_bytes()
        assert (weights.size, weights.sha256) == (len(stored), hashlib.sha256(stored).hexdigest())
    start = weights_of(tiny_zoo, member, 0)
    assert record.num_parameters == sum(tensor.size for tensor in start.values())
    for epoch, recorded in enumerate(metrics):
        tensors = weights_of(tiny_zoo, member, epoch)
        norm = np.sqrt(sum(np.square(tensor, dtype=np.float64).sum() for tensor in tensors.values()))
        moved = {name: tensor.astype(np.float64) - start[name] for name, tensor in tensors.items()}
        distance = np.sqrt(sum(np.square(tensor).sum() for tensor in moved.values()))
        assert recorded.weight_norm == pytest.approx(norm, rel=1e-12)
        assert recorded.distance_from_start == pytest.approx(distance, rel=1e-12)
        assert (recorded.distance_from_start == 0) == (epoch == 0)
        parts = {
            name: f"{name} F32 {list(tensor.shape)} {hashlib.sha256(tensor.tobytes()).hexdigest()}\n".encode()
            for name, tensor in tensors.items()
        }
        assert recorded.weights_id == hashlib.sha256(b"".join(parts[name] for name in sorted(parts))).hexdigest()
        backbone = [parts[name] for name in sorted(parts) if not is_head(name)]
        assert recorded.backbone_id == hashlib.sha256(b"".join(backbone)).hexdigest()


@pytest.mark.parametrize("member", MEMBERS)
def test_records_agree_with_the_plan(member: str, tiny_zoo: Path) -> None:
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


def test_init_groups_and_gaps_follow_their_definitions(tiny_zoo: Path) -> None:
    rows = build_tables(FolderSource(tiny_zoo))["members"].to_pylist()
    groups = {row["id"]: row["init_group"] for row in rows}
    assert groups["pt-0"] == groups["pt-1"] == groups["pt-0/ft-3"] != groups["pt-2"]
    for row in rows:
        final = metrics_of(tiny_zoo, row["id"])[-1]
        gap = None if row["head_role"] == "embedding" else (final.train_accuracy or 0) - (final.test_accuracy or 0)
        assert row["gap"] == gap


def test_members_of_one_initialisation_start_equal_and_differ_afterwards(tiny_zoo: Path) -> None:
    zero, one, two = (metrics_of(tiny_zoo, member) for member in ("pt-0", "pt-1", "pt-2"))
    assert zero[0].weights_id == one[0].weights_id
    assert zero[1].weights_id != one[1].weights_id
    assert zero[0].backbone_id != two[0].backbone_id


@pytest.mark.parametrize("member", [member for member in MEMBERS if "/" in member])
def test_child_starts_from_its_parents_final_backbone_under_a_fresh_head(member: str, tiny_zoo: Path) -> None:
    child, parent = weights_of(tiny_zoo, member, 0), weights_of(tiny_zoo, member.split("/")[0])
    backbone = [name for name in child if not is_head(name)]
    assert sorted(backbone) == sorted(name for name in parent if not is_head(name))
    for name in backbone:
        assert child[name].tobytes() == parent[name].tobytes()
    assert metrics_of(tiny_zoo, member)[0].backbone_id == metrics_of(tiny_zoo, member.split("/")[0])[-1].backbone_id
    assert all(not np.array_equal(child[n], parent.get(n)) for n in child if is_head(n))  # type: ignore[arg-type]


def test_siblings_of_one_head_and_seed_start_with_equal_weights(tiny_zoo: Path) -> None:
    recipe = tiny()
    optimizers = (Optimizer(name="sgd", learning_rate=0.05, momentum=0.9), Optimizer(name="adamw", learning_rate=1e-3))
    recipe = replace(recipe, children=replace(recipe.children, optimizers=optimizers))
    children = [planned for planned in plan_members(recipe) if str(planned.id).startswith("pt-0/")]
    weights = saved_tensors(VitZooModel.from_pretrained(tiny_zoo / "pt-0"))
    backbone = {name: tensor for name, tensor in weights.items() if not architectures.is_head(name)}
    first_weights: dict[tuple[object, int], set[str]] = {}
    for planned in children:
        model = build_model(planned, tuple("abcd"), first=backbone)
        weights_id = encode_weights(model.state_dict()).weights_id
        first_weights.setdefault((planned.head, planned.replicate), set()).add(weights_id)
    assert (len(children), len(first_weights)) == (8, 4)
    assert all(len(same) == 1 for same in first_weights.values())
    assert len(set.union(*first_weights.values())) == 4


@pytest.mark.parametrize(("member", "epoch"), [("pt-0", 0), ("pt-2", 2), ("pt-0/ft-1", 2)])
def test_evaluate_gives_the_recorded_metrics_to_the_last_bit(member: str, epoch: int, tiny_zoo: Path) -> None:
    record, recorded = record_of(tiny_zoo, member), metrics_of(tiny_zoo, member)[epoch]
    assert record.dataset is not None
    images = load_images(record.dataset)
    model = VitZooModel.from_pretrained(tiny_zoo / member, epoch=epoch)
    assert record.n_train_evaluated is not None
    splits = {"train": images.train.evenly(record.n_train_evaluated), "val": images.val, "test": images.test}
    measured = {
        part: evaluate(model, split, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)) for part, split in splits.items()
    }
    for part, evaluation in measured.items():
        if member == "pt-2":
            assert getattr(recorded, f"{part}_accuracy") is None
            if part != "train":
                assert getattr(recorded, f"{part}_knn_accuracy") == knn_accuracy(measured["train"], evaluation)
            continue
        assert getattr(recorded, f"{part}_accuracy") == evaluation.accuracy
        assert getattr(recorded, f"{part}_loss") == evaluation.loss
    if member != "pt-2":
        assert recorded.val_knn_accuracy is recorded.test_knn_accuracy is None


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_contrastive_loss_is_measured_on_views_that_every_member_shares(part: str, tiny_zoo: Path) -> None:
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
def test_training_lowers_the_loss(member: str, share: float, tiny_zoo: Path) -> None:
    first, *_, last = metrics_of(tiny_zoo, member)
    assert first.train_loss is not None
    assert last.train_loss is not None
    assert last.train_loss < share * first.train_loss


def test_records_do_not_name_the_machine_its_user_or_the_time(tiny_zoo: Path) -> None:
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


def test_finished_member_is_not_trained_again(tiny_copy: Path) -> None:
    workspace = Workspace(tiny_copy, tiny())
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (tiny_copy / "pt-0").rglob("*")}
    with workspace.hold(MemberId(0)) as work:
        work.resume_file.write_bytes(b"left over")
    reports: list[Report] = []
    train_member(workspace, planned_of("pt-0"), report=reports.append)
    assert reports == []
    after = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (tiny_copy / "pt-0").rglob("*")}
    assert after == before
    assert work_folder(workspace, MemberId(0)) is None


def epochs_of(reports: list[Report]) -> list[int]:
    """Return the epochs that were reported as finished."""
    return [report.epoch for report in reports if not report.step]


class Interrupted(Exception):
    """A report of this test interrupted the training."""


def train_until(epoch: int, workspace: Workspace, planned: PlannedMember, **options: Any) -> Path:
    """Train a member and interrupt it after an epoch. Return the folder of its work."""

    def report(report: Report) -> None:
        if (report.epoch, report.step) == (epoch, 0):
            raise Interrupted

    with pytest.raises(Interrupted):
        train_member(workspace, planned, report=report, **options)
    work = work_folder(workspace, planned.id)
    assert work is not None
    return work


Child = tuple[Workspace, PlannedMember, Path]


@pytest.fixture
def child(tiny_copy: Path) -> Child:
    """Return a copy of the tiny zoo without pt-1/ft-0, the plan of that member, and the path of its folder."""
    folder = tiny_copy / "pt-1" / "ft-0"
    shutil.rmtree(folder)
    return Workspace(tiny_copy, tiny()), planned_of("pt-1/ft-0"), folder


@pytest.mark.parametrize(("member", "stops"), [("pt-0", (0, 1, 2)), ("pt-2", (1,)), ("pt-1/ft-1", (0, 1, 2))])
def test_member_interrupted_after_epochs_ends_with_the_same_bytes(
    member: str, stops: tuple[int, ...], tiny_copy: Path, tiny_zoo: Path
) -> None:
    shutil.rmtree(tiny_copy / member)
    workspace, planned = Workspace(tiny_copy, tiny()), planned_of(member)
    for stop in stops:
        work = train_until(stop, workspace, planned)
        assert not (tiny_copy / member).exists()
        assert (work / "resume.safetensors").is_file()
    reports: list[Report] = []
    train_member(workspace, planned, report=reports.append)
    assert epochs_of(reports) == list(range(stops[-1], 3))  # it resumed from the last finished epoch
    assert content(tiny_copy / member) == content(tiny_zoo / member)
    assert {path.name for path in (tiny_copy / member).iterdir() if path.is_file()} == FILES
    timing = (tiny_copy / member / "timing.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in timing] == [0, 1, 2]
    assert work_folder(workspace, planned.id) is None
    assert workspace.holder(planned.id) is None


def test_member_with_damaged_weights_restarts_and_ends_with_the_same_bytes(child: Child, tiny_zoo: Path) -> None:
    workspace, planned, folder = child
    weights = train_until(1, workspace, planned) / "member" / "model.epoch-01.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    reports: list[Report] = []
    train_member(workspace, planned, report=reports.append)
    assert epochs_of(reports) == [0, 1, 2]
    assert content(folder) == content(tiny_zoo / "pt-1" / "ft-0")


@pytest.mark.parametrize(("keep", "kept"), [("every-2", [0, 2]), ("last", [2])])
def test_retention_deletes_the_weights_of_other_epochs_alone(
    keep: str, kept: list[int], child: Child, tiny_zoo: Path
) -> None:
    """Also where training was interrupted after each epoch, and a killed process left files behind."""
    workspace, planned, folder = child
    execution = Execution(keep=Retention(keep))
    for stop in range(3):
        work = train_until(stop, workspace, planned, execution=execution)
        for name in ("model.epoch-09.safetensors", ".model.epoch-02.safetensors.partial"):
            (work / "member" / name).write_bytes(b"left over")
    record = train_member(workspace, planned, execution=execution)
    assert record.saved_epochs == kept
    weights = {f"model.epoch-0{epoch}.safetensors" for epoch in kept}
    files = {path.name for path in folder.iterdir()}
    assert files == {name for name in FILES if "epoch-" not in name} | weights
    trained = tiny_zoo / "pt-1" / "ft-0"
    for name in (*weights, "model.safetensors", "metrics.jsonl"):
        assert (folder / name).read_bytes() == (trained / name).read_bytes()


def test_member_of_another_execution_restarts_with_a_warning(child: Child, caplog: pytest.LogCaptureFixture) -> None:
    workspace, planned, _ = child
    train_until(1, workspace, planned, execution=Execution(accumulation=2))
    reports: list[Report] = []
    train_member(workspace, planned, report=reports.append)
    assert epochs_of(reports) == [0, 1, 2]
    assert "pt-1.ft-0: 1 finished epochs restart" in caplog.text
    assert "accumulation was 2, now 1." in caplog.text


def test_child_waits_for_the_parent_of_the_given_hash(child: Child, tiny_zoo: Path) -> None:
    """As where another machine has written it and this one does not see it yet."""
    workspace, planned, folder = child
    parent, later = folder.parent, workspace.root / "later"
    sha256 = record_of(workspace.root, "pt-1").final_weights.sha256
    parent.rename(later)
    appears = threading.Timer(0.5, lambda: later.rename(parent))
    appears.start()
    train_member(workspace, planned, parent_sha256=sha256)
    appears.join()
    assert content(folder) == content(tiny_zoo / "pt-1" / "ft-0")


def test_child_refuses_a_parent_of_another_hash_or_none(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, planned, folder = child
    with pytest.raises(TrainingError) as error:
        train_member(workspace, planned, parent_sha256="f" * 64)
    assert error.value.problem.startswith("pt-1/ft-0 starts from pt-1, which has weights of sha256 ")
    assert (error.value.expected or "").startswith("f" * 64)
    monkeypatch.setattr("training.member.record._PATIENCE", 0.2)
    folder.parent.rename(workspace.root / "away")
    for sha256 in ("f" * 64, None):
        with pytest.raises(TrainingError) as error:
            train_member(workspace, planned, parent_sha256=sha256)
        assert "pt-1, which is not finished" in error.value.problem
        assert error.value.fix == "Train pt-1 first."
    assert workspace.holder(planned.id) is None
    assert not folder.parent.exists()


def test_member_held_by_another_process_is_not_trained(child: Child) -> None:
    workspace, planned, _ = child
    with workspace.hold(planned.id), pytest.raises(LeaseHeld, match="is held by process "):
        train_member(workspace, planned)
    assert train_member(workspace, planned).status == "completed"


def test_process_whose_member_was_taken_over_stops(child: Child, tiny_zoo: Path) -> None:
    workspace, planned, folder = child

    def take_over(report: Report) -> None:
        if (report.epoch, report.step) == (1, 0):
            work = work_folder(workspace, planned.id)
            assert work is not None
            work.rename(work.with_name("pt-1.ft-0@another"))

    with pytest.raises(LeaseLost):
        train_member(workspace, planned, report=take_over)
    assert not folder.exists()
    reports: list[Report] = []
    train_member(workspace, planned, report=reports.append)
    assert epochs_of(reports) == [1, 2]  # it resumes from the files that the other took over
    assert content(folder) == content(tiny_zoo / "pt-1" / "ft-0")


def test_child_refuses_a_parent_of_another_recipe(tiny_copy: Path, tmp_path: Path) -> None:
    other = parent_alone(epochs=1)
    train_member(Workspace(tmp_path / "other", other), plan_members(other)[0])
    shutil.rmtree(tiny_copy / "pt-0")
    shutil.copytree(tmp_path / "other" / "pt-0", tiny_copy / "pt-0")
    with pytest.raises(TrainingError) as error:
        train_member(Workspace(tiny_copy, tiny()), planned_of("pt-0/ft-0"))
    assert error.value.problem.startswith("pt-0/ft-0 starts from pt-0, which is another recipe's")
    assert error.value.problem.endswith("its epochs is 1")
    assert error.value.expected == "2"


def test_bf16_member_has_fp32_weights_and_its_own_metrics(tmp_path: Path, tiny_zoo: Path) -> None:
    recipe = parent_alone(precision="bf16", epochs=1)
    record = train_member(Workspace(tmp_path / "zoo", recipe), plan_members(recipe)[0])
    assert record.precision == "bf16"
    weights, exact = weights_of(tmp_path / "zoo", "pt-0"), weights_of(tiny_zoo, "pt-0", 1)
    assert {str(tensor.dtype) for tensor in weights.values()} == {"float32"}
    assert 0 < max(float(np.abs(weights[name] - exact[name]).max()) for name in exact) < 0.05
    member = Zoo(tmp_path / "zoo")["pt-0"]
    assert member.evaluate().loss == member.metrics_at().test_loss  # measured as it was trained


def test_final_weights_are_a_copy_where_links_are_refused(
    tmp_path: Path, tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError("no links on this file system")

    monkeypatch.setattr("os.link", refuse)
    train_member(Workspace(tmp_path, tiny()), planned_of("pt-0"))
    assert not (tmp_path / "pt-0" / "model.safetensors").samefile(tmp_path / "pt-0" / "model.epoch-02.safetensors")
    assert content(tmp_path / "pt-0") == content(tiny_zoo / "pt-0")


def test_child_refuses_a_parent_whose_weights_were_altered(child: Child) -> None:
    workspace, planned, folder = child
    weights = folder.parent / "model.safetensors"
    altered = bytearray(weights.read_bytes())
    altered[-2] ^= 1
    weights.unlink()
    weights.write_bytes(altered)
    with pytest.raises(WeightsError) as error:
        train_member(workspace, planned)
    assert error.value.path == weights
    assert not folder.exists()


def parent_alone(**changes: object) -> Recipe:
    recipe = tiny()
    parent = recipe.parents[0]
    head = changes.pop("head", parent.head)
    training = replace(parent.training, **changes)  # type: ignore[arg-type]
    return replace(recipe, parents=(replace(parent, training=training, head=head, replicates=0),))  # type: ignore[arg-type]


def of_sixteen_pixels(preprocessing: Preprocessing, augmentation: Augmentation) -> Recipe:
    """Return the recipe of one parent without children: a model of 16 x 16 pixels for images of 8 x 8."""
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


def test_member_trains_on_images_resized_to_the_model(tmp_path: Path) -> None:
    recipe = of_sixteen_pixels(Preprocessing(resize=16), Augmentation(resize=16))
    record = train_member(Workspace(tmp_path / "zoo", recipe), plan_members(recipe)[0])
    assert record.status == "completed"
    member = Zoo(tmp_path / "zoo")["pt-0"]
    assert member.evaluate().loss == member.metrics_at().test_loss


@pytest.mark.parametrize(
    ("recipe", "problem", "expected"),
    [
        (
            parent_alone(dataset=replace(tiny().parents[0].training.dataset, train_images=648)),
            "digits-0-5 has 649 training images",
            "648",
        ),
        (parent_alone(head=Head(outputs=7)), "digits-0-5 has 6 classes", "7"),
        (of_sixteen_pixels(Preprocessing(), Augmentation()), "digits-0-5 are 8 x 8 pixels", "16 x 16"),
        (of_sixteen_pixels(Preprocessing(resize=16), Augmentation()), "digits-0-5 are 8 x 8 pixels", "16 x 16"),
        (of_sixteen_pixels(Preprocessing(resize=16), Augmentation(random_crop=16)), "random_crop is 16", "at most 8"),
    ],
)
def test_member_refuses_data_that_differ_from_the_recipe(
    recipe: Recipe, problem: str, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError) as error:
        train_member(Workspace(tmp_path, recipe), plan_members(recipe)[0])
    assert error.value.problem.startswith("pt-0: ")
    assert problem in error.value.problem
    assert (error.value.expected or "").startswith(expected)
    assert not (tmp_path / "pt-0").exists()


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({}, 1),  # the first step's loss is sound; the second's is that of the damage it did
        ({"batch_size": 649}, 1),  # one step an epoch: only the metrics after it show the damage
    ],
)
def test_loss_that_is_not_finite_makes_a_diverged_member(changes: dict[str, object], step: int, tmp_path: Path) -> None:
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


def test_environment_of_accelerate_changes_no_precision(
    tmp_path: Path, tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    workspace = Workspace(tmp_path / "zoo", tiny())
    train_member(workspace, plan_member(tiny(), MemberId(0)))
    name = layout.weights_file(MemberId(0))
    assert (tmp_path / "zoo" / name).read_bytes() == (tiny_zoo / name).read_bytes()
