"""Whether a member's files are what its record says: whole, and unaltered.

Sizes and headers are checked at every load, hashes on request. What a hash proves, and what it does not, is rule 6
of docs/decisions.md: a zoo that agrees with itself may still be another zoo.
"""

from collections.abc import Mapping

from vitzoo.errors import WeightsError
from vitzoo.sources.source import MemberFiles
from vitzoo.tensors.header import TensorEntry, file_sha256, load_header


def check_whole(files: MemberFiles) -> Mapping[str, TensorEntry]:
    """Check that a weights file has a sound header, and the size on record where that was read.

    Returns:
        The header: names to entries.

    Raises:
        WeightsError: The file is truncated, too long, or its header is damaged.
    """
    size = files.weights.stat().st_size
    expected = size if files.weights_record is None else files.weights_record.size
    if size != expected:
        raise WeightsError(
            f"{files.weights} has {size} bytes, but the record of {files.ref.member} says {expected}: it is "
            f"{'truncated' if size < expected else 'too long'}. Get the file again, or train the member again.",
            path=files.weights,
        )
    return load_header(files.weights)


def check_unaltered(files: MemberFiles) -> None:
    """Check that a weights file has the sha256 on record.

    Raises:
        WeightsError: It has another one.
        ValueError: The record was not read.
    """
    if files.weights_record is None:
        raise ValueError(f"The record of {files.ref} was not read: verify=True was not given to member_files.")
    found = file_sha256(files.weights)
    if found != files.weights_record.sha256:
        raise WeightsError(
            f"{files.weights} has sha256 {found[:16]}..., but the record of {files.ref.member} says "
            f"{files.weights_record.sha256[:16]}...: it was altered. Get the file again, or train the member again.",
            path=files.weights,
        )
