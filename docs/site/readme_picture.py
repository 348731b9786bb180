"""Draw the picture of the README from a digits zoo: ``python -m docs.site.readme_picture zoo``."""

import sys
from pathlib import Path

import altair as alt

from vitzoo import Zoo
from vitzoo.report import plots

OUT = Path(__file__).parents[1] / "pictures/zoo.svg"


def draw(zoo: Zoo) -> alt.HConcatChart:
    """Draw the family tree by accuracy, and the training of one family's children."""
    tree = plots.family_tree(zoo.select(status="any"))
    curves = plots.training_curves(zoo.select(parent="pt-4", epoch="all"), colour="optimizer")
    titles = ("A family in each row: parent and children", "Children of pt-4, epoch by epoch")
    config = curves.config
    for chart, title in zip((tree, curves), titles, strict=True):
        chart.title, chart.config = title, alt.Undefined  # the whole picture has the configuration
    joined = alt.hconcat(tree, curves, spacing=40, background="white").resolve_scale(color="independent")
    joined.config = config
    return joined


if __name__ == "__main__":
    draw(Zoo(sys.argv[1])).save(OUT)
