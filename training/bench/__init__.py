"""How fast members are trained on this machine: ``python -m training bench``. Ratios within one run, never assertions.

run.py            every part in turn, said as it comes
scale.py          what is trained: the paper's members on a GPU, small ones on a CPU
images.py         generated images: CIFAR's size in memory, photographs' size in JPEG files
trainee.py        a member whose steps are timed, on one batch or on those of its own pipeline
rounds.py         subjects timed in turn, round after round; medians
steps.py          parts ``steps``, ``data`` and ``timm``, member by member
peers.py          the same network and step by timm
checkpoint.py     part ``checkpoint``: what keeping an epoch adds to the next one
start.py          part ``start``: how long a member takes to its first step, cold and warm
deterministic.py  part ``deterministic``: what equal bits cost on a GPU
apart.py          a part in a process of its own
table.py          rows: as lines, tables and JSON
    floor.py          what speeds are held against
rate.py           the speed of one member in a few seconds, for ``run --dry-run``
"""
