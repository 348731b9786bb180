"""WeightsGraph: encode a member as features of the nodes and edges of its network, for graph networks.

See `vitzoo.architectures.graph` for the nodes and edges. numpy only; torch_geometric is imported by the export to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from vitzoo.architectures.graph import GraphStructure, build_structure, check_heads
from vitzoo.errors import MissingPackageError, RepresentationError
from vitzoo.tensors.dtypes import float_array
from vitzoo.weights.representations.base import Representation

if TYPE_CHECKING:
    from torch import Tensor
    from torch_geometric.data import Data

_FEATURES = ("node_features", "edge_features")


@dataclass(frozen=True)
class WeightsGraph(Representation):
    """Members as neural graphs: nodes are neurons, edges are weights, each parameter is a feature of one of them.

    A node's feature is its bias (the shift, for a norm's channel), or 0. An edge's feature is the factor of its source:
    a weight, a norm's scale, or a channel of ``cls_token``, of a position's or of a token's embedding, whose input is
    1. Edges of type ``residual`` and ``attention`` have no parameter, and feature 1. Edges of type ``tied`` repeat the
    tokens' embeddings as the output weights of a masked model, and are ignored when a graph is decoded. Each neuron
    outside attention is thus the sum over its incoming edges plus its own feature, apart from the operations that are
    not represented.

    Query, key and value have neurons of their own, head after head. In a head, channel i of the queries leads to
    channel i of the keys (the dot product). The keys lead to the head's node (its scores), which leads to the head's
    values. So queries and keys of a head may be permuted together, its values by themselves, and whole heads, as the
    network's function allows.

    Not represented: the softmax and its scale, mixing between tokens (all patches share one set of nodes), the norm's
    division by the deviation and its epsilon, and activations. A node's type shows where they occur.

    Args:
        index: The tensors of a whole model, of its backbone or of its head.
        num_heads: Attention heads of a block, from the member's config.

    Raises:
        RepresentationError: The heads do not divide the width. At the first use: the tensors are of an unknown
            network.

    Source: Kofinas et al. 2024, Graph Neural Networks for Learning Equivariant Representations of Neural Networks
        (arXiv 2403.12143): biases as node features, weights as edge features, residual connections as edges of weight
        1, norms as one-to-one edges. The treatment of attention is ours.

    Example:
        >>> from vitzoo.weights.index import WeightsIndex
        >>> graph = WeightsGraph(WeightsIndex({"classifier.weight": (1, 2), "classifier.bias": (1,)}), num_heads=1)
        >>> features = graph.encode(np.array([0.5, -2.0, 3.0]))
        >>> features["node_features"].tolist(), features["edge_features"].tolist()
        ([[0.0], [0.0], [3.0]], [[0.5], [-2.0]])
        >>> graph.structure()["edge_index"].tolist()
        [[0, 1], [2, 2]]
    """

    num_heads: int

    def __post_init__(self):
        check_heads(self.index.shapes, self.num_heads)

    def __reduce__(self):  # the arrays, 370 MB for a ViT-S/16, are made again in the other process
        return (WeightsGraph, (self.index, self.num_heads))

    @cached_property
    def network(self) -> GraphStructure:
        """The nodes and edges, made once."""
        return build_structure(self.index.shapes, num_heads=self.num_heads)

    def structure(self) -> dict[str, np.ndarray]:
        """Return ``edge_index`` and the types, layers and numbers of nodes and edges, read-only, for all members."""
        names = ("edge_index", "edge_type", "node_type", "node_layer", "node_number")
        return {name: getattr(self.network, name) for name in names}

    def encode(self, vector: Shaped[Any, "params"]) -> dict[str, Shaped[np.ndarray, "_ 1"]]:
        """Encode as ``node_features`` ``[nodes, 1]`` and ``edge_features`` ``[edges, 1]`` of the vector's dtype."""
        vector = float_array(vector)
        tensors, network = self.index.unflatten(vector), self.network
        nodes = np.zeros((len(network.node_type), 1), vector.dtype)
        edges = np.ones((len(network.edge_type), 1), vector.dtype)
        edge_places = (network.edge_tensors, network.tied_edges)
        for features, places in ((nodes, network.node_tensors), *((edges, places) for places in edge_places)):
            for name, place in places.items():
                features[place, 0] = tensors[name].ravel()
        return {"node_features": nodes, "edge_features": edges}

    def decode(self, encoded: Mapping[str, Shaped[Any, "_ 1"]], /) -> Shaped[np.ndarray, "params"]:
        """Decode both arrays of features, which have one dtype; features without their own parameter are ignored."""
        network = self.network
        encoded = {name: float_array(encoded[name]) for name in _FEATURES if name in encoded}
        expected = dict(zip(_FEATURES, [(len(network.node_type), 1), (len(network.edge_type), 1)], strict=True))
        shapes = {name: features.shape for name, features in encoded.items()}
        if shapes != expected or len({encoded[name].dtype for name in _FEATURES}) > 1:
            dtypes = ", ".join(sorted({str(features.dtype) for features in encoded.values()}))
            raise RepresentationError(
                f"The features have shapes {shapes} and dtypes {dtypes or 'none'}",
                expected=f"shapes {expected} and one dtype",
                value=shapes,
            )
        nodes, edges = (encoded[name][:, 0] for name in _FEATURES)
        vector = np.empty(self.index.size, nodes.dtype)
        for features, places in ((nodes, network.node_tensors), (edges, network.edge_tensors)):
            for name, place in places.items():
                vector[self.index[name].span] = features[place]
        return vector

    def to_torch_geometric(self, encoded: Mapping[str, Shaped[Any, "_ 1"]]) -> "Data":
        """Convert a member's features, numpy's or torch's, to a graph of torch_geometric, which must be installed.

        Returns:
            Data with ``x`` and ``edge_attr`` (the features, not copied), ``edge_index``, ``edge_type``, ``node_type``,
            ``node_layer`` and ``node_number``, all int64. The latter are one copy of `structure`, which all members
            share: clone them before you write to them.

        Raises:
            MissingPackageError: torch_geometric is not installed.
        """
        try:
            from torch_geometric.data import Data
        except ModuleNotFoundError as error:
            if error.name != "torch_geometric":
                raise
            raise MissingPackageError(
                "torch_geometric is not installed",
                fix="Run pip install torch_geometric, or take the graph from encode() and structure() as arrays.",
                package="torch_geometric",
            ) from None
        import torch

        x, edge_attr = (torch.as_tensor(encoded[name]) for name in _FEATURES)
        return Data(x=x, edge_attr=edge_attr, num_nodes=len(x), **self._tensors)

    @cached_property
    def _tensors(self) -> "dict[str, Tensor]":
        from vitzoo.weights.tensors import structure_tensors

        return structure_tensors(self.structure())
