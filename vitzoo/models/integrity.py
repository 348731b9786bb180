"""Whether a member's files are what its record says: whole, and unaltered.

Sizes and headers are checked at every load, hashes on request. What a hash proves, and what it does not, is rule 6
of docs/decisions.md: a zoo that agrees with itself may still be another zoo.
"""

from collections.abc import Mapping

from vitzoo.errors import WeightsError
from vitzoo.records.files import check_file
from vitzoo.tables.catalogue import MemberFiles
from vitzoo.tensors.header import TensorEntry, load_header


def check_whole(files: MemberFiles) -> Mapping[str, TensorEntry]:
    """Check that a weights file has a sound header, and the size on record where that was read.

    Returns:
        The header: names to entries.

    Raises:
        WeightsError: The file is truncated, too long, or its header is damaged.
    """
    if files.weights_record is not None:
        check_file(
            files.weights,
            files.weights_record,
            by=f"the record of {files.ref.member}",
            error=WeightsError,
            hashed=False,
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
    check_file(files.weights, files.weights_record, by=f"the record of {files.ref.member}", error=WeightsError)
