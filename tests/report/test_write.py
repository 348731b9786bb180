"""The written report: its files, the sections that a zoo cannot have, and the bytes that a Hub zoo costs."""

import re
from pathlib import Path

import pytest

from tests.hub.server import Hub
from tests.interop.imported import MODEL_TYPES, import_tiny, short_release
from tests.published import REPO, plant
from tests.report.conftest import edit
from tests.test_cli import Here, diverge
from vitzoo import Zoo
from vitzoo.errors import ConflictingArgumentsError, MissingPackageError, SelectionError
from vitzoo.interop.authors import facts
from vitzoo.report import packages
from vitzoo.report.sections import SECTIONS
from vitzoo.report.write import write_report

NEED_WEIGHTS = {
    "Distances between members",
    "Map of the weights",
    "Similarity of features by layer",
    "Contrasts",
    "Family tree from weights",
}


def text_of(page: Path) -> str:
    """Return the visible text of a page."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.read_text(encoding="utf-8")))


def test_command_writes_one_page(tiny_zoo: Path, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = here("report", str(tiny_zoo), "--to", "report")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in Path("report").iterdir()] == ["index.html"]
    size = Path("report/index.html").stat().st_size
    assert re.fullmatch(rf"report/index\.html: {size / 1000:.1f} kB, in \d+\.\d s\n", done.stdout)
    assert [line.split(":")[0] for line in done.stderr.splitlines()[-len(SECTIONS) :]] == list(SECTIONS)
    first = Path("report/index.html").read_bytes()
    Path("report/mine.txt").touch()
    assert here("report", str(tiny_zoo), "--to", "report", "--pictures").returncode == 0
    assert Path("report/index.html").read_bytes() == first
    assert sorted(path.name for path in Path("report").iterdir()) == ["index.html", "mine.txt", "pictures"]
    assert {"tree.png", "map.png", "contrasts-l2.png"} <= {path.name for path in Path("report/pictures").iterdir()}
    page = text_of(Path("report/index.html"))
    assert (
        "8 members of 2 families, 143 test images (digits-6-9). 3 other members of this report are not in it." in page
    )
    assert str(tiny_zoo.parent) not in page


def test_folder_with_other_files_is_refused(tiny_zoo: Path, here: Here) -> None:
    Path("file").touch()
    Path("folder").mkdir()
    Path("folder/index.html").write_text("<title>mine</title>")
    for name in ("file", "folder", str(tiny_zoo)):
        with pytest.raises(ConflictingArgumentsError):
            write_report(Zoo(tiny_zoo), name)
        assert here("report", str(tiny_zoo), "--to", name).returncode == 1
    assert Path("folder/index.html").read_text() == "<title>mine</title>"


def test_tables_only_reads_no_weights(tiny_copy: Path) -> None:
    for path in tiny_copy.glob("pt-*/**/*.safetensors"):
        path.write_bytes(b"damaged")
    report = write_report(Zoo(tiny_copy), "report", tables_only=True)
    assert set(report.problems) == NEED_WEIGHTS


@pytest.mark.slow
def test_one_family_has_no_intervals(tiny_zoo: Path, tmp_path: Path) -> None:
    report = write_report(
        Zoo(tiny_zoo), "report", where=f"init_group={Zoo(tiny_zoo)['pt-2'].record.init_group}", cache=tmp_path
    )
    assert report.problems == {}
    page = report.path.read_text(encoding="utf-8")
    assert "3 members of 1 family." in page
    assert "two families:" not in page
    assert len(re.findall(r'<tr id="member-', page)) == 3


def test_one_member_says_what_it_lacks(tiny_zoo: Path) -> None:
    report = write_report(Zoo(tiny_zoo), "report", where="id=pt-2")
    assert set(report.problems) == NEED_WEIGHTS | {"Accuracy by factor"}
    assert "pt-2" in text_of(report.path)
    with pytest.raises(SelectionError):
        write_report(Zoo(tiny_zoo), "report", where="id=pt-9")


@pytest.mark.slow
def test_diverged_member_is_shown_and_counted(tiny_copy: Path, tmp_path: Path) -> None:
    diverge(tiny_copy)
    report = write_report(Zoo(tiny_copy), "report", cache=tmp_path / "cache")
    assert report.problems == {}
    page = text_of(report.path)
    assert "10 members of 2 families. 1 other member of this report is not in it." in page
    assert 'aria-label="pt-0/ft-0: test accuracy ' in report.path.read_text(encoding="utf-8")
    assert "pt-0/ft-0 diverged" in page


def test_texts(text_zoo: Path, sentences: Path, tmp_path: Path) -> None:
    report = write_report(Zoo(text_zoo), "report", data={"animals": sentences}, cache=tmp_path / "cache")
    assert report.problems == {}
    assert "test accuracy of masked tokens" in report.path.read_text(encoding="utf-8")
    assert re.search(r"\d+ test texts \(", text_of(report.path))


def test_missing_data_leave_the_weights(text_zoo: Path, tmp_path: Path) -> None:
    report = write_report(Zoo(text_zoo), "report", cache=tmp_path / "cache")
    assert set(report.problems) == {"Similarity of features by layer"}
    assert "L2 distance of backbones" in text_of(report.path)


@pytest.mark.slow
def test_data_that_may_be_downloaded_are_announced(tiny_copy: Path, tmp_path: Path) -> None:
    for path in tiny_copy.glob("pt-*/**/member.json"):
        edit(path, dataset="uoft-cs/cifar100", dataset_spec={"name": "uoft-cs/cifar100"})
    lines: list[str] = []
    report = write_report(Zoo(tiny_copy), "report", cache=tmp_path / "cache", say=lines.append)
    assert lines[0].startswith("uoft-cs/cifar100 is downloaded if it is not in the cache: ")
    assert set(report.problems) == {"Similarity of features by layer"}  # offline


@pytest.mark.slow
def test_imported_members_have_no_unknown_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, sizes in MODEL_TYPES.items():
        monkeypatch.setitem(facts.MODEL_TYPES, name, sizes)
    import_tiny(short_release(tmp_path), tmp_path / "imported")
    report = write_report(Zoo(tmp_path / "imported"), "report", cache=tmp_path / "cache")
    page = text_of(report.path)
    assert set(report.problems) == {"Similarity of features by layer"}
    assert "nan" not in page.lower().split()


def test_hub_zoo_costs_the_bytes_that_are_said(hub: Hub, tiny_zoo: Path, tmp_path: Path) -> None:
    planted = plant(hub, tiny_zoo)
    lines: list[str] = []
    report = write_report(Zoo(REPO), "report", where="parent=pt-0", cache=tmp_path / "cache", say=lines.append)
    assert report.problems == {}
    assert "<h1>org/vit-zoo</h1>" in report.path.read_text(encoding="utf-8")
    files = {name: data for name, data in planted.files().items() if name.endswith("model.safetensors")}
    wanted = {name for name in files if name.startswith("pt-0/")}
    asked = {match[1] for r in hub.requests if (match := re.search(r"/(pt-[^?]*\.safetensors)", r.path))}
    assert asked == wanted
    assert lines[0].startswith(f"The final weights and records of {len(wanted)} members take ")
    hub.requests.clear()
    write_report(Zoo(REPO), "report", where="parent=pt-0", tables_only=True)
    assert not [r for r in hub.requests if ".safetensors" in r.path]


def test_without_the_extra_the_command_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == "vl_convert" else True)
    with pytest.raises(MissingPackageError) as error:
        packages.check_report_packages()
    assert error.value.package == "vl-convert-python"
