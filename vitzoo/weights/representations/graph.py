"""WeightsGraph: a member as features of the nodes and edges of its network, for graph networks.

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
from vitzoo.tensors.floats import float_array
from vitzoo.weights.index import WeightsIndex

if TYPE_CHECKING:
    from torch import Tensor
    from torch_geometric.data import Data

_FEATURES = ("node_features", "edge_features")


@dataclass(frozen=True)
class WeightsGraph:
    """Members as neural graphs: nodes are neurons, edges are weights, each parameter is one feature of one of them.

    A node's feature is what is added at its neuron, its bias (of a norm's channel the shift), 0 where it has none. An
    edge's is what its source is multiplied with: a weight, a norm's scale, or a channel of ``cls_token`` or of a
    position's embedding, which are inputs of 1; on edges of type ``residual`` and ``attention``, which have no
    parameter, it is 1. So each neuron but those of attention is the sum over the edges that lead to it, plus its own
    feature, once what has no parameters is added.

    Query, key and value have neurons of their own, head after head. Attention is drawn by edges that show who meets
    whom in a head: channel i of its queries leads to channel i of its keys (the dot product), the keys lead to the
    head's node (its scores), and that to the head's values, which it mixes. Queries and keys of a head may thus be
    permuted together, its values by themselves, and whole heads: as the network's function allows.

    Not represented: the softmax and its scale, mixing between tokens (all patches share one set of nodes), the division
    by the norm's deviation and its epsilon, and activations; a node's type tells where they are.

    Args:
        index: The tensors of a whole model, of its backbone or of its head.
        num_heads: Attention heads of a block, by the member's config.

    Raises:
        RepresentationError: The heads do not divide the width. At the first use, the tensors are not those of a
            known network.

    Source: Kofinas et al. 2024, Graph Neural Networks for Learning Equivariant Representations of Neural Networks
        (arXiv 2403.12143): biases as node features, weights as edge features, residual connections as edges of weight
        1, norms as one-to-one edges. The treatment of attention is ours.

    Example:
        >>> graph = WeightsGraph(WeightsIndex({"classifier.weight": (1, 2), "classifier.bias": (1,)}), num_heads=1)
        >>> features = graph.encode(np.array([0.5, -2.0, 3.0]))
        >>> features["node_features"].tolist(), features["edge_features"].tolist()
        ([[0.0], [0.0], [3.0]], [[0.5], [-2.0]])
        >>> graph.structure()["edge_index"].tolist()
        [[0, 1], [2, 2]]
    """

    index: WeightsIndex
    num_heads: int | np.integer

    def __post_init__(self):
        check_heads(self.index.shapes, self.num_heads)
        object.__setattr__(self, "num_heads", int(self.num_heads))  # of numpy's integers

    def __reduce__(self):  # the arrays, 370 MB for a ViT-S/16, are made again where they are needed
        return (WeightsGraph, (self.index, self.num_heads))

    @cached_property
    def network(self) -> GraphStructure:
        """The nodes and edges, made once."""
        return build_structure(self.index.shapes, num_heads=self.num_heads)

    def structure(self) -> dict[str, np.ndarray]:
        """What goes with any member's features: ``edge_index``, and who is who by type, layer and number; read-only."""
        names = ("edge_index", "edge_type", "node_type", "node_layer", "node_number")
        return {name: getattr(self.network, name) for name in names}

    def encode(self, vector: Shaped[Any, "params"]) -> dict[str, Shaped[np.ndarray, "_ 1"]]:
        """A member's features, of the vector's dtype.

        Args:
            vector: The member's weights, numpy's or torch's on the CPU.

        Returns:
            ``node_features`` ``[nodes, 1]`` and ``edge_features`` ``[edges, 1]``.

        Raises:
            WeightsError: The vector has another size than the index.
            RepresentationError: It is not of floats that numpy has.
        """
        vector = float_array(vector)
        tensors, network = self.index.unflatten(vector), self.network
        nodes = np.zeros((len(network.node_type), 1), vector.dtype)
        edges = np.ones((len(network.edge_type), 1), vector.dtype)
        for features, places in ((nodes, network.node_tensors), (edges, network.edge_tensors)):
            for name, place in places.items():
                features[place, 0] = tensors[name].ravel()
        return {"node_features": nodes, "edge_features": edges}

    def decode(self, encoded: Mapping[str, Shaped[Any, "_ 1"]]) -> Shaped[np.ndarray, "params"]:
        """The weights of a member's features, bit for bit; features that are no parameter do not matter.

        Args:
            encoded: ``node_features`` and ``edge_features``, of one dtype, numpy's or torch's on the CPU.

        Raises:
            RepresentationError: They are missing, of another shape, of two dtypes, or not of floats that numpy has.
        """
        network = self.network
        encoded = {name: float_array(encoded[name]) for name in _FEATURES if name in encoded}
        expected = dict(zip(_FEATURES, [(len(network.node_type), 1), (len(network.edge_type), 1)], strict=True))
        found = {name: features.shape for name, features in encoded.items()}
        if found != expected or len({encoded[name].dtype for name in _FEATURES}) > 1:
            shown = ", ".join(f"{name} {list(shape)} {encoded[name].dtype}" for name, shape in found.items())
            raise RepresentationError(
                f"Features of {shown or 'neither name'} are not those of the graph of {self.index}: expected "
                f"{', '.join(f'{name} {list(shape)}' for name, shape in expected.items())}, of one dtype.",
                value=found,
            )
        nodes, edges = (encoded[name][:, 0] for name in _FEATURES)
        vector = np.empty(self.index.size, nodes.dtype)
        for features, places in ((nodes, network.node_tensors), (edges, network.edge_tensors)):
            for name, place in places.items():
                vector[self.index[name].span] = features[place]
        return vector

    def to_torch_geometric(self, encoded: Mapping[str, Shaped[Any, "_ 1"]]) -> "Data":
        """A member's graph for torch_geometric, which must be installed.

        Args:
            encoded: The member's features, numpy's or torch's.

        Returns:
            Data with ``x`` and ``edge_attr`` (the features, not copied), ``edge_index``, ``edge_type``, ``node_type``,
            ``node_layer`` and ``node_number``, all int64 as torch wants them. They are copies of `structure`, made once
            and shared by every member's: clone them before you write to them.

        Raises:
            MissingPackageError: torch_geometric is not installed.
        """
        try:
            from torch_geometric.data import Data
        except ModuleNotFoundError as error:
            if error.name != "torch_geometric":
                raise
            raise MissingPackageError(
                "torch_geometric is not installed: pip install torch_geometric. Without it, encode() and structure() "
                "give the same graph as plain arrays.",
                package="torch_geometric",
            ) from None
        import torch

        x, edge_attr = (torch.as_tensor(encoded[name]) for name in _FEATURES)
        return Data(x=x, edge_attr=edge_attr, num_nodes=len(x), **self._tensors)

    @cached_property
    def _tensors(self) -> "dict[str, Tensor]":
        from vitzoo.weights.tensors import structure_tensors

        return structure_tensors(self.structure())
