"""The checker of types and shapes that pytest puts around every function of `vitzoo` and `training` (pyproject.toml)."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as PEP 484 has it
