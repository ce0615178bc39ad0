"""What a run reports: one record per chunk, and the file of JSON lines that holds them."""

import contextlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from jaxdebias.files import not_written, write_text


class Progress(NamedTuple):
    """One chunk of a run, as numbers on the host; a line of the log has the same names."""

    epoch: int
    """Epochs done."""
    step: int
    """Steps done."""
    loss: float
    """Mean over the rows that the chunk trained on; so are the values of `info`."""
    info: dict[str, float]
    held_out: float | None
    """The monitor's value after the chunk."""
    improved: bool
    """Whether that is the best value so far."""
    lr_scale: float | None
    """With which the next chunk trains; None if the state has none."""
    seconds: float
    """Wall time of the chunk, compilation included."""


@contextlib.contextmanager
def open_log(path: str | os.PathLike | None, history: Sequence[Progress]) -> Iterator[Callable[[Progress], None]]:
    """A function that appends one record. The file starts with exactly the lines of `history`, whatever it held."""
    if path is None:
        yield lambda record: None
        return
    path = pathlib.Path(path)
    write_text(path, "".join(_line(record) for record in history))
    with open(path, "ab", buffering=0) as file:  # unbuffered: closing has nothing left that it could fail to write

        def write(record: Progress) -> None:
            try:
                file.write(_line(record).encode())
            except OSError as error:
                raise not_written(path, error) from None

        yield write


def _line(record: Progress) -> str:
    return json.dumps(record._asdict()) + "\n"
