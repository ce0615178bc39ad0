"""`with enable_x64(True):` runs its body in double precision, under whichever name the installed JAX has it."""

try:
    from jax import enable_x64
except ImportError:  # before jax 0.8
    from jax.experimental import enable_x64

__all__ = ["enable_x64"]
