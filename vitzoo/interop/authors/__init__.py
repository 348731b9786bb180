"""Import the raw release of the zoo's authors into a zoo folder. See `run.import_release`.

`facts` states sizes and data sets, and `config` reads configs; `training.recipes` uses both. `job` describes an import
and its report. `release` finds models, `checkpoints` reads their files, `lineage` finds parents and epochs by the
weights, and `plan` gives ids. `member` makes a member, and `check` compares logits.
"""
