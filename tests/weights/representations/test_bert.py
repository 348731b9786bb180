"""BERT members through every representation: the same bits, and the logits that follow from the graph."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tests.berts import LINEAR, MASKED, MLP, SIZES
from tests.weights.representations.test_graph import drawn
from tests.weights.representations.test_representation import Evaluation
from vitzoo import Zoo, ZooModel
from vitzoo.architectures.graph import NODE_TYPES
from vitzoo.weights.index import WeightsIndex, is_in_part
from vitzoo.weights.representations.graph import WeightsGraph
from vitzoo.weights.representations.representation import representation

TEXT = np.array([2, 9, 30, 7, 3])


def index_of(tensors: dict[str, Any], part: str = "all") -> WeightsIndex:
    return WeightsIndex({name: array.shape for name, array in tensors.items() if is_in_part(name, part)})


@pytest.mark.parametrize(
    ("name", "options"),
    [("flat", {}), ("tokens", {"token_size": 5}), ("tokens", {"token_size": 9}), ("graph", {"num_heads": 2})],
)
@pytest.mark.parametrize("part", ["all", "backbone", "head"])
@pytest.mark.parametrize("member", [MASKED, LINEAR, MLP])
def test_round_trip_bit_for_bit(bert_zoo: Path, member: str, part: str, name: str, options: dict[str, int]) -> None:
    tensors = load_file(bert_zoo / member / "model.safetensors")
    index = index_of(tensors, part)
    vector = index.flatten({tensor: tensors[tensor] for tensor in index})
    made = representation(name, index, **options)
    back = index.unflatten(made.decode(made.encode(vector)))
    assert list(back) == list(index)
    for tensor, array in back.items():
        assert np.array_equal(array.view(np.uint32), tensors[tensor].view(np.uint32))


def test_state_dict_is_flattened_without_its_tied_names(bert_zoo: Path) -> None:
    tensors = load_file(bert_zoo / MASKED / "model.safetensors")
    index, model = index_of(tensors), ZooModel.from_pretrained(bert_zoo / MASKED)
    assert np.array_equal(index.flatten(model.state_dict()), index.flatten(tensors))
    assert index.size == model.num_parameters()
    assert list(index.layers) == ["embeddings", "layer.0", "layer.1", "cls"]
    assert index["cls.predictions.decoder.weight"] is index["bert.embeddings.word_embeddings.weight"]


class TextEvaluation(Evaluation):
    """A BERT's forward pass over the nodes and edges of its graph."""

    def evaluate(self, kind: str, nodes: np.ndarray) -> None:
        count = len(self.values)
        numbers = {"token": TEXT, "position": np.arange(count), "token_type": np.zeros(count, int)}
        if kind in numbers:
            self.values[:, nodes] = np.eye(len(nodes))[numbers[kind]]
            super().evaluate("embedding", np.flatnonzero(self.network.node_type == NODE_TYPES.index("embedding")))
        else:
            super().evaluate("norm_after" if kind.endswith("_norm") else kind, nodes)

    def edges_to(self, nodes: np.ndarray, *kinds: str) -> np.ndarray:
        return super().edges_to(nodes, *kinds, *(["tied"] if "linear" in kinds else []))

    def activate(self, kind: str, total: np.ndarray) -> np.ndarray:
        if kind == "pooled":
            return np.tanh(total)
        return super().activate("mlp_hidden" if kind == "masked_hidden" else kind, total)


@pytest.mark.parametrize("member", [MASKED, LINEAR, MLP])
def test_outputs_of_the_network_follow_from_the_graph(bert_zoo: Path, member: str) -> None:
    tensors = load_file(bert_zoo / member / "model.safetensors")
    index, model = index_of(tensors), ZooModel.from_pretrained(bert_zoo / member)
    graph = WeightsGraph(index, num_heads=2)
    patches = np.zeros((len(TEXT) - 1, 1))  # the base class counts patches
    vector = index.flatten(tensors).astype(np.float64)
    found = TextEvaluation(graph, vector, patches, model.config.layer_norm_eps).run()
    with torch.inference_mode():
        expected = model(torch.from_numpy(TEXT)[None]).logits[0].numpy()
    np.testing.assert_allclose(found, expected[0] if member == MASKED else expected, rtol=1e-4, atol=1e-5)
    assert np.ptp(expected) > 0.01


def test_types_of_nodes_that_edges_join() -> None:
    sizes = replace(SIZES, num_hidden_layers=2)
    masked = {
        *((kind, "embedding", "embedding") for kind in ("token", "position", "token_type")),
        ("embedding", "scale", "embedding_norm"),
        *((stream, "linear", to) for stream in ("embedding_norm", "output_norm") for to in ("query", "key", "value")),
        *[("query", "attention", "key"), ("key", "attention", "attention_head")],
        *[("attention_head", "attention", "value"), ("value", "linear", "attention_output")],
        *((stream, "residual", "attention_output") for stream in ("embedding_norm", "output_norm")),
        *[("attention_output", "scale", "norm_after"), ("norm_after", "linear", "mlp_hidden")],
        *[("mlp_hidden", "linear", "mlp_output"), ("norm_after", "residual", "mlp_output")],
        ("mlp_output", "scale", "output_norm"),
    }
    heads = {
        ("masked", None): {
            ("output_norm", "linear", "masked_hidden"),
            ("masked_hidden", "scale", "masked_norm"),
            ("masked_norm", "tied", "output"),
        },
        ("classifier", None): {("output_norm", "linear", "pooled"), ("pooled", "linear", "output")},
        ("classifier", (4, 3)): {
            ("output_norm", "linear", "pooled"),
            ("pooled", "linear", "classifier_hidden"),
            ("classifier_hidden", "linear", "classifier_hidden"),
            ("classifier_hidden", "linear", "output"),
        },
    }
    for (role, width), expected in heads.items():
        shapes = sizes.shape(outputs=2, head_width=width, role=role).tensor_shapes()
        assert drawn(WeightsGraph(WeightsIndex(shapes), num_heads=2).network) == masked | expected
    shape = replace(sizes.shape(outputs=2, head_width=None, role="masked"), next_sentence=True)
    expected = {("output_norm", "linear", "pooled"), ("pooled", "linear", "next_sentence")}
    graph = WeightsGraph(WeightsIndex(shape.tensor_shapes()), num_heads=2)
    assert drawn(graph.network) == masked | heads["masked", None] | expected


def test_population_is_read_as_a_matrix(bert_zoo: Path) -> None:
    zoo = Zoo(bert_zoo)
    weights = zoo.weights(zoo.select(epoch=0))
    matrix = weights.matrix(part="backbone")
    assert matrix.values.shape == (3, weights.index("backbone").size)
    _, first, second = matrix.values
    (parent,) = zoo.weights(zoo.select(id=MASKED)).matrix(part="backbone").values
    assert np.array_equal(first, parent)  # children begin at their parent's final backbone
    assert np.array_equal(second, parent)
    assert "bert.pooler.dense.weight" not in weights.index("backbone")
