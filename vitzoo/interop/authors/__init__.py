"""The raw release of the zoo's authors, imported into a zoo folder. `run.import_release` is where it begins.

`layout` finds what is there, `settings` and `results` read its JSON, `lineage` tells parents and epochs by the weights,
`plan` gives ids. `checkpoints` opens pickles, `convert` writes weights, `member` makes a member of a model, `check`
compares logits, `deviations` says what the released code did.
"""
