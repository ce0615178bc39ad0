"""Runs: read back from their folders, watched while they are made."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxdebias.app.recipes import TrainConfig, model_options
from jaxdebias.app.result_set import ResultSet
from jaxdebias.app.training import build_training
from jaxdebias.contracts import ContractError, check_choice, describe, expect
from jaxdebias.core import Classifier, Dataset, Params
from jaxdebias.data import _registry as registry
from jaxdebias.data._values import check_names
from jaxdebias.files import one_line
from jaxdebias.mitigate._methods import METHODS
from jaxdebias.models._vae_classifier import VaeClassifier
from jaxdebias.results.provenance import device_name, versions
from jaxdebias.results.records import read_results
from jaxdebias.train._checkpoint import fingerprint, load_params

Watch = Callable[[int, str], AbstractContextManager[Callable[[Mapping[str, Any]], None]]]
"""(epochs, label) -> a context that gives the training loop's observer, for instance `report.progress_bar`."""
RUNS = ("train", "debias", "audit", "audit-predictions")
"""Commands whose results are those of a classifier on a data set."""
SCHEMA = 1
"""Version of the layout of results.json."""
_CONFIG = (
    ("data", str, "a name"),
    ("data_dir", (str, type(None)), "a folder or null"),
    ("seed", int, "a number"),
    ("options", Mapping, "a dict"),
    ("method", str, "a name"),
    ("model", str, "a name"),
)
"""What a run is read back from."""


class Run(NamedTuple):
    """A trained run, read back."""

    results: dict[str, Any]
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
    results = read_results(folder)
    config = results.get("config")
    expect(
        isinstance(config, Mapping) and "data" in config and (repaired or results.get("edit") is None),
        "run",
        "a trained run, not a repaired one",
        folder,
    )
    for name, kind, said in _CONFIG:
        good = isinstance(config.get(name), kind)
        expect(good, f"{folder / 'results.json'}: config.{name}", said, describe(config.get(name)))
    check_choice("config.data", config["data"], registry.DATASETS)
    check_choice("config.method", config["method"], METHODS)
    dataset = registry.load(
        config["data"], data_dir=data_dir or config["data_dir"], seed=config["seed"], **config["options"]
    )
    for name in ("label_names", "attribute_names"):
        check_names(f"{folder}: {name}", results[name], getattr(dataset, name))
    options = model_options(TrainConfig(data=config["data"], model=config["model"]))
    trained = build_training(config["method"], config["model"], dataset, options)
    like = jax.eval_shape(trained.classifier.init, jax.random.key(0), dataset.splits["train"].x[:1])
    return Run(results, dataset, trained.classifier, load_params(folder / "params.npz", like), trained.vae)


def check_trained(folder: Path) -> None:
    """Refuses a folder without a complete run."""
    complete = all((Path(folder) / name).is_file() for name in ("results.json", "params.npz"))
    expect(complete, "run", "the folder of a finished `jaxdebias train`", folder)


def envelope(run: ResultSet, laps: Mapping[str, float], seed: int, data: str | None) -> dict[str, Any]:
    """Command and provenance: what every results.json begins with.

    Args:
      run: the claimed folder, with the arguments of the command.
      laps: wall time of each step, in seconds.
      seed: of all random draws.
      data: fingerprint of the data; None where none were read.
    """
    return {
        "schema": SCHEMA,
        "command": run.command,
        "provenance": {
            "versions": versions(),
            "device": device_name(),
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": sum(laps.values()),
            "seconds_by_step": dict(laps),
            "seed": seed,
            "arguments": run.arguments,
            "data": data,
        },
    }


def data_fingerprint(dataset: Dataset) -> str:
    """Shapes and checksum of the inputs of all splits."""
    return fingerprint({name: batch.x for name, batch in dataset.splits.items()})


def read_set(folder: Path) -> dict[str, Any]:
    """The results of any command, from its folder or file.

    Raises:
      ContractError: none there, or not as the command writes them.
    """
    path = Path(folder) / "results.json" if Path(folder).is_dir() else Path(folder)
    expect(path.is_file(), str(path), "a results.json that a command has written", "no such file")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ContractError(f"`{path}`: expected JSON, got {one_line(error)}") from None
    expect(isinstance(results, dict), str(path), "a JSON object", describe(results))
    return read_results(path) if results.get("command", "train") in RUNS else results


@contextmanager
def watching(watch: Watch | None, epochs: int, label: str) -> Iterator[Callable[[Any], None]]:
    """The observer of one stage, given records of the loop or plain dicts; silent without a watch."""
    start = time.perf_counter()
    with watch(epochs, label) if watch is not None else nullcontext(lambda record: None) as observe:

        def observe_record(record: Any) -> None:
            record = record._asdict() if hasattr(record, "_asdict") else record
            observe({**record, "seconds": time.perf_counter() - start})

        yield observe_record
