"""Run the behaviour of a zoo's children in one of several processes: ``python -m tests.analysis.ranks ZOO CACHE``."""

import sys

from vitzoo import Zoo
from vitzoo.analysis.behaviour.behaviour import behaviour

if __name__ == "__main__":
    zoo, cache = sys.argv[1:]
    found = behaviour(Zoo(zoo).select(stage="finetuning"), cache=cache, progress=False)
    assert len(found.files) == len(found)
