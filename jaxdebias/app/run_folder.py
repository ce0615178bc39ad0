"""Runs: read back from their folders, watched while they are made."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdebias.app.recipes import TrainConfig, model_options
from jaxdebias.app.training import build_training
from jaxdebias.contracts import check_choice, expect
from jaxdebias.core import Classifier, Dataset, Params
from jaxdebias.data import _registry as registry
from jaxdebias.data._values import check_names
from jaxdebias.mitigate._methods import METHODS
from jaxdebias.models._vae_classifier import VaeClassifier
from jaxdebias.results.codec import convert, read_run
from jaxdebias.results.records import RunResults
from jaxdebias.train._checkpoint import load_params

Watch = Callable[[int, str], AbstractContextManager[Callable[[Mapping[str, Any]], None]]]
"""(epochs, label) -> a context that gives the training loop's observer, for instance `report.progress_bar`."""
_CONFIG = ("data", "data_dir", "seed", "options", "method", "model")
"""What a run is read back from: defaults of today may be others than those of the run."""


class Run(NamedTuple):
    """A trained run, read back."""

    record: RunResults
    config: TrainConfig
    """How its data set and its model were made."""
    dataset: Dataset
    classifier: Classifier
    params: Params
    """Of the whole network, what is not needed to predict included."""
    vae: VaeClassifier | None = None
    """Of DB-VAE: the network with its code and decoder, of the same params."""


def load(folder: Path, *, data_dir: Path | None = None, repaired: bool = False) -> Run:
    """Reads a run back: its data set is built anew from the recorded configuration.

    Args:
      folder: of a run that `train` wrote.
      data_dir: where the data set's files are now, if they have moved.
      repaired: take a run that `debias` wrote as well.

    Raises:
      ContractError: no run there, one that was not trained, or files that are missing.
    """
    folder = Path(folder)
    check_trained(folder)
    record = read_run(folder)
    made = record.config is not None and "data" in record.config
    expect(made and (repaired or record.edit is None), "run", "a trained run, not a repaired one", folder)
    for key in _CONFIG:
        got = ", ".join(record.config)
        expect(key in record.config, f"{folder / 'results.json'}: config.{key}", "a value", f"only {got}")
    config = convert(record.config, TrainConfig, f"{folder / 'results.json'}: config")
    check_choice("config.data", config.data, registry.DATASETS)
    check_choice("config.method", config.method, METHODS)
    expect(config.model is not None, f"{folder / 'results.json'}: config.model", "a name", "null")
    dataset = registry.load(config.data, data_dir=data_dir or config.data_dir, seed=config.seed, **config.options)
    check_names(f"{folder}: label_names", list(record.label_names), dataset.label_names)
    # Of data without a known attribute any more, no value can be taken for another one.
    if any((np.asarray(batch.attribute) >= 0).any() for batch in dataset.splits.values()):
        check_names(f"{folder}: attribute_names", list(record.attribute_names), dataset.attribute_names)
    options = model_options(TrainConfig(data=config.data, model=config.model))
    trained = build_training(config.method, config.model, dataset, options)
    like = jax.eval_shape(trained.classifier.init, jax.random.key(0), dataset.splits["train"].x[:1])
    params = load_params(folder / "params.npz", like)
    return Run(record, config, dataset, trained.classifier, params, trained.vae)


def check_trained(folder: Path) -> None:
    """Refuses a folder without a complete run."""
    complete = all((Path(folder) / name).is_file() for name in ("results.json", "params.npz"))
    expect(complete, "run", "the folder of a finished `jaxdebias train`", folder)


@contextmanager
def watching(watch: Watch | None, epochs: int, label: str) -> Iterator[Callable[[Any], None]]:
    """The observer of one stage, given records of the loop or plain dicts; silent without a watch."""
    start = time.perf_counter()
    with watch(epochs, label) if watch is not None else nullcontext(lambda record: None) as observe:

        def observe_record(record: Any) -> None:
            record = record._asdict() if hasattr(record, "_asdict") else record
            observe({**record, "seconds": time.perf_counter() - start})

        yield observe_record
