"""Pictures of a zoo, as Altair charts: a notebook shows them with tooltips, and ``chart.save`` writes a file.

    from vitzoo.report import plots
    plots.weights_map(zoo.select())

Each mark of a member has a label that starts with the member's id. See `vitzoo.report.sections` for the pictures of the
report page, with their definitions.
"""

from vitzoo.report.packages import check_report_packages

check_report_packages()

from vitzoo.report.plots.intervals import cka_by_layer, cka_means, contrasts, estimates, lineage_scores  # noqa: E402
from vitzoo.report.plots.members import accuracy_by_factor, family_tree, training_curves  # noqa: E402
from vitzoo.report.plots.weights import (  # noqa: E402
    dendrogram_order,
    distance_map,
    finite_distances,
    principal_components,
    weights_map,
)

__all__ = [
    "accuracy_by_factor",
    "cka_by_layer",
    "cka_means",
    "contrasts",
    "dendrogram_order",
    "distance_map",
    "estimates",
    "family_tree",
    "finite_distances",
    "lineage_scores",
    "principal_components",
    "training_curves",
    "weights_map",
]
