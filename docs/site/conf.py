"""Settings of Sphinx for the site; see https://www.sphinx-doc.org/en/master/usage/configuration.html."""

from pathlib import Path

from sphinx.application import Sphinx

import vitzoo

project = "vitzoo"
author = "The vitzoo authors"
project_copyright = author
version = release = vitzoo.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
root_doc = "index"
nitpick_ignore: list[tuple[str, str]] = []

myst_heading_anchors = 4
myst_links_external_new_tab = False

smartquotes = False  # quotes in commands and messages are copied
default_role = "py:obj"  # `name` in a docstring is a link where the site has the name
napoleon_numpy_docstring = False
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "vitzoo"
html_static_path = [str(Path(__file__).parent / "static")]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_search_summary = False  # it requests pages, which a browser refuses where a page is a file


def setup(app: Sphinx) -> None:
    """Register the changes of docstrings and signatures."""
    app.connect("autodoc-process-docstring", _mark_code, priority=100)
    app.connect("autodoc-process-signature", _shorten_default)


def _mark_code(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Mark the indented lines of a module's docstring as code, where reStructuredText reads a quotation."""
    if what != "module":
        return
    marked = []
    for line, before in zip(lines, ["", *lines], strict=False):
        if line.startswith("    ") and not before.strip() and marked and not marked[-1].startswith("    "):
            marked += ["::", ""]
        marked.append(line)
    lines[:] = marked


def _shorten_default(
    app: Sphinx, what: str, name: str, value: object, options: object, signature: str | None, returned: str | None
) -> tuple[str | None, str | None] | None:
    """Write the default of a dataclass that a function makes as ``...``, because Sphinx cannot read ``<factory>``."""
    return None if signature is None else (signature.replace("<factory>", "..."), returned)
