"""The weights of many members as arrays, held against safetensors' own reader and the models."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file

from tests.hub import Hub
from tests.published import REPO, plant
from vitzoo import MemberId, Zoo
from vitzoo.errors import AuthenticityError, RecordError, SelectionError, UnsafePathError, WeightsError
from vitzoo.records import layout
from vitzoo.tensors.dtypes import parse_dtype
from vitzoo.weights import reader as reader_module
from vitzoo.weights.index import WeightsIndex
from vitzoo.weights.population import PopulationWeights

QUERY = "vit.encoder.layer.0.attention.attention.query.weight"


def weights_of(zoo: Path, **conditions: object) -> PopulationWeights:
    opened = Zoo(zoo)
    return opened.weights(opened.select(**conditions))  # pyright: ignore[reportArgumentType]


def stored(root: Path, weights: PopulationWeights) -> list[dict[str, np.ndarray]]:
    """What safetensors reads of the same files."""
    return [load_file(root / layout.weights_file(ref.member, ref.epoch)) for ref in weights.refs]


def rewrite(file: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_torch(file)
    change(tensors)
    file.unlink()
    save_file(tensors, file, metadata={"format": "pt"})


def convert(root: Path, member: str, dtype: torch.dtype) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()})

    rewrite(root / member / "model.safetensors", change)


class TestTensor:
    @pytest.mark.parametrize("name", [QUERY, "vit.layers.0.attention.q_proj.weight"])
    def test_in_both_spellings(self, tiny_zoo: Path, name: str) -> None:
        weights = weights_of(tiny_zoo, epoch="all")
        found = weights.tensor(name)
        assert found.shape == (33, 16, 16)
        assert found.dtype == np.float32
        assert np.array_equal(found, [tensors[QUERY] for tensors in stored(tiny_zoo, weights)])

    def test_torch(self, tiny_zoo: Path) -> None:
        weights = weights_of(tiny_zoo)
        found = weights.tensor(QUERY, return_tensors="pt", dtype=torch.float64)
        assert found.dtype == torch.float64
        assert torch.equal(found, torch.from_numpy(weights.tensor(QUERY)).double())

    def test_of_some_members_alone(self, tiny_zoo: Path) -> None:
        with pytest.raises(WeightsError, match=r'pt-0 has no tensor "classifier\.fc1\.bias"\. .*Nearest: classifier'):
            weights_of(tiny_zoo).tensor("classifier.fc1.bias")
        with pytest.raises(WeightsError, match=r"pt-2 have different tensors: classifier\.bias \(\[6\] and \[12\]\)"):
            weights_of(tiny_zoo, stage="pretraining").tensor("classifier.bias")
        with pytest.raises(WeightsError, match=r'has no tensor "vit\.layers\.7\.mlp\.fc1\.bias".*Nearest: '):
            weights_of(tiny_zoo).tensor("vit.layers.7.mlp.fc1.bias")
        assert weights_of(tiny_zoo, head_type="mlp").tensor("classifier.fc1.bias").shape == (4, 8)

    def test_bad_arguments(self, tiny_zoo: Path) -> None:
        weights = weights_of(tiny_zoo)
        for dtype in ("int8", "bfloat16", torch.int64, "x", 7, object()):
            with pytest.raises(WeightsError, match="is none that weights are converted to: expected one of float64"):
                weights.tensor(QUERY, dtype=dtype)

    @pytest.mark.parametrize("dtype", ["float16", "float32", np.float64, torch.float16, np.dtype("float32")])
    def test_every_way_to_say_a_dtype(self, tiny_zoo: Path, dtype: object) -> None:
        found = weights_of(tiny_zoo).tensor(QUERY, dtype=dtype)
        assert {"F64": "f8", "F32": "f4", "F16": "f2"}[parse_dtype(dtype)] == found.dtype.str[1:]
        assert np.array_equal(found, weights_of(tiny_zoo).tensor(QUERY).astype(found.dtype))


class TestMatrix:
    def test_the_backbones(self, tiny_zoo: Path) -> None:
        weights = weights_of(tiny_zoo, epoch="all")
        matrix = weights.matrix()
        assert matrix.values.shape == (33, matrix.index.size)
        assert matrix.refs == weights.refs
        assert not any(name.startswith("classifier") for name in matrix.index)
        for row, tensors in zip(matrix.values, stored(tiny_zoo, weights), strict=True):
            expected = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier")}
            assert np.array_equal(row, matrix.index.flatten(expected))

    @pytest.mark.parametrize("part", ["head", "all"])
    def test_with_the_heads(self, tiny_zoo: Path, part: str) -> None:
        weights = weights_of(tiny_zoo, head_type="mlp")
        matrix = weights.matrix(part=part)  # pyright: ignore[reportArgumentType]
        for row, tensors in zip(matrix.values, stored(tiny_zoo, weights), strict=True):
            chosen = {name: one for name, one in tensors.items() if part == "all" or name.startswith("classifier")}
            assert np.array_equal(row, WeightsIndex({n: t.shape for n, t in chosen.items()}).flatten(chosen))

    def test_a_row_back_into_a_model(self, tiny_zoo: Path) -> None:
        matrix = weights_of(tiny_zoo, head_type="mlp").matrix(part="all")
        model = Zoo(tiny_zoo)["pt-0"].load(head_width=8, head_type="mlp", num_labels=4, ignore_mismatched_sizes=True)
        model.load_state_dict(matrix.state_dict(2))
        other = Zoo(tiny_zoo)[matrix.refs[2].member].load()
        assert all(torch.equal(model.state_dict()[name], one) for name, one in other.state_dict().items())

    def test_torch_shares_the_memory(self, tiny_zoo: Path) -> None:
        out = np.zeros((11, weights_of(tiny_zoo).index().size), np.float32)
        matrix = weights_of(tiny_zoo).matrix(out=out, return_tensors="pt")
        assert torch.is_tensor(matrix.values)
        assert matrix.values.data_ptr() == out.ctypes.data
        assert np.array_equal(out, weights_of(tiny_zoo).matrix().values)

    def test_into_a_file(self, tiny_zoo: Path) -> None:
        weights = weights_of(tiny_zoo)
        out = np.memmap("matrix", np.float16, mode="w+", shape=(11, weights.index().size))
        weights.matrix(out=out, dtype="float16")
        assert np.array_equal(out, weights.matrix().values.astype(np.float16))

    def test_an_array_that_does_not_fit(self, tiny_zoo: Path) -> None:
        weights = weights_of(tiny_zoo)
        size = weights.index().size
        frozen = np.zeros((11, size), np.float32)
        frozen.flags.writeable = False
        for out in (np.zeros((11, size)), np.zeros((10, size), "f4"), np.zeros((size, 11), "f4").T, frozen):
            with pytest.raises(
                WeightsError, match=rf"expected a C-contiguous, writable array of float32 \[11, {size}\]"
            ):
                weights.matrix(out=out)

    def test_heads_of_different_shapes(self, tiny_zoo: Path) -> None:
        with pytest.raises(WeightsError) as raised:
            weights_of(tiny_zoo, stage="finetuning").matrix(part="all")
        assert str(raised.value).endswith(
            "pt-0/ft-0 and "
            f"{Zoo(tiny_zoo).source.name}/pt-0/ft-1 have different tensors: classifier.bias ([4] and none), "
            "classifier.weight ([4, 16] and none), classifier.fc1.bias (none and [8]), classifier.fc1.weight "
            "(none and [8, 16]), classifier.fc2.bias (none and [4]), classifier.fc2.weight (none and [4, 8]). Choose "
            'part="backbone", which members of one architecture share, or select(head_type=..., dataset=...).'
        )

    def test_heads_of_different_roles(self, tiny_copy: Path) -> None:
        """An embedding of as many outputs as a classifier is no classifier."""
        for member in ("pt-0", "pt-2"):

            def change(tensors: dict[str, torch.Tensor]) -> None:
                tensors |= {"classifier.weight": torch.ones(5, 16), "classifier.bias": torch.ones(5)}

            rewrite(tiny_copy / member / "model.safetensors", change)
        weights = weights_of(tiny_copy, id=["pt-0", "pt-2"])
        for part in ("head", "all"):
            with pytest.raises(
                WeightsError,
                match=r"The role of pt-0's head is classifier, that of pt-2's embedding: their tensors "
                r'classifier\.weight, classifier\.bias mean different things\. Choose part="backbone"',
            ):
                weights.matrix(part=part)
        with pytest.raises(
            WeightsError, match=r"The role of pt-0's head is classifier.* tensors classifier\.bias mean"
        ):
            weights.tensor("classifier.bias")
        assert weights.matrix().values.shape[0] == 2

    def test_reads_that_stop_short(self, tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file system may give less than it was asked for, at any byte."""
        real = os.preadv
        monkeypatch.setattr(os, "preadv", lambda file, buffers, start: real(file, [buffers[0][:7]], start))
        found = weights_of(tiny_zoo, id="pt-0").matrix().values
        monkeypatch.undo()
        assert np.array_equal(found, weights_of(tiny_zoo, id="pt-0").matrix().values)

    @pytest.mark.parametrize("limit", [1, 2, 5])
    def test_more_tensors_than_one_call_takes(
        self, tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch, limit: int
    ) -> None:
        expected = weights_of(tiny_zoo).matrix().values
        monkeypatch.setattr(reader_module, "_MAX_BUFFERS", limit)
        assert np.array_equal(weights_of(tiny_zoo).matrix().values, expected)


class TestDtypes:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_mixed_ones_are_converted_on_request(self, tiny_copy: Path, dtype: torch.dtype) -> None:
        convert(tiny_copy, "pt-1", dtype)
        weights = weights_of(tiny_copy, stage="pretraining")
        for read in (weights.matrix, lambda: weights.tensor(QUERY)):
            with pytest.raises(
                WeightsError, match=r'pt-1 is (F16|BF16|F64), but .*pt-0 is F32: mixed dtypes .* Say dtype="float32"\.'
            ):
                read()
        expected = load_torch(tiny_copy / "pt-1/model.safetensors")[QUERY].float().numpy()
        assert np.array_equal(weights.tensor(QUERY, dtype="float32")[1], expected)
        matrix = weights.matrix(dtype="float32")
        assert np.array_equal(matrix.index.unflatten(matrix.values[1])[QUERY], expected)

    def test_bfloat16(self, tiny_copy: Path) -> None:
        convert(tiny_copy, "pt-1", torch.bfloat16)
        weights = weights_of(tiny_copy, id="pt-1")
        for read in (weights.matrix, lambda: weights.tensor(QUERY)):
            with pytest.raises(WeightsError, match=r'is bfloat16, which numpy does not have\. Say dtype="float32" or'):
                read()
        expected = load_torch(tiny_copy / "pt-1/model.safetensors")
        found = weights.tensor(QUERY, return_tensors="pt")
        assert found.dtype == torch.bfloat16
        assert torch.equal(found[0], expected[QUERY])
        matrix = weights.matrix(return_tensors="pt", part="all")
        assert torch.equal(matrix.state_dict(0)["classifier.bias"], expected["classifier.bias"])

    def test_beyond_float16(self, tiny_copy: Path) -> None:
        def change(tensors: dict[str, torch.Tensor]) -> None:
            tensors["vit.layernorm.bias"][:2] = torch.tensor([1e6, -1e6])

        rewrite(tiny_copy / "pt-1/model.safetensors", change)
        found = weights_of(tiny_copy, id="pt-1").tensor("vit.layernorm.bias", dtype="float16")
        assert found[0, :2].tolist() == [np.inf, -np.inf]


class TestOneAtATime:
    def test_vectors(self, tiny_zoo: Path) -> None:
        weights = weights_of(tiny_zoo)
        matrix = weights.matrix(dtype="float64").values
        for row, (ref, vector) in enumerate(weights.iter_vectors(dtype="float64")):
            assert ref == weights.refs[row]
            assert np.array_equal(vector, matrix[row])

    def test_models(self, tiny_zoo: Path) -> None:
        weights, modules = weights_of(tiny_zoo, epoch="all"), set()
        pixels = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        for ref, model in weights.iter_models():
            own = Zoo(tiny_zoo)[ref.member].load(epoch=ref.epoch)
            assert model.state_dict().keys() == own.state_dict().keys()
            assert all(torch.equal(model.state_dict()[name], one) for name, one in own.state_dict().items())
            assert model.config.to_dict() == own.config.to_dict()
            assert str(ref) == model.config.name_or_path
            assert not model.training
            assert torch.equal(model(pixels).logits, own(pixels).logits)
            modules.add(id(model))
        assert len(modules) == 4  # 6 classes, an embedding, and 4 classes under a linear and an MLP head

    def test_what_is_done_to_a_model_stays_there(self, tiny_zoo: Path) -> None:
        before = (tiny_zoo / "pt-0/model.safetensors").read_bytes()
        for _, model in weights_of(tiny_zoo).iter_models():
            assert all(parameter.grad is None for parameter in model.parameters())
            model.train()
            model(torch.ones(1, 3, 8, 8)).logits.sum().backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 1
        assert (tiny_zoo / "pt-0/model.safetensors").read_bytes() == before

    def test_tensors_that_were_kept_stay(self, tiny_zoo: Path) -> None:
        kept = [model.state_dict()["vit.layernorm.bias"] for _, model in weights_of(tiny_zoo).iter_models()]
        assert np.array_equal(torch.stack(kept), weights_of(tiny_zoo).tensor("vit.layernorm.bias"))

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda model: model.load_state_dict(model.state_dict(), assign=True),
            lambda model: setattr(model, "classifier", torch.nn.Identity()),
            lambda model: model.requires_grad_(False),
            lambda model: setattr(model.vit.layernorm, "weight", torch.nn.Parameter(torch.ones(16))),
        ],
    )
    def test_a_model_that_was_taken_apart(self, tiny_zoo: Path, spoil: Callable[[torch.nn.Module], object]) -> None:
        """The next member has its own weights all the same."""
        for ref, model in weights_of(tiny_zoo).iter_models():
            own = Zoo(tiny_zoo)[ref.member].load().state_dict()
            assert model.state_dict().keys() == own.keys()
            assert all(torch.equal(model.state_dict()[name], one) for name, one in own.items())
            assert all(parameter.requires_grad for parameter in model.parameters())
            spoil(model)

    def test_a_config_that_does_not_fit(self, tiny_copy: Path) -> None:
        config = json.loads((tiny_copy / "pt-1/config.json").read_text())
        (tiny_copy / "pt-1/config.json").write_text(json.dumps(config | {"hidden_size": 32}))
        with pytest.raises(WeightsError, match=r"pt-1/model\.safetensors does not hold what .*pt-1/config\.json says"):
            list(weights_of(tiny_copy).iter_models())


class TestTrajectories:
    def test_of_each_member(self, tiny_zoo: Path) -> None:
        weights = weights_of(tiny_zoo, epoch="all")
        found = list(weights.trajectories())
        assert [str(one.member) for one in found] == [
            str(member) for member in dict.fromkeys(ref.member for ref in weights.refs)
        ]
        for one in found:
            assert (len(one), one.epochs.tolist()) == (3, [0, 1, 2])
            records = Zoo(tiny_zoo)[one.member].metrics
            assert one.steps.tolist() == [record.step for record in records]
            assert one.norms() == pytest.approx([record.weight_norm for record in records], rel=1e-6)
            matrix = one.matrix(dtype="float64").values
            assert one.step_norms() == pytest.approx(np.linalg.norm(np.diff(matrix, axis=0), axis=1), rel=1e-12)
            assert np.linalg.norm(matrix[2] - matrix[0]) == pytest.approx(records[2].distance_from_start, rel=1e-5)
            assert one.tensor(QUERY).shape == (3, 16, 16)

    def test_ascending_whatever_the_order(self, tiny_zoo: Path) -> None:
        found = list(weights_of(tiny_zoo, epoch="all")[::-1].trajectories())
        assert [str(one.member) for one in found][:2] == ["pt-2/ft-1", "pt-2/ft-0"]
        assert all(one.epochs.tolist() == [0, 1, 2] for one in found)

    def test_chosen_epochs(self, tiny_zoo: Path) -> None:
        (one,) = weights_of(tiny_zoo, id="pt-0/ft-1", epoch=[0, 2]).trajectories()
        assert one.epochs.tolist() == [0, 2]
        assert one.step_norms() == pytest.approx([Zoo(tiny_zoo)["pt-0/ft-1"].metrics_at(2).distance_from_start], 1e-5)
        (final,) = weights_of(tiny_zoo, id="pt-0/ft-1").trajectories()
        assert (final.epochs.tolist(), final.step_norms().tolist()) == ([2], [])


class TestBadFiles:
    """What is refused, before anything is read of it."""

    @pytest.mark.parametrize("damage", ["huge", "overlap", "cut", "dtype", "gone", "link"])
    def test_a_damaged_file(self, tiny_copy: Path, damage: str, tmp_path: Path) -> None:
        weights = weights_of(tiny_copy)
        file = tiny_copy / "pt-1/model.safetensors"
        content = file.read_bytes()
        file.unlink()
        if damage == "huge":
            file.write_bytes((2**62).to_bytes(8, "little") + content[8:])
        elif damage == "overlap":
            length = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + length])
            names = [name for name in header if name != "__metadata__"]
            header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]
            text = json.dumps(header).encode()
            file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
        elif damage == "cut":
            file.write_bytes(content[:-1])
        elif damage == "dtype":
            file.write_bytes(content.replace(b'"F32"', b'"I32"'))
        elif damage == "link":
            (tmp_path / "elsewhere").write_bytes(content)
            file.symlink_to(tmp_path / "elsewhere")
        expected = {"gone": RecordError, "link": UnsafePathError}.get(damage, WeightsError)
        for read in (
            lambda: weights.tensor(QUERY),
            weights.matrix,
            weights.distances,
            lambda: list(weights.iter_vectors()),
            lambda: list(weights.iter_models()),
        ):
            with pytest.raises(expected, match=r"pt-1/model\.safetensors|outside the zoo"):
                read()

    def test_a_file_that_changes_while_it_is_in_use(self, tiny_copy: Path) -> None:
        weights = weights_of(tiny_copy)
        weights.tensor(QUERY)

        def change(tensors: dict[str, torch.Tensor]) -> None:
            tensors["vit.layernorm.bias"] += 1  # under the same header

        rewrite(tiny_copy / "pt-1/model.safetensors", change)
        with pytest.raises(WeightsError, match=r"pt-1/model\.safetensors changed while it was in use"):
            weights.matrix()
        assert weights_of(tiny_copy).matrix().values.shape[0] == 11

    def test_a_file_that_is_cut_while_it_is_read(self, tiny_copy: Path) -> None:
        weights = weights_of(tiny_copy, id="pt-1")
        with weights.files.open(0, whole=True) as reader:
            os.truncate(tiny_copy / "pt-1/model.safetensors", 9000)
            out = np.empty((16, 16), np.float32)
            entry = next(one for one in reader.entries.values() if one.start > 9000 and one.shape == (16, 16))
            with pytest.raises(WeightsError, match=r"ended at byte .* while it was read"):
                reader.read([(entry, out)])

    def test_a_selection_of_another_zoo(self, tiny_zoo: Path, tiny_copy: Path) -> None:
        with pytest.raises(SelectionError, match=r"Members of .* were given to the zoo .*Ask their own zoo"):
            Zoo(tiny_zoo).weights(Zoo(tiny_copy).select())

    def test_no_checkpoints(self, tiny_zoo: Path) -> None:
        nothing = weights_of(tiny_zoo)[:0]
        for read in (nothing.matrix, nothing.distances, lambda: nothing.tensor(QUERY)):
            with pytest.raises(WeightsError, match="There are no checkpoints to read: the selection is empty"):
                read()

    def test_names_in_memory_and_parts_without_tensors(self, tiny_copy: Path) -> None:
        def spell(tensors: dict[str, torch.Tensor]) -> None:
            tensors["vit.layers.0.mlp.fc1.bias"] = tensors.pop("vit.encoder.layer.0.intermediate.dense.bias")

        rewrite(tiny_copy / "pt-1/model.safetensors", spell)
        with pytest.raises(
            WeightsError, match=r"pt-1 holds vit\.layers\.0\.mlp\.fc1\.bias, the tensor's name in memory"
        ):
            weights_of(tiny_copy).matrix()

        def behead(tensors: dict[str, torch.Tensor]) -> None:
            del tensors["classifier.weight"], tensors["classifier.bias"]

        rewrite(tiny_copy / "pt-0/model.safetensors", behead)
        weights = weights_of(tiny_copy, id="pt-0")
        for read in (lambda: weights.matrix(part="head"), lambda: list(weights.iter_vectors(part="head"))):
            with pytest.raises(WeightsError, match=r'pt-0 has no tensors of part "head"'):
                read()
        assert weights.matrix().values.shape[0] == 1

    def test_one_row_is_no_population(self, tiny_zoo: Path) -> None:
        for wrong in (3, [1, 2], "pt-0"):
            with pytest.raises((TypeError, TypeCheckError)):
                weights_of(tiny_zoo)[wrong]  # pyright: ignore[reportArgumentType]
        with pytest.raises(TypeError, match="not iterable"):
            iter(weights_of(tiny_zoo))  # pyright: ignore[reportCallIssue, reportArgumentType]

    def test_no_file_is_left_open(self, tiny_zoo: Path) -> None:
        before = set(os.listdir("/proc/self/fd"))
        weights = weights_of(tiny_zoo, epoch="all")
        weights.matrix()
        weights.distances()
        weights.tensor(QUERY)
        assert set(os.listdir("/proc/self/fd")) == before


class TestHub:
    def test_one_tensor_is_some_ranges(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        weights = Zoo(REPO).weights()
        hub.requests.clear()
        found = weights.tensor(QUERY)
        assert np.array_equal(found, weights_of(tiny_zoo).tensor(QUERY))
        sent = [request.sent for request in hub.requests.of(host="files")]
        assert sent.count(16 * 16 * 4) == 11  # and the headers
        assert len(sent) == 22
        hub.requests.clear()
        weights.tensor("vit.layernorm.bias")
        assert [request.sent for request in hub.requests.of(host="files")] == [64] * 11  # headers are known by now
        assert not list(Zoo(REPO).source.root.rglob("*.safetensors"))

    def test_whole_models_are_downloaded_once(
        self, hub: Hub, tiny_zoo: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
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
        with pytest.raises(AuthenticityError, match="was altered"):
            weights.tensor(QUERY)


def test_numpy_needs_no_torch(tiny_zoo: Path) -> None:
    program = (
        "import sys\n"
        "from vitzoo import Zoo\n"
        f"zoo = Zoo({str(tiny_zoo)!r})\n"
        "weights = zoo.weights(zoo.select(stage='finetuning', epoch='all'))\n"
        f"weights.tensor({QUERY!r}), weights.matrix(), weights.distances(), list(weights.trajectories())[0].norms()\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules, 'torch was imported'\n"
        "weights.tensor('vit.layernorm.bias', return_tensors='pt')\n"
        "assert 'torch' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_words_that_mean_nothing(tiny_zoo: Path) -> None:
    """In a process of its own, where nothing checks annotations first."""
    program = (
        "import sys\nfrom vitzoo import Zoo\n"
        "weights = Zoo(sys.argv[1]).weights()\n"
        "for read in (lambda: weights.matrix(part='heads'), lambda: weights.distances('L2'),\n"
        "             lambda: weights.distances(by='layers'), lambda: weights.matrix(return_tensors='tf'),\n"
        "             lambda: weights[3], lambda: Zoo(sys.argv[1]).weights({}), lambda: weights.matrix(out=[])):\n"
        "    try: read()\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    command = [sys.executable, "-c", program, str(tiny_zoo)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines() == [
        'WeightsError part "heads" is no part of a model. Nearest: head.',
        'WeightsError metric "L2" is none. There are: l2, cosine.',
        'WeightsError by "layers" is none. Nearest: layer.',
        'WeightsError return_tensors "tf" is neither "np" nor "pt".',
        "TypeError weights[3]: expected a slice, such as weights[3:7]; vector(3) reads one checkpoint.",
        "SelectionError A dict is not a selection; expected zoo.select(...), or a part of fold.of(zoo.select(...)). "
        "Select members that you have by name with zoo.select(id=[...]).",
        "WeightsError out is a list; expected a numpy array (tensor.numpy()).",
    ]


def test_it_says_what_it_is(tiny_zoo: Path) -> None:
    weights = weights_of(tiny_zoo)
    assert repr(weights) == f"PopulationWeights(11 checkpoints of '{tiny_zoo}')"
    assert len(weights[2:5]) == 3
    assert weights[2:5].refs == weights.refs[2:5]
    assert MemberId(0) == weights.refs[0].member
