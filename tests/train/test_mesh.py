import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from train.tiny import BARE, table

from jaxdebias.contracts import ContractError
from jaxdebias.mitigate import erm
from jaxdebias.train import FitConfig, Optimizer, data_mesh, fit
from jaxdebias.train._mesh import check_mesh

ROOT = pathlib.Path(__file__).parents[2]

PROGRAM = """
import jax, numpy as np, sys
from jaxdebias.contracts import ContractError
from train.test_mesh import train
assert len(jax.devices()) == 8
from jaxdebias.train import data_mesh
traces = []
result = train(data_mesh(), traces)
leaf = jax.tree.leaves(result.state.variables)[0]
assert len(leaf.sharding.device_set) == 8 and leaf.sharding.is_fully_replicated
assert len(traces) == 1, traces
assert traces[0].startswith("(2, 5)"), traces  # 16 rows over 8 devices
stream = train(data_mesh(), [], stream=True)
for name, r in [("memory", result), ("stream", stream)]:
    np.savez(f"{sys.argv[1]}/{name}.npz", *jax.tree.leaves(r.state), history=[h.held_out for h in r.history])
try:
    train(data_mesh(), [], batch_size=12)
except ContractError as error:
    assert str(error) == "`batch_size`: expected a multiple of the mesh's 8 devices, got 12", error
else:
    raise AssertionError("12 rows were split over 8 devices")
"""


class Rows:
    def __len__(self):
        return 70

    def __getitem__(self, i):
        return jax.tree.map(lambda leaf: leaf[i], table(70))


def train(mesh, traces, stream=False, batch_size=16):
    learner = erm(BARE, optimizer=Optimizer(learning_rate=0.05))

    def step(key, state, batch):
        new, info = learner.step(key, state, batch)
        jax.debug.inspect_array_sharding(
            batch.x, callback=lambda sharding: traces.append(str(sharding.shard_shape(batch.x.shape)))
        )
        return new, info

    config = FitConfig(epochs=3, batch_size=batch_size)
    data = Rows() if stream else table(70)
    return fit(jax.random.key(0), learner._replace(step=step), data, config, held_out=table(40, seed=1), mesh=mesh)


@pytest.mark.slow
def test_eight_devices_agree_with_one(tmp_path):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], env=environment, check=True, timeout=240)
    for name, stream in [("memory", False), ("stream", True)]:
        result = train(None, [], stream)
        with np.load(tmp_path / f"{name}.npz") as found:
            for i, leaf in enumerate(jax.tree.leaves(result.state)):
                np.testing.assert_allclose(found[f"arr_{i}"], leaf, atol=1e-5)
            np.testing.assert_allclose(found["history"], [r.held_out for r in result.history], atol=1e-5)


def test_any_mesh_with_a_data_axis():
    explicit = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    mesh = check_mesh(explicit, 16)
    assert mesh == data_mesh(jax.devices()[:1])
    assert mesh.axis_types == (jax.sharding.AxisType.Auto,)
    with pytest.raises(ContractError, match="an axis named 'data'"):
        check_mesh(jax.sharding.Mesh(mesh.devices, ("runs",)), 16)
