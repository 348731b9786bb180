"""Splits that do not leak, and scores on them.

`schemes` says which there are, `plan` makes their folds out of `families`, `folds` holds one, `leaks` refuses what
leaks, `scores` has figures by fold with intervals, by `measures` or any other statistic. Scaling fitted on train is
`vitzoo.weights.learning.scaling`'s business.
"""
