"""Write the folder that Sphinx reads: the pages of docs/ with what their code prints, and the derived pages."""

import os
import re
from pathlib import Path

import jupytext

from docs.site.outputs import Shown
from docs.site.reference import SECTIONS, api_pages
from tests.guides import read_blocks

ROOT = Path(__file__).parents[2]

ELSEWHERE = {"training/README.md": "training.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages of the site that are not in docs/."""

_NOTEBOOKS = Path("notebooks")
_FENCED = re.compile(r"^(`{3,}).*?^\1$", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
_MARK = re.compile(r"^<!-- site: (\w+) -->$", flags=re.MULTILINE)


def write_pages(folder: Path, *, outputs: dict[str, list[Shown]], pictures: Path) -> None:
    """Write every page. Files that did not change keep their times, so that Sphinx does not read them again.

    Args:
        folder: The folder that Sphinx reads. Other files in it are deleted.
        outputs: What the blocks of a guide print, by the guide's name.
        pictures: Folder of the pictures, a folder a guide.
    """
    sources = {path: path.relative_to(ROOT / "docs") for path in sorted((ROOT / "docs").rglob("*.md"))}
    sources |= {ROOT / source: Path(page) for source, page in ELSEWHERE.items()}
    content: dict[Path, bytes] = {}
    for source, page in sources.items():
        text = source.read_text(encoding="utf-8")
        if page.parent in (Path("guides"), _NOTEBOOKS) and page.stem in outputs:
            text = _insert_outputs(text, outputs[page.stem], guide=page.stem, content=content, pictures=pictures)
        if page.parent == _NOTEBOOKS:
            file = Path("files", page).with_suffix(".ipynb")
            content[file] = _as_ipynb(source).encode()
            text = re.sub(
                "^# .*$", rf"\g<0>\n\n{{download}}`Download for Jupyter </{file}>`", text, count=1, flags=re.M
            )
        text = _MARK.sub(lambda found: SECTIONS[found[1]](), text)
        content[page] = _move_links(text, source, page, pages=sources, content=content).encode()
    blocks = [block for source in sources for block in read_blocks(source.read_text(encoding="utf-8"), "python")]
    content |= {Path("api", name): text.encode() for name, text in api_pages([block.code for block in blocks]).items()}
    _write_changed(folder, content)


def _as_ipynb(source: Path) -> str:
    """Return a notebook as a file of Jupyter, without outputs and without links to other pages."""
    notebook = jupytext.read(source)
    for number, cell in enumerate(notebook.cells):
        cell.id = str(number)
        if cell.cell_type == "markdown":
            cell.source = _LINK.sub(r"\2", cell.source)
    return jupytext.writes(notebook, fmt="ipynb")


def _write_changed(folder: Path, content: dict[Path, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(folder) not in content:
            path.unlink()
    for page, text in content.items():
        path = folder / page
        if not path.exists() or path.read_bytes() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)


def _insert_outputs(text: str, shown: list[Shown], *, guide: str, content: dict[Path, bytes], pictures: Path) -> str:
    for output in sorted(shown, key=lambda output: -output.end):
        parts = []
        if output.printed.strip():
            parts.append(f"\n\n``````{{code-block}} text\n:class: output\n\n{output.printed.rstrip()}\n``````")
        parts += [
            f'\n\n``````{{raw}} html\n<div class="output table">\n{table}</div>\n``````' for table in output.tables
        ]
        for name, description in output.pictures.items():
            target = Path("outputs", guide, name)
            content[target] = (pictures / guide / name).read_bytes()
            parts.append(f"\n\n```{{image}} /{target}\n:class: output\n:alt: {description}\n```")
        text = text[: output.end] + "".join(parts) + text[output.end :]
    return text


def _move_links(text: str, source: Path, page: Path, *, pages: dict[Path, Path], content: dict[Path, bytes]) -> str:
    """Point the links of a page to where their targets are on the site. Files outside of docs/ are copied."""

    def move(found: re.Match[str]) -> str:
        picture, words, link, place = found[1], found[2], found[3], found[4] or ""
        target = Path(os.path.normpath(source.parent / link))
        if target in pages:
            where = pages[target]
        elif target.is_file():
            inside = target.is_relative_to(ROOT / "docs")
            where = target.relative_to(ROOT / "docs") if inside else Path("files", target.relative_to(ROOT))
            content[where] = target.read_bytes()
        elif target.is_dir():
            return f"`{target.relative_to(ROOT)}`"
        else:
            return found[0]
        return f"{picture}[{words}]({os.path.relpath(where, page.parent)}{place})"

    parts, end = [], 0
    for fence in _FENCED.finditer(text):
        parts += [_LINK.sub(move, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(move, text[end:])])
