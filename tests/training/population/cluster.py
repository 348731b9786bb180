"""Start a Ray cluster on this machine, in its own processes: a head without room for members, and machines with a CPU.

Tests use `Cluster`, which starts this module as a process and sends it commands on standard input.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from tests.conftest import ROOT
from tests.training.population.processes import PATIENCE, kill_all

_HERE = "127.0.0.2"  # Ray replaces 127.0.0.1 by the machine's address in its network
_DEATHS_ARE_SEEN = {  # within two seconds rather than half a minute
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "500",
    "RAY_health_check_failure_threshold": "3",
}


class Cluster:
    """A running cluster, until `close`.

    Args:
        nodes: Number of machines, without the head.
    """

    def __init__(self, *, nodes: int = 2):
        self._folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: the names of sockets have 107 characters at most
        (self._folder / "ray").mkdir()  # else the address of the latest cluster is written to /tmp/ray
        with open(self._folder / "output.log", "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(self._folder), str(nodes)],
                cwd=ROOT,
                env=os.environ | _DEATHS_ARE_SEEN | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(self._folder)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        try:
            self.address = self._answer()
        except RuntimeError:
            self.close()
            raise

    def kill_machine(self) -> None:
        """Kill the oldest machine."""
        self._do("kill")

    def add_machine(self) -> None:
        """Add a machine."""
        self._do("add")

    def workers(self) -> list[psutil.Process]:
        """List the processes that train members."""
        workers = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.cmdline() and child.cmdline()[0].startswith("ray::MemberTrainer"):
                    workers.append(child)
        return workers

    def close(self) -> None:
        """End every process."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        kill_all(self.process)
        for child in children:
            if child.is_running():
                child.kill()
        psutil.wait_procs(children, timeout=PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _do(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"the cluster ended:\n{(self._folder / 'output.log').read_text()}")
        return line


def _serve(folder: str, nodes: int) -> None:
    from ray import cluster_utils

    options = {"node_ip_address": _HERE, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    head = options | {"num_cpus": 0, "num_gpus": 0, "temp_dir": folder}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    options |= {"num_cpus": 1, "num_gpus": 0}
    machines = [cluster.add_node(wait=False, **options) for _ in range(nodes)]
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "kill":
            cluster.remove_node(machines.pop(0), allow_graceful=False)
        else:
            machines.append(cluster.add_node(**options))
        print("done", flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
