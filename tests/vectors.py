"""Strategies for flat vectors of members of every shape with any bits, for indexes and representations."""

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vitzoo.architectures.vit import ViTShape
from vitzoo.weights.index import WeightsIndex

VIT_S = ViTShape(
    image_size=224,
    patch_size=16,
    num_channels=3,
    hidden_size=384,
    num_hidden_layers=12,
    intermediate_size=1536,
    qkv_bias=True,
    num_labels=100,
    head_width=None,
)
_BITS: dict[int, Any] = {2: np.uint16, 4: np.uint32, 8: np.uint64}
# A signalling NaN, a quiet one with a payload and a sign, infinity, minus zero, the least subnormal.
_SPECIAL = {
    2: [0x7D01, 0xFE07, 0x7C00, 0x8000, 0x0001],
    4: [0x7F800001, 0xFFC00ABC, 0x7F800000, 0x80000000, 0x00000001],
    8: [0x7FF0000000000001, 0xFFF8000000000ABC, 0x7FF0000000000000, 0x8000000000000000, 0x0000000000000001],
}


def vit_shapes(most_layers: int = 2) -> st.SearchStrategy[ViTShape]:
    """Return shapes of all kinds of members with a few hundred parameters."""
    return st.builds(
        ViTShape,
        image_size=st.integers(2, 5),
        patch_size=st.integers(1, 2),
        num_channels=st.integers(1, 3),
        hidden_size=st.integers(1, 4),
        num_hidden_layers=st.integers(0, most_layers),
        intermediate_size=st.integers(1, 5),
        qkv_bias=st.booleans(),
        num_labels=st.integers(1, 3),
        head_width=st.none() | st.integers(1, 3),
    )


def draw_vector(data: st.DataObject, index: WeightsIndex) -> np.ndarray:
    """Draw a float16, float32 or float64 vector with NaNs of any payload, infinities, subnormals and both zeros."""
    width = data.draw(st.sampled_from([2, 4, 8]))
    numbers = st.sampled_from(_SPECIAL[width]) | st.integers(0, 2 ** (8 * width) - 1)
    return data.draw(hnp.arrays(_BITS[width], index.size, elements=numbers)).view(f"f{width}")


def same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    """Return whether two vectors are equal in dtype, shape and every bit."""
    bits = _BITS[left.itemsize]
    return left.dtype == right.dtype and np.array_equal(left.view(bits), right.view(bits))
