"""``python -m training status``: where a zoo stands, from its folder alone."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from vitzoo.cli.display import escape
from vitzoo.progress import in_bytes

if TYPE_CHECKING:
    from training.population.status import MemberStatus, Status

_ROWS = 16  # of the table: a population on a terminal stays readable
_REASONS = 6


def status(
    zoo: Annotated[Path, typer.Argument(help="The zoo folder, as a run was given it with --out.")],
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until nothing runs or waits.")] = False,
    every: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="For --watch: how often.")] = 5.0,
    everyone: Annotated[bool, typer.Option("--all", help="List every member, not only those that run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on a line, with every member.")] = False,
) -> None:
    """Say where a zoo stands: done, running, waiting, failed; hours and disk left. Nothing is written."""
    from training.population.status import read_status

    found = read_status(zoo)
    console = Console()
    if not watch:
        _print(found, console, everyone=everyone, as_json=as_json)
        return
    live = console.is_terminal and not as_json
    with contextlib.suppress(KeyboardInterrupt), _display(console, live=live) as display:
        while True:
            if display is not None:
                display.update(_group(found, everyone=everyone), refresh=True)
            else:
                _print(found, console, everyone=everyone, as_json=as_json, clock=True)
            if found.is_over:
                return
            time.sleep(every)
            found = read_status(zoo)


@contextlib.contextmanager
def _display(console: Console, *, live: bool) -> Iterator[Live | None]:
    """What changes in place on a terminal; None elsewhere."""
    if not live:
        yield None
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as display:
        yield display


def _group(found: "Status", *, everyone: bool) -> Group:
    return Group(*(Text.from_markup(line) for line in describe(found, everyone=everyone)))


def _print(found: "Status", console: Console, *, everyone: bool, as_json: bool, clock: bool = False) -> None:
    if as_json:
        print(found.as_json(), flush=True)
        return
    if clock:
        console.print(time.strftime("%Y-%m-%d %H:%M:%S"), highlight=False)
    for line in describe(found, everyone=everyone):
        console.print(line, soft_wrap=not console.is_terminal, highlight=False)
    if clock:
        console.print()


def describe(found: "Status", *, everyone: bool = False) -> list[str]:
    """Lines for a person, in rich's markup.

    Args:
        found: Where the zoo stands.
        everyone: List every member rather than those alone that run.
    """
    rows = list(found.members) if everyone else found.those("running")
    lines = [*_totals(found), *(f"[yellow]note:[/] {escape(note)}" for note in found.notes)]
    if rows:
        lines += ["", *_table(rows if everyone else rows[:_ROWS], with_state=everyone)]
    if len(rows) > _ROWS and not everyone:
        lines.append(f"and {len(rows) - _ROWS} more: --all lists them")
    for state in ("failed", "damaged", "stalled", "diverged"):
        lines += _reasons(found.those(state))
    lines += _reasons([member for member in found.those("running", "waiting") if member.failed_attempts])
    skipped = [str(member.id) for member in found.those("skipped")]
    if skipped:
        some = ", ".join(skipped[:_REASONS]) + (", ..." if len(skipped) > _REASONS else "")
        lines.append(f"[yellow]skipped[/] {len(skipped)} members whose parent failed or diverged: {some}")
    return lines


def _totals(found: "Status") -> list[str]:
    """Counts, work and disk: a line each."""
    from training.recipes.cost import in_hours

    counts = found.counts
    told = [f"{counts['done']} of {len(found.members)} members done", f"{counts['running']} running"]
    waiting = [
        f"{count} {what}"
        for count, what in (
            (found.waiting_for_parent, "for their parent"),
            (found.waiting_with_epochs, "with finished epochs"),
        )
        if count
    ]
    told.append(f"{counts['waiting']} waiting" + (f" ({', '.join(waiting)})" if waiting else ""))
    told += [f"{counts[state]} {state}" for state in counts if state not in ("done", "running", "waiting")
             and counts[state]]  # fmt: skip
    share = "-" if found.share_done is None else f"{found.share_done:.1%}"
    speed = "-" if found.images_per_second is None else f"{found.images_per_second:,.0f}"
    left = "-" if found.hours_left is None else in_hours(found.hours_left)
    to_come = "-" if found.bytes_left is None else in_bytes(found.bytes_left)
    lines = [
        f"[bold]{escape(found.recipe or 'a recipe')}[/] in {escape(str(found.zoo))}: {', '.join(told)}",
        f"work: {share} of the operations done, {speed} images/s now, {left} left",
        f"disk: {in_bytes(found.bytes_written)} written, {to_come} to come, {in_bytes(found.bytes_free)} free",
    ]
    if found.bytes_left is not None and found.bytes_left > found.bytes_free:
        lines.append(
            f"[yellow]warning:[/] {in_bytes(found.bytes_left - found.bytes_free)} too little are free. Make room, or "
            "go on with fewer epochs, such as --keep last."
        )
    return lines


def _table(members: "Sequence[MemberStatus]", *, with_state: bool) -> list[str]:
    """A line a member; the place comes last, which may be long."""
    rows = [("member", "state", "epoch", "images/s", "seen", "where")]
    for one in members:
        where = "" if one.process is None else f"process {one.process} on {one.host}"
        rows.append(
            (
                str(one.id),
                one.state,
                f"{one.epoch}/{'-' if one.epochs is None else one.epochs}",
                "-" if one.images_per_second is None else f"{one.images_per_second:,.0f}",
                "" if one.seconds_silent is None else f"{one.seconds_silent:,.0f} s ago",
                where,
            )
        )
    if not with_state:
        rows = [(row[0], *row[2:]) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    return [
        escape("  ".join(
            text.rjust(width) if last - 4 < place < last else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip())
        for row in rows
    ]  # fmt: skip


def _reasons(members: "Sequence[MemberStatus]") -> list[str]:
    """A line a member with its reason; of many the first."""
    lines = []
    for one in members[:_REASONS]:
        colour = "red" if one.state in ("failed", "damaged") else "yellow"
        attempts = one.failed_attempts
        times = f"{attempts} failed attempt{'' if attempts == 1 else 's'}, the last: " if attempts else ""
        log = f" (log: {one.log})" if one.log is not None else ""
        lines.append(f"[{colour}]{one.state}[/] {one.id}: {escape(f'{times}{one.reason}{log}')}")
    if len(members) > _REASONS:
        lines.append(f"and {len(members) - _REASONS} more {members[0].state}: --json has them all")
    return lines
