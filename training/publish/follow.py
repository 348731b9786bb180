"""Publish a zoo while it is trained: finished members again and again, and the rest after the training has ended.

Training continues while a run or a member has a lease in the folder (`training.lease`), on any machine. See
`training.population.publisher` for the child process of `python -m training run --publish`.
"""

import os
import time
from collections.abc import Callable

from training import lease
from training.publish.push import AlreadyPublishingError, PushResult
from training.workspace import RUN, leases_root, parse_flat
from vitzoo.errors import VitZooError
from vitzoo.sources.folder import FolderSource

INTERVAL = 300.0  # seconds from the end of a publication to the next, which takes all members that finished meanwhile
_POLL = 2.0  # seconds


def follow(
    source: FolderSource,
    publish: Callable[[], PushResult],
    *,
    run: str | None = None,
    say: Callable[[str], None],
    interval: float = INTERVAL,
    poll: float = _POLL,
) -> PushResult | None:
    """Publish finished members until no process trains in the folder, then publish the rest.

    Args:
        source: The zoo.
        publish: Publishes all finished members.
        run: Name of the lease of the run to follow; None for every run and member in the folder.
        say: Called with a line about each publication, made or failed.
        interval: Seconds from the end of a publication to the next.
        poll: Seconds between two listings of the folder.

    Returns:
        The last publication; None if no member was finished.

    Raises:
        VitZooError: The last publication failed.
    """
    if hasattr(os, "nice"):
        os.nice(10)  # training goes first
    leases, result, published, due = leases_root(source.root), None, set(), time.monotonic()
    while True:
        held = lease.held_names(leases) if leases.is_dir() else set()
        names = held & {run} if run else {name for name in held if name.startswith(RUN) or parse_flat(name) is not None}
        is_trained = bool(names)  # before the members are listed, so that none is missed at the end
        members = set(source.member_ids())
        if is_trained and (members <= published or time.monotonic() < due):
            time.sleep(poll)
            continue
        if members <= published:
            return result
        try:
            result = publish()
            published = members
            say(f"published {len(members)} members, {result.url}/tree/{result.commit}")
        except AlreadyPublishingError:
            time.sleep(poll)
            continue
        except VitZooError as error:
            if not is_trained:
                raise
            say(f"not published: {error} Trying again in {interval:.0f} s.")
        due = time.monotonic() + interval
