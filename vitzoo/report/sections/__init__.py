"""The sections of the report page: pictures with their definitions, numbers of members and families, and limits.

A section is a function of a `Material` that returns a `Section`; `SECTIONS` lists them in the page's order. See
`vitzoo.report.plots` for the pictures, and `vitzoo.report.page` for the HTML.
"""

from collections.abc import Callable, Mapping

from vitzoo.errors import ConfigError, DatasetError, EpochNotFoundError, SelectionError, WeightsError
from vitzoo.report.material import Material, Section
from vitzoo.report.sections.applications import alignment, merging, paths, prediction
from vitzoo.report.sections.members import curves, factors, family_tree
from vitzoo.report.sections.outputs import contrasts, similarity
from vitzoo.report.sections.weights import distances, family_tree_from_weights, weights_map

SECTIONS: Mapping[str, Callable[[Material], Section]] = {
    "Family tree": family_tree,
    "Accuracy by factor": factors,
    "Training curves": curves,
    "Distances between members": distances,
    "Map of the weights": weights_map,
    "Similarity of features by layer": similarity,
    "Contrasts": contrasts,
    "Family tree from weights": family_tree_from_weights,
    "Merged models": merging,
    "Paths between members": paths,
    "Prediction from weights": prediction,
    "Alignment": alignment,
}
"""The sections by their titles, in the order of the page."""

OPTIONAL: Mapping[str, str] = {
    "merging": "Merged models",
    "paths": "Paths between members",
    "prediction": "Prediction from weights",
    "alignment": "Alignment",
}
"""The titles of the sections that a report has only if they are named, because they run many models."""


def make_section(title: str, material: Material) -> Section:
    """Make a section; if the zoo does not have what it needs, it only says so."""
    try:
        return SECTIONS[title](material)
    except (SelectionError, DatasetError, WeightsError, ConfigError, EpochNotFoundError) as error:
        return Section(key=SECTIONS[title].__name__, title=title, problem=str(error))
