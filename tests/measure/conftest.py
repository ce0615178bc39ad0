import jaxtyping
import pytest


@pytest.fixture
def unchecked():
    """Annotations off, as they are for users: what is refused is then refused by the contracts alone."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
