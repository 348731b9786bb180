"""Check that the packages of the extra ``report`` are installed."""

from importlib.util import find_spec

from vitzoo.errors import MissingPackageError

_PACKAGES = {"altair": "altair", "vl_convert": "vl-convert-python", "scipy": "scipy"}


def check_report_packages() -> None:
    """Refuse to draw without the packages that draw.

    Raises:
        MissingPackageError: One is not installed.
    """
    for module, package in _PACKAGES.items():
        if find_spec(module) is None:
            raise MissingPackageError(
                f"{package} is not installed",
                fix=f'Run: pip install "vitzoo-hub[report]", or pip install {" ".join(_PACKAGES.values())}.',
                package=package,
            )
