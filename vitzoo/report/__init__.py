"""Draw a zoo: pictures for notebooks, and a report page that opens offline.

See `vitzoo.report.plots` for the pictures, and `vitzoo.report.write` for the page. Both need the extra ``report``.
"""
