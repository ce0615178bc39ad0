"""Picks a solver, saves and loads what it computed. The protocol is in `inverse.py`. Which solver:

    Dense              exact; a last layer, or any block up to some 8,000 parameters. The right one from about four
                       right-hand sides on, and the only one that is exact
    ClassBlocks        many classes: ignores how classes share curvature
    ConjugateGradient  exact to a tolerance; blocks of several layers
    Lanczos            the largest curvatures only: many right-hand sides on a large block
    Ekfac              several dense or convolutional layers, any size: an approximation, whose scores correlate
    Lissa              for comparison with published code

All but ConjugateGradient and Lissa, which go back to the problem at every solve, can be saved: a saved inverse is all
that remains needed of the training set.
"""

import json
import os
from typing import Any

import jax
import numpy as np

from jaxdebias.contracts import ContractError, check_choice, expect
from jaxdebias.explain.influence._class_blocks import ClassBlocksInfo, ClassBlocksInverse
from jaxdebias.explain.influence._dense import BinaryFactor, Dense, Factor, FactorInfo
from jaxdebias.explain.influence._ekfac import EkfacInfo, EkfacInverse, EkfacLayer
from jaxdebias.explain.influence._inverse import InverseHessian, Solver
from jaxdebias.explain.influence._lanczos import LanczosInfo, LanczosInverse
from jaxdebias.explain.influence._objective import HeadProblem
from jaxdebias.files import BROKEN, one_line, read_arrays, write_arrays


def factor(problem: HeadProblem, solver: Solver | None = None, *, damping: float = 0.0) -> InverseHessian:
    """Computes once what every solve with a problem's curvature needs.

    Args:
      problem: the training objective at the head.
      solver: how; `Dense()` if not said.
      damping: added to the diagonal of the curvature of the SUM of losses: n times the damping of a mean. The softmax
        Hessian is singular (the same vector added to all classes changes nothing), so l2 + damping must be positive.

    Raises:
      ContractError: no positive damping, curvature that is not finite (the layer is named), or what the solver cannot
        do: too many parameters, layers of an unknown kind.
    """
    expect(damping >= 0, "damping", "at least 0", damping)
    return (solver or Dense()).factor(problem, damping=damping)


_INVERSES = {kind.__name__: kind for kind in (Factor, BinaryFactor, ClassBlocksInverse, LanczosInverse, EkfacInverse)}
"""The inverses that can be saved, by name."""
_PARTS = (FactorInfo, ClassBlocksInfo, LanczosInfo, EkfacInfo, EkfacLayer)
_RECORDS = _INVERSES | {kind.__name__: kind for kind in _PARTS}
"""The named tuples that a saved inverse is made of."""


def save(path: str | os.PathLike, inverse: Any) -> None:
    """Writes an inverse as one `.npz` file, whole or not at all.

    Raises:
      ContractError: an inverse that needs its training set at every solve.
    """
    kind = type(inverse).__name__
    expect(kind in _INVERSES, "inverse", "one that needs no training set (" + ", ".join(_INVERSES) + ")", kind)
    arrays: dict[str, np.ndarray] = {}
    layout = json.dumps(_encode(inverse, arrays))
    write_arrays(path, {"inverse_hessian": layout, **arrays})


def load(path: str | os.PathLike) -> InverseHessian:
    """What `save` wrote.

    Raises:
      ContractError: a file that is damaged, or something else.
    """
    file = read_arrays("factor", path)
    expect("inverse_hessian" in file, str(path), "a saved inverse Hessian", ", ".join(file) or "nothing")
    try:
        layout = json.loads(str(file["inverse_hessian"]))
        check_choice("kind", layout.get("class"), _INVERSES)
        return _decode(layout, file)
    except ContractError:
        raise
    except BROKEN as error:
        raise ContractError(f"`factor`: expected a saved inverse Hessian, got {path} ({one_line(error)})") from None


def _encode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A tree of named tuples, tuples and dicts as JSON; arrays go to `arrays`."""
    if isinstance(value, np.ndarray | jax.Array):
        name = f"array_{len(arrays)}"
        arrays[name] = np.asarray(value)
        return {"array": name}
    if hasattr(value, "_asdict"):
        fields = {name: _encode(field, arrays) for name, field in value._asdict().items()}
        return {"class": type(value).__name__, "fields": fields}
    if isinstance(value, dict):
        return {"dict": {name: _encode(entry, arrays) for name, entry in value.items()}}
    if isinstance(value, tuple):
        return [_encode(entry, arrays) for entry in value]
    return value


def _decode(layout: Any, arrays: Any) -> Any:
    if isinstance(layout, list):
        return tuple(_decode(entry, arrays) for entry in layout)
    if not isinstance(layout, dict):
        return layout
    if "array" in layout:
        return arrays[layout["array"]]
    if "dict" in layout:
        return {name: _decode(entry, arrays) for name, entry in layout["dict"].items()}
    fields = {name: _decode(entry, arrays) for name, entry in layout["fields"].items()}
    return _RECORDS[layout["class"]](**fields)
