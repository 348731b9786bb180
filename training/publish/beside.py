"""Publishing a zoo while it is trained: when a pass is made, and what follows where one fails.

A pass publishes what stands finished in the folder at that moment, as `python -m training publish` does: readers always
see a whole zoo. Members that finish during a pass, or soon after it, go together with the next. The process that lives
this life, and what is on the other side of its pipe, is in `training.population.publisher`.
"""

import logging
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from rich.console import Console

from training.publish.files import PlannedFile
from training.publish.plan import plan_publication
from training.publish.progress import Progress
from training.publish.push import AlreadyPublishing, publish
from training.publish.ready import check_ready
from training.publish.remote import AGAIN, HubAway
from training.publish.talk import Publishing, Said, Wish
from training.publish.verified import Verified
from vitzoo.errors import VitZooError
from vitzoo.sources.folder import FolderSource

_LONGEST_PAUSE = 900.0  # seconds
_REFUSALS = 2  # in a row, once training is over; a first may be of a moment, such as another publisher's commits
_log = logging.getLogger(__name__)


class Passes:
    """The passes of one process, which knows what it verified.

    Args:
        publishing: What is published.
        say: Tells the driver; never waits for it.
    """

    def __init__(self, publishing: Publishing, say: Callable[[Said], None]):
        self._publishing, self._say = publishing, say
        self._verified = Verified()
        self._progress = _Heard(say)
        self._wanted = self._finishing = False
        self._due, self._pause, self._refusals = 0.0, publishing.pause, 0

    def live(self, wishes: "SimpleQueue[Wish]") -> None:
        """Do what is wished, one after the other, for as long as the process lives."""
        while True:
            try:
                wish = wishes.get(timeout=max(0.0, self._due - time.monotonic()) if self._wanted else None)
            except Empty:
                wish = None
            if wish == "check":
                self._check()
            elif wish is not None:
                self._wanted = True
            if wish == "finish":
                self._finishing, self._due, self._pause = True, 0.0, self._publishing.pause
            if self._wanted and time.monotonic() >= self._due:
                self._make_pass()

    def _check(self) -> None:
        order = self._publishing
        try:
            record = FolderSource(order.root).record
            say = self._progress.say
            check_ready(record, to=order.to, metadata_to=order.metadata_to, private=order.private, say=say)
        except HubAway as error:
            self._say(Said(kind="ready", text=_plain(error)))
        except VitZooError as error:
            self._say(Said(kind="refused", text=str(error)))
        else:
            self._say(Said(kind="ready"))

    def _make_pass(self) -> None:
        self._wanted = False
        self._say(Said(kind="began"))
        try:
            self._publish()
        except (HubAway, AlreadyPublishing) as error:
            self._try_again(_plain(error))
        except VitZooError as error:
            self._refuse(_plain(error))
        except Exception as error:  # noqa: BLE001 (whatever it was: it is logged and told, and training goes on)
            _log.exception("a pass failed")
            self._refuse(f"{type(error).__name__}: {error}")
        self._say(Said(kind="ended"))

    def _publish(self) -> None:
        order = self._publishing
        publication = plan_publication(
            FolderSource(order.root),
            to=order.to,
            metadata_to=order.metadata_to,
            epochs=order.epochs,
            verified=self._verified,
        )
        result = publish(publication, private=order.private, progress=self._progress, verified=self._verified)
        # Others may have finished meanwhile, another run's among them, of which nobody tells this process.
        self._wanted = set(FolderSource(order.root).member_ids()) != set(publication.members)
        self._pause, self._refusals = order.pause, 0
        self._due = time.monotonic() + (0.0 if self._finishing else order.interval)
        if result.commits:
            count = len(publication.members)
            line = f"published {count} {'member' if count == 1 else 'members'} to {order.to}, commit {result.commit}"
            self._say(Said(kind="line", text=line))
        if self._finishing and not self._wanted:
            self._say(Said(kind="published", result=result))

    def _refuse(self, why: str) -> None:
        """Go on after what will hardly pass by itself, but for a user who looks after it."""
        self._refusals += 1
        if self._finishing and self._refusals >= _REFUSALS:
            self._say(Said(kind="gave up", text=why))
            return
        self._try_again(why)

    def _try_again(self, why: str) -> None:
        seconds = min(self._pause, self._publishing.pause / 4) if self._finishing else self._pause
        self._wanted, self._due = True, time.monotonic() + seconds
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        self._say(Said(kind="line", text=f"not published: {why} Trying again in {seconds:.0f} s."))


class _Heard(Progress):
    """Tells the driver that something was achieved, in place of showing how much.

    What an earlier pass stored is not counted again: a Hub that takes files and refuses the commit would else be
    waited for without end.
    """

    def __init__(self, say: Callable[[Said], None]):
        super().__init__(console=Console(quiet=True, force_terminal=False))
        self._tell, self._most = say, 0

    def say(self, text: str) -> None:
        """Pass a line on."""
        self._tell(Said(kind="line", text=text))

    def begin(self, repo: str, *, size: int, files: int) -> None:
        """See `Progress.begin`."""
        self._sent = 0

    def update(self, done: int, total: int) -> None:
        """A file was read, and verified so far."""
        self._tell(Said(kind="progress"))

    def sent(self, size: int) -> None:
        """See `Progress.sent`."""
        self._sent += size
        if self._sent > self._most:
            self._most = self._sent
            self._tell(Said(kind="progress"))

    def committed(self, files: Sequence[PlannedFile]) -> None:
        """See `Progress.committed`."""
        self._sent = self._most = 0
        self._tell(Said(kind="progress"))


def _plain(error: VitZooError) -> str:
    """What it says, without what a person would have to do about it at once: here it is tried again."""
    return str(error).replace(f" {AGAIN}", "").replace(" Try later.", "")
