"""The public surface: what stands in `__all__`, and that importing it stays cheap."""

import subprocess
import sys
from pathlib import Path

import pytest

import vitzoo

NAMES = [
    "Member",
    "MemberId",
    "MemberRef",
    "Selection",
    "VitZooConfig",
    "VitZooError",
    "VitZooModel",
    "Zoo",
    "__version__",
]
HEAVY = ("torch", "transformers", "datasets", "pyarrow", "huggingface_hub", "numpy", "PIL", "training")


def test_all() -> None:
    assert vitzoo.__all__ == NAMES
    assert dir(vitzoo) == sorted(NAMES)
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there_and_is_the_module_s_own(name: str) -> None:
    value = getattr(vitzoo, name)
    if name == "__version__":
        assert value.count(".") == 2
        return
    assert value.__name__ == name
    assert value.__module__.startswith("vitzoo.")
    assert getattr(sys.modules[value.__module__], name) is value


def test_star_import_gives_all() -> None:
    names: dict[str, object] = {}
    exec("from vitzoo import *", names)
    assert set(names) - {"__builtins__"} == set(NAMES)


@pytest.mark.parametrize("name", ["Zooo", "load_header", "_HOME"])
def test_other_names_are_not(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'vitzoo' has no attribute '{name}'"):
        getattr(vitzoo, name)


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import vitzoo; dir(vitzoo); vitzoo.__version__", ()),
        ("from vitzoo import MemberId, MemberRef, VitZooError", ()),
        ("from vitzoo import Zoo, Member, MemberId", ()),
        ("import vitzoo.records.layout, vitzoo.records, vitzoo.sources.source, vitzoo.tensors.header", ()),
        ("import vitzoo.images", ("numpy",)),
        ("import vitzoo.zoo.conditions", ()),
        ("from vitzoo import Selection", ("numpy", "pyarrow")),
        ("import vitzoo.tables.columns", ("numpy", "pyarrow")),
    ],
)
def test_what_an_import_brings(statement: str, allowed: tuple[str, ...], tmp_path: Path) -> None:
    code = f"import sys; {statement}; print(*[name for name in {HEAVY} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert set(run.stdout.split()) <= set(allowed)
    assert run.stderr == ""


def test_the_package_says_that_it_is_typed() -> None:
    assert vitzoo.__file__ is not None
    assert (Path(vitzoo.__file__).parent / "py.typed").is_file()
