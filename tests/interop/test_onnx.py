"""ONNX files by torch's exporter, beside onnxruntime: every head, any batch, no paths of this machine."""

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.berts import LINEAR, MASKED, MLP, make_model
from vitzoo import VitZooConfig, VitZooModel
from vitzoo.errors import MissingPackageError, WeightsError
from vitzoo.interop.onnx import OPSET, compare_onnx, export_onnx

SIZES: dict[str, Any] = {
    "image_size": 8,
    "patch_size": 4,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
HEADS: dict[str, dict[str, Any]] = {
    "linear": {"num_labels": 4},
    "mlp": {"num_labels": 4, "head_type": "mlp", "head_width": 5},
    "embedding": {
        "num_labels": 12,
        "head_role": "embedding",
        "num_channels": 1,
        "qkv_bias": False,
    },
}


def random_model(**head: Any) -> VitZooModel:
    generator = torch.Generator().manual_seed(0)
    model = VitZooModel(VitZooConfig(**SIZES, **head))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[VitZooModel, Path]:
    """Export an embedding of one channel, without biases. See test_export for other heads."""
    model, path = random_model(**HEADS["embedding"]).train(), tmp_path_factory.mktemp("onnx") / "model.onnx"
    assert 0 <= export_onnx(model, path) <= 1e-5
    assert all(part.training for part in model.modules())
    return model.eval(), path


def test_onnxruntime_gives_torch_s_logits(exported: tuple[VitZooModel, Path]) -> None:
    check_logits(*exported)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_onnxruntime_gives_torch_s_logits_of_other_heads(head: str, tmp_path: Path) -> None:
    model = random_model(**HEADS[head])
    assert 0 <= export_onnx(model, tmp_path / "model.onnx") <= 1e-5
    check_logits(model, tmp_path / "model.onnx")


def check_logits(model: VitZooModel, path: Path) -> None:
    """Assert that onnxruntime computes the logits of any batch, from a valid file of one opset."""
    import onnx
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    channels = model.config.num_channels
    assert [(value.name, value.shape, value.type) for value in session.get_inputs()] == [
        ("pixel_values", ["batch", channels, 8, 8], "tensor(float)")
    ]
    assert [(value.name, value.shape) for value in session.get_outputs()] == [
        ("logits", ["batch", model.config.num_labels])
    ]
    for batch in (1, 2, 7):
        images = torch.randn(batch, channels, 8, 8)
        with torch.inference_mode():
            expected = model(pixel_values=images).logits
        (found,) = session.run(None, {"pixel_values": images.numpy()})
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-5, atol=1e-5)
    written = onnx.load(path)
    onnx.checker.check_model(written, full_check=True)
    assert [(entry.domain, entry.version) for entry in written.opset_import] == [("", OPSET)] == [("", 18)]
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.onnx"]


@pytest.mark.parametrize(
    "member", [MASKED, pytest.param(LINEAR, marks=pytest.mark.slow), pytest.param(MLP, marks=pytest.mark.slow)]
)
def test_texts_of_any_length(member: str, tmp_path: Path) -> None:
    import onnxruntime

    model, path = make_model(member, seed=1), tmp_path / "model.onnx"
    assert 0 <= export_onnx(model, path) <= 1e-5
    session: Any = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [(value.name, value.shape, value.type) for value in session.get_inputs()] == [
        (name, ["batch", "length"], "tensor(int64)") for name in ("input_ids", "attention_mask")
    ]
    for batch, length in ((1, 1), (2, 16), (7, 5)):
        tokens, mask = torch.randint(50, (batch, length)), torch.ones(batch, length, dtype=torch.int64)
        mask[0, 3:] = 0
        with torch.inference_mode():
            expected = model(input_ids=tokens, attention_mask=mask).logits
        (found,) = session.run(None, {"input_ids": tokens.numpy(), "attention_mask": mask.numpy()})
        assert expected.abs().max() > 0.01
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-5, atol=1e-5)


def test_file_has_no_paths_of_this_machine(exported: tuple[VitZooModel, Path]) -> None:
    content = exported[1].read_bytes()
    for text in (str(Path(torch.__file__).parent), str(exported[1].parent), ".py", "stack_trace", "site-packages"):
        assert text.encode() not in content


def test_comparison_finds_a_file_of_another_model(exported: tuple[VitZooModel, Path]) -> None:
    model = copy.deepcopy(exported[0])
    with torch.no_grad():
        dict(model.named_parameters())["vit.layers.1.mlp.fc1.weight"][3] += 0.1
    assert compare_onnx(model, exported[1]) > 1e-4


def test_infinite_weights_leave_the_old_file(tmp_path: Path) -> None:
    model, path = random_model(num_labels=4), tmp_path / "model.onnx"
    path.write_bytes(b"old")
    with torch.no_grad():
        model.vit.layernorm.weight[0] = float("inf")
    with pytest.raises(WeightsError, match="nan") as refused:
        export_onnx(model, path)
    assert refused.value.path == path
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_export_refuses_bfloat16(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as refused:
        export_onnx(random_model(num_labels=4).bfloat16(), tmp_path / "model.onnx")
    assert refused.value.expected == "float32"


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # Python's mark of a package that cannot be imported
    with pytest.raises(MissingPackageError) as missing:
        export_onnx(random_model(num_labels=4), tmp_path / "model.onnx")
    assert missing.value.package == "onnxscript"
    assert not list(tmp_path.iterdir())
