"""The pages of the site: every guide is on it and runs, links move with pages, and derived pages are complete."""

import inspect
import json
import re
from pathlib import Path

import pytest

import vitzoo
from docs.site.outputs import NOT_RUN, SESSIONS, Shown
from docs.site.pages import ELSEWHERE, write_pages
from docs.site.reference import api_modules, commands_text, errors_text, records_text
from tests.conftest import ROOT
from tests.guides import GUIDES, NOTEBOOKS, read_blocks
from vitzoo import errors
from vitzoo.records import EpochRecord, MemberRecord


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that Sphinx reads, with an output and a picture of one guide, and a table of one notebook."""
    folder = tmp_path_factory.mktemp("site")
    pictures = folder / "outputs/report"
    pictures.mkdir(parents=True)
    (pictures / "0-map.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>", encoding="utf-8")
    end = (GUIDES / "report.md").read_text(encoding="utf-8").index("```\n\nThe page is") + 3
    shown = [Shown(end=end, printed="report/index.html\n", pictures={"0-map.svg": "A map."})]
    start = (NOTEBOOKS / "first-hour.md").read_text(encoding="utf-8").index("member\n```\n\n## See")
    table = Shown(end=start + len("member\n```"), printed="", pictures={}, tables=("<table></table>\n",))
    outputs = {"report": shown, "first-hour": [table]}
    write_pages(folder / "source", outputs=outputs, pictures=folder / "outputs")
    return folder / "source"


def test_every_guide_runs_or_has_a_reason_not_to() -> None:
    run = [name for session in SESSIONS for name in session.guides]
    assert sorted([*run, *NOT_RUN]) == sorted(
        path.stem for folder in (GUIDES, NOTEBOOKS) for path in folder.glob("*.md")
    )


def test_every_page_is_in_the_contents() -> None:
    contents = re.findall(r"^([\w./-]+)$", (ROOT / "docs/index.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    written = [str(path.relative_to(ROOT / "docs").with_suffix("")) for path in (ROOT / "docs").rglob("*.md")]
    derived = ["api/index", *(page.removesuffix(".md") for page in ELSEWHERE.values())]
    assert sorted(contents) == sorted({*written, *derived} - {"index"})


def test_output_and_picture_follow_their_block(source: Path) -> None:
    page = (source / "guides/report.md").read_text(encoding="utf-8")
    output = "``````{code-block} text\n:class: output\n\nreport/index.html\n``````\n"
    block, _, rest = page.partition(output)
    assert block.endswith("```bash\nvitzoo report zoo --to report\n```\n\n")
    assert rest.index("{image} /outputs/report/0-map.svg") < rest.index("The page is")
    assert (source / "outputs/report/0-map.svg").exists()


def test_table_follows_its_block(source: Path) -> None:
    page = (source / "notebooks/first-hour.md").read_text(encoding="utf-8")
    shown = '``````{raw} html\n<div class="output table">\n<table></table>\n</div>\n``````'
    assert f"member\n```\n\n{shown}\n\n## See one model fail" in page


def test_notebooks_can_be_downloaded_with_the_same_code(source: Path) -> None:
    for path in NOTEBOOKS.glob("*.md"):
        assert f"</files/notebooks/{path.stem}.ipynb>`" in (source / f"notebooks/{path.name}").read_text(
            encoding="utf-8"
        )
        notebook = json.loads((source / f"files/notebooks/{path.stem}.ipynb").read_text(encoding="utf-8"))
        code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
        assert code == [block.code.strip() for block in read_blocks(path.read_text(encoding="utf-8"), "python")]
        text = "".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
        assert ".md" not in text
        assert notebook["metadata"]["kernelspec"]["language"] == "python"


def test_links_lead_to_pages_and_copies_of_files(source: Path) -> None:
    cloud = (source / "guides/cloud.md").read_text(encoding="utf-8")
    assert "](../training.md#see-the-progress)" in cloud
    slurm = (source / "guides/slurm.md").read_text(encoding="utf-8")
    assert "[submit.sh](../files/training/slurm/submit.sh)" in slurm
    assert "The scripts are in `training/slurm`" in slurm
    assert (source / "files/training/slurm/submit.sh").read_bytes() == (ROOT / "training/slurm/submit.sh").read_bytes()


def test_every_exported_name_is_in_the_api(source: Path) -> None:
    index = (source / "api/index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(\w+) <vitzoo", index)) == set(vitzoo.__all__) - {"__version__"}
    assert {"vitzoo.report.plots", "vitzoo.images", "vitzoo.splits.leaks", "vitzoo.models.bert"} < {
        path.stem for path in (source / "api").iterdir()
    }
    assert api_modules(["    from vitzoo.weights import reader, files"]) >= ["vitzoo.analysis.alignment"]


def test_every_field_of_the_records_has_a_row() -> None:
    text = records_text()
    for record in (MemberRecord, EpochRecord):
        section = text.partition(f"### {record.__name__}\n")[2].partition("\n### ")[0]
        assert re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE) == list(record.__struct_fields__)
    assert "| `learning_rate` | number ≥ 0 or null | Peak learning rate. | yes |" in text
    assert "| `init_seed` |" in text
    assert re.search(r"^\| `init_group` \|.*\| seed \|$", text, flags=re.MULTILINE)


def test_every_command_and_every_error_has_a_section() -> None:
    commands = re.findall(r"^#+ `(.*)`$", commands_text(), flags=re.MULTILINE)
    assert re.search(
        r"^Examples:\n\n```bash\nvitzoo select .*\n(vitzoo select .*\n)+```$", commands_text(), flags=re.MULTILINE
    )
    assert {"vitzoo tree", "vitzoo import authors", "python -m training run"} < set(commands)
    classes = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.VitZooError) and not name.startswith("_")
    }
    sections = re.findall(r"^## (\w+)$", errors_text(), flags=re.MULTILINE)
    assert set(sections) == classes - {"VitZooError"}
    assert (
        "Hub zoo offline:\n\n```{code-block} text\n:class: message\n\nzoo.json of org/name is not in the cache"
        in errors_text()
    )
