"""What would keep a zoo from being published, asked before its first member is trained: name, token, what is there."""

from collections.abc import Callable

from training.publish.checks import check_recipe, check_tables, check_visibility
from training.publish.plan import metadata_repo
from training.publish.remote import Remote, find_token
from vitzoo.hub_http import quiet
from vitzoo.records import ZooRecord


def check_ready(
    record: ZooRecord, *, to: str, metadata_to: str | None, private: bool, say: Callable[[str], None]
) -> None:
    """Refuse what a publication would be refused for, as far as it can be told without members; nothing is made.

    Args:
        record: The zoo.json of what is going to be trained.
        to: The model repo.
        metadata_to: The dataset repo; None for ``<to>-metadata``.
        private: Whether repos that are made are to be private.
        say: Where it tells that it waits.

    Raises:
        TrainingError: A name is no Hub repo, or a repo holds something else, or is public and was to be private.
        HubError: There is no token, or it may not write.
        HubAway: The Hub does not answer.
    """
    metadata_to = metadata_repo(to, metadata_to)
    token = find_token()
    with quiet():
        model, dataset = Remote(to, "model", token=token, say=say), Remote(metadata_to, "dataset", token=token, say=say)
        for remote in (model, dataset):
            is_private = remote.is_private()
            check_visibility(remote, is_private=is_private, wanted=private)
            remote.check_writable(there=is_private is not None)
            if is_private is None:
                continue
            if remote is model:
                check_recipe(record, remote, remote.look())
            else:
                check_tables(to, remote, remote.look())
