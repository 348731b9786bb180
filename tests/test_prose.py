"""The prose of code and guides: retired words, and docstrings that open with a relative clause."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ("vitzoo", "training") for path in sorted((ROOT / folder).rglob("*.py"))]
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "training/README.md", *ROOT.glob("docs/guides/*.md")]
GUIDES += ROOT.glob("docs/notebooks/*.md")
GUIDES += [ROOT / f"docs/{name}.md" for name in ("index", "format", "commands", "troubleshooting")]

RETIRED = {  # pattern: the field's word
    r"figures?": "metrics, numbers",
    r"numbers that are none": "NaN or infinite",
    r"pages of (the|a) files?": "memory-mapped",
    r"kept epochs?": "saved checkpoint",
    r"mend(s|ed|ing)?": "fix",
    r"cure[sd]?": "fix",
    r"(take|takes|taken|taking|took) away": "delete",
    r"h(e|o)ld(s|ing)? against": "compare with",
    r"anew": "again",
    r"twins?": "duplicate",
    r"(?<!there )(is|are|was|were) no (member|zoo|file|folder|text|checkpoint|epoch|parent|child|list|object)": "not a",
    r"\w+'s business": "See `module` for ...",
}


def test_no_retired_word() -> None:
    patterns = {re.compile(rf"(?<!\w){pattern}\b"): word for pattern, word in RETIRED.items()}
    assert [
        f"{path.relative_to(ROOT)}:{number}: {match.group()!r}, say {word}"
        for path in [*SOURCES, *GUIDES]
        for number, line in enumerate(path.read_text(encoding="utf-8").lower().splitlines(), 1)
        for pattern, word in patterns.items()
        for match in pattern.finditer(line)
    ] == []


def test_no_docstring_opens_with_a_relative_clause() -> None:
    documented = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
    assert [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}: {docstring.splitlines()[0]}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, documented) and (docstring := ast.get_docstring(node))
        if docstring.split()[0].lower() in ("what", "whether", "which", "of", "those", "who", "where", "how", "whose")
    ] == []
