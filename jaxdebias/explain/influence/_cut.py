"""Cut any model where a chosen block of its parameters begins: what lies before it is computed only once.

`jax.make_jaxpr` gives the program of `apply_fn(params, x)`. Operations that neither use a chosen parameter nor
anything computed from one are the frozen part; what passes from them to the rest are the frozen features. So a block is
chosen by the names of its parameters alone, for a model of any library, and nobody has to say where its layers are.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from jaxdebias.contracts import describe, expect
from jaxdebias.core import Array, Params

ApplyFn = Callable[[Params, Array], jax.Array]
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
Where = Callable[[str], bool] | Sequence[str] | Mapping[str, Part]
"""Which parameters: a predicate on their paths ("params/layers_2/kernel"), a list of paths, or a mapping from paths to
the part that is meant."""


def paths(params: Params) -> dict[str, Any]:
    """Every array of a pytree by its path, in the order of the tree.

    >>> list(paths({"params": {"head": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}}}))
    ['params/head/bias', 'params/head/kernel']
    """
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if hasattr(leaf, "ndim")
    }


@dataclass(frozen=True)
class Cut:
    """A model cut before a block of parameters. Equal for equal arguments, so it can be a static argument of `jit`."""

    apply_fn: ApplyFn
    chosen: tuple[tuple[str, Part], ...]
    """Paths, sorted, and the part of each that is meant."""
    shape: tuple[int, ...]
    """Of one x."""
    dtype: str
    """Of x."""

    def features(self, params: Params, x: Array) -> tuple[jax.Array, ...]:
        """The frozen features: what the block's program reads, arrays `[n ...]`."""
        program = _program(self, params, x.shape[0])
        slots = program.run(program.start(params) | {program.x: jnp.asarray(x)}, program.before)
        return tuple(slots[i] for i in program.border)

    def head(self, params: Params, z: tuple[Array, ...], theta: Mapping[str, Array] | None = None) -> jax.Array:
        """The logits `[n k]` from the frozen features of params, with theta in the place of what is chosen."""
        return self.replay(params, z, theta=theta)

    def replay(
        self,
        params: Params,
        z: tuple[Array, ...],
        bind: Callable[["Operation", list[Any]], Any] | None = None,
        theta: Mapping[str, Array] | None = None,
    ) -> jax.Array:
        """`head`, with `bind(operation, operands)` in place of each operation's own evaluation, if given."""
        program = _program(self, params, z[0].shape[0])
        theta = self.take(params) if theta is None else theta
        slots = program.start(self.put(params, theta)) | dict(zip(program.border, z, strict=True))
        slots |= {slot: theta[name] for name, slot in program.mixes}
        return program.run(slots, program.after, bind)[program.out]

    def take(self, params: Params) -> dict[str, Array]:
        """The chosen parameters, or parts of them, by path; of a `Mix` the identity."""
        found = paths(params)
        return {name: _part(found[name], part) for name, part in self.chosen}

    def put(self, params: Params, theta: Mapping[str, Array]) -> Params:
        """params with the chosen ones replaced; every other leaf is the same object, dtypes are kept."""
        parts = dict(self.chosen)

        def replaced(path: Any, leaf: Any) -> Any:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            return leaf if name not in parts else _with_part(leaf, parts[name], theta[name])

        return jax.tree_util.tree_map_with_path(replaced, params)


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


def cut(apply_fn: ApplyFn, params: Params, x: Array, where: Where) -> Cut:
    """Cuts a model before the block that `where` names.

    Args:
      apply_fn: (params, x) -> logits `[n k]` in evaluation mode; no example may influence another's logits. Pass the
        same function object again to reuse compilations.
      params: any pytree.
      x: `[n ...]`, gives shape and dtype only.
      where: see `Where`.

    Raises:
      ContractError: no such parameter, one that is not a float, or a block that does not reach the logits.

    >>> def apply_fn(params, x):
    ...     return jax.nn.relu(x @ params["first"]) @ params["last"]
    >>> params = {"first": jnp.ones((5, 4)), "last": jnp.ones((4, 3))}
    >>> top = cut(apply_fn, params, jnp.ones((2, 5)), ["last"])
    >>> [z.shape for z in top.features(params, jnp.ones((2, 5)))]
    [(2, 4)]
    """
    known = paths(params)
    if callable(where):
        chosen = {name: None for name in known if where(name)}
    else:
        chosen = dict(where) if isinstance(where, Mapping) else dict.fromkeys(where)
    some = ", ".join(list(known)[:8]) + (", ..." if len(known) > 8 else "")
    expect(len(chosen) > 0, "where", f"at least one of the parameters {some}", "none")
    for name, part in chosen.items():
        expect(name in known, "where", f"a parameter, for instance {some}", name)
        leaf = known[name]
        expect(jnp.issubdtype(leaf.dtype, jnp.floating), name, "a float parameter", describe(leaf))
        if isinstance(part, Mix):
            good = leaf.ndim >= 2 and part.channels > 0 and leaf.shape[-2] % part.channels == 0
            expect(
                good, name, f"a kernel [... i units] whose i is a multiple of {part.channels} channels", describe(leaf)
            )
        elif part is not None:
            axis, positions = part
            good = 0 <= axis < leaf.ndim and len(positions) > 0 and all(0 <= i < leaf.shape[axis] for i in positions)
            expect(good, f"where[{name!r}]", f"(axis, positions) inside {list(leaf.shape)}", part)
    parts = tuple(
        (name, part if part is None or isinstance(part, Mix) else (int(part[0]), tuple(int(i) for i in part[1])))
        for name, part in sorted(chosen.items())
    )
    made = _the_same(Cut(apply_fn, parts, tuple(x.shape[1:]), str(x.dtype)))
    _program(made, params, 2)  # complains now rather than inside a solver
    return made


@functools.lru_cache(maxsize=256)
def _the_same(made: Cut) -> Cut:
    """One object for equal cuts, so that its methods too are equal static arguments of `jit`."""
    return made


def layers_in_order(apply_fn: ApplyFn, params: Params, x: Array) -> list[str]:
    """The nodes of the parameter tree that hold arrays, in the order in which their arrays first meet the data.

    Running statistics of batch normalisation (Linen's collection `batch_stats`) are no parameters and are left out.

    >>> def apply_fn(params, x):
    ...     return jax.nn.relu(x @ params["zeroth"]["w"]) @ params["head"]["w"]
    >>> params = {"head": {"w": jnp.ones((4, 3))}, "zeroth": {"w": jnp.ones((5, 4))}}
    >>> layers_in_order(apply_fn, params, jnp.ones((2, 5)))
    ['zeroth', 'head']
    """
    names = list(paths(params))
    whole = Cut(apply_fn, tuple((name, None) for name in names), tuple(x.shape[1:]), str(x.dtype))
    program = _program(whole, params, 2)
    source = {slot: {name} for slot, name in zip(program.leaves, names, strict=True)}  # which leaves made a value
    data, order = {program.x}, []
    for operation in program.operations:
        slots = [i for i in operation.inputs if isinstance(i, int)]
        used = set().union(*(source.get(i, set()) for i in slots))
        if data.isdisjoint(slots):
            source.update(dict.fromkeys(operation.outputs, used))
        else:
            data.update(operation.outputs)
            order += [name.rpartition("/")[0] for name in names if name in used and not name.startswith("batch_stats/")]
    return list(dict.fromkeys(order))


def last_layers(apply_fn: ApplyFn, params: Params, x: Array, count: int) -> list[str]:
    """Paths of all parameters of the last `count` layers: what to give as `where` to edit the top of a model."""
    order = layers_in_order(apply_fn, params, x)
    expect(1 <= count <= len(order), "count", f"1..{len(order)} layers", count)
    return [name for name in paths(params) if name.rpartition("/")[0] in order[-count:]]


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


def _program(made: Cut, params: Params, n: int) -> _Program:
    spec = jax.ShapeDtypeStruct((n, *made.shape), jnp.dtype(made.dtype))
    shapes = tuple(
        (tuple(leaf.shape), str(leaf.dtype)) if hasattr(leaf, "ndim") else (leaf, None)
        for leaf in jax.tree.leaves(params)
    )
    return _traced(made, jax.tree.structure(params), shapes, spec, bool(jax.config.jax_enable_x64))


@functools.lru_cache(maxsize=64)
def _traced(made: Cut, tree: Any, shapes: tuple[Any, ...], spec: jax.ShapeDtypeStruct, wide: bool) -> _Program:
    del wide  # only what the cache must tell apart
    leaves = [value if dtype is None else jax.ShapeDtypeStruct(value, jnp.dtype(dtype)) for value, dtype in shapes]
    params = jax.tree.unflatten(tree, leaves)
    closed, shape = jax.make_jaxpr(made.apply_fn, return_shape=True)(params, spec)
    expect(
        hasattr(shape, "shape") and len(shape.shape) == 2 and shape.shape[0] == spec.shape[0],
        "apply_fn",
        "one array of logits [n k]",
        shape,
    )
    jaxpr = closed.jaxpr
    counter = iter(range(10**9))
    slot_of = {var: next(counter) for var in jaxpr.invars}
    slot_of |= {var: _Constant(value) for var, value in zip(jaxpr.constvars, closed.consts, strict=True)}
    operations: list[Operation] = []
    _flatten(jaxpr, slot_of, counter, operations)
    (out,) = jaxpr.outvars
    *whole, x = (slot_of[var] for var in jaxpr.invars)
    arrays = [slot for slot, leaf in zip(whole, leaves, strict=True) if hasattr(leaf, "ndim")]
    parts = dict(made.chosen)
    named = dict(zip(paths(params), arrays, strict=True))
    mixes = _mixed(
        operations, {name: named[name] for name, part in parts.items() if isinstance(part, Mix)}, parts, x, counter
    )
    # Of a mixed layer theta is chosen, and the kernel stays what it is.
    chosen = {named[name] for name in parts if name not in dict(mixes)} | {slot for _, slot in mixes}
    return _divided(
        operations, chosen, tuple(arrays), tuple(whole), x, slot_of[out], spec.shape[0], ", ".join(sorted(parts))
    )._replace(mixes=mixes)


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
        channels = parts[name].channels

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
