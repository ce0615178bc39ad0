import jaxtyping
import pytest


@pytest.fixture(autouse=True, scope="package")
def unchecked():
    """Annotations off, as they are for users: what is refused is refused by the contracts alone."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
