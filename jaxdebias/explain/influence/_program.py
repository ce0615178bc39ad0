"""The program of a model as a list of operations, and which of them depend on the block."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from jaxdebias.contracts import expect
from jaxdebias.core import Array, Params

Positions = tuple[int, tuple[int, ...]]
"""(axis, positions on it): a part of one parameter, for instance (0, (17,)), row 17 of a kernel [d h]."""


class Mix(NamedTuple):
    """Not the kernel itself but how it mixes the input's channels, for each unit: where colour enters a network.

    The kernel `[... i units]` of a convolution (i channels) or of a layer on flattened images (i = pixels * channels)
    becomes kernel'[..., d, unit] = sum over c of theta[d, c, unit] kernel[..., c, unit]. theta `[channels channels
    units]` starts as the identity: `channels**2` numbers for each unit instead of a column of the kernel.

    Where the kernel meets the data directly, the layer is linear in theta, and its channels**2 parts are features that
    are computed once: an edit of the first layer then never touches the images again.
    """

    channels: int


Part = Positions | Mix | None
"""What of a parameter is chosen; None: all of it."""


def _part(leaf: Array, part: Part) -> jax.Array:
    if part is None:
        return jnp.asarray(leaf)
    if isinstance(part, Mix):
        shape = (part.channels, part.channels, leaf.shape[-1])
        return jnp.broadcast_to(jnp.eye(part.channels, dtype=leaf.dtype)[:, :, None], shape)
    axis, positions = part
    return jnp.take(leaf, jnp.array(positions), axis=axis)


def _with_part(leaf: Array, part: Part, value: Array) -> jax.Array:
    if part is None:
        return jnp.asarray(value).astype(leaf.dtype)
    if isinstance(part, Mix):
        split = leaf.reshape(*leaf.shape[:-2], -1, part.channels, leaf.shape[-1])
        mixed = jnp.einsum("...cu,dcu->...du", split, jnp.asarray(value).astype(leaf.dtype))
        return mixed.reshape(leaf.shape)
    axis, positions = part
    return (
        jnp.asarray(leaf).at[(slice(None),) * axis + (jnp.array(positions),)].set(jnp.asarray(value).astype(leaf.dtype))
    )


class Operation(NamedTuple):
    """One equation of the program. Inputs are slots (int) or constants."""

    equation: Any
    """Of JAX; or a function of ours, one of the two that a mixed layer becomes."""
    inputs: tuple[Any, ...]
    """As many as the equation has; of repeated and constant ones too."""
    outputs: tuple[int, ...]
    program: Any
    """The `Jaxpr` that the equation is of."""


class _Constant(NamedTuple):
    value: Any


class _Program(NamedTuple):
    """The program of `apply_fn` as a list of operations, and where it is cut. Slots are numbers of values."""

    operations: list[Operation]
    before: list[Operation]
    """The frozen part."""
    after: list[Operation]
    """The rest, with what of the frozen part depends on parameters only."""
    border: tuple[int, ...]
    """Slots that pass from the frozen part to the rest, and depend on x."""
    leaves: tuple[int, ...]
    """Slots of the array leaves of params, in the order of `paths`."""
    whole: tuple[int, ...]
    """Slots of all leaves of params."""
    x: int
    out: int
    mixes: tuple[tuple[str, int], ...]
    """(path, slot of its theta) of each `Mix` whose layer is computed once."""

    def start(self, params: Params) -> dict[int, Any]:
        return dict(zip(self.whole, jax.tree.leaves(params), strict=True))

    def run(
        self,
        slots: dict[int, Any],
        operations: list[Operation],
        bind: Callable[[Operation, list[Any]], Any] | None = None,
    ) -> dict[int, Any]:
        for operation in operations:
            operands = [slots[i] if isinstance(i, int) else i.value for i in operation.inputs]
            results = evaluate(operation, operands) if bind is None else bind(operation, operands)
            slots.update(zip(operation.outputs, results, strict=True))
        return slots


def evaluate(operation: Operation, operands: list[Any]) -> list[Any]:
    """The results of one operation: its equation as a program of its own, which every version of JAX can run."""
    equation = operation.equation
    if callable(equation):
        return [equation(*operands)]
    values = {atom: value for atom, value in zip(equation.invars, operands, strict=True) if not hasattr(atom, "val")}
    alone = operation.program.replace(
        constvars=[], invars=list(values), outvars=list(equation.outvars), eqns=[equation], effects=equation.effects
    )
    return jaxpr_as_fun(ClosedJaxpr(alone, ()))(*values.values())


def _flatten(jaxpr: Any, slot_of: dict[Any, Any], counter: Any, operations: list[Operation]) -> None:
    """Operations of a program in order, `jit` within it opened up: it may hold a whole model."""
    for equation in jaxpr.eqns:
        inputs = tuple(_Constant(atom.val) if hasattr(atom, "val") else slot_of[atom] for atom in equation.invars)
        inner = equation.params.get("jaxpr") if equation.primitive.name in ("jit", "pjit") else None
        if inner is None:
            outputs = tuple(next(counter) for _ in equation.outvars)
            operations.append(Operation(equation, inputs, outputs, jaxpr))
        else:
            inside = dict(zip(inner.jaxpr.invars, inputs, strict=True))
            inside |= {var: _Constant(value) for var, value in zip(inner.jaxpr.constvars, inner.consts, strict=True)}
            _flatten(inner.jaxpr, inside, counter, operations)
            outputs = tuple(
                _Constant(atom.val) if hasattr(atom, "val") else inside[atom] for atom in inner.jaxpr.outvars
            )
        slot_of.update(zip(equation.outvars, outputs, strict=True))


def _mixed(
    operations: list[Operation], kernels: dict[str, int], parts: Mapping[str, Part], x: int, counter: Any
) -> tuple[tuple[str, int], ...]:
    """Puts two operations in the place of each layer whose kernel is mixed: its parts, frozen, and their mixture.

    Only where the kernel is the right operand of one product or convolution whose last axis are the units; a kernel
    that is reshaped first keeps its operation, and its layer is computed anew at every step.
    """
    mixes = []
    for name, kernel in kernels.items():
        users = [i for i, operation in enumerate(operations) if kernel in operation.inputs]
        if len(users) != 1 or not _meets_data(operations[users[0]], kernel):
            continue
        operation, (parts_slot, theta) = operations[users[0]], (next(counter), next(counter))
        channels = parts[name].channels  # pyright: ignore[reportAttributeAccessIssue]

        def all_parts(data: jax.Array, kernel: jax.Array, operation=operation, channels=channels) -> jax.Array:
            """[n ... channels**2 units]: what channel d of the data gives through channel c of the kernel."""
            units, given = kernel.shape[-1], []
            for d in range(channels):
                for c in range(channels):
                    one = jnp.zeros((channels, channels, units), kernel.dtype).at[d, c].set(1.0)
                    given.append(evaluate(operation, [data, _with_part(kernel, Mix(channels), one)])[0])
            return jnp.stack(given, axis=-2)

        def mixture(pieces: jax.Array, theta: jax.Array) -> jax.Array:
            theta = theta.reshape((1,) * (pieces.ndim - 2) + pieces.shape[-2:])
            return (pieces * theta).sum(axis=-2)

        first = Operation(all_parts, operation.inputs, (parts_slot,), None)
        second = Operation(mixture, (parts_slot, theta), operation.outputs, None)
        operations[users[0] : users[0] + 1] = [first, second]
        mixes.append((name, theta))
    return tuple(mixes)


def _meets_data(operation: Operation, kernel: int) -> bool:
    equation = operation.equation
    if operation.inputs[1:] != (kernel,):
        return False
    rank, params = len(equation.invars[1].aval.shape), equation.params
    if equation.primitive.name == "dot_general":
        (left, right), batched = params["dimension_numbers"]
        return rank == 2 and tuple(right) == (0,) and tuple(left) == (1,) and batched == ((), ())
    if equation.primitive.name in ("conv_general_dilated", "scan_fast_conv"):
        numbers = params["dimension_numbers"]
        last = len(equation.outvars[0].aval.shape) - 1
        plain = params["feature_group_count"] == params["batch_group_count"] == 1
        return plain and numbers.rhs_spec[:2] == (rank - 1, rank - 2) and numbers.out_spec[:2] == (0, last)
    return False


def _divided(
    operations: list[Operation],
    chosen: set[int],
    leaves: tuple[int, ...],
    whole: tuple[int, ...],
    x: int,
    out: int,
    n: int,
    names: str,
) -> _Program:
    moving, data = set(chosen), {x}  # what depends on a chosen parameter, on x
    shape: dict[int, tuple[int, ...]] = {}
    for operation in operations:
        slots = [i for i in operation.inputs if isinstance(i, int)]
        if not callable(operation.equation):
            shape.update({o: v.aval.shape for o, v in zip(operation.outputs, operation.equation.outvars, strict=True)})
        if any(i in moving for i in slots):
            moving.update(operation.outputs)
        if any(i in data for i in slots):
            data.update(operation.outputs)
    expect(out in moving, "where", "parameters on which the logits depend", names)

    # Backwards from the logits: frozen values that depend on x are the border, all others are computed again.
    needed, after = {out}, []
    for operation in reversed(operations):
        if not any(o in needed for o in operation.outputs):
            continue
        if any(o in data and o not in moving for o in operation.outputs):
            continue
        after.append(operation)
        needed.update(i for i in operation.inputs if isinstance(i, int))
    border = dict.fromkeys(
        i
        for operation in reversed(after)
        for i in operation.inputs
        if isinstance(i, int) and i in data and i not in moving
    )
    for slot in border:
        expect(
            slot == x or shape.get(slot, (n,))[:1] == (n,),
            "apply_fn",
            "values of every example on the first axis, where the block begins",
            list(shape.get(slot, ())),
        )
    before, needed = [], set(border)
    for operation in reversed(operations):
        if any(o in needed for o in operation.outputs):
            before.append(operation)
            needed.update(i for i in operation.inputs if isinstance(i, int))
    return _Program(operations, before[::-1], after[::-1], tuple(border), leaves, whole, x, out, ())
