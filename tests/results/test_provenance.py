import jax

from jaxdebias.results.provenance import device_name, versions


def test_device_and_versions():
    assert device_name().startswith(f"{jax.devices()[0].device_kind} x{len(jax.devices())}")
    assert versions()["jax"] == jax.__version__
    assert {"python", "flax", "optax", "numpy"} <= set(versions())
