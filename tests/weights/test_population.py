"""The weights of many members as arrays, compared with safetensors' own reader and with the models."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch

from tests.hub import Hub
from tests.published import REPO, manifest_of, plant, zoo_files
from tests.weights.checkpoints import Tensors, map_tensors, rewrite, weights_of
from vitzoo import MemberId, Zoo
from vitzoo.errors import AuthenticityError, RecordError, SelectionError, UnsafePathError, WeightsError
from vitzoo.records import layout
from vitzoo.weights import reader as reader_module
from vitzoo.weights.index import WeightsIndex
from vitzoo.weights.population import PopulationWeights

QUERY = "vit.encoder.layer.0.attention.attention.query.weight"


def stored(root: Path, weights: PopulationWeights) -> list[dict[str, np.ndarray]]:
    """Read the same files by safetensors."""
    return [load_file(root / layout.weights_file(ref.member, ref.epoch)) for ref in weights.refs]


def assert_state(model: torch.nn.Module, expected: torch.nn.Module) -> None:
    state = model.state_dict()
    assert state.keys() == expected.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.state_dict().items())


class TestTensor:
    @pytest.mark.parametrize("name", [QUERY, "vit.layers.0.attention.q_proj.weight"])
    def test_name_on_disk_or_in_memory(self, tiny_zoo: Path, name: str) -> None:
        weights = weights_of(tiny_zoo, epoch="all")
        found = weights.tensor(name)
        assert (found.shape, found.dtype) == ((33, 16, 16), np.float32)
        assert np.array_equal(found, [tensors[QUERY] for tensors in stored(tiny_zoo, weights)])

    def test_torch(self, tiny_zoo: Path) -> None:
        weights = weights_of(tiny_zoo)
        found = weights.tensor(QUERY, return_tensors="pt", dtype=torch.float64)
        assert torch.equal(found, torch.from_numpy(weights.tensor(QUERY)).double())

    def test_a_tensor_of_some_members_is_refused(self, tiny_zoo: Path) -> None:
        with pytest.raises(WeightsError, match=r"pt-0 has no tensor .*fc1\.bias.*Nearest: classifier") as error:
            weights_of(tiny_zoo).tensor("classifier.fc1.bias")
        assert error.value.path == tiny_zoo / "pt-0/model.safetensors"
        with pytest.raises(WeightsError, match=r"classifier\.bias \(\[6\] and \[12\]\)"):
            weights_of(tiny_zoo, stage="pretraining").tensor("classifier.bias")
        assert weights_of(tiny_zoo, head_type="mlp").tensor("classifier.fc1.bias").shape == (4, 8)

    @pytest.mark.parametrize("dtype", ["int8", "bfloat16", torch.int64, "x", 7, object()])
    def test_other_dtypes_are_refused(self, tiny_zoo: Path, dtype: object) -> None:
        with pytest.raises(WeightsError, match=r"dtype .*expected one of float64"):
            weights_of(tiny_zoo).tensor(QUERY, dtype=dtype)

    @pytest.mark.parametrize(
        ("dtype", "expected"),
        [("float16", "f2"), ("float32", "f4"), (np.float64, "f8"), (torch.float16, "f2"), (np.dtype("float32"), "f4")],
    )
    def test_a_dtype_is_a_name_or_a_type(self, tiny_zoo: Path, dtype: object, expected: str) -> None:
        weights = weights_of(tiny_zoo)
        found = weights.tensor(QUERY, dtype=dtype)
        assert found.dtype == expected
        assert np.array_equal(found, weights.tensor(QUERY).astype(expected))


class TestMatrix:
    @pytest.mark.parametrize("part", ["backbone", "head", "all"])
    def test_rows_are_the_checkpoints(self, tiny_zoo: Path, part: Any) -> None:
        weights = weights_of(tiny_zoo, head_type="mlp", epoch="all")
        matrix = weights.matrix(part=part)
        assert matrix.values.shape == (12, matrix.index.size)
        assert matrix.refs == weights.refs
        for row, tensors in zip(matrix.values, stored(tiny_zoo, weights), strict=True):
            is_head = {name: name.startswith("classifier") for name in tensors}
            chosen = {n: t for n, t in tensors.items() if part == "all" or is_head[n] == (part == "head")}
            assert np.array_equal(row, WeightsIndex({n: t.shape for n, t in chosen.items()}).flatten(chosen))

    def test_a_row_is_a_state_dict(self, tiny_zoo: Path) -> None:
        matrix = weights_of(tiny_zoo, head_type="mlp").matrix(part="all")
        model = Zoo(tiny_zoo)["pt-0"].load(head_width=8, head_type="mlp", num_labels=4, ignore_mismatched_sizes=True)
        model.load_state_dict(matrix.state_dict(2))
        assert_state(model, Zoo(tiny_zoo)[matrix.refs[2].member].load())

    @pytest.mark.parametrize("framework", ["np", "pt"])
    def test_a_vector_is_a_state_dict(self, tiny_zoo: Path, framework: Any) -> None:
        matrix = weights_of(tiny_zoo).matrix(return_tensors=framework)
        mean = matrix.state_dict(matrix.values.mean(0))
        expected = weights_of(tiny_zoo).tensor("vit.layernorm.weight").mean(0)
        assert np.allclose(mean["vit.layernorm.weight"], expected)
        for row in (2, np.int64(2), torch.tensor(2), matrix.values[2]):
            assert torch.equal(
                matrix.state_dict(row)["vit.layernorm.bias"], matrix.state_dict(-9)["vit.layernorm.bias"]
            )
        for wrong in (matrix.values[2][1:], matrix.values, [0.0], 2.0, None, "2"):
            with pytest.raises(WeightsError):
                matrix.state_dict(wrong)
        with pytest.raises(IndexError):
            matrix.state_dict(11)

    def test_out_is_filled_and_shared_with_torch(self, tiny_zoo: Path) -> None:
        weights = weights_of(tiny_zoo)
        expected, size = weights.matrix().values, weights.index().size
        out = np.zeros((11, size), np.float32)
        matrix = weights.matrix(out=out, return_tensors="pt")
        assert matrix.values.data_ptr() == out.ctypes.data
        assert np.array_equal(out, expected)
        mapped = np.memmap("matrix", np.float16, mode="w+", shape=(11, size))
        weights.matrix(out=mapped, dtype="float16")
        assert np.array_equal(mapped, expected.astype(np.float16))

    def test_an_array_that_does_not_fit_is_refused(self, tiny_zoo: Path) -> None:
        weights = weights_of(tiny_zoo)
        size = weights.index().size
        frozen = np.zeros((11, size), np.float32)
        frozen.flags.writeable = False
        for out in (np.zeros((11, size)), np.zeros((10, size), "f4"), np.zeros((size, 11), "f4").T, frozen):
            with pytest.raises(WeightsError) as error:
                weights.matrix(out=out)
            assert error.value.expected == f"a C-contiguous, writable array of float32 [11, {size}]"

    def test_heads_of_different_shapes_are_refused(self, tiny_zoo: Path) -> None:
        with pytest.raises(WeightsError) as error:
            weights_of(tiny_zoo, stage="finetuning").matrix(part="all")
        assert error.value.problem.endswith(
            "have different tensors: classifier.bias ([4] and none), classifier.weight ([4, 16] and none), "
            "classifier.fc1.bias (none and [8]), classifier.fc1.weight (none and [8, 16]), "
            "classifier.fc2.bias (none and [4]), classifier.fc2.weight (none and [4, 8])"
        )
        assert 'part="backbone"' in str(error.value.fix)

    def test_heads_of_different_roles_are_refused(self, tiny_copy: Path) -> None:
        """Equal shapes do not make a classifier of an embedding."""
        head = {"classifier.weight": torch.ones(5, 16), "classifier.bias": torch.ones(5)}
        for member in ("pt-0", "pt-2"):
            rewrite(tiny_copy / member, lambda tensors: tensors | head)
        weights = weights_of(tiny_copy, id=["pt-0", "pt-2"])
        for read in (lambda: weights.matrix(part="head"), lambda: weights.tensor("classifier.bias")):
            with pytest.raises(WeightsError, match=r"pt-0 is a classifier .*pt-2 embedding.*classifier\.bias"):
                read()
        assert weights.matrix().values.shape[0] == 2

    def test_short_reads_are_continued(self, tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        expected, real = weights_of(tiny_zoo, id="pt-0").matrix().values, os.preadv
        monkeypatch.setattr(os, "preadv", lambda file, buffers, start: real(file, [buffers[0][:7]], start))
        assert np.array_equal(weights_of(tiny_zoo, id="pt-0").matrix().values, expected)

    @pytest.mark.parametrize("limit", [1, 5])
    def test_more_tensors_than_one_call_reads(
        self, tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch, limit: int
    ) -> None:
        expected = weights_of(tiny_zoo).matrix().values
        monkeypatch.setattr(reader_module, "_MAX_BUFFERS", limit)
        assert np.array_equal(weights_of(tiny_zoo).matrix().values, expected)


class TestDtypes:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
    def test_mixed_dtypes_are_converted_on_request(self, tiny_copy: Path, dtype: torch.dtype) -> None:
        rewrite(tiny_copy / "pt-1", map_tensors(lambda tensor: tensor.to(dtype)))
        weights = weights_of(tiny_copy, stage="pretraining")
        for read in (weights.matrix, lambda: weights.tensor(QUERY)):
            with pytest.raises(WeightsError, match=r'pt-1 is (F16|F64), but .*pt-0 is F32.*dtype="float32"'):
                read()
        expected = load_torch(tiny_copy / "pt-1/model.safetensors")[QUERY].float().numpy()
        assert np.array_equal(weights.tensor(QUERY, dtype="float32")[1], expected)
        matrix = weights.matrix(dtype="float32")
        assert np.array_equal(matrix.index.unflatten(matrix.values[1])[QUERY], expected)

    @pytest.mark.parametrize("chosen", [{"id": "pt-1"}, {"stage": "pretraining"}])
    def test_bfloat16_alone_or_beside_float32_is_read_as_float32(self, chosen: dict[str, str], tiny_copy: Path) -> None:
        rewrite(tiny_copy / "pt-1", map_tensors(torch.Tensor.bfloat16))
        weights = weights_of(tiny_copy, **chosen)
        row = [str(ref.member) for ref in weights.refs].index("pt-1")
        expected = load_torch(tiny_copy / "pt-1/model.safetensors")[QUERY].float().numpy()
        matrix = weights.matrix()
        for found in (weights.tensor(QUERY)[row], matrix.index.unflatten(matrix.values[row])[QUERY]):
            assert found.dtype == np.float32
            assert np.array_equal(found, expected)

    def test_bfloat16_stays_for_torch(self, tiny_copy: Path) -> None:
        rewrite(tiny_copy / "pt-1", map_tensors(torch.Tensor.bfloat16))
        weights = weights_of(tiny_copy, id="pt-1")
        expected = load_torch(tiny_copy / "pt-1/model.safetensors")
        found = weights.tensor(QUERY, return_tensors="pt")
        assert found.dtype == torch.bfloat16
        assert torch.equal(found[0], expected[QUERY])
        matrix = weights.matrix(return_tensors="pt", part="all")
        assert torch.equal(matrix.state_dict(0)["classifier.bias"], expected["classifier.bias"])

    def test_numbers_beyond_float16_are_infinite(self, tiny_copy: Path) -> None:
        rewrite(tiny_copy / "pt-1", map_tensors(lambda tensor: torch.full_like(tensor, -1e6)))
        found = weights_of(tiny_copy, id="pt-1").tensor("vit.layernorm.bias", dtype="float16")
        assert (found == -np.inf).all()


class TestOneAtATime:
    def test_vectors_are_the_rows_of_the_matrix(self, tiny_zoo: Path) -> None:
        weights = weights_of(tiny_zoo)
        matrix = weights.matrix(dtype="float64").values
        for row, (ref, vector) in enumerate(weights.iter_vectors(dtype="float64")):
            assert ref == weights.refs[row]
            assert np.array_equal(vector, matrix[row])

    def test_models_are_those_of_the_members(self, tiny_zoo: Path) -> None:
        weights, modules = weights_of(tiny_zoo, epoch="all"), set()
        pixels = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        for ref, model in weights.iter_models():
            own = Zoo(tiny_zoo)[ref.member].load(epoch=ref.epoch)
            assert_state(model, own)
            assert model.config.to_dict() == own.config.to_dict()
            assert model.name_or_path == own.name_or_path == str(ref)
            assert not model.training
            assert torch.equal(model(pixels).logits, own(pixels).logits)
            modules.add(id(model))
        assert len(modules) == 4  # 6 classes, an embedding, and 4 classes under a linear and an MLP head

    def test_models_of_inference_mode_can_be_trained(self, tiny_zoo: Path) -> None:
        with torch.inference_mode():
            for _, model in weights_of(tiny_zoo, id=["pt-0", "pt-1"]).iter_models():
                assert not any(parameter.is_inference() for parameter in model.parameters())

    def test_with_a_digest_the_models_are_the_bytes_that_were_hashed(self, tiny_copy: Path) -> None:
        manifest = manifest_of(tiny_copy, zoo_files(tiny_copy))
        (tiny_copy / "manifest.json").write_bytes(manifest.to_bytes())
        zoo = Zoo(tiny_copy, digest=manifest.digest)
        for _, model in zoo.weights(zoo.select(id="pt-0")).iter_models():
            expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            with open(tiny_copy / "pt-0/model.safetensors", "r+b") as file:
                file.seek(-64, os.SEEK_END)
                file.write(bytes(64))
            assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
        with pytest.raises(AuthenticityError):
            next(zoo.weights(zoo.select(id="pt-0")).iter_models())

    def test_writes_to_a_model_do_not_reach_the_file(self, tiny_zoo: Path) -> None:
        before = (tiny_zoo / "pt-0/model.safetensors").read_bytes()
        for _, model in weights_of(tiny_zoo, stage="pretraining").iter_models():
            assert all(parameter.grad is None for parameter in model.parameters())
            model.train()
            model(torch.ones(1, 3, 8, 8)).logits.sum().backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 1
        assert (tiny_zoo / "pt-0/model.safetensors").read_bytes() == before

    def test_tensors_of_earlier_models_stay(self, tiny_zoo: Path) -> None:
        kept = [model.state_dict()["vit.layernorm.bias"] for _, model in weights_of(tiny_zoo).iter_models()]
        assert np.array_equal(torch.stack(kept), weights_of(tiny_zoo).tensor("vit.layernorm.bias"))

    @pytest.mark.parametrize(
        "change",
        [
            lambda model: model.load_state_dict(model.state_dict(), assign=True),
            lambda model: setattr(model, "classifier", torch.nn.Identity()),
            lambda model: model.requires_grad_(False),
            lambda model: setattr(model.vit.layernorm, "weight", torch.nn.Parameter(torch.ones(16))),
        ],
    )
    def test_the_model_after_a_changed_model_is_whole(
        self, tiny_zoo: Path, change: Callable[[torch.nn.Module], object]
    ) -> None:
        for ref, model in weights_of(tiny_zoo, id=["pt-0", "pt-1"]).iter_models():
            assert_state(model, Zoo(tiny_zoo)[ref.member].load())
            assert all(parameter.requires_grad for parameter in model.parameters())
            change(model)

    def test_a_config_that_does_not_fit_is_refused(self, tiny_copy: Path) -> None:
        config = json.loads((tiny_copy / "pt-1/config.json").read_text())
        (tiny_copy / "pt-1/config.json").write_text(json.dumps(config | {"hidden_size": 32}))
        with pytest.raises(WeightsError, match=r"pt-1/config\.json") as error:
            list(weights_of(tiny_copy).iter_models())
        assert error.value.path == tiny_copy / "pt-1/model.safetensors"


class TestTrajectories:
    def test_epochs_and_norms_are_those_of_the_records(self, tiny_zoo: Path) -> None:
        weights = weights_of(tiny_zoo, epoch="all")
        trajectories = list(weights.trajectories())
        assert [trajectory.member for trajectory in trajectories] == list(dict.fromkeys(r.member for r in weights.refs))
        for trajectory in trajectories:
            assert (len(trajectory), trajectory.epochs.tolist()) == (3, [0, 1, 2])
            records = Zoo(tiny_zoo)[trajectory.member].metrics
            assert trajectory.steps.tolist() == [record.step for record in records]
            assert trajectory.norms() == pytest.approx([record.weight_norm for record in records], rel=1e-6)
            matrix = trajectory.weights.matrix(part="all", dtype="float64").values
            assert trajectory.step_norms() == pytest.approx(np.linalg.norm(np.diff(matrix, axis=0), axis=1), rel=1e-12)
            assert np.linalg.norm(matrix[2] - matrix[0]) == pytest.approx(records[2].distance_from_start, rel=1e-5)

    def test_epochs_ascend_in_any_selection(self, tiny_zoo: Path) -> None:
        trajectories = list(weights_of(tiny_zoo, epoch="all")[::-1].trajectories())
        assert [str(trajectory.member) for trajectory in trajectories][:2] == ["pt-2/ft-1", "pt-2/ft-0"]
        assert all(trajectory.epochs.tolist() == [0, 1, 2] for trajectory in trajectories)
        (two,) = weights_of(tiny_zoo, id="pt-0/ft-1", epoch=[0, 2]).trajectories()
        assert two.epochs.tolist() == [0, 2]
        assert two.step_norms() == pytest.approx([Zoo(tiny_zoo)["pt-0/ft-1"].metrics_at(2).distance_from_start], 1e-5)
        (final,) = weights_of(tiny_zoo, id="pt-0/ft-1").trajectories()
        assert (final.epochs.tolist(), final.step_norms().tolist()) == ([2], [])


class TestBadFiles:
    @pytest.mark.parametrize("damage", ["overlap", "cut", "missing", "link"])
    def test_a_damaged_file_is_refused(self, tiny_copy: Path, damage: str, tmp_path: Path) -> None:
        weights = weights_of(tiny_copy, stage="pretraining")
        file = tiny_copy / "pt-1/model.safetensors"
        content = file.read_bytes()
        file.unlink()
        if damage == "overlap":
            length = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + length])
            names = [name for name in header if name != "__metadata__"]
            header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]
            text = json.dumps(header).encode()
            file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
        elif damage == "cut":
            file.write_bytes(content[:-1])
        elif damage == "link":
            (tmp_path / "elsewhere").write_bytes(content)
            file.symlink_to(tmp_path / "elsewhere")
        expected = {"missing": RecordError, "link": UnsafePathError}.get(damage, WeightsError)
        for read in (
            lambda: weights.tensor(QUERY),
            weights.matrix,
            weights.distances,
            lambda: list(weights.iter_vectors()),
            lambda: list(weights.iter_models()),
        ):
            with pytest.raises(expected):
                read()

    def test_a_file_that_changes_in_use_is_refused(self, tiny_copy: Path) -> None:
        weights = weights_of(tiny_copy)
        weights.tensor(QUERY)
        rewrite(tiny_copy / "pt-1", map_tensors(lambda tensor: tensor + 1))  # under the same header
        with pytest.raises(WeightsError, match="changed while it was in use") as error:
            weights.matrix()
        assert error.value.path == tiny_copy / "pt-1/model.safetensors"
        assert weights_of(tiny_copy).matrix().values.shape[0] == 11

    def test_a_file_that_is_truncated_in_use_is_refused(self, tiny_copy: Path) -> None:
        with weights_of(tiny_copy, id="pt-1").files.open(0) as reader:
            os.truncate(tiny_copy / "pt-1/model.safetensors", 9000)
            entry = next(entry for entry in reader.entries.values() if entry.start > 9000 and entry.shape == (16, 16))
            with pytest.raises(WeightsError, match="ended at byte"):
                reader.read([(entry, np.empty((16, 16), np.float32))])

    def test_a_selection_of_another_zoo_is_refused(self, tiny_zoo: Path, tiny_copy: Path) -> None:
        with pytest.raises(SelectionError):
            Zoo(tiny_zoo).weights(Zoo(tiny_copy).select())

    def test_an_empty_selection_is_refused(self, tiny_zoo: Path) -> None:
        nothing = weights_of(tiny_zoo)[:0]
        for read in (nothing.matrix, nothing.distances, lambda: nothing.tensor(QUERY)):
            with pytest.raises(WeightsError, match="no checkpoints"):
                read()

    def test_names_in_memory_are_refused(self, tiny_copy: Path) -> None:
        def rename(tensors: Tensors) -> Tensors:
            tensors["vit.layers.0.mlp.fc1.bias"] = tensors.pop("vit.encoder.layer.0.intermediate.dense.bias")
            return tensors

        rewrite(tiny_copy / "pt-1", rename)
        with pytest.raises(WeightsError, match=r"pt-1 has vit\.layers\.0\.mlp\.fc1\.bias"):
            weights_of(tiny_copy).matrix()

    def test_a_part_without_tensors_is_refused(self, tiny_copy: Path) -> None:
        rewrite(tiny_copy / "pt-0", lambda tensors: {n: t for n, t in tensors.items() if n.startswith("vit.")})
        weights = weights_of(tiny_copy, id="pt-0")
        with pytest.raises(WeightsError, match='no tensors of part "head"'):
            weights.matrix(part="head")
        assert weights.matrix().values.shape[0] == 1

    def test_population_is_not_iterable(self, tiny_zoo: Path) -> None:
        with pytest.raises(TypeError, match="not iterable"):
            iter(weights_of(tiny_zoo))  # pyright: ignore[reportCallIssue, reportArgumentType]

    def test_no_file_stays_open(self, tiny_zoo: Path) -> None:
        before = set(os.listdir("/proc/self/fd"))
        weights = weights_of(tiny_zoo, epoch="all")
        weights.matrix()
        weights.distances()
        weights.tensor(QUERY)
        assert set(os.listdir("/proc/self/fd")) == before


class TestHub:
    def test_one_tensor_is_read_in_ranges(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        weights = Zoo(REPO).weights()
        hub.requests.clear()
        assert np.array_equal(weights.tensor(QUERY), weights_of(tiny_zoo).tensor(QUERY))
        sent = [request.sent for request in hub.requests.of(host="files")]
        assert sent.count(16 * 16 * 4) == 11  # and the headers
        assert len(sent) == 22
        hub.requests.clear()
        weights.tensor("vit.layernorm.bias")
        assert [request.sent for request in hub.requests.of(host="files")] == [64] * 11  # headers are known by now
        assert not list(Zoo(REPO).source.root.rglob("*.safetensors"))

    def test_whole_models_are_downloaded_once(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        zoo = Zoo(REPO)
        weights = zoo.weights(zoo.select(head_type="mlp"))
        assert np.array_equal(weights.matrix().values, weights_of(tiny_zoo, head_type="mlp").matrix().values)
        assert sum(request.path.endswith(".safetensors") for request in hub.requests.of(host="files")) <= 4
        hub.requests.clear()
        again = Zoo(REPO, revision=zoo.source.root.name)
        weights = again.weights(again.select(head_type="mlp"))
        assert len(list(weights.iter_models())) == 4
        assert np.array_equal(weights.distances().values, weights_of(tiny_zoo, head_type="mlp").distances().values)
        assert not hub.requests.of(host="files")

    def test_a_wrong_digest_reads_nothing(self, hub: Hub, tiny_zoo: Path) -> None:
        repo = plant(hub, tiny_zoo)
        manifest = Zoo(REPO).source.manifest
        assert manifest is not None
        repo.tamper("pt-1/model.safetensors", (tiny_zoo / "pt-0/model.safetensors").read_bytes())
        weights = Zoo(REPO, digest=manifest.digest).weights()
        with pytest.raises(AuthenticityError):
            weights.tensor(QUERY)


PROGRAM = """
import sys
from vitzoo import Zoo
zoo = Zoo(sys.argv[1])
weights = zoo.weights(zoo.select(stage="pretraining", epoch="all"))
weights.tensor("vit.layernorm.bias"), weights.matrix(), weights.distances(), list(weights.trajectories())[0].norms()
for read in (lambda: weights.matrix(part="heads"), lambda: weights.distances("L2"),
             lambda: weights.distances(by="layers"), lambda: weights.matrix(return_tensors="tf"),
             lambda: weights[3], lambda: zoo.weights({}), lambda: weights.matrix(out=[])):
    try: read()
    except Exception as error: print(type(error).__name__, getattr(error, "problem", error))
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""


def test_numpy_needs_no_torch_and_unknown_words_are_refused(tiny_zoo: Path) -> None:
    """In a process of its own, without the type checks of the tests."""
    command = [sys.executable, "-c", PROGRAM, str(tiny_zoo)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    names = ["WeightsError"] * 4 + ["TypeError", "SelectionError", "WeightsError"]
    assert [line.partition(" ")[0] for line in lines] == names
    for line, value in zip(lines, ("heads", "L2", "layers", "tf", "weights[3]", "dict", "list"), strict=True):
        assert value in line


def test_slices_and_repr(tiny_zoo: Path) -> None:
    weights = weights_of(tiny_zoo)
    assert repr(weights) == f"PopulationWeights(11 checkpoints of '{tiny_zoo}')"
    assert weights[2:5].refs == weights.refs[2:5]
    assert MemberId(0) == weights.refs[0].member
