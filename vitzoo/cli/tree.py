"""``vitzoo tree``: the family tree."""

from rich.console import Console
from rich.tree import Tree

from vitzoo.cli.display import describe_child, describe_parent, escape
from vitzoo.cli.options import ZooArgument
from vitzoo.zoo.zoo import Zoo


def tree(zoo: ZooArgument = "zoo") -> None:
    """Print the family tree with accuracies on the test images."""
    opened = Zoo(zoo)
    recipe = escape(str(opened.recipe.get("name", "custom")))
    root = Tree(f"[bold]{escape(opened.source.name)}[/]  recipe {recipe}, {len(opened)} members")
    for parent in opened.parents:
        branch = root.add(f"[bold]{parent.id}[/]  {describe_parent(parent)}")
        for child in parent.children:
            branch.add(f"{child.id}  {describe_child(child)}")
    Console().print(root)
