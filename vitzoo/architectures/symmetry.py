"""Say which units of a network may change places, or be rotated together, without a change of its outputs.

An architecture names a group for each axis of a tensor. The axes of one group must change together. See
`vitzoo.analysis.alignment.alignment` for the use.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

STREAM = "stream"  # the group of the residual stream's channels
Axes = tuple[str | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Names of the modules of a block, and of its groups of units.

    Args:
        query: Queries of all heads, one head after the other.
        key: Keys.
        value: Values.
        output: Linear layer after attention, which reads the values.
        query_key: Group of the rows of queries and keys.
        values: Group of the rows of values, and of the columns of ``output``.
        units: Group of the MLP's hidden units.
    """

    query: str
    key: str
    value: str
    output: str
    query_key: str
    values: str
    units: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Symmetry:
    """Groups of units of a network.

    Args:
        axes: Group of each axis of each tensor, by its name on disk; None for an axis that is fixed.
        blocks: The blocks, in order.
        readers: Modules that read each LayerNorm, for a network that normalises copies of its stream (pre-norm). None
            for a network that normalises the stream itself (post-norm), which cannot be rotated.
    """

    axes: Mapping[str, Axes]
    blocks: tuple[Block, ...]
    readers: Mapping[str, tuple[str, ...]] | None = field(default=None)
