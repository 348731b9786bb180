"""Pages that derive from code: the API, the fields of the records, the commands, and the errors.

A page in docs/ has a comment such as ``<!-- site: records -->`` where its derived part belongs.
"""

import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import typer.main
from msgspec import inspect as types
from typer.cli import get_docs_for_click

import training.__main__
import vitzoo
import vitzoo.cli
import vitzoo.records
from vitzoo import errors
from vitzoo.errors import VitZooError

ROOT = Path(__file__).parents[2]

GROUPS = {  # second word of a module's name: the group's title
    "zoo": "Zoos, members and selections",
    "ids": "Zoos, members and selections",
    "models": "Models",
    "weights": "Weights as data",
    "splits": "Splits and scores",
    "analysis": "Analyses",
    "report": "Pictures",
    "images": "Data sets and texts",
    "text": "Data sets and texts",
    "interop": "Import and export",
    "verification": "Verification",
    "records": "Files of a zoo",
    "errors": "Errors",
}

_IMPORT = re.compile(r"^ *(?:from (vitzoo[\w.]*) import ([\w, ]+)|import (vitzoo[\w.]+))", flags=re.MULTILINE)

_EXAMPLES = re.compile(r"^Examples:\n\n((?:(?:vitzoo|python) .*\n+)+)", flags=re.MULTILINE)


def api_modules(guides: Iterable[str]) -> list[str]:
    """Return the modules that the site documents, sorted.

    They are the homes of the names that `vitzoo` exports, the modules that the guides import, and those with an example
    in a docstring.

    Args:
        guides: The code of the guides.
    """
    exported = set(vitzoo._HOMES.values())
    named = set()
    for module, names, alone in _IMPORT.findall("\n".join(guides)):
        for name in (part.strip() for part in names.split(",")):
            whole = f"{module}.{name}"
            place = ROOT / whole.replace(".", "/")
            named.add(whole if place.is_dir() or place.with_suffix(".py").exists() else module or alone)
    with_example = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "vitzoo").rglob("*.py")
        if re.search(r"^ +>>> ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }
    return sorted((exported | named | with_example) - {"vitzoo"})


def api_pages(guides: Iterable[str]) -> dict[str, str]:
    """Return the pages of the API by file name: a page a module, and the index."""
    modules = api_modules(guides)
    pages = {f"{name}.md": _module_page(name) for name in modules}
    titles = list(dict.fromkeys(GROUPS.values()))
    groups = {title: [name for name in modules if GROUPS[name.split(".")[1]] == title] for title in titles}
    lines = ["# Python API", "", "The names that `vitzoo` exports:", "", "| name | purpose |", "|---|---|"]
    for name in vitzoo.__all__:
        if name in vitzoo._HOMES:
            value = getattr(vitzoo, name)
            lines.append(f"| {{py:obj}}`{name} <{value.__module__}.{value.__qualname__}>` | {_first_line(value)} |")
    lines += ["", "Other names are imported from the modules below. Modules that are not listed are not for users.", ""]
    for title, names in groups.items():
        if names:
            lines += [f"## {title}", "", "| module | purpose |", "|---|---|"]
            lines += [f"| [`{name}`]({name}.md) | {_first_line(importlib.import_module(name))} |" for name in names]
            lines += ["", "```{toctree}", ":hidden:", "", *names, "```", ""]
    return pages | {"index.md": "\n".join(lines)}


def _module_page(name: str) -> str:
    return f"# {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n   :member-order: bysource\n```\n"


def _first_line(value: object) -> str:
    """Return the first sentence of a docstring as Markdown."""
    paragraph = (inspect.getdoc(value) or "").partition("\n\n")[0].replace("\n", " ")
    return paragraph.replace("``", "`").replace("|", "\\|")


def records_text() -> str:
    """Return a section for each record of a zoo's files, with the fields and their meaning."""
    modules = [module.name for module in pkgutil.iter_modules(vitzoo.records.__path__, "vitzoo.records.")]
    structs = {
        value
        for name in modules
        for value in vars(importlib.import_module(name)).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__struct_fields__
        if value.__module__ == name and not value.__name__.startswith("_")
    }
    return "\n".join(
        line for struct in sorted(structs, key=lambda struct: _place(struct)) for line in _record_lines(struct)
    )


def _place(struct: type) -> tuple[bool, str, int]:
    return struct.__module__ != "vitzoo.records.members", struct.__module__, inspect.getsourcelines(struct)[1]


def _record_lines(struct: type[msgspec.Struct]) -> Iterator[str]:
    (info,) = (kind for kind in [types.type_info(struct)] if isinstance(kind, types.StructType))
    document = inspect.getdoc(struct) or ""
    described = _described_fields(document)
    yield f"### {struct.__name__}"
    yield ""
    yield document.partition("\nArgs:")[0].replace("``", "`").strip()
    yield ""
    yield "| field | type | meaning | factor |"
    yield "|---|---|---|---|"
    for field in info.fields:
        declared = field.type if isinstance(field.type, types.Metadata) else None
        marks = (declared.extra or {}) if declared else {}
        column = (declared.extra_json_schema or {}).get("description") if declared and marks else None
        meaning = described.get(field.name) or column
        if meaning is None:
            raise ValueError(f"{struct.__name__}.{field.name} has no meaning")
        factor = "seed" if marks.get("seed") else "yes" if marks.get("factor") else ""
        required = "" if field.required else "; may be absent"
        yield f"| `{field.name}` | {_type_words(field.type)}{required} | {_cell(meaning)} | {factor} |"
    yield ""


def _described_fields(document: str) -> dict[str, str]:
    """Return the entries of a docstring's section Args."""
    section = document.partition("\nArgs:\n")[2].partition("\n\n")[0]
    entries = re.split(r"^ {4}(?=\w+: )", section, flags=re.MULTILINE)[1:]
    return {name: " ".join(text.split()) for name, _, text in (entry.partition(": ") for entry in entries)}


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|").replace("<", "&lt;")


def _type_words(kind: types.Type) -> str:
    match kind:
        case types.Metadata():
            return _type_words(kind.type)
        case types.UnionType():
            return " or ".join(map(_type_words, kind.types))
        case types.LiteralType():
            return ", ".join(f"`{value}`" for value in kind.values)
        case types.VarTupleType():
            return f"list of {_type_words(kind.item_type)}"
        case types.TupleType():
            return f"list of {len(kind.item_types)}: {_type_words(kind.item_types[0])}"
        case types.DictType():
            return f"object of {_type_words(kind.value_type)}"
        case types.StructType():
            return f"[{kind.cls.__name__}](#{kind.cls.__name__.lower()})"
        case types.DataclassType():
            return f"{{py:obj}}`{kind.cls.__name__} <{kind.cls.__module__}.{kind.cls.__qualname__}>`"
        case types.IntType():
            return f"whole number{_range(kind)}"
        case types.FloatType():
            return f"number{_range(kind)}"
        case types.StrType():
            return f"text `{kind.pattern}`".replace("|", "\\|") if kind.pattern else "text"
        case types.BoolType():
            return "true or false"
        case types.NoneType():
            return "null"
        case types.AnyType():
            return "any"
    raise TypeError(kind)


def _range(kind: types.IntType | types.FloatType) -> str:
    bounds = [(kind.ge, "≥"), (kind.gt, ">"), (kind.le, "≤"), (kind.lt, "<")]
    words = [f"{sign} {value}" for value, sign in bounds if value is not None and abs(value) < 2**32]
    return f" {', '.join(words)}" if words else ""


def commands_text() -> str:
    """Return a section for each command of ``vitzoo`` and ``python -m training``."""
    texts = []
    for name, app in (("vitzoo", vitzoo.cli.app), ("python -m training", training.__main__.app)):
        group = typer.main.get_command(app)
        context: Any = group.make_context(name, [], resilient_parsing=True)  # of typer's own copy of click
        with context:
            text = get_docs_for_click(obj=group, ctx=context, name=name)
        text = re.sub(r"^(?=#+ )", "#", text, flags=re.MULTILINE)
        # The list of commands cuts their sentences short, and each has a section below.
        text = re.sub(r"^\*\*Commands\*\*:\n\n(\* .*\n)+", "", text, flags=re.MULTILINE)
        text = re.sub(r"^\*\*(\w+)\*\*:$", r"\1:", text, flags=re.MULTILINE)
        text = _EXAMPLES.sub(lambda found: "Examples:\n\n```bash\n" + found[1].replace("\n\n", "\n") + "```\n\n", text)
        texts.append(text)
    return "\n\n".join(texts)


def errors_text() -> str:
    """Return a section for each error class, with the messages that the tests raise."""
    messages: dict[str, list[tuple[str, str]]] = {}
    recorded = json.loads((ROOT / "tests/error_texts.json").read_text(encoding="utf-8"))
    for situation, text in recorded.items():
        name, _, message = text.partition(": ")
        messages.setdefault(name, []).append((situation, message))
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, VitZooError)]
    lines = []
    for cls in classes:
        if cls is VitZooError or cls.__name__.startswith("_"):
            continue
        builtin = next(base for base in cls.__mro__ if base.__module__ == "builtins")
        document = (inspect.getdoc(cls) or "").replace("``", "`")
        fields = [name for name in inspect.get_annotations(cls) if name not in ("problem", "expected", "fix")]
        attributes = f" Attributes: {', '.join(f'`{name}`' for name in fields)}." if fields else ""
        lines += [f"## {cls.__name__}", "", f"{document} It is a `{builtin.__name__}`.{attributes}", ""]
        for situation, message in messages.get(cls.__name__, ()):
            lines += [
                f"{situation[0].upper()}{situation[1:]}:",
                "",
                "```{code-block} text",
                ":class: message",
                "",
                message,
                "```",
                "",
            ]
    return "\n".join(lines)


SECTIONS = {"records": records_text, "commands": commands_text, "errors": errors_text}
"""The derived part of a page, by the word in its comment."""
