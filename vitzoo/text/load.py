"""Load a data set of texts by its spec. See `vitzoo.data.known` for the names of data sets and of their folders."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from os import PathLike
from pathlib import Path

from vitzoo.data.known import (
    KNOWN_TEXTS,
    NAME_FOLDER,
    SNIPPETS,
    TEXT_LAYOUTS,
    check_folder,
    complete,
    find_folder,
    is_repo_id,
    names_of,
)
from vitzoo.errors import DatasetError, did_you_mean, printable, shown
from vitzoo.records.dataset_spec import TextSpec
from vitzoo.text.assemble import TextParts, encode_texts
from vitzoo.text.prepared import find_prepared, is_prepared, load_prepared, open_prepared, write_prepared
from vitzoo.text.splits import TextDataset
from vitzoo.text.tokenizer import Tokenizer
from vitzoo.text.tokenizer_json import SPECIAL_TOKENS

Folders = Mapping[str, str | PathLike[str]]


def load_text(texts: TextSpec | str, *, tokenizer: Tokenizer | None = None, data: Folders | None = None) -> TextDataset:
    """Load a data set as rows of tokens, once a process.

    Args:
        texts: The data set. A name is enough for a known one: ``snippets-films``, ``snippets-others`` or
            ``snippets-all``, rated sentences that pip fetches; ``nyu-mll/glue``, its SST-2; ``Skylion007/openwebtext``.
            Any other data set, of the Hub or a folder, needs a `TextSpec` with its columns and splits.
        tokenizer: Tokenizer of the rows; None for the one of a prepared folder.
        data: Folders of data sets by name: a whole name, its last part, ``sst2``, ``openwebtext`` or ``snippets``. For
            the snippets, the archive may be named, too. Other data sets come from the Hub, or its cache.

    Returns:
        Its splits; validation has length 0 where the spec has neither ``val_split`` nor ``held_out``.

    Raises:
        DatasetError: The name is unknown, the data set cannot be loaded, it does not fit the spec, or there is no
            tokenizer. The message says what to download, and how to name a folder.
    """
    spec, folder = _resolve(texts, data)
    return _load(spec, folder, tokenizer)


def prepare_texts(
    texts: Iterable[TextSpec],
    folder: str | PathLike[str],
    *,
    tokenizer: Tokenizer,
    data: Folders | None = None,
    say: Callable[[str], None] = lambda line: None,
    timeout: float = 0.0,
) -> bool:
    """Encode data sets once into a folder, which ``data`` may name for each of them.

    Args:
        texts: The data sets.
        folder: The folder; it does not exist yet, is empty, or was prepared before.
        tokenizer: Their tokenizer.
        data: As `load_text`.
        say: Takes a line for each data set.
        timeout: Seconds to wait for another process that prepares the folder.

    Returns:
        Whether the folder was written; False where it already has the data sets.

    Raises:
        DatasetError: As `load_text` and `vitzoo.text.prepared.write_prepared`.
    """
    folders = {}
    for spec in texts:
        whole, source = _resolve(spec, data)
        folders[whole] = source
    return write_prepared(
        Path(folder),
        list(folders),
        tokenizer,
        load=lambda spec: _read(spec, folders[spec], tokenizer),
        say=say,
        timeout=timeout,
    )


def prepared_tokenizer(texts: TextSpec | str, *, data: Folders | None = None) -> Tokenizer | None:
    """Return the tokenizer of the prepared folder that ``data`` names for a data set; None where it names none.

    Raises:
        DatasetError: The folder has another tokenizer than its record says.
    """
    _, folder = _resolve(texts, data)
    return None if folder is None or not is_prepared(folder) else open_prepared(folder)[1]


def iter_training_texts(texts: TextSpec | str, *, data: Folders | None = None) -> Iterator[str]:
    """Yield the texts of the training split, on which a tokenizer may be trained. Args and errors as `load_text`."""
    for first, second in _choose(*_resolve(texts, data), tuple(SPECIAL_TOKENS.values())).iter_texts("train"):
        yield from first
        yield from second or ()


def check_text(texts: TextSpec, *, data: Mapping[str, Path]) -> None:
    """Check within moments that `load_text` finds a data set, without loading it. The snippets are fetched.

    Raises:
        DatasetError: The name is unknown, or the data set is neither in the cache nor within reach.
    """
    spec, folder = _resolve(texts, data)
    if folder is not None and is_prepared(folder):
        find_prepared(spec, folder)
    elif spec.name in SNIPPETS:
        from vitzoo.text.snippets import check_snippets_spec, find_archive

        check_snippets_spec(spec)
        find_archive(spec.name, folder)
    elif folder is None:
        from vitzoo.data.hub import check_hub_dataset

        check_hub_dataset(spec)
    else:
        from vitzoo.data.disk import BUILDERS, has_tables

        if not has_tables(spec, folder, kinds=tuple(BUILDERS)):
            raise _without_texts(spec, folder)


def _resolve(texts: TextSpec | str, data: Folders | None) -> tuple[TextSpec, Path | None]:
    """Return the whole spec and the folder of a data set."""
    if isinstance(texts, str):
        if not texts:
            raise _unknown(texts)
        texts = TextSpec(name=texts)
    spec = complete(texts)
    if spec.val_split == spec.test_split is not None:
        raise DatasetError(
            f"{shown(spec.val_split)} is val_split and test_split of {shown(spec.name)}",
            expected="two splits",
            fix="Hold test texts out of the training: test_split=None, test_held_out=1000.",
            dataset=spec.name,
        )
    folder = find_folder(spec.name, {name: Path(folder) for name, folder in (data or {}).items()})
    if folder is not None:
        check_folder(spec.name, folder)
    elif spec.name not in SNIPPETS and not is_repo_id(spec.name):
        raise _unknown(spec.name)
    return spec, folder


@cache
def _load(spec: TextSpec, folder: Path | None, tokenizer: Tokenizer | None) -> TextDataset:
    if folder is not None and is_prepared(folder):
        return load_prepared(spec, folder, tokenizer)
    return _read(spec, folder, tokenizer)


def _read(spec: TextSpec, folder: Path | None, tokenizer: Tokenizer | None) -> TextDataset:
    """Encode the texts of a data set."""
    if tokenizer is None:
        raise DatasetError(
            f"The tokenizer of {shown(spec.name)} is not given",
            expected="the tokenizer of a model, or a prepared folder, which has one",
            fix="Set tokenizer=load_tokenizer(folder) or tokenizer=train_bpe(iter_training_texts(spec), vocab_size).",
            dataset=spec.name,
        )
    return encode_texts(_choose(spec, folder, tokenizer.special_tokens), tokenizer)


def _choose(spec: TextSpec, folder: Path | None, special_tokens: tuple[str, ...]) -> TextParts:
    """Choose the texts of a data set."""
    if folder is not None and is_prepared(folder):
        raise DatasetError(
            f"{printable(str(folder))} has tokens of {shown(spec.name)}, but not its texts",
            expected="the texts",
            fix="Leave the prepared folder out of data, or use its tokenizer: vitzoo.text.load_tokenizer(folder).",
            dataset=spec.name,
        )
    if spec.name in SNIPPETS:
        from vitzoo.text.snippets import choose_snippets

        return choose_snippets(spec, folder, special_tokens=special_tokens)
    from vitzoo.text.tables import choose_table_texts

    if folder is None:
        from vitzoo.data.hub import load_hub_tables

        return choose_table_texts(spec, load_hub_tables(spec), special_tokens=special_tokens)
    from vitzoo.data.disk import BUILDERS, load_folder_tables

    tables = load_folder_tables(spec, folder, kinds=tuple(BUILDERS))
    if tables is None:
        raise _without_texts(spec, folder)
    return choose_table_texts(spec, tables, special_tokens=special_tokens)


def _without_texts(spec: TextSpec, folder: Path) -> DatasetError:
    return DatasetError(
        f"{printable(str(folder))} has no texts of {shown(spec.name)}: no {printable(spec.train_split)}*.parquet, "
        f".csv or .jsonl, no dataset_dict.json",
        expected=TEXT_LAYOUTS,
        dataset=spec.name,
    )


def _unknown(name: str) -> DatasetError:
    names = dict.fromkeys(name for known in KNOWN_TEXTS for name in names_of(known.spec.name))
    return DatasetError(
        f"No data set of texts is called {shown(name)}",
        expected="<owner>/<name> for a data set of the Hub (letters, digits, - _ and full stops)",
        fix=f"{NAME_FOLDER}{did_you_mean(name, names)}",
        dataset=name,
    )
