"""Write sections as one HTML file that loads nothing: pictures are SVG in the page, the script is inline.

Text from a zoo is escaped by Jinja and by Vega. A Content-Security-Policy lets only the page's own script run. See
`vitzoo.report.sections` for the content, and ``page.html``, ``page.css`` and ``page.js`` for the form.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

import vitzoo
from vitzoo.report.material import Picture, Section, Table

GENERATOR = "vitzoo report"
_MARK = re.compile(
    r'<(?P<tag>path|image) aria-label="(?P<label>(?P<member>pt-\d+(?:/ft-\d+)?): [^"]*)" role="[^"]*" '
    r'aria-roledescription="[^"]*"(?P<rest>[^>]*)/>'
)
_IDS = re.compile(r'(id="|url\(#)((?:gradient_|clip)\d+)')
_SIZE = re.compile(r'<svg (?P<before>[^>]*?)class="marks" width="[\d.]+" height="[\d.]+"')
_GREY = "#80808066"
_PLAIN = {
    "axis": {
        "gridColor": _GREY,
        "domainColor": "#808080",
        "tickColor": "#808080",
        "labelFontSize": 11,
        "titlePadding": 8,
    },
    "legend": {
        "labelFontSize": 11,
        "titleFontSize": 11,
        "symbolStrokeWidth": 2,
        "symbolOpacity": 1,
        "columnPadding": 20,
        "layout": {"bottom": {"margin": 28, "direction": "horizontal", "anchor": "start"}},
    },
}
_INK = {  # the page's text colour, in both themes
    "background": None,
    "axis": {"labelColor": "currentColor", "titleColor": "currentColor"},
    "legend": {"labelColor": "currentColor", "titleColor": "currentColor"},
    "text": {"color": "currentColor"},
}


def draw_svg(picture: Picture) -> str:
    """Draw a picture as SVG in the page's colours, whose marks of members link to their rows."""
    import vl_convert

    svg = vl_convert.vegalite_to_svg(_specification(picture.chart, _INK))
    svg = _MARK.sub(
        lambda m: f'<a href="#{anchor(m["member"])}" aria-label="{m["label"]}"><{m["tag"]}{m["rest"]}/></a>', svg
    )
    ids: dict[str, str] = {}  # vl-convert numbers them across all charts of a process
    svg = _IDS.sub(lambda m: m[1] + ids.setdefault(m[2], f"{picture.key}-{len(ids)}"), svg)
    name = html.escape(f"{picture.title}. Arrow keys move between marks.", quote=True)
    return _SIZE.sub(rf'<svg \g<before>class="marks" role="group" aria-label="{name}"', svg, count=1)


def draw_png(picture: Picture) -> bytes:
    """Draw a picture as PNG on white, at twice its size."""
    import vl_convert

    return vl_convert.vegalite_to_png(_specification(picture.chart, {}), scale=2)


def anchor(member: str) -> str:
    """Return the id of a member's row in the page."""
    return f"member-{member.replace('/', '-')}"


def render_page(sections: Sequence[Section], members: Table, *, name: str, summary: str, footer: str) -> str:
    """Write the page.

    Args:
        sections: Its sections.
        members: The table of members, whose first column is the id.
        name: Name of the zoo.
        summary: Its recipe and size, in a sentence.
        footer: The versions that made the page.
    """
    folder = files("vitzoo.report")
    style, script, template = (folder.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js", "html"))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["anchor"] = anchor
    pictures = [picture for section in sections for picture in section.pictures]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.from_string(template).render(
        generator=f"{GENERATOR} {vitzoo.__version__}",
        script_hash=f"sha256-{digest}",
        style=Markup(style),
        script=Markup(script),
        name=name,
        summary=summary,
        footer=footer,
        sections=sections,
        members=members,
        drawings={picture.key: Markup(draw_svg(picture)) for picture in pictures},
        matrices={picture.key: Markup(_matrix_json(*picture.matrix)) for picture in pictures if picture.matrix},
    )


def _matrix_json(ids: Sequence[str], values: np.ndarray) -> str:
    """Write ids and numbers of three digits as JSON that cannot end a script element."""
    rows = [[float(f"{value:.3g}") for value in row] for row in values]
    return json.dumps({"ids": list(ids), "values": rows}, separators=(",", ":")).replace("<", "\\u003c")


def _specification(chart: Any, added: dict[str, Any]) -> dict[str, Any]:
    """Return a chart's Vega-Lite with the settings of all pictures, and added ones."""
    specification = chart.to_dict()
    config = specification.setdefault("config", {})
    for settings in (_PLAIN, added):
        for name, value in settings.items():
            config[name] = {**config.get(name, {}), **value} if isinstance(value, dict) else value
    return specification
