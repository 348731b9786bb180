"""Publishing beside training, the driver's side: in a process of its own, whose hanging or crash holds up no run.

    with Publisher(Publishing(root=zoo, to="org/name")) as publisher:
        warning = publisher.check()        # before training: what would be refused is refused now
        publisher.offer([member])          # as members finish: cheap, never waits
        lines = publisher.poll()           # now and then: what there is to show
        result = publisher.finish()        # after training, when no GPU is held any more

The process ends when its driver does, however that ends: it watches its pipe. What it does is in
`training.publish.beside`; that it ends at any moment costs nothing, for a publication goes on where it stood.
"""

import contextlib
import logging
import multiprocessing
import os
import shlex
import signal
import threading
import time
from collections.abc import Callable, Collection
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import TYPE_CHECKING

from training.lease import release_all
from training.publish.plan import metadata_repo
from training.publish.talk import Publishing, Said, Wish
from vitzoo.errors import TrainingError
from vitzoo.ids import MemberId
from vitzoo.records import layout

if TYPE_CHECKING:  # it imports torch, which the driver needs not
    from training.publish.push import PushResult

_LONGEST_SILENCE = 300.0  # seconds without a byte, after which a request is made again
_HUNG = 3600.0  # seconds of a pass in which nothing was achieved, nor given up
_FIRST_PAUSE, _LONGEST_PAUSE = 60.0, 3600.0  # seconds before a process follows one that died
_DEATHS = 3  # once training is over
_GLANCE = 0.2  # seconds
_BETWEEN_PROGRESS = 0.2  # seconds


class Publisher:
    """A process that publishes what is finished of a zoo while the rest is trained; a context manager.

    Args:
        publishing: What is published, and where.

    Raises:
        TrainingError: A name is no Hub repo.
    """

    def __init__(self, publishing: Publishing):
        metadata_repo(publishing.to, publishing.metadata_to, option="--publish")
        self._publishing = publishing
        self._context = multiprocessing.get_context("spawn")
        self._offered: set[MemberId] = set()
        self._lines: list[str] = []
        self._answer: Said | None = None
        self._news = self._closed = False
        self._start_at, self._pause, self._achieved_at = 0.0, _FIRST_PAUSE, 0.0
        self._start()

    def __enter__(self) -> "Publisher":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process; None while there is none."""
        return None if self._process is None else self._process.pid

    def check(self, *, patience_seconds: float = 60.0) -> str | None:
        """Ask the Hub, before anything is trained, whether this can be published. The zoo has its zoo.json by then.

        Args:
            patience_seconds: How long an answer is waited for.

        Returns:
            A warning where the Hub does not answer, for it may come back; None where all is well.

        Raises:
            TrainingError: There is no token, or it may not write, or a repo holds something else.
        """
        self._answer, until = None, time.monotonic() + patience_seconds
        self._send("check")
        while self._answer is None and self._process is not None and time.monotonic() < until:
            wait([self._pipe], _GLANCE)
            self._attend()
        if self._answer is None:
            self._end()
            self._start()  # the other may hang
            return (
                f"{self._publishing.to}: the Hub gave no answer in {patience_seconds:.0f} s. Training begins; finished "
                "members are published when it answers."
            )
        if self._answer.kind == "refused":
            raise TrainingError(self._answer.text)
        return self._answer.text or None

    def offer(self, members: Collection[MemberId]) -> None:
        """Say that members stand finished in the zoo; never waits. Those that were offered before are no news."""
        if not self._offered.issuperset(members):
            self._offered.update(members)
            self._news = True
        self._attend()

    def poll(self) -> list[str]:
        """What there is to show since the last call, a line each; never waits."""
        self._attend()
        lines, self._lines = self._lines, []
        return lines

    def finish(
        self, *, patience_seconds: float = 600.0, show: Callable[[str], None] | None = None
    ) -> "PushResult | str":
        """Publish all that stands finished, and end the process. For when training is over and no GPU is held.

        Args:
            patience_seconds: How long it goes on without a file verified or stored, or a commit made.
            show: Called with lines to show meanwhile.

        Returns:
            What the publication has become; or, where it did not come to its end, why not and how to go on.
        """
        self._answer, deaths = None, 0
        if self._process is None:
            self._start()
        self._send("finish")
        self._achieved_at = time.monotonic()
        try:
            while self._answer is None:
                if self._process is None:
                    deaths += 1
                    if deaths >= _DEATHS:
                        return self._reason(f"The process that publishes died {deaths} times.")
                    self._start()
                    self._send("finish")
                if time.monotonic() - self._achieved_at > patience_seconds:
                    return self._reason(f"Nothing was sent in {patience_seconds:.0f} s.")
                wait([self._pipe], _GLANCE)
                for line in self.poll():
                    if show is not None:
                        show(line)
            return self._answer.result or self._reason(self._answer.text)
        finally:
            self.close()

    def close(self) -> None:
        """End the process, whatever it is at."""
        self._closed = True
        self._end()

    def _reason(self, why: str) -> str:
        order = self._publishing
        command = ["python", "-m", "training", "publish", str(order.root), "--to", order.to]
        command += [] if order.metadata_to is None else ["--metadata-to", order.metadata_to]
        command += [] if str(order.epochs) == "all" else ["--epochs", str(order.epochs)]
        command += ["--private"] if order.private else []
        return f"{why} What is not published yet goes out by: {shlex.join(command)}"

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process: BaseProcess | None = self._context.Process(
            target=_work, args=(theirs, self._publishing), name="publisher"
        )
        self._process.start()
        theirs.close()
        self._told = self._busy = False
        self._heard_at = time.monotonic()  # whatever it was

    def _end(self) -> int | None:
        """End the process, if need be by force; its exit code, None where there is no process."""
        process, self._process = self._process, None
        if process is None:
            return None
        self._pipe.close()
        process.join(timeout=2)
        if process.is_alive():
            process.kill()
            process.join()
        return process.exitcode

    def _attend(self) -> None:
        """Hear what the process says, tell it what is new, and replace it where it died or hangs."""
        if self._closed:
            return
        if self._process is None:
            if not self._news or time.monotonic() < self._start_at:
                return
            self._start()
        try:
            while self._pipe.poll():
                self._hear(self._pipe.recv())
        except (EOFError, OSError):
            code = self._end()
            self._follow("ended by " + (f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"))
            return
        if self._busy and time.monotonic() - self._heard_at > _HUNG:
            self._end()
            self._follow(f"got nowhere for {_HUNG / 60:.0f} minutes")
        elif self._news and not self._told:  # at most one message waits there, so that sending never does
            self._news, self._told = False, True
            self._send("publish")

    def _hear(self, said: Said) -> None:
        if said.kind == "line":
            self._lines.append(said.text)
            return
        self._heard_at = time.monotonic()
        if said.kind == "began":
            self._told, self._busy = False, True
        elif said.kind == "ended":
            self._busy, self._pause = False, _FIRST_PAUSE
        elif said.kind == "progress":
            self._achieved_at = self._heard_at
        else:
            self._answer = said

    def _follow(self, why: str) -> None:
        """Let another process follow one that is gone, after a while; it looks at everything again."""
        self._news, self._start_at = True, time.monotonic() + self._pause
        self._lines.append(f"the process that publishes {why}; another starts in {self._pause:.0f} s")
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _send(self, wish: Wish) -> None:
        with contextlib.suppress(OSError):  # it died: `_attend` finds out
            self._pipe.send(wish)


def _work(pipe: Connection, publishing: Publishing) -> None:
    """The process' life: wishes from the pipe, what came of them into it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the driver's end is enough
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.nice(10)  # training goes first
    wishes: SimpleQueue[Wish] = SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, wishes), daemon=True).start()
    handler = logging.FileHandler(publishing.root / layout.TRAINING / "logs/publish.log", encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
    from training.publish.beside import Passes  # for seconds, in which `_listen` already sees the driver's end
    from training.publish.remote import limit_waiting

    limit_waiting(_LONGEST_SILENCE)
    Passes(publishing, _Speaker(pipe)).live(wishes)


def _listen(pipe: Connection, wishes: "SimpleQueue[Wish]") -> None:
    try:
        while True:
            wishes.put(pipe.recv())
    except (EOFError, OSError):
        release_all()
        os._exit(1)  # the driver is gone, or wants no more; what was sent is on the Hub


class _Speaker:
    """Tells the driver, from a thread of its own: one that does not listen for hours holds up nothing."""

    def __init__(self, pipe: Connection):
        self._said: SimpleQueue[Said] = SimpleQueue()
        self._progress_at = 0.0
        threading.Thread(target=self._send_all, args=(pipe,), daemon=True).start()

    def __call__(self, said: Said) -> None:
        if said.kind == "progress":
            if time.monotonic() - self._progress_at < _BETWEEN_PROGRESS:
                return
            self._progress_at = time.monotonic()
        self._said.put(said)

    def _send_all(self, pipe: Connection) -> None:
        with contextlib.suppress(OSError):  # `_listen` ends the process
            while True:
                pipe.send(self._said.get())
