"""Cut any model where a chosen block of its parameters begins: what lies before it is computed only once.

`jax.make_jaxpr` gives the program of `apply_fn(params, x)`. Operations that neither use a chosen parameter nor
anything computed from one are the frozen part; what passes from them to the rest are the frozen features. So a block is
chosen by the names of its parameters alone, for a model of any library, and nobody has to say where its layers are.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxdebias.contracts import describe, expect
from jaxdebias.core import Array, Params
from jaxdebias.explain.influence._program import (
    Mix,
    Operation,
    Part,
    _Constant,
    _divided,
    _flatten,
    _mixed,
    _part,
    _Program,
    _with_part,
)

ApplyFn = Callable[[Params, Array], jax.Array]
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
    """Names the layers of a model in the order in which their parameters first meet the data.

    A layer is a node of the parameter tree that holds arrays (of an nnx state, a node that holds variables). Arrays
    that lie side by side at the root of a bare dict are told apart by their shapes: a matrix or a kernel opens a layer
    of its own name, and the vectors that meet the data after it belong to it. Running statistics of batch
    normalisation (Linen's collection `batch_stats`) are no parameters and are left out.

    Args:
      apply_fn: (params, x) -> logits `[n k]`.
      params: any pytree.
      x: `[n ...]`, gives shape and dtype only.

    >>> def apply_fn(params, x):
    ...     return jax.nn.relu(x @ params["zeroth"]["w"]) @ params["head"]["w"]
    >>> params = {"head": {"w": jnp.ones((4, 3))}, "zeroth": {"w": jnp.ones((5, 4))}}
    >>> layers_in_order(apply_fn, params, jnp.ones((2, 5)))
    ['zeroth', 'head']
    """
    return list(dict.fromkeys(_layer_of(apply_fn, params, x).values()))


def last_layers(apply_fn: ApplyFn, params: Params, x: Array, count: int) -> list[str]:
    """Lists the paths of all parameters of the last `count` layers: what to give as `where` to edit the top of a model.

    Args:
      apply_fn: as of `layers_in_order`.
      params: as of `layers_in_order`.
      x: as of `layers_in_order`.
      count: layers, at least 1.
    """
    layer_of = _layer_of(apply_fn, params, x)
    order = list(dict.fromkeys(layer_of.values()))
    expect(1 <= count <= len(order), "count", f"1..{len(order)} layers", count)
    return [name for name in paths(params) if layer_of.get(name) in order[-count:]]


def _layer_of(apply_fn: ApplyFn, params: Params, x: Array) -> dict[str, str]:
    """Path of a parameter -> the name of its layer, in the order in which the parameters meet the data."""
    leaves, layer_of, opened = paths(params), {}, ""
    for name in _parameters_in_order(apply_fn, params, x):
        node = name.removesuffix("/value").rpartition("/")[0]  # nnx keeps an array as `kernel/value`
        if not node and (leaves[name].ndim > 1 or not opened):
            opened = name
        layer_of[name] = node or opened
    return layer_of


def _parameters_in_order(apply_fn: ApplyFn, params: Params, x: Array) -> list[str]:
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
            order += [name for name in names if name in used and not name.startswith("batch_stats/")]
    return list(dict.fromkeys(order))


def _program(made: Cut, params: Params, n: int) -> _Program:
    spec = jax.ShapeDtypeStruct((n, *made.shape), jnp.dtype(made.dtype))
    shapes = tuple(
        (tuple(leaf.shape), str(leaf.dtype)) if hasattr(leaf, "ndim") else (leaf, None)
        for leaf in jax.tree.leaves(params)
    )
    return _traced(made, jax.tree.structure(params), shapes, spec, bool(jax.config.jax_enable_x64))  # pyright: ignore[reportAttributeAccessIssue]


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
