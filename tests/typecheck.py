"""Types and shapes of every function and dataclass of `vitzoo` and `training`, checked while the tests run.

`check_types` comes before either is imported. Processes that a test starts are not checked.
"""

from pathlib import Path

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as PEP 484 has it

# transformers makes a config a dataclass whose __init__ takes more than its fields, which jaxtyping cannot wrap.
_UNCHECKED = {"configuration_vitzoo"}


def check_types() -> None:
    """Put the checks around everything that is imported from now on."""
    names = {path.stem for path in (Path(__file__).parents[1] / "vitzoo").iterdir()} - _UNCHECKED
    install_import_hook(["training", *(f"vitzoo.{name}" for name in sorted(names))], f"{__name__}.checked")
