"""Splits that do not leak, and scores on them.

`schemes` lists the schemes, `plan` makes their folds out of `families`, `folds` holds one, `leaks` refuses parts that
leak, and `scores` computes statistics by fold with intervals. See `vitzoo.weights.learning.scaling` for scaling that is
fitted on train alone.
"""
