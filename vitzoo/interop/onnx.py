"""A model as an ONNX file, by torch's exporter, compared with the model by onnxruntime before it appears.

    input   pixel_values   float32 [batch, channels, side, side], any batch, as the image processor makes them
    output  logits         float32 [batch, labels]; of an embedding head, the embedding

Needs the extra ``interop`` (onnx, onnxruntime, onnxscript), imported when a file is written. The command line is
`vitzoo.cli.export`.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitzoo.errors import MissingPackageError, WeightsError
from vitzoo.models.vit import VitZooModel
from vitzoo.records.files import partial_path

OPSET = 18  # the exporter's own; onnxruntime 1.14 and newer read it
TOLERANCE = 1e-4
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_CHECKED_BATCHES = (1, 3)  # none is the one that is traced: a fixed batch would be found


def export_onnx(model: VitZooModel, path: str | os.PathLike[str]) -> float:
    """Write a model as an ONNX file of opset 18 and any batch size, and compare it with the model.

    Args:
        model: In float32, with any head.
        path: The file. It appears, or is replaced, when the comparison has been passed.

    Returns:
        The largest difference of a logit between onnxruntime and torch on random images, where logits are scaled down
        to 1 if any is larger: 1e-4 at most, about 1e-6 as a rule.

    Raises:
        MissingPackageError: onnx, onnxruntime or onnxscript is not installed.
        WeightsError: The model is not in float32, or the file computes something else; it is not kept.

    Example:
        >>> export_onnx(VitZooModel.from_pretrained("zoo/pt-12/ft-3"), "model.onnx")  # doctest: +SKIP
        6.6e-07
    """
    for package in _PACKAGES:
        try:
            import_module(package)
        except ImportError as error:
            raise MissingPackageError(
                f'{package} cannot be imported ({error}): pip install "vitzoo-hub[interop]", or pip install '
                f"{' '.join(_PACKAGES)}.",
                package=package,
            ) from None
    if model.dtype != torch.float32:
        raise WeightsError(
            f"The model is in {model.dtype}; an ONNX file is written of float32",
            fix="Load it with dtype=torch.float32.",
        )
    path = Path(path)
    partial = partial_path(path)
    modes = {module: module.training for module in model.modules()}
    try:
        _write(model.eval(), partial)
        difference = compare_onnx(model, partial)
        if not difference <= TOLERANCE:  # NaN is no agreement
            raise WeightsError(
                f"onnxruntime's logits differ from torch's by {difference:.1e}",
                expected=f"{TOLERANCE:.0e} at most. {path} was not written. Weights that are not finite, as a "
                "diverged member's, cannot be exported",
                path=path,
            )
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
        for module, mode in modes.items():
            module.training = mode
    return difference


def compare_onnx(model: VitZooModel, path: str | os.PathLike[str]) -> float:
    """The largest difference between the logits of an ONNX file, by onnxruntime on the CPU, and a model's.

    Args:
        model: In evaluation mode.
        path: The file.

    Returns:
        As `export_onnx`, over random images in batches of 1 and of 3.
    """
    import onnxruntime  # pyright: ignore[reportMissingTypeStubs]

    session: Any = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    generator, shape, largest = torch.Generator().manual_seed(0), model.config.shape, 0.0
    for batch in _CHECKED_BATCHES:
        size = (batch, shape.num_channels, shape.image_size, shape.image_size)
        images = torch.randn(size, generator=generator)
        (found,) = session.run(["logits"], {"pixel_values": images.numpy()})
        with torch.inference_mode():
            expected = model(pixel_values=images.to(model.device)).logits.cpu()
        scale = expected.abs().max().clamp(min=1)
        difference = float((torch.from_numpy(found) - expected).abs().max() / scale)
        largest = difference if difference != difference else max(largest, difference)
        if largest != largest:
            break
    return largest


class _Logits(nn.Module):
    """The model as a function of images alone."""

    def __init__(self, model: VitZooModel):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values=pixel_values).logits


def _write(model: VitZooModel, path: Path) -> None:
    shape = model.config.shape
    images = torch.zeros(2, shape.num_channels, shape.image_size, shape.image_size, device=model.device)
    with _quiet():
        program = torch.onnx.export(
            _Logits(model).eval(),
            (images,),
            dynamo=True,
            input_names=["pixel_values"],
            output_names=["logits"],
            dynamic_shapes={"pixel_values": {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise WeightsError("torch's exporter gave no program.", path=path)
    _forget_origin(program.model)
    program.save(path)


def _forget_origin(model: Any) -> None:
    """Take off what the exporter notes of each node: stack traces, with the paths of this machine."""
    for graph in (model.graph, *model.functions.values()):
        graph.metadata_props.clear()
        for node in graph:
            node.metadata_props.clear()
            node.doc_string = None
        for value in (*graph.inputs, *graph.outputs, *(output for node in graph for output in node.outputs)):
            value.metadata_props.clear()
    for initializer in model.graph.initializers.values():
        initializer.metadata_props.clear()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says to itself: that an exporter of its own uses what it has deprecated, or of torchvision."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)
