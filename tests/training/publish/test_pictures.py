"""Pictures of a report on the card of a published zoo."""

from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.hub import Hub, Token
from tests.training.publish.zoos import TO, assert_holds, plan
from training.publish.push import publish
from vitzoo import Zoo
from vitzoo.errors import TrainingError
from vitzoo.report.write import write_report
from vitzoo.verification.verify import verify_zoo


def test_card_shows_the_pictures_of_a_report(hub: Hub, token: Token, small: Path, tmp_path: Path) -> None:
    write_report(Zoo(small), "report", tables_only=True, pictures=True)
    publication = plan(small, pictures=Path("report/pictures"))
    publish(publication)
    assert_holds(hub, publication)
    files = hub.repo(TO).files()
    drawn = {name: data for name, data in files.items() if name.startswith("pictures/")}
    assert drawn == {f"pictures/{path.name}": path.read_bytes() for path in Path("report/pictures").iterdir()}
    card = files["README.md"].decode()
    assert all(f"]({name})\n" in card for name in drawn)
    assert "![tree](pictures/tree.png)" in card
    assert not list(verify_zoo(Zoo(TO)).problems)
    assert b"Pictures" not in plan(small).closing[0].read()


@pytest.mark.parametrize("fault", ["text", "name", "cut", "no PNG", "large", "none"])
def test_other_pictures_are_refused(fault: str, small: Path) -> None:
    folder = Path("pictures")
    folder.mkdir()
    path = folder / ("Private Name.png" if fault == "name" else "tree.png")
    notes = PngInfo()
    if fault == "text":
        notes.add_text("Author", "me")
    if fault != "none":
        Image.new("RGB", (4, 4)).save(path, pnginfo=notes)
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif fault == "no PNG":
        path.write_text("<svg/>")
    elif fault == "large":
        Image.effect_noise((2000, 2000), 100).save(path)
    with pytest.raises(TrainingError):
        plan(small, pictures=folder)
