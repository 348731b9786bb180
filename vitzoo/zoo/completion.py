"""Complete conditions, values, schemes and tables in calls of a zoo's methods, in IPython and Jupyter.

    zoo.select(opt<TAB>             optimizer=
    zoo.select(optimizer="<TAB>     adamw, sgd
    zoo.splits("by<TAB>             by_init_group, by_parent, by_seed

Conditions are columns of the zoo, so static analysis does not find them. Ids complete by
``Zoo._ipython_key_completions_``.
"""

import re
import sys
from collections.abc import Mapping
from typing import Any

from vitzoo.errors import VitZooError
from vitzoo.records import FACTORS
from vitzoo.splits.schemes import SCHEMES

_CALL = re.compile(r"([^\W\d]\w*)\.(select|splits|table)\(((?:[^()]|\([^()]*\))*)$")
_STRING = re.compile(r"(?:(\w+)\s*=\s*)?(?:[\[(][^\[\]()=]*)?[\"']([^\"'=]*)$")
_IDENTIFIER = "vitzoo"
_NAME = re.compile(r"(?:^|,)\s*(\w*)$")


def complete(text: str, namespace: Mapping[str, Any], zoo_class: type) -> list[str]:
    """Return completions of the last word of a text; none if it is not in a call of a zoo's method.

    Args:
        text: The code before the cursor.
        namespace: The session's variables by name.
        zoo_class: The class of the zoos among them.
    """
    call = _CALL.search(text)
    zoo: Any = None if call is None else namespace.get(call[1])
    if call is None or not isinstance(zoo, zoo_class):
        return []
    method, arguments = call[2], call[3]
    is_open = any(arguments.count(quote) % 2 for quote in "\"'")
    string, name = _STRING.search(arguments) if is_open else None, _NAME.search(arguments)
    try:
        if string is not None:
            known = _values(zoo, method, string[1])
        elif name is not None and method == "select":
            known = [f"{column}=" for column in zoo.condition_names()]
        else:
            known = []
    except VitZooError:  # a damaged zoo completes nothing, and says so when it is used
        return []
    prefix = string[2] if string is not None else name[1] if name is not None else ""
    return sorted(value for value in known if value.startswith(prefix))


def _values(zoo: Any, method: str, argument: str | None) -> list[str]:
    """Return the texts that an argument of a method may be."""
    if method == "splits":
        return list(FACTORS if argument == "factor" else SCHEMES)
    if method == "table":
        return ["members", "epochs", "splits"]
    tables = (zoo.table("members"), zoo.table("epochs"))
    table = next((table for table in tables if argument in table.column_names), None)
    values = [] if table is None else table.column(argument).to_pylist()
    return [value for value in dict.fromkeys(values) if isinstance(value, str)]


def register(zoo_class: type) -> None:
    """Add `complete` to the running IPython or Jupyter session, once; do nothing elsewhere."""
    if "IPython" not in sys.modules:
        return
    from IPython.core.completer import SimpleCompletion, context_matcher
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    known = [] if shell is None else shell.Completer.custom_matchers
    if shell is None or any(getattr(matcher, "matcher_identifier", None) == _IDENTIFIER for matcher in known):
        return

    @context_matcher(identifier=_IDENTIFIER)
    def match(context: Any) -> Any:
        found = complete(context.full_text[: context.cursor_position], shell.user_ns, zoo_class)
        return {"completions": [SimpleCompletion(text=text, type="param") for text in found], "suppress": bool(found)}

    shell.Completer.custom_matchers.append(match)
