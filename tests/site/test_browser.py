"""The site in a real browser, from its files: it needs no server, loads nothing from outside, and fits any width."""

from pathlib import Path
from typing import Any

import pytest

from tests.report.test_browser import Opened, contrast, luminance

pytestmark = pytest.mark.slow

PAGES = (
    "index",
    "notebooks/first-hour",
    "guides/population",
    "guides/report",
    "api/vitzoo.zoo.zoo",
    "commands",
    "format",
    "troubleshooting",
)


def open_page(context: Any, path: Path) -> Opened:
    opened = Opened(context.new_page(), path)
    opened.page.wait_for_load_state()
    return opened


@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_fit_and_load_nothing_from_outside(browser: Any, site: Path, theme: str, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, offline=True)
    for name in PAGES:
        opened = open_page(context, site / f"{name}.html")
        page = opened.page
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (luminance(paper) < 0.1) == (theme == "dark")
        inks = page.evaluate(
            "[...document.querySelectorAll('article p, article li, article td, article h1')]"
            ".map((e) => getComputedStyle(e).color)"
        )
        assert min(contrast(ink, paper) for ink in set(inks)) >= 4.5
        broken = page.evaluate("[...document.images].filter((i) => i.complete && !i.naturalWidth).map((i) => i.src)")
        assert broken == []
        assert opened.errors == [], name
        assert [url for url in opened.requests if not url.startswith(site.as_uri())] == [], name
    context.close()


def test_navigation_leads_to_every_group(browser: Any, site: Path) -> None:
    context = browser.new_context(viewport={"width": 1600, "height": 900}, offline=True)
    page = open_page(context, site / "index.html").page
    groups = page.locator(".sidebar-tree .caption-text").all_inner_texts()
    assert [group.lower() for group in groups] == ["tutorials", "how to", "reference", "explanation"]
    page.locator(".sidebar-tree").get_by_role("link", name="The zoo format").click()
    assert page.locator("h1").inner_text().startswith("The zoo format")
    page.locator(".toc-tree").get_by_role("link", name="MemberRecord").click()
    assert page.url.endswith("#memberrecord")
    row = page.locator("tr", has=page.locator("code", has_text="learning_rate")).first
    assert "Peak learning rate." in row.inner_text()
    context.close()


def test_search_finds_a_name_and_a_word_without_a_server(browser: Any, site: Path) -> None:
    context = browser.new_context(viewport={"width": 1200, "height": 900}, offline=True)
    opened = open_page(context, site / "index.html")
    page = opened.page
    for word, title in (("assert_no_leaks", "assert_no_leaks"), ("arborescence", "Recover the family tree")):
        field = page.locator("input[type=search], .sidebar-search").first
        field.fill(word)
        field.press("Enter")
        page.wait_for_selector("ul.search li a")
        assert any(title in text for text in page.locator("ul.search li a").all_inner_texts())
    page.locator("ul.search").get_by_role("link", name="Recover the family tree").first.click()
    assert "Recover the family tree" in page.locator("h1").inner_text()
    assert opened.errors == []
    context.close()


def test_theme_switches_by_its_button_and_stays(browser: Any, site: Path) -> None:
    context = browser.new_context(viewport={"width": 1600, "height": 900}, color_scheme="light", offline=True)
    page = open_page(context, site / "index.html").page
    button = page.locator("button.theme-toggle:visible").first
    for _ in range(3):
        if page.evaluate("document.body.dataset.theme") == "dark":
            break
        button.click()
    assert luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) < 0.1
    page.goto((site / "format.html").as_uri())
    assert luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) < 0.1
    context.close()
