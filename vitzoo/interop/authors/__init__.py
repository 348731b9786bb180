"""Import the raw release of the zoo's authors into a zoo folder. See `run.import_release`.

`facts` says what the authors trained, `config` reads their configs; `training.recipes` uses both. `job` describes an
import and its report. `release` finds models, `checkpoints` opens pickles, `lineage` tells parents and epochs by the
weights, `plan` gives ids. `convert` writes weights, `member` makes a member, `check` compares logits.
"""
