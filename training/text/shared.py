"""Encode the texts of a population once, so that its members memory-map the rows instead of encoding them again.

See `vitzoo.text.prepared` for the folder, and `training.cli.prepare` for the command.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from training.recipes.data import TextData
from training.recipes.plan import PlannedMember
from training.text.tokenizer import make_tokenizer
from vitzoo.data.known import names_of
from vitzoo.records.dataset_spec import TextSpec
from vitzoo.text.load import prepare_texts, prepared_tokenizer

_PATIENCE = 6 * 3600.0  # seconds, for another run that encodes the same texts


def population_texts(members: Sequence[PlannedMember]) -> list[TextSpec]:
    """Return each data set of texts that members are trained on; none for images."""
    data = [member.training.dataset for member in members]
    return list(dict.fromkeys(dataset.texts for dataset in data if isinstance(dataset, TextData)))


def prepare_population(
    members: Sequence[PlannedMember],
    folder: Path,
    *,
    data: Mapping[str, Path],
    say: Callable[[str], None] = lambda line: None,
) -> bool:
    """Encode the texts of members into a folder, with their tokenizer. Args and errors as `prepare_texts`."""
    tokenizer = make_tokenizer(members[0], data=data)
    return prepare_texts(population_texts(members), folder, tokenizer=tokenizer, data=data, say=say)


def share_texts(members: Sequence[PlannedMember], root: Path, *, data: Mapping[str, Path]) -> dict[str, Path]:
    """Encode the texts of members into a folder of the workspace, unless an earlier run did.

    Args:
        members: Members of a population, all with one tokenizer.
        root: Folder of prepared folders, one for each choice of data sets and tokenizer.
        data: Folders of data sets on this machine, by name.

    Returns:
        ``data`` with the folder for every data set of texts. A folder that the user prepared is kept.
    """
    texts = [spec for spec in population_texts(members) if prepared_tokenizer(spec, data=data) is None]
    if not texts:
        return dict(data)
    key = hashlib.sha256(repr((members[0].tokenizer, texts)).encode()).hexdigest()[:16]
    folder = (root / key).absolute()
    prepare_texts(texts, folder, tokenizer=make_tokenizer(members[0], data=data), data=data, timeout=_PATIENCE)
    names = {name for spec in texts for name in names_of(spec.name)}
    others = {name: place for name, place in data.items() if name not in names}
    return others | {spec.name: folder for spec in texts}
