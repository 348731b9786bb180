"""``vitzoo env``: versions, platform and settings, for a bug report."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from vitzoo import __version__
from vitzoo.cli.console import make_console
from vitzoo.cli.display import print_json, print_table
from vitzoo.cli.options import JsonOption

_DISTRIBUTION = "vitzoo-hub"
_OPTIONAL = (
    "accelerate",
    "ray",
    "scikit-learn",
    "timm",
    "onnx",
    "onnxruntime",
    "altair",
    "tensorboard",
    "trackio",
    "wandb",
)
_PREFIXES = ("VITZOO_", "HF_", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
_SECRET = ("TOKEN",)


def env(*, as_json: JsonOption = False) -> None:
    """Print versions, platform and settings, for a bug report. Tokens are hidden."""
    facts = describe_environment()
    if as_json:
        print_json(facts)
    else:
        print_table(
            make_console(),
            ["name", "value"],
            [[name, "not installed" if value is None else str(value)] for name, value in facts.items()],
        )


def describe_environment() -> dict[str, Any]:
    """Return versions, platform and settings by name; None for a package that is not installed."""
    facts: dict[str, Any] = {
        "vitzoo": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
    }
    facts |= {package: _version(package) for package in (*_required(), *_OPTIONAL)}
    facts["GPUs"] = _gpus()
    for name, value in sorted(os.environ.items()):
        if name.startswith(_PREFIXES):
            facts[name] = "(hidden)" if any(word in name for word in _SECRET) else value
    return facts


def _required() -> list[str]:
    """Return the names of the packages that vitzoo needs."""
    needed = [text for text in requires(_DISTRIBUTION) or () if "extra ==" not in text]
    return sorted(re.split(r"[^\w.-]", text)[0] for text in needed)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gpus() -> str:
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"{', '.join(names) or 'none'} (torch for CUDA {torch.version.cuda or 'is not installed'})"
