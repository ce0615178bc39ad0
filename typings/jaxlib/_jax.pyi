"""What pyright needs of jaxlib's extension module, whose own stub not every release ships (0.10 does not).

Without it, half of `jax.numpy` is of unknown type, because its functions take a `Device`.
"""

from typing import Any

class Client: ...

class Device:
    @property
    def platform(self) -> str: ...
    @property
    def device_kind(self) -> str: ...
    @property
    def id(self) -> int: ...

def __getattr__(name: str) -> Any: ...
