"""Print the lowest versions that pyproject.toml allows, as pip's constraints. `make test-lowest` installs them.

torch is left out: its oldest allowed release has no CPU build everywhere, so constraints.txt names one.
"""

import re
import tomllib
from pathlib import Path

EXTRAS = ("training", "interop", "report", "docs")

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = project["optional-dependencies"]
for requirement in [*project["dependencies"], *(each for name in EXTRAS for each in extras[name])]:
    name, lowest = re.findall(r"[\w.-]+", requirement)[:2]
    if name != "torch":
        print(f"{name}=={lowest}")
