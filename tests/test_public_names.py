"""The public surface: the names in `__all__`, and the packages that importing them brings."""

import subprocess
import sys
from pathlib import Path

import pytest

import vitzoo

NAMES = [
    "BertZooConfig",
    "BertZooForMaskedLM",
    "BertZooForSequenceClassification",
    "Member",
    "MemberId",
    "MemberRef",
    "Selection",
    "VitZooConfig",
    "VitZooError",
    "VitZooModel",
    "Zoo",
    "ZooModel",
    "__version__",
    "align",
    "behaviour",
    "canonical",
    "diff",
    "diversity",
    "evaluate",
    "lineage",
    "merge",
    "path",
    "prediction",
]
HEAVY = ("torch", "transformers", "datasets", "pyarrow", "huggingface_hub", "numpy", "PIL", "training")


def test_public_names_are_complete_and_their_module_s_own() -> None:
    assert vitzoo.__all__ == NAMES
    assert dir(vitzoo) == sorted(NAMES)
    assert vitzoo.__version__.count(".") == 2
    for name in set(NAMES) - {"__version__"}:
        value = getattr(vitzoo, name)
        assert value.__name__ == name
        assert value.__module__.startswith("vitzoo.")
        assert getattr(sys.modules[value.__module__], name) is value


@pytest.mark.parametrize("name", ["Zooo", "load_header", "_HOME"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'vitzoo' has no attribute '{name}'"):
        getattr(vitzoo, name)


@pytest.mark.parametrize(
    ("modules", "statement", "allowed"),
    [
        (
            "vitzoo vitzoo.records vitzoo.sources.source vitzoo.tensors.header vitzoo.zoo.conditions",
            "from vitzoo import Member, MemberId, MemberRef, VitZooError, Zoo; dir(vitzoo); vitzoo.__version__",
            (),
        ),
        ("vitzoo.images", "", ("numpy",)),
        ("vitzoo.text", "", ()),
        ("vitzoo.tables.columns", "from vitzoo import Selection", ("numpy", "pyarrow")),
    ],
)
def test_import_brings_no_heavy_package(modules: str, statement: str, allowed: tuple[str, ...], tmp_path: Path) -> None:
    code = f"import sys, {modules.replace(' ', ', ')}; {statement}\nprint(*[n for n in {HEAVY} if n in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert set(run.stdout.split()) <= set(allowed)
    assert run.stderr == ""


def test_package_is_typed() -> None:
    assert vitzoo.__file__ is not None
    assert (Path(vitzoo.__file__).parent / "py.typed").is_file()
