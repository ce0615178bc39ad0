"""What a caller may hand over by mistake: one argument of a good call is changed, in one way that has a name.

A changed call must be refused in one line, or answer; see `outcome`. The shapes are few, so that programs compile once.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdebias.contracts import ContractError
from jaxdebias.measure import Interval

REFUSED = object()


def _put(value: Any) -> Callable[[np.ndarray], np.ndarray]:
    """One entry set to a value; to a float where the array is of floats only, else the array becomes one of floats."""

    def put(array: np.ndarray) -> np.ndarray:
        array = np.array(array)
        if array.dtype.kind in "biu" and (isinstance(value, float) or array.dtype.kind == "b"):
            array = array.astype(type(value))
        if array.size:
            array.reshape(-1)[array.size // 2] = value
        return array

    return put


MUTATIONS: Mapping[str, Callable[[np.ndarray], Any]] = {
    "none": lambda array: None,
    "a string": lambda array: "abc",
    "a scalar": lambda array: np.zeros((), array.dtype),
    "no rows": lambda array: array[:0],
    "one row": lambda array: array[:1],
    "a row less": lambda array: array[:-1],
    "a row more": lambda array: np.concatenate([array, array[:1]]),
    "an axis more": lambda array: array[..., None],
    "an axis less": lambda array: array.reshape(-1) if array.ndim > 1 else array.sum(),
    "turned": lambda array: array.T if array.ndim > 1 else array[None],
    "NaN": _put(float("nan")),
    "infinite": _put(float("inf")),
    "minus infinite": _put(-float("inf")),
    "-1": _put(-1),
    "-2": _put(-2),
    "large": _put(2**31 - 1),
    "all zero": np.zeros_like,
    "all one": np.ones_like,
    "float64": lambda array: array.astype(np.float64),
    "int64": lambda array: array.astype(np.int64),
    "uint8": lambda array: array.astype(np.uint8),
    "int8": lambda array: array.astype(np.int8),
    "bool": lambda array: array.astype(bool),
    "complex": lambda array: array.astype(np.complex64),
    "text": lambda array: array.astype(str),
    "objects": lambda array: array.astype(object),
    "a list": lambda array: array.tolist(),
    "of jax": jnp.asarray,
    "not contiguous": lambda array: np.repeat(array, 2, axis=0)[::2],
    "read only": lambda array: _read_only(array),
}
SAME = ("of jax", "not contiguous", "read only")
"""Mutations that change nothing about the values: the answer must be that of the good call."""


def _read_only(array: np.ndarray) -> np.ndarray:
    array = np.array(array)
    array.flags.writeable = False
    return array


def outcome(call: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """The answer, or `REFUSED` after a `ContractError` of one line. Any other exception is a failure of the test."""
    try:
        return call(**arguments)
    except ContractError as error:
        text = str(error)
        assert text, "an empty message"
        assert "\n" not in text, text
        assert len(text) < 600, text
        return REFUSED


def changed(arguments: Mapping[str, Any], name: str, mutation: str) -> dict[str, Any]:
    """The arguments with one of them mutated; what `name` points at may lie in a NamedTuple or dict: `batch.label`."""
    first, _, rest = name.partition(".")
    value = arguments[first]
    if not rest:
        value = MUTATIONS[mutation](np.asarray(value))
    elif isinstance(value, Mapping):
        value = {**value, rest: MUTATIONS[mutation](np.asarray(value[rest]))}
    else:
        value = value._replace(**{rest: MUTATIONS[mutation](np.asarray(getattr(value, rest)))})
    return {**arguments, first: value}


NEVER = ("a string", "complex", "text", "objects")
"""No array of numbers: always refused."""
ROWS = ("no rows", "a row less", "a row more", "a scalar", "an axis more")
"""Another number of rows than the other arguments have: refused wherever there are others."""


class Call(NamedTuple):
    """A function that answers `good` arguments."""

    fn: Callable[..., Any]
    good: Mapping[str, Any]
    fuzzed: tuple[str, ...]
    """Names of the arguments that are changed, as in `changed`."""
    alone: tuple[str, ...] = ()
    """Those of them that may have any number of rows; a change of it compiles a new program."""
    optional: tuple[str, ...] = ()
    """Those that may be None."""


def check(call: Call, name: str, mutation: str) -> None:
    """The property: refused in one line, or an answer; the same answer where only the kind of array has changed."""
    try:
        arguments = changed(call.good, name, mutation)
    except (TypeError, ValueError, OverflowError):
        return  # there is no such array
    found = outcome(call.fn, arguments)
    if mutation in NEVER or (mutation == "none" and name not in call.optional):
        assert found is REFUSED, f"{name}: {mutation} was accepted"
    if mutation in ROWS and name not in call.alone:
        assert found is REFUSED, f"{name}: {mutation} was accepted"
    if found is REFUSED:
        assert mutation not in SAME, f"{name}: {mutation} was refused"
        return
    for interval in _intervals(found):
        value, low, high = (np.asarray(end) for end in interval[:3])
        assert value.shape == low.shape == high.shape
        known = ~(np.isnan(value) | np.isnan(low))
        assert ((low <= value) & (value <= high))[known].all(), interval
    if mutation in SAME:
        for one, other in zip(_numbers(found), _numbers(call.fn(**call.good)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)  # JAX's arrays have 32 bits


def _numbers(answer: Any) -> list[np.ndarray]:
    return [
        np.asarray(leaf)
        for leaf in jax.tree.leaves(answer)
        if isinstance(leaf, bool | int | float | np.ndarray | np.generic | jax.Array)
    ]


def _intervals(answer: Any) -> list[Interval]:
    return [
        leaf
        for leaf in jax.tree.leaves(answer, is_leaf=lambda node: isinstance(node, Interval))
        if isinstance(leaf, Interval)
    ]


def each(calls: Mapping[str, Call]) -> list[tuple[str, str, str]]:
    """Every (call, argument, mutation)."""
    return [
        (name, argument, mutation) for name, call in calls.items() for argument in call.fuzzed for mutation in MUTATIONS
    ]


def cheap(calls: Mapping[str, Call]) -> list[tuple[str, str, str]]:
    """Those of `each` that compile nothing that the good call has not."""
    new = {*ROWS, "one row", "turned", "an axis less", "float64", "int64", "uint8", "int8", "bool", "NaN", "a list"}
    return [
        (name, argument, mutation)
        for name, argument, mutation in each(calls)
        if mutation not in new or (argument not in calls[name].alone and mutation in ROWS)
    ]
