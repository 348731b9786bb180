"""Import any population of ViTs or BERTs by a table of its checkpoints. See `run.import_checkpoints`.

`table` reads the table, and `plan` makes members of its rows. `places` finds a checkpoint's files in a folder or on the
Hub, `states` loads its tensors, and `layouts` gives them the names of a zoo. `member` makes a member. `scan` writes a
table of a folder of runs, and `ready` has tables of published populations.
"""
