"""Run the code of a guide or a notebook: its blocks of ```python and ```bash, in their order, as a reader would.

A block with another word after the language, such as ```python notest, is not run. A block after a paragraph that says
"This is `my_zoo.py`" is also written to that file. The tests run guides on the zoos of their fixtures, and
`docs.site.outputs` on ./zoo to show what they print.
"""

import ast
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.commands import run_command

ROOT = Path(__file__).parents[1]
GUIDES = ROOT / "docs/guides"
NOTEBOOKS = ROOT / "docs/notebooks"

_NAMED = re.compile(r"This is\s+`([\w.]+)`(?:(?!\n\n).)*\n\n\Z", flags=re.DOTALL)
_FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of code.

    Args:
        language: The word after the fence.
        code: The lines between the fences.
        start: Place of the opening fence in the text.
        end: Place after the closing fence.
        line: Number of the first line of code, from 1.
    """

    language: str
    code: str
    start: int
    end: int
    line: int


@dataclass(frozen=True, kw_only=True)
class Output:
    """The result of a block: what it printed, and the values of its expressions that are not None."""

    block: Block
    printed: str
    values: tuple[Any, ...] = ()


def find_guide(name: str) -> Path:
    """Return the file of a guide or a notebook."""
    return next(path for folder in (GUIDES, NOTEBOOKS) if (path := folder / f"{name}.md").exists())


def read_blocks(text: str, *languages: str) -> list[Block]:
    """Return the blocks of a text in some languages, in their order."""
    return [
        Block(
            language=found[1],
            code=found[2],
            start=found.start(),
            end=found.end(),
            line=text.count("\n", 0, found.start()) + 2,
        )
        for found in _FENCED.finditer(text)
        if found[1] in languages
    ]


def run_guide(
    name: str,
    names: dict[str, Any],
    *,
    change: Callable[[str], str] = lambda code: code,
    languages: Sequence[str] = ("python", "bash"),
) -> Iterator[Output]:
    """Run a guide's blocks in the working directory.

    Args:
        name: File of the guide in docs/guides or docs/notebooks, without its suffix.
        names: The names that the blocks of Python share; they add theirs.
        change: Returns the code to run in place of a block's.
        languages: Languages of the blocks that are run.

    Raises:
        RuntimeError: A command ends with another status than 0.
    """
    path = find_guide(name)
    text = path.read_text(encoding="utf-8")
    for block in read_blocks(text, "python", "json"):
        if named := _NAMED.search(text[: block.start]):
            Path(named[1]).write_text(block.code, encoding="utf-8")
    for block in read_blocks(text, *languages):
        code = change(block.code)
        if block.language == "python":
            printed, values = _run_python(code, names, path=path, line=block.line)
            yield Output(block=block, printed=printed, values=tuple(values))
        else:
            yield Output(block=block, printed=_run_commands(code))


def print_guide(name: str, names: dict[str, Any], **options: Any) -> str:
    """Run a guide as `run_guide` does, and return what all of its blocks print."""
    return "".join(output.printed for output in run_guide(name, names, **options))


def _run_python(code: str, names: dict[str, Any], *, path: Path, line: int) -> tuple[str, list[Any]]:
    tree = ast.parse(code)
    ast.increment_lineno(tree, line - 1)  # a traceback then names the line of the guide
    values = []
    with redirect_stdout(io.StringIO()) as stdout:
        for statement in tree.body:
            if isinstance(statement, ast.Expr):
                value = eval(compile(ast.Expression(statement.value), str(path), "eval"), names)
                if value is not None:
                    values.append(value)
            else:
                exec(compile(ast.Module([statement], []), str(path), "exec"), names)
    return stdout.getvalue(), values


def _run_commands(code: str) -> str:
    """Return what commands print; of several, each after its line, as in a terminal."""
    commands, printed = list(filter(None, code.splitlines())), []
    for command in commands:
        done = run_command(command)
        if done.returncode:
            raise RuntimeError(f"{command} ended with status {done.returncode}\n{done.stdout}{done.stderr}")
        line = f"$ {command.partition('  #')[0].rstrip()}\n" if len(commands) > 1 else ""
        printed.append(line + done.stdout + done.stderr)
    return "".join(printed)
