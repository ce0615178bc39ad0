"""A small trained run that tests of several commands read."""

import pytest

from jaxdebias.app.recipes import TrainConfig
from jaxdebias.app.train import train


def config(**changes):
    return TrainConfig(**{"data": "digits", "options": {"conflicting": 0.05}, "epochs": 15, "seed": 3} | changes)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """(folder, results); nobody writes to the folder."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    return folder, train(config(), folder)
