"""The format of a zoo folder: where files are, what the records say, and how they are written.

See `vitzoo.tables` for the tables built from the records, and `vitzoo.sources` for zoos that are read.
"""

from vitzoo.records.members import (
    FORMAT,
    EpochRecord,
    MemberRecord,
    Origin,
    Stage,
    Status,
    WeightsRecord,
    ZooRecord,
    load_epoch_records,
    load_member_record,
    load_zoo_record,
)

__all__ = [
    "FORMAT",
    "EpochRecord",
    "MemberRecord",
    "Origin",
    "Stage",
    "Status",
    "WeightsRecord",
    "ZooRecord",
    "load_epoch_records",
    "load_member_record",
    "load_zoo_record",
]
