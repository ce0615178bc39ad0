"""How far a training run has come: a bar in a terminal, a line now and then in a log."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from jaxdebias.report import formats

if TYPE_CHECKING:
    from rich.console import Console

Observe = Callable[[Mapping[str, Any]], None]


@contextlib.contextmanager
def progress_bar(
    total_epochs: int, label: str, *, console: "Console | None" = None, every_seconds: float = 5.0
) -> Iterator[Observe]:
    """Gives the callback that the training loop calls once per chunk.

    A record has `epoch` (finished ones) and may have `loss`, `held_out` and `seconds` (since the start). In a terminal
    they drive a bar with the time left; elsewhere a plain line is printed for the first, the last, and at most every
    `every_seconds` between.

    Args:
      total_epochs: epochs of the whole run.
      label: what is being trained.
      console: where to; standard output if None.
      every_seconds: shortest time between two lines outside a terminal.

    >>> with progress_bar(2, "ERM on digits") as observe:
    ...     observe({"epoch": 2, "step": 40, "loss": 0.25, "held_out": 0.91, "seconds": 3.2})
    ERM on digits: epoch 2/2, loss 0.25, held out 0.91, 3.2 s
    """
    from rich.console import Console

    console = console or Console()
    yield from (_bar if console.is_terminal else _lines)(console, total_epochs, label, every_seconds)


def print_line(text: str) -> None:
    """A line of a long table's progress, shown at once."""
    print(text, flush=True)


def _bar(console: "Console", total: int, label: str, every_seconds: float) -> Iterator[Observe]:
    del every_seconds
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
               TextColumn("{task.fields[numbers]}"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(label, total=total, numbers="")

        def observe(record: Mapping[str, Any]) -> None:
            progress.update(task, completed=record["epoch"], numbers=_numbers(record))

        yield observe


def _lines(console: "Console", total: int, label: str, every_seconds: float) -> Iterator[Observe]:
    last = -float("inf")

    def observe(record: Mapping[str, Any]) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < every_seconds and record["epoch"] < total:
            return
        last = now
        parts = [f"epoch {record['epoch']:g}/{total}", _numbers(record)]
        if record.get("seconds") is not None:
            parts.append(formats.seconds(record["seconds"]))
        text = f"{label}: {', '.join(part for part in parts if part)}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    yield observe


def _numbers(record: Mapping[str, Any]) -> str:
    names = {"loss": "loss", "held_out": "held out"}
    return ", ".join(f"{name} {record[key]:.3g}" for key, name in names.items() if record.get(key) is not None)
