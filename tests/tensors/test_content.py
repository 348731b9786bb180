"""Digests of a weights file, and NaN or infinite values."""

from pathlib import Path

import numpy as np
import pytest

from vitzoo import Zoo
from vitzoo.architectures import is_head
from vitzoo.records.files import file_sha256
from vitzoo.tensors.content import is_finite, load_content
from vitzoo.tensors.header import load_header


def test_digests_are_those_of_the_records(tiny_zoo: Path) -> None:
    file = tiny_zoo / "pt-0/ft-0/model.epoch-01.safetensors"
    content, record = load_content(file, is_head=is_head), Zoo(tiny_zoo)["pt-0/ft-0"].metrics[1]
    assert (content.weights_id, content.backbone_id) == (record.weights_id, record.backbone_id)
    assert (content.sha256, content.tensors, content.not_finite) == (file_sha256(file), load_header(file), ())


@pytest.mark.parametrize("at", [0, 2**20 + 1])
@pytest.mark.parametrize("value", [np.nan, -np.inf, 65504.0])
@pytest.mark.parametrize(("dtype", "numpy"), [("F64", "<f8"), ("F32", "<f4"), ("F16", "<f2"), ("BF16", "<u2")])
def test_is_finite(dtype: str, numpy: str, value: float, at: int) -> None:
    numbers = np.zeros(2**20 + 2, "<f4")
    numbers[at] = value
    encoded = (numbers.view("<u4") >> 16).astype("<u2") if dtype == "BF16" else numbers.astype(numpy)
    assert is_finite(encoded.tobytes(), dtype) == np.isfinite(value)
    assert is_finite(memoryview(b"\0" + encoded.tobytes())[1:], dtype) == np.isfinite(value)  # unaligned
