"""Weights as bytes, the resume state, which is loaded whole or not at all, and the thread that writes both."""

import hashlib
import json
import random
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from training.member.checkpoint import (
    CheckpointThread,
    EncodedWeights,
    HostCopy,
    ResumeState,
    encode_weights,
    load_resume_state,
    load_weights,
    optimizer_tensors,
    restore_optimizer,
    save_resume_state,
    write_weights,
)
from training.member.step import make_optimizer
from training.recipes.training import Optimizer
from vitzoo import records
from vitzoo.ids import MemberId
from vitzoo.models.vit import VitZooModel
from vitzoo.records import layout

ADAMW = Optimizer(name="adamw", learning_rate=1e-2, weight_decay=0.05)
SGD = Optimizer(name="sgd", learning_rate=1e-2, weight_decay=0.05, momentum=0.9)


def file_parts(content: bytes) -> tuple[dict, bytes]:
    """Split a safetensors file into header and data, by its format alone."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def digest(content: bytes, *, head: bool) -> str:
    """Compute the content id from the bytes of a file, by its definition."""
    header, data = file_parts(content)
    result = hashlib.sha256()
    for name in sorted(
        name for name in header if name != "__metadata__" and (head or not name.startswith("classifier."))
    ):
        begin, end = header[name]["data_offsets"]
        of_tensor = hashlib.sha256(data[begin:end]).hexdigest()
        result.update(f"{name} {header[name]['dtype']} {header[name]['shape']} {of_tensor}\n".encode())
    return result.hexdigest()


@pytest.mark.parametrize("member", ["pt-0", "pt-2", "pt-0/ft-1"])
def test_weights_have_names_on_disk_and_one_entry_of_metadata(member: str, tiny_zoo: Path) -> None:
    model = VitZooModel.from_pretrained(tiny_zoo / member)
    encoded = encode_weights(model.state_dict())
    header, data = file_parts(encoded.content)
    assert header["__metadata__"] == {"format": "pt"}
    names = set(header) - {"__metadata__"}
    query = "vit.encoder.layer.0.attention.attention.query.weight"
    assert query in names
    head = {"classifier.fc1", "classifier.fc2"} if member == "pt-0/ft-1" else {"classifier"}
    assert {name.rpartition(".")[0] for name in names if name.startswith("classifier")} == head
    assert {header[name]["dtype"] for name in names} == {"F32"}
    begin, end = header[query]["data_offsets"]
    stored = np.frombuffer(data[begin:end], "<f4").reshape(header[query]["shape"])
    assert np.array_equal(stored, model.state_dict()["vit.layers.0.attention.q_proj.weight"].numpy())
    assert encoded.weights_id == digest(encoded.content, head=True)
    assert encoded.backbone_id == digest(encoded.content, head=False)
    assert encoded.content == (tiny_zoo / member / "model.safetensors").read_bytes()


def test_content_ids_change_with_a_bit_of_the_head_or_the_backbone(tiny_zoo: Path) -> None:
    model = VitZooModel.from_pretrained(tiny_zoo / "pt-0")
    before = encode_weights(model.state_dict())
    with torch.no_grad():
        model.classifier.get_parameter("bias")[0].neg_()
    head = encode_weights(model.state_dict())
    assert (head.weights_id != before.weights_id, head.backbone_id) == (True, before.backbone_id)
    with torch.no_grad():
        model.vit.layernorm.bias[0].sub_(1)
    assert encode_weights(model.state_dict()).backbone_id != before.backbone_id


def test_written_weights_are_loaded_bit_for_bit(tiny_zoo: Path, tmp_path: Path) -> None:
    model = VitZooModel.from_pretrained(tiny_zoo / "pt-0", epoch=1)
    encoded = encode_weights(model.state_dict())
    record = write_weights(tmp_path, encoded, epoch=1)
    content = (tmp_path / "model.epoch-01.safetensors").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    assert record == records.WeightsRecord(epoch=1, size=len(content), sha256=sha256, dtype="float32")
    assert [path.name for path in tmp_path.iterdir()] == ["model.epoch-01.safetensors"]
    other = VitZooModel.from_pretrained(tiny_zoo / "pt-0", epoch=0)
    load_weights(other, tmp_path / "model.epoch-01.safetensors")
    assert encode_weights(other.state_dict()).content == encoded.content


class Saved:
    """A resume state of a small network after some steps, with the tiny zoo's records."""

    def __init__(self, folder: Path, tiny_zoo: Path, optimizer: Optimizer = ADAMW):
        self.folder, self.path = folder / "members" / "pt-0", folder / "resume" / "pt-0.safetensors"
        self.folder.mkdir(parents=True)
        self.path.parent.mkdir()
        self.network = network()
        self.optimizer = make_optimizer(optimizer, self.network)
        steps(self.network, self.optimizer, range(3))
        self.metrics = records.load_epoch_records(tiny_zoo / layout.metrics_file(MemberId(0)))[:2]
        weights = []
        for epoch in range(2):
            content = (tiny_zoo / layout.weights_file(MemberId(0), epoch)).read_bytes()
            encoded = EncodedWeights(content=content, weights_id="", backbone_id="", dtype=torch.float32)
            weights.append(write_weights(self.folder, encoded, epoch=epoch))
        self.state = ResumeState(
            identity={"code": "identity"},
            metrics=self.metrics,
            timings=[
                records.TimingRecord(epoch=0, finished_at=1.5),
                records.TimingRecord(epoch=1, hardware="a Prozeßor"),
            ],
            weights=weights,
        )
        save_resume_state(self.path, self.state, optimizer_tensors(self.optimizer))

    def load(self, code: str = "identity") -> tuple[ResumeState, dict[str, Tensor]] | None:
        return load_resume_state(self.path, self.folder, identity={"code": code})


@pytest.fixture
def saved(tmp_path: Path, tiny_zoo: Path) -> Saved:
    return Saved(tmp_path, tiny_zoo)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 3))


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> None:
    for number in numbers:
        inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(number))
        functional.cross_entropy(model(inputs), torch.arange(8) % 3).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_resume_state_is_loaded_as_saved(saved: Saved) -> None:
    loaded = saved.load()
    assert loaded is not None
    state, tensors = loaded
    assert state == saved.state
    expected = saved.optimizer.state_dict()["state"]
    assert set(tensors) == {f"{i}.{key}" for i in range(4) for key in ("step", "exp_avg", "exp_avg_sq")}
    for name, tensor in tensors.items():
        index, key = name.split(".")
        assert torch.equal(tensor, expected[int(index)][key])
    assert [path.name for path in saved.path.parent.iterdir()] == ["pt-0.safetensors"]


def test_saving_again_replaces_the_resume_state(saved: Saved) -> None:
    save_resume_state(
        saved.path, replace(saved.state, metrics=[], weights=[], timings=[]), optimizer_tensors(saved.optimizer)
    )
    loaded = saved.load()
    assert loaded is not None
    assert loaded[0].metrics == []


@pytest.mark.parametrize(("recipe", "before"), [(ADAMW, 4), (SGD, 4), (SGD, 0), (replace(SGD, momentum=0.0), 4)])
def test_restored_optimizer_continues_with_the_same_bits(
    recipe: Optimizer, before: int, tmp_path: Path, saved: Saved
) -> None:
    model = network()
    optimizer = make_optimizer(recipe, model)
    steps(model, optimizer, range(before))
    save_resume_state(saved.path, saved.state, optimizer_tensors(optimizer))
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    steps(model, optimizer, range(before, before + 5))

    resumed = network()
    resumed.load_state_dict(weights)
    again = make_optimizer(recipe, resumed)
    loaded = saved.load()
    assert loaded is not None
    restore_optimizer(again, loaded[1])
    steps(resumed, again, range(before, before + 5))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    if recipe.momentum != 0.0 and before:  # and without the restored state it would not
        fresh = network()
        fresh.load_state_dict(weights)
        steps(fresh, make_optimizer(recipe, fresh), range(before, before + 5))
        assert not torch.equal(fresh.state_dict()["0.weight"], model.state_dict()["0.weight"])


def test_missing_state_or_other_identity_is_not_loaded(saved: Saved, caplog: pytest.LogCaptureFixture) -> None:
    assert saved.load("another") is None
    assert "finished epochs restart" in caplog.text
    assert "code was identity, now another" in caplog.text
    saved.path.unlink()
    assert saved.load() is None


def test_truncated_state_is_not_loaded(saved: Saved) -> None:
    content = saved.path.read_bytes()
    for size in (0, 7, 8, 100, len(content) // 2, len(content) - 1):
        saved.path.write_bytes(content[:size])
        assert saved.load() is None, size
    saved.path.write_bytes(content + b"\0")
    assert saved.load() is None


def test_state_with_an_altered_byte_is_not_loaded(saved: Saved) -> None:
    content = saved.path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    draw = random.Random(0)
    # Spaces after the header's JSON carry no data, so an altered one may go unnoticed.
    text = len(content[:header].rstrip(b" "))
    places = sorted({*range(0, text, 11), *draw.sample(range(header, len(content)), 30)})
    for place in places:
        altered = bytearray(content)
        altered[place] ^= 1 << draw.randrange(8)
        saved.path.write_bytes(altered)
        assert saved.load() is None, (place, content[max(place - 20, 0) : place + 20])
    saved.path.write_bytes(content)
    assert saved.load() is not None


def test_state_of_other_code_is_not_loaded(saved: Saved) -> None:
    with safe_open(saved.path, "pt") as file:
        metadata = file.metadata()
    saved.path.write_bytes(save({}, metadata={"state": metadata["state"]}))
    assert saved.load() is None
    text = '{"identity": {"code": "identity"}, "epochs": 3}'
    saved.path.write_bytes(save({}, metadata={"state": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}))
    assert saved.load() is None


@pytest.mark.parametrize("epoch", [0, 1])
def test_state_with_missing_or_altered_weights_is_not_loaded(saved: Saved, epoch: int) -> None:
    path = saved.folder / layout.weights_name(epoch)
    content = path.read_bytes()
    assert saved.load() is not None
    for damaged in (content[:-1], content[:-1] + bytes([content[-1] ^ 1]), b""):
        path.write_bytes(damaged)
        assert saved.load() is None
    path.unlink()
    assert saved.load() is None
    path.write_bytes(content)
    assert saved.load() is not None
    shutil.rmtree(saved.folder)
    assert saved.load() is None


def test_jobs_run_in_order_and_one_at_a_time() -> None:
    thread, done, free = CheckpointThread(), [], threading.Semaphore(1)

    def job(number: int) -> None:
        assert free.acquire(blocking=False)
        done.append(number)
        free.release()

    for number in range(20):
        thread.submit(lambda number=number: job(number))
    thread.wait()
    thread.close()
    assert done == list(range(20))


def test_caller_continues_while_a_job_runs() -> None:
    thread, started, go = CheckpointThread(), threading.Event(), threading.Event()

    def job() -> None:
        started.set()
        assert go.wait(30)

    thread.submit(job)
    assert started.wait(30)  # and this thread is here, while the job is not done
    go.set()
    thread.wait()
    thread.close()


@pytest.mark.parametrize("ask", ["submit", "wait"])
def test_error_of_a_job_is_raised_once(ask: str) -> None:
    thread = CheckpointThread()

    def full() -> None:
        raise OSError("No space left on device")

    thread.submit(full)
    with pytest.raises(OSError, match="No space left"):
        thread.wait() if ask == "wait" else thread.submit(lambda: None)
    thread.wait()
    thread.close()


def test_host_copy_keeps_the_values_of_its_moment() -> None:
    weights = torch.arange(6.0).view(2, 3).T  # not contiguous
    copy = HostCopy({"w": weights, "n": torch.tensor(3)})
    weights += 1
    copied = copy.wait()
    assert torch.equal(copied["w"], torch.arange(6.0).view(2, 3).T)
    assert copied["n"].item() == 3
