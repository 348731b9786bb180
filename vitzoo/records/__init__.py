"""The format of a zoo folder: where files are, what the records say, and how they are written.

See `vitzoo.tables` for the tables built from the records, and `vitzoo.sources` for zoos that are read.
"""

from vitzoo.records.members import (
    FACTORS,
    FORMAT,
    EpochRecord,
    MemberRecord,
    Origin,
    Stage,
    Status,
    TimingRecord,
    WeightsRecord,
    ZooRecord,
    load_epoch_records,
    load_member_record,
    load_zoo_record,
)

__all__ = [
    "FACTORS",
    "FORMAT",
    "EpochRecord",
    "MemberRecord",
    "Origin",
    "Stage",
    "Status",
    "TimingRecord",
    "WeightsRecord",
    "ZooRecord",
    "load_epoch_records",
    "load_member_record",
    "load_zoo_record",
]
