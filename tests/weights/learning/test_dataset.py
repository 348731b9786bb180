"""Weights as torch data sets: items compared with the members, through loaders, workers and ranks."""

import json
import multiprocessing
import pickle
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from tests.hub.server import Hub
from tests.published import REPO, plant
from tests.weights.checkpoints import map_tensors, rewrite
from vitzoo import MemberRef, Zoo
from vitzoo.errors import ConflictingArgumentsError, RecordError, RepresentationError, SelectionError, WeightsError
from vitzoo.weights.learning.dataset import IterableWeightsDataset, WeightsDataset
from vitzoo.weights.learning.scaling import fit_scaling
from vitzoo.weights.representations.graph import WeightsGraph
from vitzoo.weights.representations.statistics import LayerStatistics

FORMS: list[tuple[str, Any]] = [("flat", {}), ("tokens", {"token_size": 17}), ("graph", {"num_heads": 2})]
TOO_MANY = "This DataLoader will create"  # more workers than the machine has cores

pytestmark = pytest.mark.filterwarnings(f"ignore:{TOO_MANY}")


@pytest.fixture
def zoo(tiny_zoo: Path) -> Zoo:
    return Zoo(tiny_zoo)


@pytest.fixture
def data(zoo: Zoo) -> WeightsDataset:
    """All 33 checkpoints, flat."""
    return WeightsDataset(zoo.weights(zoo.select(epoch="all")))


def refs_of(loader: DataLoader[Any]) -> list[list[str]]:
    """List the checkpoints of each batch."""
    return [list(batch["ref"]) for batch in loader]


def flat(batches: list[list[str]]) -> list[str]:
    return list(chain.from_iterable(batches))


def names(data: WeightsDataset) -> list[str]:
    return [str(replace(ref, zoo=None)) for ref in data.weights.refs]


class TestItems:
    @pytest.mark.parametrize(
        ("form", "options", "part"), [(*FORMS[0], "backbone"), (*FORMS[1], "all"), (*FORMS[2], "all")]
    )
    def test_an_item_is_the_member_bit_for_bit(self, zoo: Zoo, form: str, options: Any, part: Any) -> None:
        pixels = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        data = WeightsDataset(zoo.weights(zoo.select(head_type="mlp", epoch=[1, 2])), form, part=part, **options)
        assert len(data) == 8
        for row, ref in enumerate(data.weights.refs):
            assert MemberRef.parse(data[row]["ref"]) == replace(ref, zoo=None)  # joins with the tables' id
            state, member = data.state_dict(data[row]["weights"]), zoo[ref.member]
            model = member.load(epoch=ref.epoch)
            logits = model(pixels).logits
            for name, tensor in model.state_dict().items():
                if name in state:
                    assert torch.equal(state[name].view(torch.int32), tensor.view(torch.int32))
                    tensor.zero_()
            assert not torch.equal(model(pixels).logits, logits)
            missing, unexpected = model.load_state_dict(state, strict=False)
            assert unexpected == []
            assert bool(missing) == (part == "backbone")
            assert torch.equal(model(pixels).logits, logits)

    def test_statistics_are_scaled_and_cannot_be_decoded(self, zoo: Zoo) -> None:
        weights = zoo.weights()
        plain, statistics = WeightsDataset(weights, "statistics"), LayerStatistics(weights.index())
        scaling = fit_scaling(weights, "statistics")
        scaled = WeightsDataset(weights, "statistics", scaling=scaling)
        for row in (0, 5, 10):
            expected = statistics.encode(weights.vector(row))
            assert np.array_equal(plain[row]["weights"], expected.astype(np.float32))
            assert np.array_equal(scaled[row]["weights"], scaling.scale(expected).astype(np.float32))
        with pytest.raises(RepresentationError, match="LayerStatistics cannot be decoded"):
            plain.state_dict(plain[0]["weights"])

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
    def test_items_have_the_files_dtype(self, tiny_copy: Path, dtype: torch.dtype) -> None:
        rewrite(tiny_copy / "pt-1", map_tensors(lambda tensor: tensor.to(dtype) / 3))
        zoo = Zoo(tiny_copy)
        data = WeightsDataset(zoo.weights(zoo.select(id="pt-1")), "tokens", token_size=8)
        assert data[0]["weights"].dtype == dtype
        for name, tensor in data.state_dict(data[0]["weights"]).items():
            assert tensor.dtype == dtype
            assert torch.equal(tensor, zoo["pt-1"].load_tensor(name))
        assert data.state_dict(data[0]["weights"].bfloat16())["vit.layernorm.bias"].dtype == torch.float32
        converted = WeightsDataset(data.weights, dtype="float32")
        assert torch.equal(converted[0]["weights"], WeightsDataset(data.weights)[0]["weights"].float())
        statistics = WeightsDataset(data.weights, "statistics")[0]["weights"]
        assert statistics.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)

    def test_dtypes_are_converted_on_request_only(self, tiny_copy: Path) -> None:
        rewrite(tiny_copy / "pt-1", map_tensors(torch.Tensor.half))
        zoo = Zoo(tiny_copy)
        both = zoo.weights(zoo.select(id=["pt-0", "pt-1"]))
        with pytest.raises(WeightsError, match=r"is F16, but .*pt-0 is F32"):
            WeightsDataset(both)
        data = WeightsDataset(both, dtype="float32")
        for name, tensor in data.state_dict(data[1]["weights"]).items():
            assert torch.equal(tensor, zoo["pt-1"].load_tensor(name).float())

    def test_bfloat16_becomes_float32(self, tiny_copy: Path) -> None:
        rewrite(tiny_copy / "pt-1", map_tensors(torch.Tensor.bfloat16))
        zoo = Zoo(tiny_copy)
        for ids in (["pt-0", "pt-1"], ["pt-1"]):
            data = WeightsDataset(zoo.weights(zoo.select(id=ids)))
            for name, tensor in data.state_dict(data[len(ids) - 1]["weights"]).items():
                assert torch.equal(tensor, zoo["pt-1"].load_tensor(name).float())

    def test_a_graph_has_the_heads_of_the_configs(self, tiny_copy: Path) -> None:
        zoo = Zoo(tiny_copy)
        data = WeightsDataset(zoo.weights(), "graph")
        assert data.representation == WeightsGraph(data.weights.index(), num_heads=2)
        with pytest.raises(RepresentationError) as error:
            WeightsDataset(zoo.weights(), "graph", num_heads=4)
        assert error.value.value == 4
        file = tiny_copy / "pt-1/config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"num_attention_heads": 4}))
        options: dict[str, Any]
        for options in ({}, {"num_heads": 2}):
            with pytest.raises(RepresentationError, match="pt-0 has 2 attention heads and pt-1 4"):
                WeightsDataset(Zoo(tiny_copy).weights(), "graph", **options)

    def test_structure_is_a_copy(self, zoo: Zoo) -> None:
        data = WeightsDataset(zoo.weights(), "graph")
        torch.nn.Embedding(17, 2)(data.structure["node_type"])
        assert {tensor.dtype for tensor in data.structure.values()} == {torch.int64}
        data.structure["edge_index"].zero_()
        assert data.structure["edge_index"].any()

    @pytest.mark.parametrize(("form", "options"), FORMS)
    def test_scaled_items_are_decoded_to_rounding(self, zoo: Zoo, form: str, options: Any) -> None:
        weights = zoo.weights(zoo.select(epoch=2))
        scaling = fit_scaling(weights)
        plain = WeightsDataset(weights, form, **options)
        data = WeightsDataset(weights, form, scaling=scaling, **options)
        vectors = np.stack([scaling.scale(vector) for _, vector in weights.iter_vectors()])
        for row, vector in enumerate(vectors):
            expected, found = plain.representation.encode(vector), data[row]["weights"]
            for name in expected if form == "graph" else [...]:
                assert np.array_equal(expected[name], found[name].numpy())
        norms = vectors[:, weights.index()["vit.embeddings.position_embeddings"].span]
        np.testing.assert_allclose([norms.mean(), norms.std()], [0, 1], atol=1e-5)
        back, own = data.state_dict(data[3]["weights"]), plain.state_dict(plain[3]["weights"])
        for name, tensor in own.items():
            torch.testing.assert_close(back[name], tensor, rtol=1e-6, atol=1e-7)

    def test_output_of_a_network_is_decoded(self, zoo: Zoo) -> None:
        weights = zoo.weights(zoo.select(id="pt-0"))
        data = WeightsDataset(weights, "tokens", token_size=17, scaling=fit_scaling(weights))
        tokens = data[0]["weights"]
        learnt = tokens.bfloat16().requires_grad_()
        near, own = data.state_dict(learnt), data.state_dict(tokens)
        assert near.keys() == own.keys()
        for name, tensor in own.items():
            assert near[name].dtype == torch.float32
            torch.testing.assert_close(near[name], tensor, rtol=0.02, atol=0.02)
        with pytest.raises(RepresentationError, match="shape"):
            data.state_dict(tokens[:3])

    def test_items_have_numbers(self, data: WeightsDataset) -> None:
        assert torch.equal(data[-1]["weights"], data[32]["weights"])
        assert data[-33]["ref"] == data[0]["ref"] == data[np.int64(0)]["ref"] == names(data)[0]
        for row in (33, -34):
            with pytest.raises(IndexError, match=f"no item {row} in 33"):
                data[row]
        wrong: Any = slice(0, 2)
        with pytest.raises(TypeError):
            data[wrong]
        assert [item["ref"] for item in torch.utils.data.Subset[Any](data, [4, 2])] == [names(data)[4], names(data)[2]]

    def test_items_collate_to_batches(self, zoo: Zoo) -> None:
        data = WeightsDataset(zoo.weights(), "graph", num_heads=2, targets=("test_accuracy", "parent"))
        first, *_ = batches = list(DataLoader(data, batch_size=4))
        assert [len(batch["ref"]) for batch in batches] == [4, 4, 3]
        for name, features in data[1]["weights"].items():
            assert first["weights"][name].shape == (4, *features.shape)
            assert torch.equal(first["weights"][name][1], features)
        assert (first["test_accuracy"].dtype, first["parent"].dtype) == (torch.float32, torch.int64)
        assert first["weights"]["edge_features"].shape[1] == data.structure["edge_index"].shape[1]

    def test_other_scalings_are_refused(self, zoo: Zoo) -> None:
        mlp = zoo.weights(zoo.select(head_type="mlp"))
        arguments: dict[str, Any]
        for arguments, representation in (({"part": "all"}, "flat"), ({}, "statistics")):
            with pytest.raises(WeightsError, match="fitted for other numbers"):
                WeightsDataset(mlp, representation, scaling=fit_scaling(mlp), **arguments)

    def test_bad_selections_and_options_are_refused(self, zoo: Zoo) -> None:
        with pytest.raises(WeightsError, match="no checkpoints"):
            WeightsDataset(zoo.weights(zoo.select()[:0]))
        with pytest.raises(RepresentationError, match="token_size"):
            WeightsDataset(zoo.weights(), "tokens")
        with pytest.raises(WeightsError, match="different tensors"):
            WeightsDataset(zoo.weights(), part="all")


class TestSharding:
    @pytest.mark.parametrize(
        ("world_size", "drop_last", "seed"),
        [(1, False, None), (2, False, 7), (3, True, None), (5, False, 7), (5, True, 7)],
    )
    def test_ranks_take_each_item_once(
        self, data: WeightsDataset, world_size: int, drop_last: bool, seed: int | None
    ) -> None:
        ranks = [
            IterableWeightsDataset(data, seed=seed, rank=rank, world_size=world_size, drop_last=drop_last)
            for rank in range(world_size)
        ]
        found = [[item["ref"] for item in rank] for rank in ranks]
        assert [len(rank) for rank in ranks] == [len(refs) for refs in found]
        lengths = sorted(map(len, found))
        assert lengths == (
            [33 // world_size] * world_size
            if drop_last
            else sorted(33 // world_size + (r < 33 % world_size) for r in range(world_size))
        )
        everything = Counter(chain.from_iterable(found))
        assert max(everything.values()) == 1
        assert len(everything) == (33 // world_size * world_size if drop_last else 33)
        if seed is None and world_size == 1:
            assert found == [names(data)]

    def test_workers_share_the_items_of_a_rank_and_change_no_batch(self, data: WeightsDataset) -> None:
        items = IterableWeightsDataset(data, seed=1, batch_size=4, rank=1, world_size=2)
        alone = refs_of(DataLoader(items, batch_size=4))
        for workers in (2, 3):
            loader = DataLoader(items, batch_size=4, num_workers=workers, multiprocessing_context="fork")
            assert len(loader) == len(alone)  # torch warns where it is fewer
            assert refs_of(loader) == alone

    def test_another_batch_size_gives_each_item_once(self, data: WeightsDataset) -> None:
        loader = DataLoader(IterableWeightsDataset(data), batch_size=5, num_workers=3, multiprocessing_context="fork")
        batches = refs_of(loader)
        assert sorted(flat(batches)) == sorted(names(data))
        assert batches[0] == names(data)[0:15:3]

    def test_the_order_follows_from_seed_and_epoch_alone(self, data: WeightsDataset) -> None:
        def order(seed: int | None, epoch: int) -> list[str]:
            items = IterableWeightsDataset(data, seed=seed)
            items.set_epoch(epoch)
            return [item["ref"] for item in items]

        assert order(0, 1) == order(0, 1)
        different = [order(0, 0), order(0, 1), order(1, 0), names(data)]
        assert len(set(map(tuple, different))) == 4
        assert {tuple(sorted(refs)) for refs in different} == {tuple(sorted(names(data)))}
        assert order(None, 3) == names(data)

    def test_persistent_workers_follow_set_epoch(self, data: WeightsDataset) -> None:
        items = IterableWeightsDataset(data, seed=0, batch_size=3)
        loader = DataLoader(items, batch_size=3, num_workers=2, persistent_workers=True, multiprocessing_context="fork")
        found = []
        for epoch in (0, 1):
            items.set_epoch(epoch)
            found.append(flat(refs_of(loader)))
            assert found[-1] == [item["ref"] for item in items]
        assert found[0] != found[1]
        next(iter(loader))  # an epoch that is stopped early
        assert flat(refs_of(loader)) == found[1]

    def test_a_pickled_data_set_continues(self, data: WeightsDataset) -> None:
        items = IterableWeightsDataset(data, seed=3, rank=1, world_size=2)
        items.set_epoch(4)
        copy = pickle.loads(pickle.dumps(items))
        assert [item["ref"] for item in copy] == [item["ref"] for item in items]
        copy.set_epoch(5)
        assert [item["ref"] for item in copy] != [item["ref"] for item in items]

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ({"rank": 1}, ConflictingArgumentsError),
            ({"world_size": 2}, ConflictingArgumentsError),
            ({"rank": 2, "world_size": 2}, SelectionError),
            ({"rank": -1, "world_size": 2}, SelectionError),
            ({"batch_size": 0}, SelectionError),
            ({"seed": -1}, SelectionError),
        ],
    )
    def test_bad_arguments_are_refused(self, data: WeightsDataset, arguments: Any, error: type[Exception]) -> None:
        name, value = next(iter(arguments.items()))
        with pytest.raises(error, match=f"{name} is {value}|{name} {value}"):
            IterableWeightsDataset(data, **arguments)
        with pytest.raises(SelectionError, match="epoch is -1"):
            IterableWeightsDataset(data).set_epoch(-1)

    def test_rank_is_that_of_torch_distributed(
        self, data: WeightsDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In two processes, for data sets made before and after the process group, with and without workers."""
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
        early = IterableWeightsDataset(data, seed=5, batch_size=2)
        context = multiprocessing.get_context("fork")
        queue: Any = context.Queue()
        ranks = [context.Process(target=_run_rank, args=(rank, early, tmp_path, queue)) for rank in range(2)]
        for process in ranks:
            process.start()
        found = [queue.get(timeout=120) for _ in ranks]
        for process in ranks:
            process.join(120)
        assert sorted(map(len, found)) == [16, 17]
        assert sorted(chain.from_iterable(found)) == sorted(names(data))


def _run_rank(rank: int, early: IterableWeightsDataset, folder: Path, queue: Any) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    late = IterableWeightsDataset(early.dataset, seed=5, batch_size=2)
    expected = [item["ref"] for item in late]
    found = [
        flat(refs_of(DataLoader(items, batch_size=2, num_workers=workers, multiprocessing_context=context)))
        for items in (early, late)
        for workers, context in ((0, None), (2, "fork"))
    ]
    whole = [item["ref"] for item in IterableWeightsDataset(early.dataset, rank=0, world_size=1)]
    sent = pickle.dumps(early)
    dist.destroy_process_group()
    found.append([item["ref"] for item in pickle.loads(sent)])  # in a spawned worker, which has no process group
    queue.put(expected if found == [expected] * 5 and whole == names(early.dataset) else found)


class TestWorkers:
    def test_forked_workers_return_the_items(self, zoo: Zoo) -> None:
        data = WeightsDataset(zoo.weights(), "graph", targets=("test_loss", "optimizer"))
        workers = DataLoader(data, batch_size=4, num_workers=2, multiprocessing_context="fork")
        for batch, expected in zip(workers, DataLoader(data, batch_size=4), strict=True):
            assert batch["ref"] == expected["ref"]
            for name in ("test_loss", "optimizer"):
                torch.testing.assert_close(batch[name], expected[name], rtol=0, atol=0, equal_nan=True)
            for name, features in batch["weights"].items():
                assert torch.equal(features, expected["weights"][name])

    @pytest.mark.slow  # a process that imports torch
    def test_a_persistent_spawned_worker_follows_the_epoch(self, zoo: Zoo) -> None:
        weights = zoo.weights(zoo.select(epoch="all"))
        data = WeightsDataset(weights, "tokens", token_size=33, targets="parent", scaling=fit_scaling(weights))
        items = IterableWeightsDataset(data, seed=2, batch_size=8)
        loader = DataLoader(
            items, batch_size=8, num_workers=1, multiprocessing_context="spawn", persistent_workers=True
        )
        for epoch in (0, 1):
            items.set_epoch(epoch)
            for batch, expected in zip(loader, DataLoader(items, batch_size=8), strict=True):
                assert batch["ref"] == expected["ref"]
                assert torch.equal(batch["weights"], expected["weights"])
                assert torch.equal(batch["parent"], expected["parent"])

    def test_a_pickled_data_set_has_no_weights_and_no_headers(self, zoo: Zoo) -> None:
        few, many = (
            WeightsDataset(zoo.weights(zoo.select(epoch=epoch)), "graph", num_heads=2) for epoch in ("last", "all")
        )
        for data in (few, many):
            data[0]
        content = pickle.dumps(many)
        assert len(content) - len(pickle.dumps(few)) < 22 * 1024  # a row of the tables and a name
        copy = pickle.loads(content)
        assert "_headers" not in vars(copy.weights)
        for row in (0, 32):
            for name, features in many[row]["weights"].items():
                assert torch.equal(copy[row]["weights"][name], features)

    def test_reading_leaves_no_files_open_and_no_memory(self, data: WeightsDataset) -> None:
        process = psutil.Process()

        def read() -> None:
            for row in range(len(data)):
                data[row]

        read()
        before = process.num_fds()
        size, grown, peaks = 4 * data.representation.index.size, [], []
        tracemalloc.start()
        try:
            read()
            for _ in range(3):  # other threads allocate too: the least is this one's
                first, _ = tracemalloc.get_traced_memory()
                tracemalloc.reset_peak()
                read()
                last, peak = tracemalloc.get_traced_memory()
                grown.append(last - first)
                peaks.append(peak - first)
        finally:
            tracemalloc.stop()
        assert process.num_fds() <= before
        assert not [file for file in process.open_files() if file.path.endswith(".safetensors")]
        assert min(grown) < size  # less than one of 33 vectors
        assert min(peaks) < 8 * size


class TestChangedFiles:
    @pytest.fixture
    def data(self, tiny_copy: Path) -> WeightsDataset:
        zoo = Zoo(tiny_copy)
        return WeightsDataset(zoo.weights(zoo.select(stage="pretraining")))

    @pytest.mark.parametrize("change", [torch.Tensor.half, lambda tensor: torch.cat([tensor, tensor])])
    def test_a_file_that_changes_is_refused(
        self, data: WeightsDataset, tiny_copy: Path, change: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        """In the process that knows its header, and in a worker that reads it for the first time."""
        data[1]
        worker = pickle.loads(pickle.dumps(data))
        rewrite(tiny_copy / "pt-1", map_tensors(change))
        for items in (data, worker):
            with pytest.raises(WeightsError, match="changed while it was in use") as error:
                items[1]
            assert error.value.path == tiny_copy / "pt-1/model.safetensors"
        assert data[0]["weights"].isfinite().all()

    def test_a_file_that_is_truncated_or_deleted_is_refused(self, data: WeightsDataset, tiny_copy: Path) -> None:
        file = tiny_copy / "pt-1/model.safetensors"
        data[1]
        file.write_bytes(file.read_bytes()[:-4])
        with pytest.raises(WeightsError, match="changed while it was in use"):
            data[1]
        with pytest.raises(WeightsError, match="truncated"):
            pickle.loads(pickle.dumps(data))[1]
        file.unlink()
        loader = DataLoader(data, batch_size=3, num_workers=1, multiprocessing_context="fork")
        for read in (lambda: data[1], lambda: list(loader)):
            with pytest.raises(RecordError, match=r"pt-1/model.safetensors is missing"):
                read()


class TestHub:
    def test_downloaded_once_and_then_offline(self, hub: Hub, tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plant(hub, tiny_zoo)
        zoo = Zoo(REPO)
        weights = zoo.weights(zoo.select(stage="pretraining", epoch=[1, 2]))
        data = WeightsDataset(weights, "tokens", token_size=16, targets=("test_loss", "optimizer"))
        for member in ("pt-0", "pt-1", "pt-2"):
            for epoch in (1, 2):
                assert (zoo.source.root / member / f"model.epoch-{epoch:02}.safetensors").is_file()
        assert not list(zoo.source.root.rglob("ft-*/*.safetensors"))
        WeightsDataset(zoo.weights(zoo.select(stage="pretraining", epoch=[1, 2])))
        hub.reset()  # whatever is asked from here on is an error
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        here = Zoo(tiny_zoo)
        own = WeightsDataset(here.weights(here.select(stage="pretraining", epoch=[1, 2])), "tokens", token_size=16)
        for items in (data, pickle.loads(pickle.dumps(data))):
            loader = DataLoader(items, batch_size=3, num_workers=2, multiprocessing_context="fork")
            found = torch.cat([batch["weights"] for batch in loader])
            assert torch.equal(found, torch.stack([own[row]["weights"] for row in range(6)]))
        assert data[0]["ref"] == "pt-0@1"
        assert not hub.requests.of(host="hub")

    def test_errors_come_before_a_download(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        zoo = Zoo(REPO)
        wrong: list[Any] = [{"targets": "accuracy"}, {"representation": "token"}, {"part": "all"}]
        for arguments in wrong:
            with pytest.raises((SelectionError, RepresentationError, WeightsError)):
                WeightsDataset(zoo.weights(), **arguments)
        assert not list(zoo.source.root.rglob("*.safetensors"))
