"""Measuring a member: the compiled backbone runs whole batches alone."""

from collections.abc import Callable

import torch
from torch.fx import GraphModule

from tests.tiny import tiny
from training.images.inputs import ImageInputs
from training.member.measure import Measurement, first_not_finite, shown_accuracy
from training.member.start import build_model
from training.recipes.plan import plan_members


def test_whole_batches_run_compiled_and_the_last_eagerly() -> None:
    planned = plan_members(tiny())[0]
    inputs = ImageInputs(planned, data={})
    model = build_model(planned, inputs.dataset.classes)
    measurement = Measurement(planned, inputs)
    eager = measurement.measure(model)
    runs: list[int] = []
    graphs = 0

    def counting(graph: GraphModule, _: list[torch.Tensor]) -> Callable:
        nonlocal graphs
        graphs += 1

        def run(*arguments: torch.Tensor):
            runs.append(1)
            return graph(*arguments)

        return run

    torch._dynamo.reset()
    model.base_model.compile(backend=counting, dynamic=False)
    assert measurement.measure(model) == eager  # the same operations, one by one
    # 64 training, 216 validation and 219 test images in batches of 128: one whole batch of each of the latter two.
    sizes = [len(split) for split in measurement.splits.values()]
    assert sum(size // 128 for size in sizes) == 2
    assert (graphs, len(runs)) == (1, 3)  # a blank one first
    assert measurement.measure(model) == eager
    assert (graphs, len(runs)) == (1, 6)


def test_shown_accuracy_is_never_of_test() -> None:
    nothing = dict.fromkeys(("val_accuracy", "val_knn_accuracy", "train_accuracy"))
    assert shown_accuracy(nothing | {"test_accuracy": 0.5}) is None
    assert shown_accuracy(nothing | {"train_accuracy": 0.25, "test_accuracy": 0.5}) == 0.25
    assert shown_accuracy(nothing | {"val_accuracy": 0.75, "train_accuracy": 0.25}) == 0.75


def test_first_not_finite_returns_the_metric() -> None:
    assert first_not_finite({"a": 1.0, "b": None}) is None
    assert first_not_finite({"a": 1.0, "b": float("nan"), "c": float("inf")}) == "b"
