"""Types and shapes of every function and dataclass of `vitzoo` and `training`, checked while the tests run.

`check_types` comes before either is imported. Processes that a test starts are not checked. What jaxtyping's own hook
does is done here too, but cheaper, for it took a third of the tests' time: its checks bind the arguments of each call
to a signature, which only shapes need; and it has all that a checked module imports (torch, transformers) compiled
anew, where bytecode is not written, in each process.
"""

import inspect
import sys
from collections.abc import Callable
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, get_args
from unittest.mock import patch

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, TypeCheckError, _import_hook, jaxtyped
from jaxtyping._decorator import _destring_annotation

_UNCHECKED = {"vitzoo.tables.parquet"}  # it reads a table byte by byte: checks took a fifth of a verification

# An int is a float, as PEP 484 has it.
_beartyped = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeCheckError))


def checked(thing: Any) -> Any:
    """A function, or a class (whose ``__init__`` counts where it is a dataclass), with the checks around it."""
    if inspect.isclass(thing):
        if "__dataclass_fields__" in vars(thing) and not hasattr(thing.__init__, "__wrapped__"):
            thing.__init__ = checked(thing.__init__)
        return thing
    return _checked_function(thing)


def _checked_function(function: Callable[..., Any]) -> Callable[..., Any]:
    as_written = function.__annotations__
    # A name that is not known yet is Any, as to jaxtyping; beartype would look it up at the call.
    resolved = {name: _destring_annotation(hint, function.__globals__) for name, hint in as_written.items()}
    if any(map(_has_shape, resolved.values())):
        return jaxtyped(function, typechecker=_beartyped)
    function.__annotations__ = resolved
    wrapped = _beartyped(function)
    function.__annotations__ = wrapped.__annotations__ = as_written
    return wrapped


def _has_shape(hint: Any) -> bool:
    if isinstance(hint, list | tuple):  # a Callable's arguments
        return any(map(_has_shape, hint))
    return (inspect.isclass(hint) and issubclass(hint, AbstractArray)) or any(map(_has_shape, get_args(hint)))


class _Typechecker(_import_hook.Typechecker):
    """What is written above each function and class: `checked` itself, where theirs is ``jaxtyped`` with it."""

    def get_ast(self) -> Any:
        call: Any = super().get_ast()
        return call.keywords[0].value


class _Loader(_import_hook._JaxtypingLoader):
    """Only what is checked has bytecode of its own; theirs gives it to all that is imported while a module runs."""

    def get_code(self, fullname: str) -> CodeType | None:
        names = partial(_import_hook._optimized_cache_from_source, self._typechecker.get_hash())
        with patch("importlib._bootstrap_external.cache_from_source", names):
            return super().get_code(fullname)

    def exec_module(self, module: ModuleType) -> None:
        SourceFileLoader.exec_module(self, module)


class _Finder(_import_hook._JaxtypingFinder):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname in _UNCHECKED:
            return None
        spec = super().find_spec(fullname, path, target)
        if spec is not None:
            loader: Any = spec.loader
            spec.loader = _Loader(loader.name, loader.path, typechecker=self._typechecker)
        return spec


def check_types() -> None:
    """Put the checks around everything that is imported from now on."""
    names = {path.stem for path in (Path(__file__).parents[1] / "vitzoo").iterdir()}
    modules = ["training", *(f"vitzoo.{name}" for name in sorted(names))]
    sys.meta_path.insert(0, _Finder(modules, PathFinder, _Typechecker(f"{__name__}.{checked.__name__}")))
