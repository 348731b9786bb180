"""Measure the speed of training on this machine: ``python -m training bench``. Ratios within one run, never assertions.

run.py            every part in turn
members.py        members and images: the paper's on a GPU, smaller ones on a CPU
timing.py         subjects timed in turn, round after round; medians
steps.py          parts ``steps``, ``data`` and ``timm``, member by member
parts.py          parts ``checkpoint``, ``start`` and ``deterministic``
population.py     part ``population``
rows.py           results as lines, a table and JSON
rate.py           the speed of one member in a few seconds, for ``run --dry-run``
"""
