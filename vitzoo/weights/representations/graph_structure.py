"""The network of a member as nodes and edges: what depends on its shapes and heads alone, and where each tensor goes.

A node is a neuron, an edge a weight between two; biases belong to nodes. How a member's numbers get there is
`vitzoo.weights.representations.graph`'s business. Everything is planned as blocks of nodes and of edges, then
written into arrays. A
block of edges has the order of its tensor's numbers, so that a tensor is a slice of the features, not a list of places.

    pixel -linear-> patch -residual-> embedding -scale-> norm_before -linear-> query, key, value
    cls_token, position -embedding-> embedding
    query -attention-> key -attention-> attention_head -attention-> value -linear-> attention_output
    embedding -residual-> attention_output -scale-> norm_after -linear-> mlp_hidden -linear-> mlp_output
    attention_output -residual-> mlp_output -scale-> the next block's norm_before, or final_norm
    final_norm -linear-> output, or final_norm -linear-> classifier_hidden -linear-> output
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int, Int8

from vitzoo.architectures.vit import LAYER_NAMES
from vitzoo.errors import RepresentationError
from vitzoo.tensors.floats import is_integer
from vitzoo.tensors.index import WeightsIndex

NODE_TYPES = (
    *("pixel", "cls_token", "position", "patch", "embedding"),
    *("norm_before", "query", "key", "attention_head", "value", "attention_output"),
    *("norm_after", "mlp_hidden", "mlp_output"),
    *("final_norm", "classifier_hidden", "output"),
)
EDGE_TYPES = ("linear", "scale", "embedding", "residual", "attention")


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphStructure:
    """Nodes and edges, the same for every member of an index, and the features that each tensor is; read-only.

    Args:
        node_type: Index into ``NODE_TYPES``.
        node_layer: 0 for the embeddings, N+1 for block N, then the final norm and the head.
        node_number: From 0 in the nodes of one type and layer: the channel, neuron, pixel, position or class.
        edge_index: Source and target of each edge.
        edge_type: Index into ``EDGE_TYPES``.
        node_tensors: Tensors that are features of nodes, with the nodes.
        edge_tensors: Tensors that are features of edges, with the edges.
    """

    node_type: Int8[np.ndarray, "nodes"]
    node_layer: Int[np.ndarray, "nodes"]
    node_number: Int[np.ndarray, "nodes"]
    edge_index: Int[np.ndarray, "2 edges"]
    edge_type: Int8[np.ndarray, "edges"]
    node_tensors: dict[str, slice]
    edge_tensors: dict[str, slice]

    def __post_init__(self):
        for array in (self.node_type, self.node_layer, self.node_number, self.edge_index, self.edge_type):
            array.flags.writeable = False


def build_structure(index: WeightsIndex, *, num_heads: int | np.integer) -> GraphStructure:
    """The graph of a whole ViT, or of its backbone or its head.

    Args:
        index: The tensors.
        num_heads: Attention heads of a block, a divisor of the width.

    Raises:
        RepresentationError: A tensor has no place, or the heads do not divide the width.
        WeightsError: A tensor is missing.
    """
    check_heads(index, num_heads)
    plan = _Plan(index, int(num_heads))
    plan.network(_width(index))
    left = [name for name in index if name not in plan.node_tensors and name not in plan.edge_tensors]
    if left:
        raise RepresentationError(f"{left[0]} has no place in the graph of a ViT.", value=left[0])
    return plan.arrays()


def check_heads(index: WeightsIndex, num_heads: int | np.integer) -> None:
    """See that there may be so many heads, without making a graph.

    Raises:
        RepresentationError: They do not divide the width, or there is no tensor.
    """
    if not index:
        raise RepresentationError("There is no tensor to make a graph of.", value=index)
    if not is_integer(num_heads) or num_heads < 1 or _width(index) % num_heads:
        raise RepresentationError(
            f"num_heads is {num_heads!r}; expected a divisor of the width {_width(index)}, the num_attention_heads of "
            "the member's config.",
            value=num_heads,
        )


def _width(index: WeightsIndex) -> int:
    """Channels of a token: the last axis of whatever comes first, in all parts of a member."""
    return (1, *index.shapes[next(iter(index))])[-1]


_Nodes = Int[np.ndarray, "_"]


@dataclass(frozen=True, slots=True)
class _Edges:
    """A block of edges; sources and targets broadcast to the shape of the tensor that they carry."""

    type: str
    sources: np.ndarray
    targets: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return np.broadcast_shapes(self.sources.shape, self.targets.shape)


@dataclass(slots=True)
class _Plan:
    index: WeightsIndex
    num_heads: int
    nodes: list[tuple[str, int, int]] = field(default_factory=list)  # type, layer, how many
    edges: list[_Edges] = field(default_factory=list)
    node_tensors: dict[str, slice] = field(default_factory=dict)
    edge_tensors: dict[str, slice] = field(default_factory=dict)
    num_nodes: int = 0
    num_edges: int = 0

    def network(self, width: int) -> None:
        """The whole network, or those of its layers that the index has."""
        embedded = "embeddings" in self.index.layers
        stream = self.embeddings() if embedded else self.add_nodes("embedding", 0, width)
        blocks = [name for name in self.index.layers if name.startswith("layer.")]
        for layer, name in enumerate(blocks, 1):
            stream = self.block(stream, name, layer)
        if "layernorm" in self.index.layers:
            stream = self.norm("final_norm", len(blocks) + 1, stream, "vit.layernorm")
        if "classifier" in self.index.layers:
            self.head(stream, len(blocks) + 2)

    def embeddings(self) -> _Nodes:
        prefix = "vit.embeddings"
        projection = f"{prefix}.patch_embeddings.projection"
        width, *pixels = self.index[f"{projection}.weight"].shape
        inputs = self.add_nodes("pixel", 0, int(np.prod(pixels)))
        patches = self.linear("patch", 0, inputs, projection)
        stream = self.add_nodes("embedding", 0, width)
        self.add_edges("residual", patches, stream)
        for kind, name in (("cls_token", f"{prefix}.cls_token"), ("position", f"{prefix}.position_embeddings")):
            tokens = self.add_nodes(kind, 0, self.index[name].shape[1])
            self.add_edges("embedding", tokens[:, None], stream[None, :], name)
        return stream

    def block(self, stream: _Nodes, name: str, layer: int) -> _Nodes:
        modules = {memory: f"vit.encoder.{name}.{disk}" for memory, disk in LAYER_NAMES.items()}
        normed = self.norm("norm_before", layer, stream, modules["layernorm_before"])
        query = self.linear("query", layer, normed, modules["attention.q_proj"])
        key = self.linear("key", layer, normed, modules["attention.k_proj"])
        value = self.linear("value", layer, normed, modules["attention.v_proj"])
        heads = np.repeat(self.add_nodes("attention_head", layer, self.num_heads), len(value) // self.num_heads)
        for sources, targets in ((query, key), (key, heads), (heads, value)):
            self.add_edges("attention", sources, targets)
        attended = self.linear("attention_output", layer, value, modules["attention.o_proj"])
        self.add_edges("residual", stream, attended)
        normed = self.norm("norm_after", layer, attended, modules["layernorm_after"])
        hidden = self.linear("mlp_hidden", layer, normed, modules["mlp.fc1"])
        output = self.linear("mlp_output", layer, hidden, modules["mlp.fc2"])
        self.add_edges("residual", attended, output)
        return output

    def head(self, stream: _Nodes, layer: int) -> None:
        if "classifier.weight" in self.index:
            self.linear("output", layer, stream, "classifier")
        else:
            hidden = self.linear("classifier_hidden", layer, stream, "classifier.fc1")
            self.linear("output", layer, hidden, "classifier.fc2")

    def norm(self, kind: str, layer: int, stream: _Nodes, module: str) -> _Nodes:
        nodes = self.add_nodes(kind, layer, len(stream), f"{module}.bias")
        self.add_edges("scale", stream, nodes, f"{module}.weight")
        return nodes

    def linear(self, kind: str, layer: int, sources: _Nodes, module: str) -> _Nodes:
        nodes = self.add_nodes(kind, layer, self.index[f"{module}.weight"].shape[0], f"{module}.bias")
        self.add_edges("linear", sources[None, :], nodes[:, None], f"{module}.weight")
        return nodes

    def add_nodes(self, kind: str, layer: int, count: int, bias: str | None = None) -> _Nodes:
        nodes = np.arange(self.num_nodes, self.num_nodes + count)
        self.nodes.append((kind, layer, count))
        self.num_nodes += count
        if bias in self.index:
            self.node_tensors[str(bias)] = self.checked(str(bias), slice(nodes[0], self.num_nodes))
        return nodes

    def add_edges(self, kind: str, sources: np.ndarray, targets: np.ndarray, tensor: str | None = None) -> None:
        """Edges from sources to targets, which broadcast: one to one, or each to each."""
        block = _Edges(kind, sources, targets)
        start, self.num_edges = self.num_edges, self.num_edges + int(np.prod(block.shape))
        self.edges.append(block)
        if tensor is not None:
            self.edge_tensors[tensor] = self.checked(tensor, slice(start, self.num_edges))

    def checked(self, tensor: str, places: slice) -> slice:
        """Places as many as the tensor's numbers."""
        size = self.index[tensor].size
        if size != places.stop - places.start:
            raise RepresentationError(
                f"{tensor} has {size} numbers where the graph of its ViT has {places.stop - places.start}.",
                value=tensor,
            )
        return places

    def arrays(self) -> GraphStructure:
        """The plan, written out."""
        edge_index = np.empty((2, self.num_edges), np.int64)
        start = 0
        for block in self.edges:
            size = int(np.prod(block.shape))
            for row, ends in enumerate((block.sources, block.targets)):
                edge_index[row, start : start + size].reshape(block.shape)[...] = ends
            start += size
        counts = [count for _, _, count in self.nodes]
        return GraphStructure(
            node_type=_spread([NODE_TYPES.index(kind) for kind, _, _ in self.nodes], counts).astype(np.int8),
            node_layer=_spread([layer for _, layer, _ in self.nodes], counts),
            node_number=np.concatenate([np.arange(count) for count in counts]),
            edge_index=edge_index,
            edge_type=_spread(
                np.array([EDGE_TYPES.index(block.type) for block in self.edges], np.int8),
                [int(np.prod(block.shape)) for block in self.edges],
            ),
            node_tensors=self.node_tensors,
            edge_tensors=self.edge_tensors,
        )


def _spread(values: Sequence[int] | np.ndarray, counts: Sequence[int]) -> np.ndarray:
    return np.repeat(np.asarray(values), counts)
