"""The Ray that a run works on, joined at an address or started on this machine, and the code that its nodes run.

Nodes are sent the folders of the code alone, not the repository, and this process's variables that decide bits.
"""

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from types import ModuleType

from training.environment import COMMIT, SAME_BITS, fix_environment, git_commit
from training.population.engines.ray_folder import OwnFolder
from vitzoo.errors import MissingPackageError, TrainingError, VitZooError

CODE = ("training", "vitzoo")
# An address that does not change with the network. Linux has all of them; Ray takes 127.0.0.1 for the machine's own.
_HERE = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
_OBJECTS = 256 * 2**20  # bytes of shared memory; what is sent is small, or sent in parts
_PATIENCE = 5.0  # seconds for an address to answer
_LONGEST = 40  # characters of a folder's path that leave room for the names of Ray's sockets, 107 in all


class Cluster:
    """This process's connection to Ray.

    Args:
        address: ``HOST:PORT`` of a cluster's head, or ``auto`` for the one that this machine belongs to; None to start
            Ray on this machine, which ends with this process.
        packages: Folders of code beside this one that nodes need, too.

    Raises:
        MissingPackageError: Ray is not installed.
        TrainingError: No cluster answers there, or Ray does not start.
    """

    def __init__(self, address: str | None, *, packages: Collection[str] = ()):
        if address is None:
            # Its ports are open to every network, and whoever reaches them may run anything. Read when Ray is imported.
            os.environ.setdefault("RAY_AUTH_MODE", "token")
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        self.ray = import_ray()
        self.is_own = address is None
        self._folder: OwnFolder | None = None
        if self.ray.is_initialized():
            raise TrainingError("This process is connected to Ray already. Call ray.shutdown() before a run.")
        with tempfile.TemporaryDirectory() as code, _signals_as_they_were():
            _copy_code(Path(code), {*CODE, *packages})
            environment = {"working_dir": code, "env_vars": worker_environment()}
            options = {"runtime_env": environment, "log_to_driver": False, "logging_level": logging.ERROR}
            try:
                self._start(options) if address is None else self._join(address, options)
                self._be_silent()
            except BaseException as error:
                self.close()
                if isinstance(error, VitZooError) or not isinstance(error, self._failures):
                    raise
                where = "does not start on this machine" if address is None else f"cannot be joined at {address}"
                raise TrainingError(f"Ray {where}: {str(error).strip() or type(error).__name__}") from error

    @property
    def _failures(self) -> tuple[type[Exception], ...]:
        """What Ray raises where it cannot start or be reached."""
        return (OSError, RuntimeError, ValueError, self.ray.exceptions.RayError)

    def close(self) -> None:
        """Leave the cluster; end it where it was started here."""
        self.ray.shutdown()
        if self._folder is not None:
            self._folder.remove()

    def _be_silent(self) -> None:
        """Have Ray print nothing here: of each process that ends it would print pages; the run says it in a line."""
        self.ray._private.worker.print_to_stdstream = lambda *_, **__: None

    def _start(self, options: dict) -> None:
        parent = Path(tempfile.gettempdir())
        if len(str(parent)) + len("/vitzoo-ray-12345678") <= _LONGEST:
            self._folder = OwnFolder(parent, "vitzoo-ray-")
            options["_temp_dir"] = str(self._folder.path)
        self.ray.init(
            address="local",
            include_dashboard=False,
            object_store_memory=_OBJECTS,
            _node_ip_address=_HERE,
            **options,
        )

    def _join(self, address: str, options: dict) -> None:
        found = self._find(address)
        host, port = found.rsplit(":", 1)
        if not _answers(host.strip("[]"), int(port)):
            of = f"{address}, which is {found}," if found != address else address
            raise TrainingError(
                f"No Ray cluster answers at {of} within {_PATIENCE:.0f} s. Give --address the HOST:PORT that `ray "
                "start` named on the head (6379 unless it was told otherwise), on a machine that belongs to the "
                "cluster; or leave --address out, and Ray starts on this machine."
            )
        self.ray.init(address=found, **options)

    def _find(self, address: str) -> str:
        """The host and port that Ray will connect to: it takes this machine's name for one of other machines, too."""
        if "://" in address:
            raise TrainingError(
                f"--address {address}: a run joins a cluster from one of its machines. Start it there, with --address "
                "auto or HOST:PORT."
            )
        from ray._private.services import canonicalize_bootstrap_address

        try:
            found = canonicalize_bootstrap_address(address)
        except ConnectionError:
            found = None
        except ValueError:
            raise TrainingError(f"--address {address}: expected auto, or HOST:PORT such as 10.0.0.1:6379.") from None
        if found is None or not found.rpartition(":")[2].isdigit():
            raise TrainingError(
                f"--address {address}: no Ray runs on this machine. Start one with `ray start --head` (other machines "
                "join it with `ray start --address HOST:PORT`), name another with --address HOST:PORT, or leave "
                "--address out, and Ray starts for this run alone."
            )
        return found


def import_ray() -> ModuleType:
    """Ray, which only this engine needs.

    Raises:
        MissingPackageError: It is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # under `uv run` it would build an environment a node
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")  # `ray job submit` may have sent the repository
    try:
        import ray
    except ImportError:
        raise MissingPackageError(
            '--engine ray needs Ray, which is not installed: pip install ".[ray]" in the repository; or leave --engine '
            "out, which starts processes on this machine.",
            package="ray",
        ) from None
    return ray


def worker_environment() -> dict[str, str]:
    """The variables of this process that a worker needs to train the same bits, and to record the same commit."""
    fix_environment()
    return {name: os.environ[name] for name in SAME_BITS} | {COMMIT: git_commit() or ""}


def _copy_code(folder: Path, packages: Collection[str]) -> None:
    """Copy the code that nodes are sent: what Ray is told to leave out, it may still hash for minutes."""
    root = Path(__file__).parents[3]
    for package in packages:
        shutil.copytree(root / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))


def _answers(host: str, port: int) -> bool:
    """Whether a server of gRPC listens there: Ray itself would wait for minutes for one that does not."""
    hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)  # the preface, and empty settings
    try:
        with socket.create_connection((host, port), timeout=_PATIENCE) as connection:
            if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
                return True
            connection.sendall(hello)
            answer = b""
            while len(answer) < 4 and (more := connection.recv(9)):
                answer += more
    except OSError:
        return False
    return answer[3:4] == b"\x04"  # its settings


@contextlib.contextmanager
def _signals_as_they_were() -> Iterator[None]:
    """Keep this process's own way of ending: Ray installs one for SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
