"""Completion in a real IPython session, with jedi and without."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from vitzoo import Zoo
from vitzoo.records import FACTORS
from vitzoo.splits.schemes import SCHEMES
from vitzoo.zoo.completion import complete

Completed = Callable[[str], list[str]]


@pytest.fixture(scope="module", params=[True, False], ids=["jedi", "plain"])
def shell(request: pytest.FixtureRequest) -> Iterator[InteractiveShell]:
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config)
    shell.Completer.use_jedi = request.param
    yield shell
    InteractiveShell.clear_instance()


@pytest.fixture
def completed(shell: InteractiveShell, tiny_zoo: Path) -> Completed:
    """Return a function that completes code in a session with a zoo."""
    shell.run_cell(
        f"from vitzoo import Zoo; zoo = Zoo({str(tiny_zoo)!r}); index = zoo.weights(zoo.select(id='pt-0')).index()"
    ).raise_error()

    def completions(code: str) -> list[str]:
        with provisionalcompleter():
            return [found.text for found in shell.Completer.completions(code, len(code))]

    return completions


def test_ids_and_tensors_complete(completed: Completed) -> None:
    assert completed('zoo["pt-0/') == [f"pt-0/ft-{number}" for number in range(4)]
    assert "vit.layernorm.bias" in completed('index["vit.layern')


def test_conditions_complete(completed: Completed) -> None:
    assert completed("zoo.select(opt") == ["optimizer="]
    assert completed("chosen = zoo.select(epoch=range(0, 9), head_r") == ["head_role="]
    assert completed('zoo.select(stage="finetuning", min_test_acc') == [
        "min_test_accuracy=",
        "min_test_accuracy_at_best_val=",
    ]
    assert completed("zoo.select(frozen") == ["frozen_backbone="]


def test_values_complete(completed: Completed) -> None:
    assert completed('zoo.select(optimizer="') == ["adamw", "sgd"]
    assert completed("zoo.select(optimizer='s") == ["sgd"]
    assert completed('zoo.select(stage="finetuning", parent=["pt-0", "pt-') == ["pt-0", "pt-1", "pt-2"]
    assert completed('zoo.select(id="pt-1/ft-') == ["pt-1/ft-0", "pt-1/ft-1"]


def test_schemes_factors_and_tables_complete(completed: Completed) -> None:
    assert completed('zoo.splits("by') == sorted(name for name in SCHEMES if name.startswith("by"))
    assert completed('zoo.splits("leave_one_factor_out", factor="head_') == sorted(
        name for name in FACTORS if name.startswith("head_")
    )
    assert completed('zoo.table("e') == ["epochs"]


def test_other_code_is_left_alone(completed: Completed, tiny_zoo: Path) -> None:
    assert [text.removeprefix(".") for text in completed("zoo.selec")] == ["select"]
    names = {"zoo": Zoo(tiny_zoo), "other": 3}
    for code in (
        "other.select(opt",
        "missing.select(opt",
        "zoo.select()",
        "zoo.weights(opt",
        "zoo.splits(fol",
        "x = 3",
    ):
        assert complete(code, names, Zoo) == []


def test_damaged_zoo_completes_nothing(tiny_copy: Path) -> None:
    (tiny_copy / "pt-0/member.json").write_text("{")
    assert complete("zoo.select(opt", {"zoo": Zoo(tiny_copy)}, Zoo) == []
