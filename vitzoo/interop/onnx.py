"""Export a model to an ONNX file with torch's exporter, and compare both with onnxruntime before the file appears.

    of images
        input   pixel_values     float32 [batch, channels, side, side], any batch, as the image processor makes them
        output  logits           float32 [batch, labels]; of an embedding head, the embedding
    of text
        input   input_ids        int64 [batch, length], any batch and length, as the tokenizer makes them
                attention_mask   int64 [batch, length]
        output  logits           float32 [batch, labels], or [batch, length, tokens] of a masked model

Texts are single: token_type_ids are 0.

Needs the extra ``interop`` (onnx, onnxruntime, onnxscript). See `vitzoo.cli.export` for the command.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitzoo.errors import WeightsError
from vitzoo.interop.preflight import check_onnx_packages
from vitzoo.models.loading import MemberModel
from vitzoo.records.files import partial_path

OPSET = 18  # the exporter's own; onnxruntime 1.14 and newer read it
TOLERANCE = 1e-4
# Batch and length, other ones than the traced ones, so that a fixed size fails.
_CHECKED = ((1, 3), (3, 5))
_TRACED = (2, 4)


def export_onnx(model: MemberModel, path: str | os.PathLike[str]) -> float:
    """Write a model as an ONNX file of opset 18, for any batch and length of texts, and compare it with the model.

    Args:
        model: A float32 model with any head.
        path: The file. It appears, or is replaced, after the comparison.

    Returns:
        The largest difference of a logit between onnxruntime and torch on random inputs, divided by the largest logit
        where that is above 1; at most 1e-4, usually about 1e-6.

    Raises:
        MissingPackageError: onnx, onnxruntime or onnxscript is not installed.
        WeightsError: The model is not in float32, or the logits differ; the file is not written.

    Example:
        >>> from vitzoo import ZooModel
        >>> export_onnx(ZooModel.from_pretrained("zoo/pt-0/ft-0"), "model.onnx") < 1e-4
        True
    """
    check_onnx_packages()
    if model.dtype != torch.float32:
        raise WeightsError(
            f"The model is in {model.dtype}", expected="float32", fix="Load it with dtype=torch.float32."
        )
    path = Path(path)
    partial = partial_path(path)
    modes = {module: module.training for module in model.modules()}
    try:
        _write(model.eval(), partial)
        difference = compare_onnx(model, partial)
        if not difference <= TOLERANCE:  # NaN fails too
            raise WeightsError(
                f"{path} was not written: onnxruntime's logits differ from torch's by {difference:.1e}",
                expected=f"{TOLERANCE:.0e} at most, and finite weights",
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


def compare_onnx(model: MemberModel, path: str | os.PathLike[str]) -> float:
    """Return the largest difference of a logit between a model in evaluation mode and an ONNX file on the CPU.

    See `export_onnx` for its scale.
    """
    import onnxruntime  # pyright: ignore[reportMissingTypeStubs]

    session: Any = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    generator, reference = torch.Generator().manual_seed(0), _Logits(model)
    differences = []
    for batch, length in _CHECKED:
        inputs = _inputs(model, batch, length, generator=generator)
        (logits,) = session.run(["logits"], {name: tensor.numpy() for name, tensor in inputs.items()})
        with torch.inference_mode():
            expected = reference(*(tensor.to(model.device) for tensor in inputs.values())).cpu()
        scale = expected.abs().max().clamp(min=1)
        differences.append((torch.from_numpy(logits) - expected).abs().max() / scale)
    return float(torch.stack(differences).max())  # NaN if any is


class _Logits(nn.Module):
    """A model as a function of images, or of tokens and their mask, alone."""

    def __init__(self, model: MemberModel):
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Tensor:
        if len(inputs) == 1:
            return self.model(pixel_values=inputs[0]).logits
        tokens, mask = inputs
        return self.model(input_ids=tokens, attention_mask=mask, token_type_ids=torch.zeros_like(tokens)).logits


def _inputs(model: MemberModel, batch: int, length: int, *, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw images, or tokens of texts of which all but the first end with padding."""
    config: Any = model.config
    if model.architecture.modality == "images":
        size = (batch, config.num_channels, config.image_size, config.image_size)
        return {"pixel_values": torch.randn(size, generator=generator)}
    length = min(length, config.max_position_embeddings)
    tokens = torch.randint(config.vocab_size, (batch, length), generator=generator)
    mask = torch.ones_like(tokens)
    mask[1:, length - 1 :] = 0
    return {"input_ids": tokens, "attention_mask": mask}


def _write(model: MemberModel, path: Path) -> None:
    batch, length = _TRACED
    inputs = _inputs(model, batch, length, generator=torch.Generator().manual_seed(0))
    config: Any = model.config
    axes: dict[int, Any] = {0: torch.export.Dim("batch")}
    if model.architecture.modality == "text":
        axes[1] = torch.export.Dim("length", max=config.max_position_embeddings)
    with _quiet():
        program = torch.onnx.export(
            _Logits(model).eval(),
            tuple(tensor.to(model.device) for tensor in inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=["logits"],
            dynamic_shapes=((axes,) * len(inputs),),
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise WeightsError("torch's exporter gave no program", path=path)
    _delete_metadata(program.model)
    program.save(path)


def _delete_metadata(model: Any) -> None:
    """Delete the exporter's notes on each node: stack traces with the paths of this machine."""
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
    """Silence torch's warnings about its own deprecated calls, torchvision, and axes that two inputs share."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.", category=FutureWarning)
            warnings.filterwarnings("ignore", message="# The axis name: .* will not be used", category=UserWarning)
            yield
    finally:
        logger.setLevel(level)
