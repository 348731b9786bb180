"""Build the sdist and the wheel, and run the wheel where neither the repository nor `training` can be imported."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
LOAD = """
import importlib.util, vitzoo
assert importlib.util.find_spec("training") is None
model = vitzoo.VitZooModel.from_pretrained("demo/pt-0/ft-1")
print(vitzoo.__file__, len(vitzoo.Zoo("demo")), model.num_parameters())
"""


def run(*command: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, **options)
    assert done.returncode == 0 or not check, done.stderr
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the sdist, and the wheel that pip builds from it alone, with hatchling of its own."""
    folder = tmp_path_factory.mktemp("built")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    got = run(*PIP, "install", "--target", str(folder / "backend"), *project["build-system"]["requires"], check=False)
    if got.returncode != 0 and "CI" not in os.environ:
        pytest.skip(f"hatchling cannot be installed: {got.stderr[-300:]}")
    assert got.returncode == 0, got.stderr
    environment = os.environ | {"PYTHONPATH": str(folder / "backend")}
    build = ("-m", "hatchling", "build", "--target", "sdist", "--directory", str(folder))
    run(sys.executable, *build, cwd=ROOT, env=environment)
    (sdist,) = folder.glob("*.tar.gz")
    run(*PIP, "wheel", "--no-deps", "--wheel-dir", str(folder), str(sdist), cwd=folder)
    return folder


@pytest.fixture(scope="module")
def alone(built: Path) -> dict[str, str]:
    """Return the environment of a Python that finds the wheel and its dependencies. Use it with ``-S``."""
    (wheel,) = built.glob("*.whl")
    run(*PIP, "install", "--no-deps", "--target", str(built / "site"), str(wheel))
    # With -S, Python reads no .pth file of site-packages, which would name the repository.
    return {"PYTHONPATH": f"{built / 'site'}:{sysconfig.get_path('purelib')}", "HF_HUB_OFFLINE": "1"}


def test_sdist_and_wheel_have_the_package_alone(built: Path) -> None:
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "vitzoo", cwd=ROOT).stdout.split()
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    about = {"CHANGELOG.md", "CITATION.cff", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml"}
    assert names - {".gitignore"} == {*listed, *about}  # hatchling adds .gitignore, which it obeys
    (wheel,) = built.glob("*.whl")
    names = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == set(listed)


def test_wheel_works_alone(alone: dict[str, str], built: Path, tmp_path: Path) -> None:
    def python(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = os.environ | alone
        return run(sys.executable, "-S", *arguments, check=check, cwd=tmp_path, env=environment)

    file, members, parameters = python("-c", LOAD).stdout.split()
    assert (file, members, parameters) == (str(built / "site/vitzoo/__init__.py"), "10", "10636")
    tree = python("-m", "vitzoo", "tree", "demo").stdout
    assert "demo  recipe demo, 10 members" in tree
    assert "pt-1/ft-3" in tree
    assert json.loads(python("-m", "vitzoo", "env", "--json").stdout)["torch"] is not None
    refused = python("-m", "vitzoo", "tree", "./nowhere", check=False)
    assert refused.returncode == 1
    assert "demo, a small zoo that comes with vitzoo" in refused.stderr
    assert "python -m training" not in refused.stderr
