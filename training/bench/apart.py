"""A part of a benchmark in a process of its own: for what a process does once, or is set to as a whole."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_CACHE = "TORCHINDUCTOR_CACHE_DIR"


def in_fresh_process(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """What a function of a module returns in a new process, which ends afterwards; raises what it raises."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **options).result()


@contextmanager
def nothing_compiled(folder: Path) -> Iterator[None]:
    """Have this process, and those that it starts, compile into an empty folder, as if for the first time."""
    folder.mkdir(parents=True)
    before = os.environ.get(_CACHE)
    os.environ[_CACHE] = str(folder)
    try:
        yield
    finally:
        del os.environ[_CACHE]
        if before is not None:
            os.environ[_CACHE] = before
