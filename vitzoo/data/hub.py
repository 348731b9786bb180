"""Load tables of the Hub with `datasets`: downloaded once, then memory-mapped from its cache.

See `known.py` for the data sets whose columns are known, and `columns.py` for the columns.
"""

import glob
import os
from pathlib import Path
from typing import Any

from vitzoo.data.columns import Tables, check_splits, requested_splits
from vitzoo.data.known import Spec, how_to_get
from vitzoo.errors import DatasetError, printable, shown

_TIMEOUT = 10.0  # seconds, of the request before training


def load_hub_tables(spec: Spec) -> Tables:
    """Load the splits of a data set of the Hub, at the commit of its main branch; without a connection, from the cache.

    Raises:
        DatasetError: It does not exist, is gated, is neither cached nor reachable, or lacks a split.
    """
    import datasets
    from huggingface_hub import constants

    from vitzoo.hub_http import limit_waiting

    splits = requested_splits(spec).values()
    before = limit_waiting()
    try:
        builder = datasets.load_dataset_builder(f"hf://datasets/{spec.name}", spec.config)
        if builder.info.splits:  # a card names them before anything large is downloaded
            check_splits(spec, splits, builder.info.splits)
        builder.download_and_prepare()
        check_splits(spec, splits, builder.info.splits or {})
        tables: dict[str, Any] = {name: builder.as_dataset(name) for name in splits}
    except DatasetError:
        raise
    except Exception as error:  # noqa: BLE001 - the errors of `datasets` have no common base
        raise _explain(spec, error) from None  # its causes may contain signed URLs
    finally:
        limit_waiting(before)
    cache = Path(constants.HF_HUB_CACHE).parent
    return Tables(splits=tables, revision=f"{spec.name}@{builder.hash}", files_in=cache)


def check_hub_dataset(spec: Spec) -> None:
    """Check that a data set of the Hub is in the cache, or that the Hub has it and answers.

    Raises:
        DatasetError: Neither.
    """
    from huggingface_hub import HfApi, constants

    cache = Path(os.environ.get("HF_DATASETS_CACHE", Path(constants.HF_HOME) / "datasets"))
    if any(cache.glob(f"*{glob.escape(spec.name.rpartition('/')[2])}*")):
        return
    try:
        HfApi().dataset_info(spec.name, timeout=_TIMEOUT)
    except Exception as error:  # noqa: BLE001 - the errors of huggingface_hub and of its HTTP library, as above
        raise _explain(spec, error) from None


def _explain(spec: Spec, error: Exception) -> DatasetError:
    """Return our error for one of `datasets`, huggingface_hub or the network."""
    from huggingface_hub import constants

    from vitzoo.hub_http import transport_error

    text, status = str(error), _status(error)
    name, offline = shown(spec.name), constants.is_offline_mode()
    if isinstance(error, ValueError) and "BuilderConfig" in text:
        return DatasetError(f"{name} has no configuration {shown(spec.config)}: {printable(text)}", dataset=spec.name)
    fix = how_to_get(spec.name)
    if "gated" in text or status == 403:
        problem = f"{name} is gated, and you may not read it yet"
    elif offline or isinstance(error, (ConnectionError, transport_error())):
        problem = f"{name} is not in the cache, and {'HF_HUB_OFFLINE is set' if offline else 'the Hub did not answer'}"
    elif type(error).__name__ == "DatasetNotFoundError" or status in (401, 404):
        problem = f"The Hub has no data set {name} that you may read"
        fix = f"Check the name, and log in for a private one. {fix}"
    else:
        cause = f"status {status}" if status else f"{type(error).__name__}: {printable(text)[:500].rstrip(' .')}"
        problem = f"{name} could not be loaded from the Hub: {cause}"
        fix = f"Try again later; finished downloads are kept. {fix}"
    return DatasetError(problem, fix=fix, dataset=spec.name)


def _status(error: BaseException | None) -> int | None:
    """Return the HTTP status of an error or of one of its causes."""
    from vitzoo.hub_http import status_of

    while error is not None and status_of(error) is None:
        error = error.__cause__ or error.__context__
    return None if error is None else status_of(error)
