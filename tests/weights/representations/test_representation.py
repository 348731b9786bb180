"""Real members through every representation: the same state dict bit for bit, and the same logits."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.special import erf, softmax

from vitzoo import VitZooModel
from vitzoo.architectures.graph import EDGE_TYPES, NODE_TYPES
from vitzoo.errors import RepresentationError, WeightsError
from vitzoo.weights.index import WeightsIndex
from vitzoo.weights.representations.graph import WeightsGraph
from vitzoo.weights.representations.representation import Flat, representation
from vitzoo.weights.representations.tokens import Tokens

OPTIONS: list[tuple[str, dict[str, int]]] = [
    ("flat", {}),
    ("tokens", {"token_size": 17}),
    ("tokens", {"token_size": 49}),
    ("graph", {"num_heads": 2}),
]
MEMBERS = {"linear": "pt-0", "embedding": "pt-2", "mlp": "pt-0/ft-1"}


@pytest.fixture(params=MEMBERS.values(), ids=list(MEMBERS))
def member(request: pytest.FixtureRequest, tiny_zoo: Path) -> Path:
    return tiny_zoo / request.param


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_round_trip_of_a_member_bit_for_bit(name: str, options: dict[str, int], member: Path) -> None:
    tensors = load_file(member / "model.safetensors")
    index = WeightsIndex({tensor: array.shape for tensor, array in tensors.items()})
    made = representation(name, index, **options)
    back = index.unflatten(made.decode(made.encode(index.flatten(tensors))))
    assert back.keys() == tensors.keys()
    for tensor, array in tensors.items():
        assert back[tensor].dtype == array.dtype == np.float32
        assert np.array_equal(back[tensor].view(np.uint32), array.view(np.uint32))


def test_outputs_of_the_network_follow_from_the_graph(member: Path) -> None:
    """Sum every node over its edges, and apply the operations without parameters by the node's type."""
    tensors = load_file(member / "model.safetensors")
    index = WeightsIndex({tensor: array.shape for tensor, array in tensors.items()})
    graph = WeightsGraph(index, num_heads=2)
    model = VitZooModel.from_pretrained(member)
    pixels = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(pixels).logits[0].numpy()
    patches = pixels.numpy()[0].reshape(3, 2, 4, 2, 4).transpose(1, 3, 0, 2, 4).reshape(4, 48)
    found = Evaluation(graph, index.flatten(tensors).astype(np.float64), patches, model.config.layer_norm_eps).run()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.ptp(expected) > 0.01


class Evaluation:
    """A ViT's forward pass over the nodes and edges of its graph, for all tokens of an image at once."""

    def __init__(self, graph: WeightsGraph, vector: np.ndarray, patches: np.ndarray, epsilon: float):
        self.network, features = graph.network, graph.encode(vector)
        self.bias, self.weight = features["node_features"][:, 0], features["edge_features"][:, 0]
        self.patches, self.epsilon = patches, epsilon
        self.values = np.zeros((len(patches) + 1, len(self.bias)))  # a row for each token, the CLS token first

    def run(self) -> np.ndarray:
        types, layers = self.network.node_type, self.network.node_layer
        ends = np.flatnonzero(np.diff(types, append=-1) | np.diff(layers, append=-1)) + 1
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            self.evaluate(NODE_TYPES[types[start]], np.arange(start, end))
            if NODE_TYPES[types[start]] == "position":  # the last of the terms of an embedding
                self.evaluate("embedding", np.flatnonzero(types == NODE_TYPES.index("embedding")))
        return self.values[0, types == NODE_TYPES.index("output")]

    def evaluate(self, kind: str, nodes: np.ndarray) -> None:
        tokens = len(self.values)
        if kind == "pixel":
            self.values[1:, nodes] = self.patches
        elif kind == "cls_token":
            self.values[0, nodes] = 1
        elif kind == "position":
            self.values[:, nodes] = np.eye(tokens)
        elif kind == "attention_head":
            for head in nodes:
                self.attend(head)
        elif kind in ("norm_before", "norm_after", "final_norm"):
            edges = self.edges_to(nodes, "scale")
            stream = self.values[:, self.network.edge_index[0, edges]]
            deviation = np.sqrt(stream.var(axis=1, keepdims=True) + self.epsilon)
            normed = (stream - stream.mean(axis=1, keepdims=True)) / deviation
            self.values[:, nodes] = self.bias[nodes] + self.weight[edges] * normed
        else:
            self.values[:, nodes] = self.activate(kind, self.summed(nodes))

    def summed(self, nodes: np.ndarray) -> np.ndarray:
        total = np.tile(self.bias[nodes], (len(self.values), 1))
        for edge in self.edges_to(nodes, "linear", "embedding", "residual"):
            source, target = self.network.edge_index[:, edge]
            total[:, target - nodes[0]] += self.weight[edge] * self.values[:, source]
        return total

    def activate(self, kind: str, total: np.ndarray) -> np.ndarray:
        if kind == "patch":
            total[0] = 0  # the CLS token is not a patch
        if kind == "mlp_hidden":
            return total * (1 + erf(total / np.sqrt(2))) / 2
        return np.maximum(total, 0) if kind == "classifier_hidden" else total

    def attend(self, head: int) -> None:
        keys = self.network.edge_index[0, self.edges_to(np.array([head]), "attention")]
        pairs = self.edges_to(keys, "attention")
        query, key = (self.values[:, ends] for ends in self.network.edge_index[:, pairs])
        mixed = (self.network.edge_index[0] == head) & (self.network.edge_type == EDGE_TYPES.index("attention"))
        values = self.network.edge_index[1, mixed]
        weights = softmax(query @ key.T / np.sqrt(len(keys)), axis=1)
        self.values[:, values] = weights @ self.values[:, values]

    def edges_to(self, nodes: np.ndarray, *kinds: str) -> np.ndarray:
        chosen = np.isin(self.network.edge_type, [EDGE_TYPES.index(kind) for kind in kinds])
        return np.flatnonzero(chosen & np.isin(self.network.edge_index[1], nodes))


@pytest.mark.parametrize(("name", "options"), [*OPTIONS, ("statistics", {})])
def test_made_by_name_and_pickled_without_the_arrays(name: str, options: dict[str, int]) -> None:
    index = WeightsIndex({"classifier.weight": (40, 100), "classifier.bias": (40,)})
    made = representation(name, index, **options)
    assert made.index is index
    encoded = made.encode(np.arange(float(index.size)))
    assert all(
        first is second for first, second in zip(made.structure().values(), made.structure().values(), strict=True)
    )
    content = pickle.dumps(made)
    assert len(content) < 1000
    again: Any = pickle.loads(content)
    assert again == made
    np.testing.assert_equal(again.encode(np.arange(float(index.size))), encoded)
    np.testing.assert_equal(again.structure(), made.structure())


def test_flat_is_the_vector_itself() -> None:
    flat, vector = Flat(WeightsIndex({"classifier.bias": (4,)})), np.arange(4.0)
    assert flat.encode(vector) is vector
    assert flat.decode(vector) is vector
    for call in (flat.encode, flat.decode):
        with pytest.raises(WeightsError):
            call(vector[:3])


@pytest.mark.parametrize(("name", "options"), [*OPTIONS, ("statistics", {})])
def test_torch_tensors_are_encoded_and_decoded(name: str, options: dict[str, int]) -> None:
    index = WeightsIndex({"classifier.weight": (40, 100), "classifier.bias": (40,)})
    made = representation(name, index, **options)
    vector = np.random.default_rng(0).normal(size=index.size).astype(np.float32)
    learnt = torch.from_numpy(vector).requires_grad_()
    encoded = made.encode(vector)
    np.testing.assert_equal(made.encode(learnt), encoded)
    for wrong in (vector.astype(np.int64), learnt.int()):
        with pytest.raises(RepresentationError, match=r"Numbers of int\d\d"):
            made.encode(wrong)
    with pytest.raises(RepresentationError, match="bfloat16"):
        made.encode(learnt.bfloat16())
    if name == "statistics":
        with pytest.raises(RepresentationError, match="cannot be decoded"):
            made.decode(encoded)
    else:
        back = made.decode(each(encoded, lambda array: torch.from_numpy(array).requires_grad_()))
        assert isinstance(back, np.ndarray)
        assert np.array_equal(back, vector)
        with pytest.raises(RepresentationError, match="Numbers of int64"):
            made.decode(each(encoded, lambda array: array.astype(np.int64)))


def each(encoded: Any, change: Callable[[np.ndarray], Any]) -> Any:
    """Change each array of an encoding."""
    if isinstance(encoded, dict):
        return {name: change(array) for name, array in encoded.items()}
    return change(encoded)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("token", {}, "Nearest: tokens"),
        ("tokens", {"tokens_size": 4}, "options tokens_size; expected token_size"),
        ("flat", {"token_size": 4}, "options token_size; expected none"),
        ("graph", {}, "options none; expected num_heads"),
        ("tokens", {"token_size": 0}, "token_size is 0"),
    ],
)
def test_unknown_names_and_options_are_refused(name: str, options: dict[str, int], says: str) -> None:
    with pytest.raises(RepresentationError, match=says):
        representation(name, WeightsIndex({"classifier.bias": (4,)}), **options)


def test_representations_with_equal_index_and_options_are_equal() -> None:
    index = WeightsIndex({"classifier.bias": (4,)})
    assert Tokens(index, 2) == Tokens(WeightsIndex({"classifier.bias": (4,)}), 2)
    assert Tokens(index, 2) != Tokens(index, 3)
    assert len({Tokens(index, 2), Tokens(index, 2)}) == 1
