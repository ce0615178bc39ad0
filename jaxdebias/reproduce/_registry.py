"""Every table and figure by name, and what of it can run now."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from jaxdebias.contracts import ContractError, expect
from jaxdebias.data._registry import VARIABLE
from jaxdebias.reproduce._db_vae import DB_VAE
from jaxdebias.reproduce._experiment import Experiment
from jaxdebias.reproduce._fast_model_debias import FAST_MODEL_DEBIAS
from jaxdebias.reproduce._language_bias import LANGUAGE_BIAS
from jaxdebias.reproduce._patch_attribution import PATCH_ATTRIBUTION
from jaxdebias.reproduce._signal_is_harder import SIGNAL_IS_HARDER
from jaxdebias.reproduce._worst_groups import WORST_GROUPS

_PAPERS = (FAST_MODEL_DEBIAS, LANGUAGE_BIAS, SIGNAL_IS_HARDER, DB_VAE, PATCH_ATTRIBUTION, WORST_GROUPS)
EXPERIMENTS: Mapping[str, Experiment] = {experiment.name: experiment for paper in _PAPERS for experiment in paper}
"""By the name that a user types, in the order of the list."""


class Listed(NamedTuple):
    """One line of `jaxdebias reproduce`."""

    experiment: Experiment
    ready: bool
    """Whether it can run now: it needs no files, or they are there."""
    detail: str
    """Where the files are, or the one line that says what is missing."""


def list_experiments(data_dir: Path | None = None) -> list[Listed]:
    """Every experiment, and whether it can run now.

    Args:
      data_dir: the folder of data files; None takes the environment variable JAXDEBIAS_DATA.
    """
    found = []
    for experiment in EXPERIMENTS.values():
        try:
            where = locate(experiment, data_dir)
            found.append(Listed(experiment, True, "no files needed" if where is None else str(where)))
        except ContractError as error:
            found.append(Listed(experiment, False, str(error)))
    return found


def locate(experiment: Experiment, data_dir: Path | None, miniature: Path | None = None) -> Path | None:
    """The folder of an experiment's files; None where it needs none.

    Args:
      experiment: whose.
      data_dir: where to look; None takes the environment variable JAXDEBIAS_DATA.
      miniature: an empty folder, in which a miniature of the files is written and found instead.

    Raises:
      ContractError: naming what is missing.
    """
    if experiment.files is None:
        return None
    if miniature is not None and experiment.trial.write is not None:
        return experiment.trial.write(miniature)
    given = data_dir if data_dir is not None else os.environ.get(VARIABLE) or None
    expect(given is not None, "data_dir", f"{experiment.files.needs} (or set {VARIABLE})", "nothing")
    assert given is not None
    return experiment.files.find(Path(given).expanduser())
