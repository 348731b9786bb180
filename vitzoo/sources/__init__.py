"""Find a zoo by its name and read its bytes, from a local folder or a Hub repo.

See `vitzoo.tables` for what the files record.
"""
