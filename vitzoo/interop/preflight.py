"""Refuse exports that cannot succeed, before torch is imported.

See `vitzoo.interop.onnx` and `vitzoo.interop.timm_folder` for the exports.
"""

from importlib import import_module
from importlib.util import find_spec

from vitzoo.errors import ConfigError, MissingPackageError

_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TIMM_IN_PYTHON = "In Python, vitzoo.interop.timm.to_timm_module(model) gives the module."


def check_onnx_packages() -> None:
    """Import the packages of the extra ``interop`` that write and run ONNX files.

    Raises:
        MissingPackageError: One is not installed, or cannot be imported.
    """
    fix = f'Run: pip install "vitzoo-hub[interop]", or pip install {" ".join(_ONNX_PACKAGES)}.'
    for package in _ONNX_PACKAGES:  # first, since importing the others takes seconds
        if find_spec(package) is None:
            raise MissingPackageError(f"{package} is not installed", fix=fix, package=package)
    for package in _ONNX_PACKAGES:
        try:
            import_module(package)
        except ImportError as error:
            raise MissingPackageError(f"{package} cannot be imported ({error})", fix=fix, package=package) from None


def check_timm_architecture(backbone: str) -> None:
    """Refuse a model that is not a ViT.

    Raises:
        ConfigError: The model is of another architecture.
    """
    if backbone != "vit":
        raise ConfigError(
            f"The model is a {backbone}",
            expected="a ViT: timm has vision models alone",
            fix="Export it to onnx, or load it by transformers.",
            key="model_type",
        )


def check_timm_head(head_width: int | None) -> None:
    """Refuse an MLP head, which timm's config.json cannot describe.

    Raises:
        ConfigError: The head has a hidden layer.
    """
    if head_width is not None:
        raise ConfigError(
            f"The model has an MLP head of width {head_width}",
            expected="a linear head, as timm's config.json says",
            fix=TIMM_IN_PYTHON,
            key="head_type",
        )
