"""The guide to the images runs, and its names of data sets are right."""

import pytest

from tests.guides import GUIDES, print_guide
from vitzoo.data.known import KNOWN

GUIDE = (GUIDES / "data.md").read_text(encoding="utf-8")


def test_the_guide_runs() -> None:
    assert print_guide("data", {}).splitlines() == [
        "649 217 217 ('0', '1', '2', '3', '4', '5')",
        "imagefolder ('daisy', 'tulip') 16 (43, 32)",
    ]


@pytest.mark.slow
def test_the_guide_to_own_images_runs() -> None:
    printed = print_guide("own-images", {})
    assert "('disc', 'square') 200 40 40" in printed
    assert "6 members (2 parents, 4 children)" in printed
    assert "they agree exactly" in printed
    assert "No problems." in printed
    assert "org/my-zoo (model): 6 members" in printed


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.alias)
def test_every_known_data_set_is_named(known) -> None:
    assert f"| `{known.spec.name}` | `{known.alias}` |" in GUIDE
    assert known.download.split(",")[0] in GUIDE
