"""The documentation site: ``python -m docs.site`` runs the guides, derives pages from code, and calls Sphinx.

See `docs.site.outputs` for what guides print, `docs.site.reference` for the derived pages, `docs.site.pages` for the
folder that Sphinx reads, and `docs.site.conf` for its settings.
"""
