"""Where in a model's parameters its last affine layer lies, found by calling the head instead of by names."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxdebias.contracts import ContractError, describe, expect
from jaxdebias.core import HEAD_PATH, Array, Params
from jaxdebias.explain.influence._objective import AffineHead, head_logits


def find_head(
    head_fn: Callable[[Params, Array], Array],
    params: Params,
    path: tuple[str | int, ...] | None,
    d: int,
) -> tuple[AffineHead, Callable[[Params, AffineHead], Params]]:
    """The affine head in a pytree of parameters, and the function that puts another one in its place.

    Which matrix is the kernel, and which way round, is not guessed from names but found by calling `head_fn` on zeros
    and on random features; so heads of Linen, nnx, Haiku (`[d k]`), Equinox and PyTorch (`[k d]`) are all found.

    Args:
      head_fn: `(params, z [n d]) -> logits [n k]`, for instance `split.head`.
      params: any pytree.
      path: where the head lies: keys, attribute names or positions from the root of params, for instance
        `("params", "head")` or `("layers", 2)`. Below it: one matrix and at most one vector. None: `HEAD_PATH`, where
        our own models have it; or, where nothing lies there, every node with a matrix is tried.
      d: number of features.

    Returns:
      The head in float32 (float64 if it is stored so), and `replace(params, head) -> params`, which changes those one
      or two leaves, keeps their dtype and orientation, and passes every other leaf on as the same object.

    Raises:
      ContractError: nothing or too much at the path, or `head_fn` is not affine in z with exactly these parameters.

    >>> params = {"trunk": jnp.zeros(3), "head": {"w": jnp.arange(6.0).reshape(2, 3)}}  # [k d], no bias
    >>> head, replace = find_head(lambda p, z: z @ p["head"]["w"].T, params, ("head",), d=3)
    >>> head.kernel.shape, head.bias
    ((3, 2), None)
    >>> replace(params, AffineHead(jnp.ones((3, 2)), None))["head"]["w"].shape
    (2, 3)
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    names = [tuple(jax.tree_util.keystr((key,), simple=True) for key in keys) for keys, _ in leaves]
    if path is None:
        path = _likely_path(head_fn, params, names, d)
    wanted = tuple(str(step) for step in path)
    below = [i for i, name in enumerate(names) if name[: len(wanted)] == wanted and hasattr(leaves[i][1], "ndim")]
    matrices = [i for i in below if leaves[i][1].ndim == 2]
    vectors = [i for i in below if leaves[i][1].ndim == 1]
    where = "/".join(wanted)
    if not below:
        known = sorted({"/".join(name[: len(wanted)]) for name in names})
        expect(
            False,
            "head_path",
            "a path into params that ends at the last layer, for instance one of " + ", ".join(known[:8]),
            where,
        )
    found = [f"{'/'.join(names[i])}: {describe(leaves[i][1])}" for i in below]
    good = len(matrices) == 1 and len(vectors) <= 1 and len(below) == len(matrices) + len(vectors)
    expect(good, f"params at {where}", "one matrix (kernel) and at most one vector (bias)", ", ".join(found))
    at_kernel, at_bias = matrices[0], vectors[0] if vectors else None

    matrix = jnp.asarray(leaves[at_kernel][1])
    matrix = matrix.astype(jnp.promote_types(matrix.dtype, jnp.float32))
    bias = None if at_bias is None else jnp.asarray(leaves[at_bias][1]).astype(matrix.dtype)
    expect(d in matrix.shape, f"params at {where}", f"a kernel with d={d} features on one side", ", ".join(found))
    heads = [
        (AffineHead(kernel, bias), transposed)
        for kernel, transposed in ((matrix, False), (matrix.T, True))
        if kernel.shape[0] == d and (bias is None or kernel.shape[1] == bias.shape[0])
    ]
    probe = _probe(d).astype(matrix.dtype)
    logits = head_fn(params, probe)
    heads = [(head, transposed) for head, transposed in heads if _agrees(head_logits(head, probe), logits)]
    expect(
        bool(heads),
        f"head at {where}",
        "logits = z @ kernel + bias, nothing before or after it",
        "a function that is not this affine map (different logits on random features)",
    )
    head, transposed = heads[0]

    def replace(params: Params, head: AffineHead) -> Params:
        flat, structure = jax.tree.flatten(params)
        kernel = head.kernel.T if transposed else head.kernel
        flat[at_kernel] = jnp.asarray(kernel).astype(flat[at_kernel].dtype)
        if at_bias is not None:
            flat[at_bias] = jnp.asarray(head.bias).astype(flat[at_bias].dtype)
        return jax.tree.unflatten(structure, flat)

    return head, replace


def _likely_path(head_fn: Callable, params: Params, names: list[tuple[str, ...]], d: int) -> tuple[str, ...]:
    """Our own models' path, or the only node below which the head is found."""
    if any(name[: len(HEAD_PATH)] == HEAD_PATH for name in names):
        return HEAD_PATH
    found = []
    for path in dict.fromkeys(name[:-1] for name in names):
        try:
            find_head(head_fn, params, path, d)
        except ContractError:
            continue
        found.append(path)
    expect(len(found) == 1, "head_path", "where in params the last affine layer lies", None)
    return found[0]


def _probe(d: int) -> Float[Array, "n d"]:
    # Zeros show the bias; two scales show a squashing that a small input would not.
    z = jax.random.normal(jax.random.key(0), (8, d))
    return jnp.concatenate([jnp.zeros((1, d)), z, 10.0 * z])


def _agrees(expected: Float[Array, "n k"], got: Any) -> bool:
    # A head run in TF32 or bfloat16 is off by up to 4e-3 of its row; another map by much more.
    if getattr(got, "shape", None) != expected.shape:
        return False
    expected, got = np.asarray(expected, np.float64), np.asarray(got, np.float64)
    return bool((np.abs(expected - got).max(axis=1) <= 1e-2 * np.abs(expected).max(axis=1)).all())
