"""Start processes that fork from a server with the imports, so that a start costs no import of torch.

Local engines in this process start their workers from the same server (`training.population.local`). See
`tests.training.population.processes` for the command line in processes of its own.
"""

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

from training.population.worker import TRAIN_MEMBER


def fork(function: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Call a module's function in another process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([TRAIN_MEMBER.partition(":")[0]])
    process = context.Process(target=function, args=arguments)
    process.start()
    return process
