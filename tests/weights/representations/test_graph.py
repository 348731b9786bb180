"""WeightsGraph by hand, its symmetries, and torch_geometric. See test_representation for the network's outputs."""

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order

from tests.vectors import VIT_S, draw_vector, same_bits, vit_shapes
from vitzoo.architectures import disk_name
from vitzoo.architectures.graph import EDGE_TYPES, NODE_TYPES, GraphStructure
from vitzoo.architectures.vit import ViTShape
from vitzoo.errors import MissingPackageError, RepresentationError, WeightsError
from vitzoo.weights.index import WeightsIndex, is_in_part
from vitzoo.weights.representations.graph import WeightsGraph

SMALL = ViTShape(
    image_size=2,
    patch_size=1,
    num_channels=1,
    hidden_size=4,
    num_hidden_layers=2,
    intermediate_size=3,
    qkv_bias=True,
    num_labels=2,
    head_width=None,
)


def make(shape: ViTShape, num_heads: int = 1) -> WeightsGraph:
    return WeightsGraph(WeightsIndex(shape.tensor_shapes()), num_heads)


def nodes_of(network: GraphStructure, kind: str, layer: int | None = None) -> list[int]:
    """List the nodes of a type, of one layer if it is given."""
    chosen = network.node_type == NODE_TYPES.index(kind)
    return np.flatnonzero(chosen if layer is None else chosen & (network.node_layer == layer)).tolist()


def drawn(network: GraphStructure) -> set[tuple[str, str, str]]:
    """Return the types of source, edge and target of all edges."""
    ends = network.node_type[network.edge_index]
    triples = np.unique(np.stack([ends[0], network.edge_type, ends[1]]), axis=1).T
    return {(NODE_TYPES[source], EDGE_TYPES[edge], NODE_TYPES[target]) for source, edge, target in triples}


def test_by_hand() -> None:
    """A backbone of one channel without blocks: one pixel, two positions."""
    index = WeightsIndex(
        {
            "vit.embeddings.cls_token": (1, 1, 1),
            "vit.embeddings.position_embeddings": (1, 2, 1),
            "vit.embeddings.patch_embeddings.projection.weight": (1, 1, 1, 1),
            "vit.embeddings.patch_embeddings.projection.bias": (1,),
            "vit.layernorm.weight": (1,),
            "vit.layernorm.bias": (1,),
            "classifier.weight": (2, 1),
            "classifier.bias": (2,),
        }
    )
    graph = WeightsGraph(index, num_heads=1)
    kinds = ["pixel", "patch", "embedding", "cls_token", "position", "position", "final_norm", "output", "output"]
    assert [NODE_TYPES[kind] for kind in graph.network.node_type] == kinds
    assert graph.network.node_layer.tolist() == [0, 0, 0, 0, 0, 0, 1, 2, 2]
    assert graph.network.node_number.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 1]
    assert graph.network.edge_index.T.tolist() == [[0, 1], [1, 2], [3, 2], [4, 2], [5, 2], [2, 6], [6, 7], [6, 8]]
    assert [EDGE_TYPES[kind] for kind in graph.network.edge_type] == [
        *("linear", "residual", "embedding", "embedding", "embedding", "scale", "linear", "linear")
    ]
    # cls 1, positions 2 3, patch 4 and 5, norm 6 and 7, head 8 9 and 10 11
    encoded = graph.encode(np.arange(1.0, 12.0))
    assert encoded["node_features"].ravel().tolist() == [0, 5, 0, 0, 0, 0, 7, 10, 11]
    assert encoded["edge_features"].ravel().tolist() == [4, 1, 1, 2, 3, 6, 8, 9]
    assert graph.decode(encoded).tolist() == list(range(1, 12))


def test_attention_joins_the_channels_of_a_head() -> None:
    network = make(SMALL, num_heads=2).network
    query, key, value, heads = (nodes_of(network, kind, 1) for kind in ("query", "key", "value", "attention_head"))
    attention = network.edge_index[:, network.edge_type == EDGE_TYPES.index("attention")].T.tolist()
    assert attention[:12] == [
        *([query[channel], key[channel]] for channel in range(4)),
        *([key[channel], heads[channel // 2]] for channel in range(4)),
        *([heads[channel // 2], value[channel]] for channel in range(4)),
    ]
    assert len(attention) == 2 * 12


def test_types_of_nodes_that_edges_join() -> None:
    expected = {
        *[("pixel", "linear", "patch"), ("patch", "residual", "embedding")],
        *[("cls_token", "embedding", "embedding"), ("position", "embedding", "embedding")],
        *[("embedding", "scale", "norm_before"), ("mlp_output", "scale", "norm_before")],
        *[("norm_before", "linear", kind) for kind in ("query", "key", "value")],
        *[("query", "attention", "key"), ("key", "attention", "attention_head")],
        *[("attention_head", "attention", "value"), ("value", "linear", "attention_output")],
        *[("embedding", "residual", "attention_output"), ("mlp_output", "residual", "attention_output")],
        *[("attention_output", "scale", "norm_after"), ("norm_after", "linear", "mlp_hidden")],
        *[("mlp_hidden", "linear", "mlp_output"), ("attention_output", "residual", "mlp_output")],
        *[("mlp_output", "scale", "final_norm"), ("final_norm", "linear", "output")],
    }
    assert drawn(make(SMALL).network) == expected
    head = {("final_norm", "linear", "classifier_hidden"), ("classifier_hidden", "linear", "output")}
    assert drawn(make(replace(SMALL, head_width=3)).network) == expected - {("final_norm", "linear", "output")} | head


def size_of(shape: ViTShape, num_heads: int) -> tuple[int, int]:
    """Nodes and edges, counted by hand from the shapes."""
    hidden, wide, blocks = shape.hidden_size, shape.intermediate_size, shape.num_hidden_layers
    pixels = shape.num_channels * shape.patch_size**2
    head = shape.num_labels + (shape.head_width or 0)
    nodes = pixels + 2 * hidden + 1 + shape.num_tokens + blocks * (7 * hidden + num_heads + wide) + hidden + head
    biases = hidden + blocks * ((5 + 3 * shape.qkv_bias) * hidden - hidden + wide) + hidden + head
    parameters = sum(int(np.prod(size)) for size in shape.tensor_shapes().values())
    return nodes, parameters - biases + hidden + blocks * 5 * hidden


@given(vit_shapes(), st.data())
def test_round_trip_bit_for_bit_and_every_parameter_once(shape: ViTShape, data: st.DataObject) -> None:
    num_heads = data.draw(st.sampled_from([n for n in range(1, 5) if shape.hidden_size % n == 0]))
    graph = make(shape, num_heads)
    assert (len(graph.network.node_type), len(graph.network.edge_type)) == size_of(shape, num_heads)
    vector = draw_vector(data, graph.index)
    assert same_bits(graph.decode(graph.encode(vector)), vector)
    encoded = graph.encode(np.arange(2.0, graph.index.size + 2))  # features without a parameter are 0 and 1
    features = np.concatenate([encoded["node_features"], encoded["edge_features"]]).ravel()
    assert sorted(features[features > 1]) == list(range(2, graph.index.size + 2))
    assert (encoded["edge_features"] > 0).all()
    assert (encoded["node_features"] != 1).all()


@given(vit_shapes())
def test_every_node_is_between_inputs_and_outputs_and_edges_are_simple(shape: ViTShape) -> None:
    network = make(shape).network
    nodes = len(network.node_type)
    sources, targets = network.edge_index
    assert len(np.unique(sources * nodes + targets)) == len(sources)
    forward = csr_matrix((np.ones(len(sources)), (sources, targets)), shape=(nodes, nodes))
    inputs = [node for kind in ("pixel", "cls_token", "position") for node in nodes_of(network, kind)]
    outputs = nodes_of(network, "output")
    for node in inputs:
        assert set(outputs) <= set(breadth_first_order(forward, node)[0].tolist())
    for node in outputs:
        assert set(inputs) <= set(breadth_first_order(forward.T.tocsr(), node)[0].tolist())
    reached = {node for start in inputs for node in breadth_first_order(forward, start)[0].tolist()}
    reaching = {node for end in outputs for node in breadth_first_order(forward.T.tocsr(), end)[0].tolist()}
    assert reached == reaching == set(range(nodes))


def permuted(index: WeightsIndex, vector: np.ndarray, *, rows: list[str], columns: list[str], order: np.ndarray):
    """Permute the outputs of some modules and the inputs of others."""
    tensors = index.unflatten(vector.copy())
    for module in rows:
        for name in (f"{module}.weight", f"{module}.bias"):
            tensors[name] = tensors[name][order]
    for module in columns:
        tensors[f"{module}.weight"] = tensors[f"{module}.weight"][:, order]
    return index.flatten(tensors)


def edge_set(network: GraphStructure, features: np.ndarray, rename: np.ndarray) -> set[tuple[int, int, int, float]]:
    sources, targets = rename[network.edge_index]
    return set(
        zip(sources.tolist(), targets.tolist(), network.edge_type.tolist(), features.ravel().tolist(), strict=True)
    )


# Modules of block 1 (by their names in memory) with permuted outputs and with permuted inputs, types of permuted nodes,
# and a permutation of four channels in two heads that does not change the function.
WITHIN, HEADS = [1, 0, 2, 3], [2, 3, 0, 1]
SYMMETRIES: list[tuple[list[str], list[str], list[str], list[int]]] = [
    (["mlp.fc1"], ["mlp.fc2"], ["mlp_hidden"], [2, 0, 1]),
    (["attention.q_proj", "attention.k_proj"], [], ["query", "key"], WITHIN),
    (["attention.v_proj"], ["attention.o_proj"], ["value"], WITHIN),
    (
        ["attention.q_proj", "attention.k_proj", "attention.v_proj"],
        ["attention.o_proj"],
        ["query", "key", "value", "attention_head"],
        HEADS,
    ),
]


def module_on_disk(module: str) -> str:
    return disk_name(f"vit.layers.1.{module}.weight").removesuffix(".weight")


@pytest.mark.parametrize(("rows", "columns", "kinds", "order"), SYMMETRIES)
def test_permuted_neurons_are_permuted_nodes(
    rows: list[str], columns: list[str], kinds: list[str], order: list[int]
) -> None:
    graph = make(SMALL, num_heads=2)
    vector = np.random.default_rng(0).normal(size=graph.index.size)
    other = permuted(
        graph.index,
        vector,
        rows=[module_on_disk(module) for module in rows],
        columns=[module_on_disk(module) for module in columns],
        order=np.array(order),
    )
    network, before, after = graph.network, graph.encode(vector), graph.encode(other)
    old_place = np.arange(len(network.node_type))
    for kind in kinds:
        nodes = np.array(nodes_of(network, kind, 2))
        old_place[nodes] = nodes[order if len(nodes) == len(order) else [1, 0]]  # two heads, four channels
    assert (after["node_features"] == before["node_features"][old_place]).all()
    everyone = np.arange(len(old_place))
    renamed = edge_set(network, after["edge_features"], old_place)
    assert renamed == edge_set(network, before["edge_features"], everyone)
    assert renamed != edge_set(network, after["edge_features"], everyone)


def test_vit_s() -> None:
    graph = make(VIT_S, num_heads=6)
    assert (len(graph.network.node_type), len(graph.network.edge_type)) == size_of(VIT_S, 6) == (52_978, 21_676_032)


def part_of(index: WeightsIndex, part: str) -> WeightsIndex:
    return WeightsIndex({name: shape for name, shape in index.shapes.items() if is_in_part(name, part)})


def test_parts_of_a_member() -> None:
    index = WeightsIndex(SMALL.tensor_shapes())
    vector = np.arange(float(index.size))
    for part in ("backbone", "head"):
        graph = WeightsGraph(part_of(index, part), num_heads=2)
        own = vector[: graph.index.size]
        assert (graph.decode(graph.encode(own)) == own).all()
    assert drawn(WeightsGraph(part_of(index, "head"), 2).network) == {("embedding", "linear", "output")}
    backbone = WeightsGraph(part_of(index, "backbone"), 2).network
    assert NODE_TYPES[backbone.node_type[-1]] == "final_norm"


@pytest.mark.parametrize("num_heads", [0, -1, 3, 8, True])
def test_heads_that_do_not_divide_the_width_are_refused(num_heads: int) -> None:
    with pytest.raises(RepresentationError, match="divisor of the width 4") as error:
        make(SMALL, num_heads)
    assert error.value.value is num_heads


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"vit.pooler.dense.weight": (4, 4)}, RepresentationError, "vit.pooler.dense.weight has no place"),
        ({"vit.embeddings.cls_token": None}, WeightsError, 'no tensor "vit.embeddings.cls_token"'),
        ({"classifier.weight": (2, 5)}, RepresentationError, "classifier.weight has 10 numbers; expected 8"),
        ({"classifier.bias": (3,)}, RepresentationError, "classifier.bias has 3 numbers; expected 2"),
    ],
)
def test_tensors_of_another_network_are_refused(
    change: dict[str, tuple[int, ...] | None], error: type[Exception], says: str
) -> None:
    shapes = SMALL.tensor_shapes() | change
    index = WeightsIndex({name: shape for name, shape in shapes.items() if shape is not None})
    with pytest.raises(error, match=says):
        WeightsGraph(index, 2).encode(np.zeros(index.size))


def test_an_empty_index_is_refused() -> None:
    with pytest.raises(RepresentationError, match="no tensors"):
        WeightsGraph(WeightsIndex({}), 1)


@pytest.mark.parametrize("change", [{"edge_features": None}, {"edge_features": "f4"}, {"node_features": (3, 1)}])
def test_other_features_are_refused(change: dict[str, Any]) -> None:
    graph = make(SMALL)
    encoded = graph.encode(np.zeros(graph.index.size))
    for name, wrong in change.items():
        if wrong is None:
            del encoded[name]
        else:
            encoded[name] = encoded[name].astype(wrong) if isinstance(wrong, str) else np.zeros(wrong)
    with pytest.raises(RepresentationError, match="and one dtype"):
        graph.decode(encoded)


# torch_geometric compiles with torch.jit while it is imported, which torch 2.13 deprecates.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_torch_geometric() -> None:
    torch_geometric = pytest.importorskip("torch_geometric.data")
    graph = make(SMALL, num_heads=2)
    vectors = [np.random.default_rng(seed).normal(size=graph.index.size).astype("f4") for seed in (0, 1)]
    data, other = (graph.to_torch_geometric(graph.encode(vector)) for vector in vectors)
    assert isinstance(data, torch_geometric.Data)
    assert data.validate()
    assert data.is_directed()
    assert not data.has_self_loops()
    assert (data.num_nodes, data.num_edges) == size_of(SMALL, 2)
    assert (data.num_node_features, data.num_edge_features) == (1, 1)
    assert sorted(data.keys()) == sorted(["x", "edge_attr", "num_nodes", *graph.structure()])
    for name, array in graph.structure().items():
        assert same(data[name].numpy(), array.astype(np.int64))
        assert data[name].data_ptr() == other[name].data_ptr()  # one structure for both
    batch = torch_geometric.Batch.from_data_list([data, other])
    for vector, one in zip(vectors, batch.to_data_list(), strict=True):
        assert same(one.edge_index.numpy(), graph.network.edge_index)
        features = {"node_features": one.x.numpy(), "edge_features": one.edge_attr.numpy()}
        assert same_bits(graph.decode(features), vector)
    assert data.edge_index is not None
    data.edge_index.zero_()  # a copy
    assert graph.network.edge_index.any()


def test_structure_is_read_only() -> None:
    for array in make(SMALL).structure().values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def same(left: np.ndarray, right: np.ndarray) -> bool:
    return left.dtype == right.dtype and np.array_equal(left, right)


def test_without_torch_geometric(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("torch_geometric")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Hidden(), *sys.meta_path])
    graph = make(SMALL)
    with pytest.raises(MissingPackageError, match="pip install torch_geometric") as raised:
        graph.to_torch_geometric(graph.encode(np.zeros(graph.index.size)))
    assert raised.value.package == "torch_geometric"


class _Hidden:
    """A finder that hides torch_geometric, as if it were not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "torch_geometric":
            raise ModuleNotFoundError(f"No module named {name!r}", name="torch_geometric")
