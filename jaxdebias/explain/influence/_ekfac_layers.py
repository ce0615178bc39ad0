"""Which operations of a block's program are its dense and convolutional layers, and what they read and write."""

import collections
import itertools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int

from jaxdebias.contracts import expect
from jaxdebias.explain.influence._cut import paths
from jaxdebias.explain.influence._objective import AffineHead, HeadProblem
from jaxdebias.explain.influence._program import Operation, evaluate

# --- finding the layers -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tap:
    """Where in the program a layer's kernel meets its input."""

    slot: int
    """Of the operation's result; it names the operation in every trace of the program."""
    side: int
    """Which operand is the input."""
    kernel: str
    bias: str | None = None


class _Layer(NamedTuple):
    """A layer while it is being found."""

    operation: Operation
    side: int
    kernel: str
    matrix: np.ndarray
    """`[i o]`, positions of the kernel's entries in the vector."""
    bias: str | None = None
    bias_row: np.ndarray | None = None
    """`[o]`"""
    way: tuple[int, ...] = ()
    """Slots from the product to where the bias is added."""


_REARRANGED = ("transpose", "reshape", "broadcast_in_dim", "squeeze", "expand_dims", "copy", "convert_element_type")
_CONVOLUTIONS = ("conv_general_dilated", "scan_fast_conv")


def _find(problem: HeadProblem) -> tuple[tuple[_Tap, ...], tuple[Int[np.ndarray, "i o"], ...]]:
    """The layers of a block, and where in the vector [p] the entries of their matrices lie.

    The program is replayed on two rows. Instead of parameters their positions in the vector are carried through
    whatever only rearranges them, so a kernel is understood whichever way round it is stored.
    """
    head = problem.head
    if isinstance(head, AffineHead):
        e = problem.size // head.kernel.shape[1]
        tap = _Tap(0, 0, "kernel", None if head.bias is None else "bias")
        return (tap,), (np.arange(problem.size).reshape(e, -1),)

    params = head.cut.put(head.params, head.theta)
    leaves, sizes = paths(params), dict(head.layers)
    names, start = {}, 0
    for name, size in head.layers:
        leaf = leaves[name]
        expect(leaf.size == size, name, "a whole parameter for EK-FAC", f"{size} of its {leaf.size} entries")
        names[id(leaf)] = (name, np.arange(start, start + size).reshape(leaf.shape))
        start += size
    rearranged: dict[int, tuple[str, np.ndarray]] = {}  # slot -> parameter, positions in the vector
    layers: dict[int, _Layer] = {}  # slot of the product -> layer
    products: dict[int, tuple[np.ndarray, tuple[int, ...]]] = {}  # slot that holds a product, perhaps rearranged ->
    # which output of the layer each entry is, slots from the product on
    used: collections.Counter[str] = collections.Counter()  # parameters, by operations that do more than rearrange
    read: collections.Counter[int] = collections.Counter()  # slots

    def bind(operation: Operation, operands: list[Any]) -> list[Any]:
        equation, (out, *_) = operation.equation, operation.outputs
        kind, results = equation.primitive.name, evaluate(operation, operands)
        slots = [slot if isinstance(slot, int) else -1 for slot in operation.inputs]
        read.update(slots)
        for slot, operand in zip(slots, operands, strict=True):
            if slot not in rearranged and id(operand) in names:
                rearranged[slot] = names[id(operand)]
        own = [j for j, slot in enumerate(slots) if slot in rearranged]
        if not own:
            if kind in _REARRANGED and slots[0] in products:
                which, way = products[slots[0]]
                products[out] = _rearranged(operation, which), (*way, out)
            return results
        (side, *more), (name, positions) = own, rearranged[slots[own[0]]]
        if kind in _REARRANGED and not more:
            rearranged[out] = name, _rearranged(operation, positions)
            return results
        used.update(rearranged[slots[j]][0] for j in own)
        if more:
            return results
        if kind == "dot_general" or (kind in _CONVOLUTIONS and side == 1):
            matrix = _kernel_matrix(operation, 1 - side, positions)
            if matrix is not None and matrix.size == sizes[name]:
                layers[out] = _Layer(operation, 1 - side, name, matrix)
                places = np.arange(results[0].size).reshape(results[0].shape)
                which = np.empty(places.size, np.int64)
                which[_of_outputs(operation, 1 - side, places)] = np.arange(matrix.shape[1])
                products[out] = which.reshape(places.shape), (out,)
        elif kind == "add" and slots[1 - side] in products:
            which, way = products[slots[1 - side]]
            layer = layers[way[0]]
            row = np.full(layer.matrix.shape[1], -1)
            row[which] = positions
            # One entry of the bias for each output, the same everywhere.
            if layer.bias is None and row.size == sizes[name] and (row[which] == positions).all():
                layers[way[0]] = layer._replace(bias=name, bias_row=row, way=way)
        return results

    head.cut.replay(params, jax.tree.map(lambda leaf: leaf[:2], problem.features), bind)
    for slot, layer in layers.items():  # read elsewhere too, a product has another derivative than its sum with a bias
        if any(read[passed] > 1 for passed in layer.way):
            layers[slot] = layer._replace(bias=None)
    covered = collections.Counter(name for layer in layers.values() for name in (layer.kernel, layer.bias))
    for name, _ in head.layers:
        expect(
            covered[name] == used[name] == 1,
            name,
            "the kernel of one product or convolution, or its bias (leave other parameters out of the block)",
            f"{used[name]} uses, {covered[name]} of them of that kind",
        )
    taps = tuple(_Tap(slot, layer.side, layer.kernel, layer.bias) for slot, layer in layers.items())
    return taps, tuple(
        layer.matrix if layer.bias is None else np.concatenate([layer.matrix, layer.bias_row[None]])
        for layer in layers.values()
    )


def _rearranged(operation: Operation, numbers: np.ndarray) -> np.ndarray:
    """What the operation makes of an array of integers in place of its operand."""
    if operation.equation.primitive.name == "convert_element_type":
        return numbers
    return np.asarray(evaluate(operation, [jnp.asarray(numbers)])[0])


def _sides(operation: Operation, side: int) -> tuple[tuple[int, ...], tuple[int, ...], list[int], list[int]]:
    """Of a product: contracted axes of input and kernel, and their free axes, the examples' first among the input's."""
    contracted, _ = operation.equation.params["dimension_numbers"]
    of_input, of_kernel = tuple(contracted[side]), tuple(contracted[1 - side])
    free = [
        [axis for axis in range(len(operation.equation.invars[which].aval.shape)) if axis not in taken]
        for which, taken in ((side, of_input), (1 - side, of_kernel))
    ]
    return of_input, of_kernel, free[0], free[1]


def _kernel_matrix(operation: Operation, side: int, positions: np.ndarray) -> np.ndarray | None:
    """The kernel as a matrix `[i o]`, None where the operation is no plain layer."""
    params = operation.equation.params
    if operation.equation.primitive.name == "dot_general":
        of_input, of_kernel, free_input, free_kernel = _sides(operation, side)
        # Examples lie on the first axis, or on the only one that is free.
        if any(params["dimension_numbers"][1]) or not of_input or not (0 in free_input or len(free_input) == 1):
            return None
        i = math.prod(positions.shape[axis] for axis in of_kernel)
        return positions.transpose(*of_kernel, *free_kernel).reshape(i, -1)
    if params["feature_group_count"] != 1 or params["batch_group_count"] != 1:
        return None
    out, into, *space = params["dimension_numbers"].rhs_spec
    return positions.transpose(*space, into, out).reshape(-1, positions.shape[out])


def _of_inputs(operation: Operation, side: int, x: jax.Array) -> Float[jax.Array, "b t i"]:
    """What each entry of the kernel's rows is multiplied with, at every position."""
    if operation.equation.primitive.name == "dot_general":
        of_input, _, free, _ = _sides(operation, side)
        i = math.prod(x.shape[axis] for axis in of_input)
        return x.transpose(*free, *of_input).reshape(x.shape[free[0]], -1, i)
    params = operation.equation.params
    batch, channel, *space = params["dimension_numbers"].lhs_spec
    _, _, *kernel_space = params["dimension_numbers"].rhs_spec
    out_batch, _, *out_space = params["dimension_numbers"].out_spec
    result = operation.equation.outvars[0].aval.shape
    kernel = operation.equation.invars[1].aval.shape
    x = x.transpose(batch, *space, channel)
    around = [
        (low, high, dilation - 1)
        for (low, high), dilation in zip(params["padding"], params["lhs_dilation"], strict=True)
    ]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *around, (0, 0, 0)])
    reach = [(result[axis] - 1) * stride + 1 for axis, stride in zip(out_space, params["window_strides"], strict=True)]
    shifted = []
    for offset in itertools.product(*(range(kernel[axis]) for axis in kernel_space)):
        start = [step * dilation for step, dilation in zip(offset, params["rhs_dilation"], strict=True)]
        stop = [first + length for first, length in zip(start, reach, strict=True)]
        shifted.append(
            lax.slice(x, (0, *start, 0), (x.shape[0], *stop, x.shape[-1]), (1, *params["window_strides"], 1))
        )
    patches = jnp.stack(shifted, axis=-2)  # [b *space offsets channels]
    return patches.reshape(result[out_batch], -1, len(shifted) * x.shape[-1])


def _of_outputs(operation: Operation, side: int, g: Any) -> Any:
    """An array shaped as the operation's result as `[b t o]`."""
    if operation.equation.primitive.name == "dot_general":
        _, _, free_input, free_kernel = _sides(operation, side)
        if side == 1:  # the kernel's axes come first
            g = g.transpose(*range(len(free_kernel), g.ndim), *range(len(free_kernel)))
        o = math.prod(g.shape[len(free_input) :])
        return g.reshape(g.shape[0], -1, o)
    batch, channel, *space = operation.equation.params["dimension_numbers"].out_spec
    g = g.transpose(batch, *space, channel)
    return g.reshape(g.shape[0], -1, g.shape[-1])
