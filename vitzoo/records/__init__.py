"""The format of a zoo folder: where files are, what the records say, and how they are written.

See `vitzoo.tables` for the tables built from the records, and `vitzoo.sources` for zoos that are read.
"""

from vitzoo.records.members import FACTORS as FACTORS
from vitzoo.records.members import FORMAT as FORMAT
from vitzoo.records.members import ONLY_FOR as ONLY_FOR
from vitzoo.records.members import SEEDS as SEEDS
from vitzoo.records.members import EpochRecord as EpochRecord
from vitzoo.records.members import MemberRecord as MemberRecord
from vitzoo.records.members import Origin as Origin
from vitzoo.records.members import Stage as Stage
from vitzoo.records.members import Status as Status
from vitzoo.records.members import TimingRecord as TimingRecord
from vitzoo.records.members import WeightsRecord as WeightsRecord
from vitzoo.records.members import ZooRecord as ZooRecord
from vitzoo.records.members import load_epoch_records as load_epoch_records
from vitzoo.records.members import load_member_record as load_member_record
from vitzoo.records.members import load_zoo_record as load_zoo_record
