"""Training on many devices: the batch of each step is split over the mesh axis "data", the state is replicated.

XLA inserts the sums over devices. A data set in memory is replicated as stored, so each device holds all of it (uint8:
1 byte per value) and gathers its own rows without communication; what does not fit one device is streamed instead.
Results differ from those of one device only by the rounding of sums.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdebias.contracts import expect

AXIS = "data"


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:  # pyright: ignore[reportInvalidTypeForm]
    """All devices, or the given ones, along the one axis "data"."""
    return Mesh(np.asarray(jax.devices() if devices is None else devices).reshape(-1), (AXIS,))


def check_mesh(mesh: Mesh | None, batch_size: int) -> Mesh | None:
    """The mesh, with axes that the compiler partitions by itself, or an error if a batch cannot be split over it."""
    if mesh is None:
        return None
    expect(AXIS in mesh.axis_names, "mesh", f"an axis named {AXIS!r}", f"axes {mesh.axis_names}")
    size = mesh.shape[AXIS]
    expect(batch_size % size == 0, "batch_size", f"a multiple of the mesh's {size} devices", batch_size)
    return Mesh(mesh.devices, mesh.axis_names)  # `jax.make_mesh` may return explicit axes, which would type every array


def put(tree: Any, mesh: Mesh | None, *axes: str | None) -> Any:
    """Arrays moved to the device, or to the mesh: replicated, or split along the named axes."""
    return jax.device_put(tree, None if mesh is None else NamedSharding(mesh, PartitionSpec(*axes)))


def constrain(tree: Any, mesh: Mesh | None, *axes: str | None) -> Any:
    """The same placement as `put`, as a constraint inside jit."""
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, sharding), tree)
