"""Why a model does what it does."""

from jaxdebias.explain import influence

__all__ = ["influence"]
