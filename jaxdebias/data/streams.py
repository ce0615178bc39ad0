"""Random numbers for building data: one named NumPy generator per purpose."""

import numpy as np

from jaxdebias.contracts import describe, expect


def named_rng(seed: int, purpose: str) -> np.random.Generator:
    """A generator fixed by the seed and the purpose's name; streams of different purposes are independent.

    Data are built on the host, so these are NumPy's generators, local to the builder: equal seeds give equal bits for
    one version of NumPy, on any machine.

    >>> bool(named_rng(0, "split").random() == named_rng(0, "split").random())
    True
    >>> bool(named_rng(0, "split").random() == named_rng(0, "colour").random())
    False
    """
    whole = isinstance(seed, int | np.integer) and not isinstance(seed, bool) and seed >= 0
    expect(whole, "seed", "an integer of at least 0", describe(seed))
    return np.random.default_rng([int(seed), *purpose.encode()])
