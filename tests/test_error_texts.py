"""The exact texts of errors that a user meets, in tests/error_texts.json.

Other tests assert classes and fields. `UPDATE_ERROR_TEXTS=1 pytest -n0 tests/test_error_texts.py` rewrites the file:
read its diff as a user would.
"""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vitzoo.errors import VitZooError
from vitzoo.records.fields import FieldError

SNAPSHOT = Path(__file__).with_name("error_texts.json")
TEXTS: dict[str, str] = json.loads(SNAPSHOT.read_text(encoding="utf-8"))


def _load(*args: Any, **kwargs: Any) -> Any:
    from vitzoo import VitZooModel

    return VitZooModel.from_pretrained(*args, **kwargs)


def _zoo(name: str = "zoo") -> Any:
    from vitzoo import Zoo

    return Zoo(name)


def _write(path: str, text: str) -> None:
    Path(path).write_text(text, encoding="utf-8")


def _edit(path: str, **fields: Any) -> None:
    _write(path, json.dumps({**json.loads(Path(path).read_text(encoding="utf-8")), **fields}))


def _reload_after_edit(path: str, **fields: Any) -> None:
    _edit(path, **fields)
    _load("./zoo/pt-0/ft-1")


def _cut_weights() -> None:
    weights = Path("zoo/pt-0/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-8])
    _load("./zoo/pt-0")


def _link_outside() -> None:
    weights = Path("zoo/pt-0/model.safetensors")
    weights.unlink()
    weights.symlink_to("/etc/hostname")
    _load("./zoo/pt-0")


def _check_recipe(**fields: Any) -> None:
    from dataclasses import replace

    from tests.tiny import SUPERVISED

    replace(SUPERVISED, **fields)


def _train_into(folder: str) -> None:
    from tests.tiny import restless
    from training.workspace import Workspace

    Workspace(Path(folder), restless())


def _task(target: str) -> Any:
    from vitzoo import prediction

    return prediction(_zoo("./zoo").select(stage="finetuning"), target)


def _predict(name: str) -> None:
    from vitzoo.analysis.prediction.predictors import predict

    predict(_task("test_loss"), name)


def _submit_predictions(rows: slice = slice(None), **values: str) -> None:
    import pandas as pd

    from vitzoo.analysis.prediction.submissions import read_submission

    tested, folds = _task("test_loss"), _zoo("./zoo").splits("leave_one_parent_out")
    names = {name: folds[name.startswith("pt-2")].name for name in tested.checkpoints}
    table = pd.DataFrame({"checkpoint": [*names], "fold": [*names.values()], "prediction": 0.5}, dtype=object)
    table = table.iloc[rows]
    for column, value in values.items():
        table.loc[0, column] = value
    read_submission(table, tested.selection.catalogue, tested=names, folds=folds)


def _import_authors(folder: str) -> None:
    from typer.testing import CliRunner

    from vitzoo.cli import app

    result = CliRunner().invoke(app, ["import", "authors", folder, "new"])
    raise result.exception or AssertionError(result.output)


def _zoo_with_digest() -> Any:
    from vitzoo import Zoo

    return Zoo("./zoo", digest="sha256:" + "0" * 64)


def _diversity(**conditions: Any) -> Any:
    from vitzoo import diversity

    return diversity(_zoo("./zoo").select(**conditions), weights=False)


def _evaluate(member: str = "pt-0/ft-0", **labels: Any) -> Any:
    import numpy as np

    from vitzoo import evaluate

    return evaluate(_zoo("./zoo")[member], np.zeros((2, 3, 8, 8), np.uint8), **labels)


def _evaluate_saved() -> Any:
    from vitzoo import evaluate

    _load("./zoo/pt-0/ft-0").save_pretrained("saved")
    return evaluate(_load("saved"), [])


def _merge(*members: str, **options: Any) -> Any:
    from vitzoo import merge

    return merge(_zoo("./zoo").select(id=list(members)), **options)


def _path(one: str, two: str) -> Any:
    from vitzoo import path

    return path(_zoo("./zoo")[one], _zoo("./zoo")[two])


def _write_report(to: str, **options: Any) -> None:
    from vitzoo.report.write import write_report

    write_report(_zoo("./zoo"), to, tables_only=True, **options)


def _lineage(**arguments: Any) -> Any:
    from vitzoo import lineage

    return lineage(_zoo("./zoo").select(stage="finetuning"), **arguments)


def _submit(name: str, *parents: str) -> Any:
    import pandas as pd

    from vitzoo.analysis.lineage.tasks import lineage_tasks

    task = lineage_tasks(_zoo("./zoo").select())[name]
    return task.score(pd.DataFrame({"checkpoint": [f"m{row:02d}" for row in range(len(parents))], "parent": parents}))


CASES: dict[str, Callable[[], Any]] = {
    "id with a leading zero": lambda: _load("zoo/pt-01"),
    "id of a zoo": lambda: _load("./zoo"),
    "id with dots": lambda: _load("zoo/pt-1/../../etc"),
    "two epochs": lambda: _load("./zoo/pt-0@1", epoch=2),
    "two members": lambda: _load("./zoo/pt-0", subfolder="pt-1"),
    "variant that is not an epoch": lambda: _load("./zoo/pt-0", variant="fp16"),
    "revision of a folder": lambda: _load("./zoo/pt-0", revision="main"),
    "no default zoo": lambda: (Path("zoo").rename("other"), _zoo()),
    "folder that is not a zoo": lambda: _zoo("./nowhere"),
    "Hub zoo offline": lambda: _zoo("org/name"),
    "unknown member": lambda: _zoo("./zoo")["pt-9"],
    "unknown child": lambda: _zoo("./zoo")["pt-0/ft-9"],
    "unknown epoch": lambda: _load("./zoo/pt-0@3"),
    "unknown factor": lambda: _zoo("./zoo").select(lerning_rate=0.1),
    "unknown value": lambda: _zoo("./zoo").select(optimizer="adam"),
    "unknown stage": lambda: _zoo("./zoo").select(stage="training"),
    "nothing selected": lambda: _zoo("./zoo").select(optimizer="sgd", stage="pretraining"),
    "unknown split scheme": lambda: _zoo("./zoo").splits("random_images"),
    "more inner folds than families": lambda: _zoo("./zoo").splits("by_parent")[0].inner(3),
    "target that is one value": lambda: _task("optimizer"),
    "entry that does not exist": lambda: _predict("spektra"),
    "predictions of another fold": lambda: _submit_predictions(fold="pt-2"),
    "predictions without a checkpoint": lambda: _submit_predictions(rows=slice(1, None)),
    "prediction that is a word": lambda: _submit_predictions(prediction="high"),
    "broken zoo.json": lambda: (_write("zoo/zoo.json", "{"), _zoo("./zoo")),
    "newer zoo.json": lambda: (_edit("zoo/zoo.json", format=99), _zoo("./zoo")),
    "wrong type in member.json": lambda: _reload_after_edit("zoo/pt-0/ft-1/member.json", epochs="two"),
    "code in config.json": lambda: _reload_after_edit("zoo/pt-0/ft-1/config.json", auto_map={"AutoModel": "x.Y"}),
    "wrong width in config.json": lambda: _reload_after_edit("zoo/pt-0/ft-1/config.json", hidden_size=32),
    "cut weights": _cut_weights,
    "link out of the zoo": _link_outside,
    "wrong digest": _zoo_with_digest,
    "labels for an embedding": lambda: _load("./zoo/pt-2")(torch.zeros(1, 3, 8, 8), labels=torch.tensor([0])),
    "unknown part of a data set": lambda: _zoo("./zoo")["pt-0"].evaluate(part="dev"),
    "evaluation without labels": lambda: _evaluate(),
    "evaluation with a label of another model": lambda: _evaluate(labels=["6", "cat"]),
    "evaluation of an embedding": lambda: _evaluate("pt-2", labels=[0, 1]),
    "evaluation of a model without a processor": _evaluate_saved,
    "target that members lack": lambda: _zoo("./zoo").select().to_xy("test_accuracy"),
    "unknown layer": lambda: _zoo("./zoo").weights().tensor("vit.nothing"),
    "diversity of two epochs": lambda: _diversity(stage="finetuning", epoch=[1, 2]),
    "diversity of parents and children": lambda: _diversity(),
    "diversity without a column": lambda: _diversity(stage="finetuning").pairs("lerning_rate"),
    "contrast of a factor that never varies": lambda: _diversity(stage="finetuning").pairs("optimizer"),
    "unknown method of lineage": lambda: _lineage(method="star"),
    "nearest parent without parents": lambda: _lineage(method="nearest"),
    "more families than members": lambda: _lineage(families=9),
    "families for the nearest parent": lambda: _lineage(method="nearest", families=3),
    "unknown task of lineage": lambda: _submit("roles"),
    "submission without some checkpoints": lambda: _submit("nothing known", "", "m00"),
    "submission of a member": lambda: _submit("nothing known", "pt-0"),
    "submission of its own parent": lambda: _submit("nothing known", "m00"),
    "merge of two heads": lambda: _merge("pt-0/ft-0", "pt-0/ft-1"),
    "merge of other objectives": lambda: _merge("pt-0", "pt-2"),
    "merge by an unknown method": lambda: _merge("pt-0", method="soup"),
    "merge with weights that sum to 0": lambda: _merge("pt-0", "pt-1", weights=[1, -1]),
    "merge without a common start": lambda: _merge("pt-0/ft-0", "pt-1/ft-0", method="stock"),
    "merge of epochs without a number": lambda: _merge("pt-0", method="epochs"),
    "merge of more epochs than there are": lambda: _merge("pt-0", method="epochs", last=9),
    "path between other classes": lambda: _path("pt-0", "pt-0/ft-0"),
    "path between embeddings": lambda: _path("pt-2", "pt-2"),
    "release that is missing": lambda: _import_authors("missing"),
    "release that is a zoo": lambda: _import_authors("zoo"),
    "folder of another recipe": lambda: _train_into("zoo"),
    "report into another folder": lambda: _write_report("zoo"),
    "report of no member": lambda: _write_report("report", where="optimizer=adam"),
    "recipe with a negative batch": lambda: _check_recipe(batch_size=-1),
    "recipe with no epochs": lambda: _check_recipe(epochs=0),
}


@pytest.mark.parametrize("case", CASES)
def test_error_text(case: str, tiny_copy: Path, tmp_path: Path) -> None:
    with pytest.raises((VitZooError, FieldError)) as raised:
        CASES[case]()
    text = f"{type(raised.value).__name__}: {raised.value}".replace(str(tmp_path), "<folder>")
    text = re.sub(r"0x[0-9a-f]+|sha256:[0-9a-f]{64}", "<hash>", text)
    if "UPDATE_ERROR_TEXTS" in os.environ:
        TEXTS[case] = text
        SNAPSHOT.write_text(json.dumps(TEXTS, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    assert text == TEXTS[case]


def test_snapshot_has_no_other_text() -> None:
    assert set(TEXTS) == set(CASES)
