"""How many parameters an edit changed."""

import jax

from jaxdebias.core import Params


def parameter_counts(params: Params, edited: Params) -> dict[str, int]:
    """How many parameters there are, and how many lie in leaves that are not the same object any more."""
    old, new = jax.tree.leaves(params), jax.tree.leaves(edited)
    changed = sum(a.size for a, b in zip(old, new, strict=True) if a is not b)
    return {"parameters_changed": int(changed), "parameters": int(sum(leaf.size for leaf in old))}
