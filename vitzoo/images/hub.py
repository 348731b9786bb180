"""Image data sets of the Hub, by `datasets`: downloaded once, then mapped into memory from its cache.

Together with `vitzoo.sources.hub` this is the only module of the library that touches the network.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitzoo.errors import DatasetError, printable, shown
from vitzoo.images.assemble import Found, wanted_splits
from vitzoo.images.known import how_to_get
from vitzoo.images.tables import find_in_tables, no_split
from vitzoo.records.dataset_spec import DatasetSpec


def find_on_hub(images: DatasetSpec) -> Found:
    """The splits of a Hub data set, at the commit that its main branch is at, or in the cache where there is no Hub.

    Args:
        images: Which, complete.

    Raises:
        DatasetError: It cannot be had (not there, gated, no connection), or its splits and columns are others.
    """
    datasets = import_datasets(images.name)
    from huggingface_hub import constants

    try:
        builder = datasets.load_dataset_builder(f"hf://datasets/{images.name}", images.config)
        if builder.info.splits:  # where a card tells them, before anything large is downloaded
            _check_splits(images, builder.info.splits)
        builder.download_and_prepare()
        _check_splits(images, builder.info.splits or {})
        tables: dict[str, Any] = {name: builder.as_dataset(name) for name in wanted_splits(images).values()}
    except DatasetError:
        raise
    except Exception as error:  # noqa: BLE001 - what `datasets` raises has no common base
        raise _explain(images, error) from None  # its causes may tell signed URLs
    within = Path(constants.HF_HUB_CACHE).parent
    return find_in_tables(images, tables, revision=f"{images.name}@{builder.hash}", within=within)


def _check_splits(images: DatasetSpec, known: Mapping[str, object]) -> None:
    for split in wanted_splits(images).values():
        if split not in known:
            raise no_split(images, split, known)


def import_datasets(name: str):
    """`datasets`, imported here alone: what else trains and evaluates does without.

    Raises:
        DatasetError: It is not installed.
    """
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise DatasetError(
            f"{shown(name)} is read with the package datasets, which is not installed: pip install datasets.",
            dataset=name,
        ) from error
    return datasets


def _explain(images: DatasetSpec, error: Exception) -> DatasetError:
    """An error of ours for one of `datasets`, of huggingface_hub or of the network, with what to do."""
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub import constants

    from vitzoo.hub_http import transport_error

    text, status = str(error), _status(error)
    name, offline = shown(images.name), constants.is_offline_mode()
    if isinstance(error, ValueError) and "BuilderConfig" in text:
        return DatasetError(
            f"{name} has no configuration {shown(images.config)}: {printable(text)}", dataset=images.name
        )
    if "gated" in text or status == 403:
        why = f"{name} is gated, and you may not read it yet."
    elif offline or isinstance(error, (ConnectionError, transport_error())):
        why = f"{name} is not in the cache, and {'HF_HUB_OFFLINE is set' if offline else 'the Hub did not answer'}."
    elif isinstance(error, DatasetNotFoundError) or status in (401, 404):
        why = f"The Hub has no data set {name} that you may read. Check the name; for a private one log in."
    else:
        said = f"status {status}" if status else f"{type(error).__name__}: {printable(text)[:500].rstrip(' .')}"
        why = f"{name} could not be had from the Hub: {said}. Try again later; what was downloaded is kept."
    return DatasetError(why + how_to_get(images), dataset=images.name)


def _status(error: BaseException | None) -> int | None:
    """The HTTP status that is behind an error."""
    while error is not None:
        response = getattr(error, "response", None)
        if response is not None:
            return response.status_code
        error = error.__cause__ or error.__context__
    return None
