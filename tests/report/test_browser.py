"""The report page in a real browser: it loads nothing, fits any width and theme, and leads from marks to rows."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.conftest import HOSTILE

# Of the tiny zoo: tree, 2 factors, 2 curves, distances, map, CKA, 4 contrasts, lineage, merging, paths, alignment.
PICTURES = 16


class Opened:
    """A page with its errors, dialogs and requests."""

    def __init__(self, page: Any, path: Path) -> None:
        self.page, self.path = page, path
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: (self.errors.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(path.as_uri())

    @property
    def tip(self) -> str:
        return self.page.locator("#tip").inner_text() if self.page.locator("#tip").is_visible() else ""


@pytest.fixture
def opened(browser: Any, hostile_report: Path) -> Iterator[Opened]:
    context = browser.new_context(viewport={"width": 1200, "height": 900}, offline=True)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield Opened(context.new_page(), hostile_report)
    context.close()


def luminance(colour: str) -> float:
    """Return the relative luminance of a CSS colour, as WCAG 2.2 defines it."""
    channels = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_shows_all_pictures(browser: Any, hostile_report: Path, theme: str, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, offline=True)
    opened = Opened(context.new_page(), hostile_report)
    page = opened.page
    boxes = [picture.bounding_box() for picture in page.locator("figure svg").all()]
    assert len(boxes) == PICTURES
    assert all(box["width"] > 250 and box["height"] > 80 for box in boxes)
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(paper) < 0.1) == (theme == "dark")
    inks = page.evaluate(
        "[...document.querySelectorAll('p, th, td, figure text')].map((e) => {const s = getComputedStyle(e);"
        " return e.tagName === 'text' ? s.fill : s.color})"
    )
    assert len(inks) > 100
    assert min(contrast(ink, paper) for ink in set(inks)) >= 4.5
    texts = page.evaluate(
        "[...document.querySelectorAll('figure svg')].map((svg) => [...svg.querySelectorAll('text')].map("
        "(t) => {const b = t.getBoundingClientRect(), s = svg.getBoundingClientRect();"
        " return b.left < s.left - 2 || b.right > s.right + 2 || b.top < s.top - 2 || b.bottom > s.bottom + 2}))"
    )
    assert not any(cut for picture in texts for cut in picture)
    assert (opened.errors, opened.requests) == ([], [hostile_report.as_uri()])
    context.close()


def test_pointer_shows_the_member_and_a_click_leads_to_its_row(opened: Opened) -> None:
    page = opened.page
    for picture in page.locator("figure").all():
        links = picture.locator("svg a").all()
        if not links:
            continue
        link = links[len(links) // 2]
        link.scroll_into_view_if_needed()
        x, y = link.evaluate(
            "(a) => {const mark = a.firstElementChild, line = mark.getAttribute('stroke-width') === '7';"
            " const p = line && mark.getPointAtLength(mark.getTotalLength() / 2).matrixTransform(mark.getScreenCTM());"
            " const b = mark.getBoundingClientRect();"
            " return p ? [p.x, p.y] : [b.x + b.width / 2, b.y + b.height / 2]}"
        )
        page.mouse.move(x, y)
        member = re.match(r"pt-\d+(/ft-\d+)?", opened.tip)
        assert member, picture.inner_text()
        page.mouse.click(x, y)
        row = page.locator("tr:target")
        assert row.locator("th").inner_text() == member[0], picture.inner_text()
        assert row.evaluate("(row) => row === document.activeElement")
        box = row.bounding_box()
        assert 0 <= box["y"] < 900
        page.evaluate("scrollTo(0, 0)")
    assert opened.errors == []


def test_pointer_in_the_heat_map_shows_a_pair_with_its_distance(opened: Opened) -> None:
    page = opened.page
    pairs = page.evaluate("JSON.parse(document.querySelector('figure[data-matrix] script').textContent)")
    row, column = 2, 7
    strip = page.locator("figure[data-matrix] svg a").nth(row)
    strip.scroll_into_view_if_needed()
    box = strip.bounding_box()
    page.mouse.move(box["x"] + box["width"] * (column + 0.5) / len(pairs["ids"]), box["y"] + box["height"] / 2)
    assert opened.tip == f"{pairs['ids'][row]} and {pairs['ids'][column]}: distance {pairs['values'][row][column]}"


def test_keys_move_between_members(opened: Opened) -> None:
    page = opened.page
    assert page.locator("figure svg a[tabindex='0']").count() == page.locator("figure:has(svg a)").count()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the pictures"
    page.locator("#tree svg a").first.focus()
    first = opened.tip
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert (first.split(":")[0], opened.tip.split(":")[0]) == ("pt-0", "pt-0/ft-1")
    page.keyboard.press("Escape")
    assert opened.tip == ""
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.cells[0].textContent") == "pt-0/ft-1"


def test_table_copies_as_text(opened: Opened) -> None:
    page = opened.page
    page.locator("#members button.copy").click()
    page.wait_for_function("document.querySelector('#members .copied').textContent === 'Copied.'")
    lines = page.evaluate("navigator.clipboard.readText()").replace("\r\n", "\n").split("\n")
    cells = [line.split("\t") for line in lines]
    assert cells[0][:2] == ["member", "status"]
    assert [row[0] for row in cells[1:4]] == ["pt-0", "pt-0/ft-0", "pt-0/ft-1"]
    assert {len(row) for row in cells} == {len(cells[0])}
    assert f"{HOSTILE}linear" in cells[1]


def test_hostile_names_stay_text(opened: Opened) -> None:
    page = opened.page
    assert page.locator("h1").inner_text() == "<img src=x onerror=alert(3)>"
    assert HOSTILE in page.locator("header p").inner_text()
    assert page.locator("img, iframe, object").count() == 0
    assert page.evaluate("document.scripts.length") == 2  # the page's own, and the distances
    assert page.locator("#factors svg text", has_text="</script").count() >= 1
    assert opened.errors == []


def test_structure_fits_a_screen_reader(opened: Opened) -> None:
    page = opened.page
    assert [page.get_by_role(role).count() for role in ("main", "banner", "navigation", "contentinfo")] == [1] * 4
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((h) => h.tagName)")
    assert levels == ["H1", *["H2"] * 13]
    assert page.get_by_role("region", name="Family tree", exact=True).count() == 1
    assert page.locator("figure svg[role][aria-label]").count() == PICTURES
    assert page.locator("figure figcaption").count() == PICTURES
    assert page.locator("table").count() == page.locator("table caption").count() == 9
    assert page.locator("th:not([scope])").count() == 0
    assert page.get_by_role("link", name="pt-0/ft-0: test accuracy").count() >= 2
    targets = page.evaluate(
        "[...document.querySelectorAll('figure svg a')].every((a) => document.querySelector(a.getAttribute('href')))"
    )
    assert targets
