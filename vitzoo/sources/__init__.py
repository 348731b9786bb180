"""Where a zoo's bytes are: a local folder or a Hub repo, from a name to files.

See `vitzoo.tables` for what the files record.
"""
