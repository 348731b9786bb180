"""Measure the speed of training on this machine: ``python -m training bench``. Ratios within one run, never assertions.

run.py            every part in turn, the table and the JSON file
members.py        members and images: the paper's on a GPU, smaller ones on a CPU
rows.py           rounds of ways of training in turn, and the rows of the table
steps.py          training steps: parts ``steps``, ``data`` and ``timm``
parts.py          parts ``checkpoint`` and ``start``
population.py     part ``population``
sharing.py        part ``sharing``, and the fastest number of members at a time on a GPU
"""
