"""``python -m training status``: print the state of a zoo, read from its folder alone."""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vitzoo.cli.console import make_console
from vitzoo.cli.display import escape
from vitzoo.progress import in_bytes

if TYPE_CHECKING:
    from training.population.status import MemberStatus, Status

_MOST_ROWS = 16  # of the table, so that a population fits on a terminal
_MOST_REASONS = 6


def status(
    zoo: Annotated[Path, typer.Argument(help="The zoo folder, the --out of a run.")],
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Repeat until no member runs or waits.")] = False,
    every: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="For --watch: how often.")] = 5.0,
    everyone: Annotated[bool, typer.Option("--all", help="List every member, not only running ones.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on a line, with every member.")] = False,
) -> None:
    """Print the state of a zoo: done, running, waiting, failed; hours and disk left. It writes nothing."""
    from training.population.status import read_status

    console = make_console()
    live = Live(console=console, auto_refresh=False, vertical_overflow="ellipsis")
    is_live = watch and console.is_terminal and not as_json
    with contextlib.suppress(KeyboardInterrupt), live if is_live else contextlib.nullcontext():
        while True:
            state = read_status(zoo)
            if as_json:
                print(state.as_json(), flush=True)
            elif is_live:
                live.update(describe(state, everyone=everyone), refresh=True)
            else:
                clock = [time.strftime("%Y-%m-%d %H:%M:%S")] if watch else []
                for line in (*clock, *describe(state, everyone=everyone).renderables, *([""] if watch else [])):
                    console.print(line, soft_wrap=not isinstance(line, Table), highlight=False)
            if not watch or state.is_over:
                return
            time.sleep(every)


def describe(status: "Status", *, everyone: bool = False) -> Group:
    """Describe the state of a zoo for a person: lines, and a table of members.

    Args:
        status: The state.
        everyone: List every member, not only running ones.
    """
    rows = list(status.members) if everyone else status.in_state("running")
    lines: list[RenderableType | str] = [
        *_totals(status),
        *(f"[yellow]note:[/] {escape(note)}" for note in status.notes),
    ]
    if rows:
        lines += ["", _table(rows if everyone else rows[:_MOST_ROWS], unit=status.unit, with_state=everyone)]
    if len(rows) > _MOST_ROWS and not everyone:
        lines.append(f"and {len(rows) - _MOST_ROWS} more: --all lists them")
    for state in ("failed", "damaged", "stalled", "diverged"):
        lines += _reasons(status.in_state(state))
    lines += _reasons([member for member in status.in_state("running", "waiting") if member.failed_attempts])
    skipped = [str(member.id) for member in status.in_state("skipped")]
    if skipped:
        names = ", ".join(skipped[:_MOST_REASONS]) + (", ..." if len(skipped) > _MOST_REASONS else "")
        lines.append(f"[yellow]skipped[/] {len(skipped)} members whose parent failed or diverged: {names}")
    return Group(*(Text.from_markup(line) if isinstance(line, str) else line for line in lines))


def _totals(status: "Status") -> list[str]:
    """Describe counts, work and disk, a line each."""
    from training.recipes.cost import in_hours

    counts = status.counts
    waiting = {"for their parent": status.waiting_for_parent, "with finished epochs": status.waiting_with_epochs}
    details = ", ".join(f"{count} {what}" for what, count in waiting.items() if count)
    texts = [
        f"{counts['done']} of {len(status.members)} members done",
        f"{counts['running']} running",
        f"{counts['waiting']} waiting" + (f" ({details})" if details else ""),
        *(f"{n} {state}" for state, n in counts.items() if n and state not in ("done", "running", "waiting")),
    ]
    share = "-" if status.share_done is None else f"{status.share_done:.1%}"
    speeds = [] if status.throughput is None else [f"{status.throughput:,.0f} {status.unit}/s now"]
    speeds += [] if status.hours_left is None else [f"{in_hours(status.hours_left)} left"]
    to_come = "-" if status.bytes_left is None else in_bytes(status.bytes_left)
    lines = [
        f"[bold]{escape(status.recipe or 'a recipe')}[/] in {escape(str(status.zoo))}: {', '.join(texts)}",
        f"work: {', '.join([f'{share} of the operations done', *speeds])}",
        f"disk: {in_bytes(status.bytes_written)} written, {to_come} to come, {in_bytes(status.bytes_free)} free",
    ]
    if status.bytes_left is not None and status.bytes_left > status.bytes_free:
        lines.append(
            f"[yellow]warning:[/] the disk lacks {in_bytes(status.bytes_left - status.bytes_free)}. Make room, or "
            "go on with fewer epochs, such as --keep last."
        )
    return lines


def _table(members: "Sequence[MemberStatus]", *, unit: str, with_state: bool) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("member", "state", "epoch", f"{unit}/s", "seen", "where"):
        if name != "state" or with_state:
            justify = "right" if name in ("epoch", f"{unit}/s", "seen") else "left"
            table.add_column(name, justify=justify, no_wrap=name != "where", overflow="fold")
    for member in members:
        cells = [
            str(member.id),
            *([member.state] if with_state else []),
            f"{member.epoch}/{'-' if member.epochs is None else member.epochs}",
            "-" if member.throughput is None else f"{member.throughput:,.0f}",
            "" if member.seconds_silent is None else f"{member.seconds_silent:,.0f} s ago",
            "" if member.process is None else f"process {member.process} on {member.host}",
        ]
        table.add_row(*map(escape, cells))
    return table


def _reasons(members: "Sequence[MemberStatus]") -> list[str]:
    """Describe the reason of each member's state, up to `_MOST_REASONS`."""
    lines = []
    for member in members[:_MOST_REASONS]:
        colour = "red" if member.state in ("failed", "damaged") else "yellow"
        attempts = member.failed_attempts
        times = f"{attempts} failed attempt{'' if attempts == 1 else 's'}, the last: " if attempts else ""
        log = f" (log: {member.log})" if member.log is not None else ""
        lines.append(f"[{colour}]{member.state}[/] {member.id}: {escape(f'{times}{member.reason}{log}')}")
    if len(members) > _MOST_REASONS:
        lines.append(f"and {len(members) - _MOST_REASONS} more {members[0].state}: --json has them all")
    return lines
