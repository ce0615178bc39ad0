import io

import pytest
from rich.console import Console

from jaxdebias.app.progress import progress_bar

RECORDS = [
    {"epoch": i, "step": 10 * i, "loss": 1 / i, "held_out": None if i < 3 else 0.9, "seconds": float(i)}
    for i in range(1, 6)
]


def test_plain_lines_now_and_then(monkeypatch):
    clock = iter([0.0, 1.0, 5.5, 6.0, 7.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    console = Console(file=io.StringIO(), width=80)
    with progress_bar(5, "ERM [digits]", console=console) as observe:
        for record in RECORDS:
            observe(record)
    assert console.file.getvalue().splitlines() == [
        "ERM [digits]: epoch 1/5, loss 1, 1.0 s",
        "ERM [digits]: epoch 3/5, loss 0.333, held out 0.9, 3.0 s",
        "ERM [digits]: epoch 5/5, loss 0.2, held out 0.9, 5.0 s",
    ]


def test_a_bar_in_a_terminal():
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with progress_bar(5, "ERM", console=console) as observe:
        for record in RECORDS:
            observe(record)
    text = console.file.getvalue()
    assert "100%" in text
    assert "loss 0.2, held out 0.9" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_an_error_inside_comes_out(terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal)

    def train():
        with progress_bar(5, "ERM", console=console) as observe:
            observe(RECORDS[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
