"""``vitzoo show``: one member."""

import typer
from rich.console import Console
from rich.table import Table

from vitzoo.cli.display import escape, metrics_table, print_evaluation
from vitzoo.cli.options import DataOption, EvaluateOption, MemberArgument
from vitzoo.ids import MemberRef
from vitzoo.images.known import check_data, parse_data
from vitzoo.sources.locate import locate, open_source
from vitzoo.zoo.zoo import Zoo


def show(member: MemberArgument, *, evaluate: EvaluateOption = False, data: DataOption = None) -> None:
    """Print a member's lineage, factors and figures; with --evaluate, measure its accuracy beside the recorded one."""
    located = locate(member)
    ref, source = located or (MemberRef.parse(member), open_source())  # what is no member's is an error here
    found = Zoo.of(source)[ref.member]
    folders = parse_data(data or ())
    check_data(folders, [found.record.dataset])
    if ref.epoch is not None and ref.epoch not in found.epochs:
        raise found.catalogue.no_epoch(ref.member, ref.epoch)
    console = Console()
    console.print(
        f"[bold]{escape(str(ref))}[/]  {escape(found.record.status)}, {found.record.num_parameters:,} parameters"
    )
    family = [f"parent {found.parent.id}"] if found.parent else []
    family += [f"{len(found.children)} children"] if found.children else []
    console.print(", ".join(family) or "no relatives")
    factors = Table("factor", "value", box=None, padding=(0, 2))
    ends = {name: getattr(found.record, name) for name in ("diverged_step", "last_good_epoch")}
    for name, value in (found.factors | ends).items():
        if value is not None:
            factors.add_row(name, escape(str(value)))
    console.print(factors)
    console.print(metrics_table(found))
    if evaluate:
        from vitzoo.verification.evaluations import compare_with_record

        compared = compare_with_record(found, epoch=ref.epoch, data=folders)
        print_evaluation(console, compared)
        if not compared.exact:
            raise typer.Exit(1)
