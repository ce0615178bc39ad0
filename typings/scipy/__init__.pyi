"""SciPy ships no types: those of what is used in strictly typed modules lie beside, the rest is not known."""

from typing import Any

def __getattr__(name: str) -> Any: ...
