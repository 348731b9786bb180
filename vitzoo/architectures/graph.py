"""Build the nodes and edges of a network from its tensor shapes and heads, and place each tensor in them.

A node is a neuron, an edge a weight between two; biases belong to nodes. An architecture plans blocks of nodes and of
edges, which are then written into arrays. A block of edges has the order of its tensor's numbers, so a tensor is a
slice of the features. See `vitzoo.weights.representations.graph` for the features of a member.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np
from jaxtyping import Int, Int8

from vitzoo.architectures import of_tensors
from vitzoo.errors import RepresentationError, WeightsError, did_you_mean

NODE_TYPES = (
    *("pixel", "cls_token", "position", "patch", "embedding"),
    *("norm_before", "query", "key", "attention_head", "value", "attention_output"),
    *("norm_after", "mlp_hidden", "mlp_output"),
    *("final_norm", "classifier_hidden", "output"),
    *("token", "token_type", "embedding_norm", "output_norm", "masked_hidden", "masked_norm", "pooled"),
    "next_sentence",
)
EDGE_TYPES = ("linear", "scale", "embedding", "residual", "attention", "tied")


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphStructure:
    """Nodes and edges, equal for all members with the same tensors, and the place of each tensor; read-only.

    Args:
        node_type: Index into ``NODE_TYPES``.
        node_layer: 0 for the embeddings, N+1 for block N, then the final norm and the head.
        node_number: From 0 in the nodes of one type and layer: the channel, neuron, pixel, position or class.
        edge_index: Source and target of each edge.
        edge_type: Index into ``EDGE_TYPES``.
        node_tensors: Tensors that are features of nodes, with the nodes.
        edge_tensors: Tensors that are features of edges, with the edges.
        tied_edges: Tensors that are features of further edges, with these edges.
    """

    node_type: Int8[np.ndarray, "nodes"]
    node_layer: Int[np.ndarray, "nodes"]
    node_number: Int[np.ndarray, "nodes"]
    edge_index: Int[np.ndarray, "2 edges"]
    edge_type: Int8[np.ndarray, "edges"]
    node_tensors: dict[str, slice]
    edge_tensors: dict[str, slice]
    tied_edges: dict[str, slice]

    def __post_init__(self):
        for array in (self.node_type, self.node_layer, self.node_number, self.edge_index, self.edge_type):
            array.flags.writeable = False


def build_structure(shapes: Mapping[str, tuple[int, ...]], *, num_heads: int) -> GraphStructure:
    """Build the graph of a whole model, of its backbone or of its head.

    Args:
        shapes: On-disk names to shapes, in the order of the network.
        num_heads: Attention heads of a block, a divisor of the width.

    Raises:
        RepresentationError: A tensor has no place, or the heads do not divide the width.
        WeightsError: A tensor is missing.
    """
    check_heads(shapes, num_heads)
    plan = GraphPlan(shapes, num_heads)
    of_tensors(shapes).plan_graph(plan)
    for name in shapes:
        if name not in plan.node_tensors and name not in plan.edge_tensors:
            raise RepresentationError(f"{name} has no place in the graph of its network", value=name)
    return plan.arrays()


def check_heads(shapes: Mapping[str, tuple[int, ...]], num_heads: int) -> None:
    """Raise RepresentationError if the heads do not divide the width, or there are no tensors."""
    if not shapes:
        raise RepresentationError("There are no tensors to build a graph of", value=shapes)
    width = _width(shapes)
    if type(num_heads) is not int or num_heads < 1 or width % num_heads:
        raise RepresentationError(
            f"num_heads is {num_heads!r}",
            expected=f"a divisor of the width {width}, the num_attention_heads of the member's config",
            value=num_heads,
        )


def _width(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the channels of a token: the last axis of the first tensor, in all parts of a member."""
    return (1, *next(iter(shapes.values())))[-1]


Nodes = Int[np.ndarray, "_"]


@dataclass(slots=True)
class GraphPlan:
    """Blocks of nodes and edges, to which an architecture adds its network.

    Args:
        shapes: On-disk names to shapes, in the order of the network.
        num_heads: Attention heads of a block.
    """

    shapes: Mapping[str, tuple[int, ...]]
    num_heads: int
    nodes: list[tuple[str, int, int]] = field(default_factory=list)  # type, layer, count
    edges: list[tuple[str, np.ndarray, np.ndarray]] = field(default_factory=list)  # type, sources, targets
    node_tensors: dict[str, slice] = field(default_factory=dict)
    edge_tensors: dict[str, slice] = field(default_factory=dict)
    tied_edges: dict[str, slice] = field(default_factory=dict)
    num_nodes: int = 0
    num_edges: int = 0

    @property
    def width(self) -> int:
        """Channels of a token."""
        return _width(self.shapes)

    def shape_of(self, tensor: str) -> tuple[int, ...]:
        """Return the shape of a tensor, or raise WeightsError if it is missing."""
        if tensor not in self.shapes:
            raise WeightsError(f'There is no tensor "{tensor}"', fix=did_you_mean(tensor, self.shapes))
        return self.shapes[tensor]

    def norm(self, kind: str, layer: int, stream: Nodes, module: str) -> Nodes:
        """Add a norm: a node for each channel, with an edge from the stream's."""
        nodes = self.add_nodes(kind, layer, len(stream), f"{module}.bias")
        self.add_edges("scale", stream, nodes, f"{module}.weight")
        return nodes

    def linear(self, kind: str, layer: int, sources: Nodes, module: str) -> Nodes:
        """Add a linear layer: a node for each row, with an edge from every source."""
        nodes = self.add_nodes(kind, layer, self.shape_of(f"{module}.weight")[0], f"{module}.bias")
        self.add_edges("linear", sources[None, :], nodes[:, None], f"{module}.weight")
        return nodes

    def attention(self, layer: int, query: Nodes, key: Nodes, value: Nodes) -> None:
        """Add a node for each head, and the edges of attention between the nodes of a block."""
        heads = self.add_nodes("attention_head", layer, self.num_heads).repeat(len(value) // self.num_heads)
        for sources, targets in ((query, key), (key, heads), (heads, value)):
            self.add_edges("attention", sources, targets)

    def add_nodes(self, kind: str, layer: int, count: int, bias: str | None = None) -> Nodes:
        """Add nodes of one type and layer; a bias that is present is their feature."""
        nodes = np.arange(self.num_nodes, self.num_nodes + count)
        self.nodes.append((kind, layer, count))
        self.num_nodes += count
        if bias is not None and bias in self.shapes:
            self.node_tensors[bias] = self._checked(bias, slice(nodes[0], self.num_nodes))
        return nodes

    def add_edges(self, kind: str, sources: np.ndarray, targets: np.ndarray, tensor: str | None = None) -> None:
        """Add edges from sources to targets, which broadcast to the shape of the tensor that they carry.

        Edges of type ``tied`` repeat a tensor that other edges carry.
        """
        sources, targets = np.broadcast_arrays(sources, targets)  # views, without memory of their own
        self.edges.append((kind, sources, targets))
        start, self.num_edges = self.num_edges, self.num_edges + sources.size
        if tensor is not None:
            places = self.tied_edges if kind == "tied" else self.edge_tensors
            places[tensor] = self._checked(tensor, slice(start, self.num_edges))

    def _checked(self, tensor: str, places: slice) -> slice:
        size, count = prod(self.shape_of(tensor)), places.stop - places.start
        if size != count:
            raise RepresentationError(
                f"{tensor} has {size} numbers", expected=f"{count}, as the graph of its network", value=tensor
            )
        return places

    def arrays(self) -> GraphStructure:
        """Write the plan into arrays."""
        edge_index = np.empty((2, self.num_edges), np.int64)
        start = 0
        for _, *ends in self.edges:
            for row, nodes in enumerate(ends):
                edge_index[row, start : start + nodes.size].reshape(nodes.shape)[...] = nodes
            start += ends[0].size
        counts = [count for _, _, count in self.nodes]
        edge_types = np.array([EDGE_TYPES.index(kind) for kind, _, _ in self.edges], np.int8)
        return GraphStructure(
            node_type=np.repeat([NODE_TYPES.index(kind) for kind, _, _ in self.nodes], counts).astype(np.int8),
            node_layer=np.repeat([layer for _, layer, _ in self.nodes], counts),
            node_number=np.concatenate([np.arange(count) for count in counts]),
            edge_index=edge_index,
            edge_type=np.repeat(edge_types, [sources.size for _, sources, _ in self.edges]),
            node_tensors=self.node_tensors,
            edge_tensors=self.edge_tensors,
            tied_edges=self.tied_edges,
        )
