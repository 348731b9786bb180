"""A lab's own factors and metrics: `extra` of the records becomes columns that can be selected."""

from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests.hub.server import Hub
from tests.published import REPO, plant
from vitzoo import Zoo
from vitzoo.errors import RecordError, SelectionError
from vitzoo.records import load_epoch_records, load_member_record
from vitzoo.records.json_files import write_json, write_lines
from vitzoo.sources.folder import FolderSource
from vitzoo.tables.catalogue import write_tables


def set_factors(zoo: Path, number: int, **extra: Any) -> None:
    """Give the member ``pt-<number>`` factors of its own."""
    path = zoo / f"pt-{number}/member.json"
    write_json(path, structs.replace(load_member_record(path), extra=extra))


def set_metrics(zoo: Path, number: int, **extra: Any) -> None:
    """Give every epoch of ``pt-<number>`` the same metrics, but for the last one, which has twice the values."""
    path = zoo / f"pt-{number}/metrics.jsonl"
    *epochs, last = [structs.replace(epoch, extra=extra) for epoch in load_epoch_records(path)]
    write_lines(path, [*epochs, structs.replace(last, extra={name: 2 * value for name, value in extra.items()})])


@pytest.fixture
def zoo(tiny_copy: Path) -> Path:
    set_factors(tiny_copy, 0, site="basel", warmup=5, rate=0.5, frozen=True)
    set_factors(tiny_copy, 1, site="bern", warmup=7, rate=1, frozen=False)
    set_metrics(tiny_copy, 0, sharpness=0.25)
    write_tables(FolderSource(tiny_copy))
    return tiny_copy


def check(zoo: Zoo) -> None:
    """Check columns, selections and factors."""
    members = zoo.table("members").to_pylist()
    assert [row["site"] for row in members if row["parent"] is None] == ["basel", "bern", None]
    assert [row["rate"] for row in members if row["parent"] is None] == [0.5, 1.0, None]
    assert zoo.table("members").column_names[-4:] == ["frozen", "rate", "site", "warmup"]
    assert {row["sharpness"] for row in zoo.table("epochs").to_pylist()} == {0.25, 0.5, None}

    def ids(**conditions: Any) -> list[str]:
        return [str(ref.member) for ref in zoo.select(**conditions)]

    assert ids(site="basel") == ids(frozen=True) == ids(frozen="true") == ids(max_warmup=6) == ["pt-0"]
    assert ids(frozen=False) == ids(min_rate=0.75) == ["pt-1"]
    assert [ref.epoch for ref in zoo.select(sharpness=0.25, epoch="all")] == [0, 1]
    assert zoo["pt-0"].factors["site"] == "basel"
    assert zoo["pt-0"].metrics[-1].extra == {"sharpness": 0.5}
    with pytest.raises(SelectionError) as caught:
        ids(site="zurich")
    assert caught.value.value == "zurich"


def test_extra_of_a_folder_becomes_columns_conditions_and_factors(zoo: Path) -> None:
    check(Zoo(zoo))


def test_published_extra_is_read_back(hub: Hub, zoo: Path) -> None:
    plant(hub, zoo)
    check(Zoo(REPO))


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ({"site": "basel"}, {"site": 3}, "site"),
        ({"optimizer": "lion"}, {}, "optimizer"),
        ({"on": True}, {"on": 1}, "on"),
    ],
)
def test_contradicting_extra_is_refused(tiny_copy: Path, first: Any, second: Any, named: str) -> None:
    set_factors(tiny_copy, 0, **first)
    set_factors(tiny_copy, 1, **second)
    with pytest.raises(RecordError) as caught:
        Zoo(tiny_copy).table("members")
    assert f'"{named}"' in caught.value.problem


@pytest.mark.parametrize("extra", [{"Site": 1}, {"site": None}, {"site": [1]}, {"": 1}])
def test_extra_that_cannot_be_a_column_is_refused(tiny_copy: Path, extra: Any) -> None:
    path = tiny_copy / "pt-0/member.json"
    write_json(path, structs.replace(load_member_record(path), extra=extra))
    with pytest.raises(RecordError) as caught:
        load_member_record(path)
    assert caught.value.path == path
