"""Inverse-curvature products: factor once, then every score, bias and edit is a solve.

The protocol:

    solver                                a frozen configuration: `Dense()`, `ConjugateGradient()`, `Ekfac()`, ...
    factor(problem, solver, damping=...)  -> inverse, what is computed once
    inverse.solve(rhs [p m])              -> Solution: (C + damping I)^-1 rhs, all right-hand sides together

C is the curvature of the SUM of losses plus regulariser; damping is added to that. Which solver:

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

import importlib
import json
import os
import pathlib
import tempfile
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Float

from jaxdebias.array_files import BROKEN, one_line, read_arrays
from jaxdebias.contracts import ContractError, check_choice, expect
from jaxdebias.core import Array
from jaxdebias.explain.influence.objective import HeadProblem


class Solution(NamedTuple):
    """What a solve gives, and what tells whether it can be trusted."""

    value: Array
    """`[p m]`"""
    residual: float
    """|(C + damping I) value - rhs| / |rhs|, the largest over the columns, C being the curvature that the solver
    inverts: for an approximation (EK-FAC, Lanczos, class blocks) it says nothing about the approximation."""
    iterations: int
    """0 for a direct solve; the most over the columns otherwise."""
    damping: float


@runtime_checkable
class InverseHessian(Protocol):
    """Products with (C + damping I)^-1."""

    def solve(self, rhs: Float[Array, "p m"]) -> Solution: ...


@runtime_checkable
class Solver(Protocol):
    """A frozen configuration that knows how to factor a problem."""

    def factor(self, problem: HeadProblem, *, damping: float) -> InverseHessian: ...


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
    from jaxdebias.explain.influence.dense import Dense

    expect(damping >= 0, "damping", "at least 0", damping)
    return (solver or Dense()).factor(problem, damping=damping)


def residual(problem: HeadProblem, solution: Float[Array, "p m"], rhs: Float[Array, "p m"], *, damping: float = 0.0,
             curvature: str = "gauss_newton") -> float:
    """|(C + damping I) solution - rhs| / |rhs|, the largest over the columns, by products that never form C.

    The product runs in the dtype of the features, so in float32 it resolves about 1e-7 times the condition number.
    """
    solution, rhs = np.asarray(solution, np.float64), np.asarray(rhs, np.float64)
    # Scaled to 1 first: the entries of H^-1 g can lie far outside what float32 resolves.
    scale = np.maximum(np.abs(solution).max(axis=0), np.finfo(np.float64).tiny)
    unit = (solution / scale[None, :]).astype(jax.tree.leaves(problem.head.theta)[0].dtype)
    product = np.asarray(problem.product(unit, curvature), np.float64) * scale[None, :] + damping * solution
    return relative_error(product, rhs)


def relative_error(product: Float[Array, "p m"], rhs: Float[Array, "p m"]) -> float:
    """|product - rhs| / |rhs|, the largest over the columns; a column of zeros counts by |product|."""
    size = np.linalg.norm(rhs, axis=0)
    return float((np.linalg.norm(product - rhs, axis=0) / np.where(size > 0, size, 1.0)).max(initial=0.0))


def check_layers(what: str, layers: tuple[tuple[str, int], ...], values: Float[Array, "p ..."]) -> None:
    """Refuses values `[p ...]` that are not finite, naming the layer in which the first of them lies."""
    good = np.isfinite(np.asarray(values)).reshape(len(values), -1).all(axis=1)
    if good.all():
        return
    start = 0
    for name, size in layers:
        bad = int((~good[start : start + size]).sum())
        expect(bad == 0, f"{what} of layer {name}", "finite values", f"{bad} of {size} rows that are not")
        start += size


def check_rhs(rhs: Float[Array, "p m"], p: int) -> None:
    """Refuses right-hand sides of the wrong shape."""
    expect(np.ndim(rhs) == 2 and rhs.shape[0] == p, "rhs", f"[p={p}, m]", list(np.shape(rhs)))


_KINDS = {"Factor": "dense", "BinaryFactor": "dense", "ClassBlocksInverse": "class_blocks",
          "LanczosInverse": "lanczos", "EkfacInverse": "ekfac"}
"""What can be saved, and the module that defines it."""


def save(path: str | os.PathLike, inverse: Any) -> None:
    """Writes an inverse as one `.npz` file, first under a temporary name: what stands at `path` is always whole.

    Raises:
      ContractError: an inverse that needs its training set at every solve.
    """
    kind = type(inverse).__name__
    expect(kind in _KINDS, "inverse", "one that needs no training set (" + ", ".join(_KINDS) + ")", kind)
    arrays: dict[str, np.ndarray] = {}
    layout = json.dumps(_encode(inverse, arrays))
    path = pathlib.Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, inverse_hessian=layout, **arrays)
        os.chmod(temporary, 0o644)  # made private by mkstemp, but a factor is there to be handed on
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load(path: str | os.PathLike) -> InverseHessian:
    """What `save` wrote.

    Raises:
      ContractError: a file that is damaged, or something else.
    """
    file = read_arrays("factor", path)
    expect("inverse_hessian" in file, str(path), "a saved inverse Hessian", ", ".join(file) or "nothing")
    try:
        layout = json.loads(str(file["inverse_hessian"]))
        check_choice("kind", layout.get("class"), _KINDS)
        return _decode(layout, file, importlib.import_module(f"{__package__}.{_KINDS[layout['class']]}"))
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


def _decode(layout: Any, arrays: Any, module: Any) -> Any:
    if isinstance(layout, list):
        return tuple(_decode(entry, arrays, module) for entry in layout)
    if not isinstance(layout, dict):
        return layout
    if "array" in layout:
        return arrays[layout["array"]]
    if "dict" in layout:
        return {name: _decode(entry, arrays, module) for name, entry in layout["dict"].items()}
    fields = {name: _decode(entry, arrays, module) for name, entry in layout["fields"].items()}
    return getattr(module, layout["class"])(**fields)
