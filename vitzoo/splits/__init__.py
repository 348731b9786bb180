"""Splits that do not leak, and scores on them: schemes, families, folds, leaks and intervals.

See `vitzoo.weights.learning.scaling` for scaling that is fitted on train alone.
"""
