"""The functions of `scipy.optimize` that are used here: SciPy ships no types."""

from collections.abc import Callable
from typing import Any

import numpy as np

def brentq(f: Callable[[float], float], a: float, b: float, *, xtol: float = ...) -> float: ...
def linear_sum_assignment(cost_matrix: np.ndarray, maximize: bool = False) -> tuple[np.ndarray, np.ndarray]: ...
def minimize(fun: Callable[..., Any], x0: np.ndarray, **options: Any) -> Any: ...
