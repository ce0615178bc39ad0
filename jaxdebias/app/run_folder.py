"""The folder of a run: claimed before anything is written, watched while it is made, read back afterwards."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxdebias.app.recipes import TrainConfig, model_options
from jaxdebias.app.training import build_training
from jaxdebias.contracts import check_choice, describe, expect
from jaxdebias.core import Classifier, Dataset, Params
from jaxdebias.data import _registry as registry
from jaxdebias.mitigate._methods import METHODS
from jaxdebias.models._vae_classifier import VaeClassifier
from jaxdebias.results.records import read_results
from jaxdebias.train._checkpoint import load_params

Watch = Callable[[int, str], AbstractContextManager[Callable[[Mapping[str, Any]], None]]]
"""(epochs, label) -> a context that gives the training loop's observer, for instance `report.progress_bar`."""
FILES = ("results.json", "report.html", "params.npz", "log.jsonl", "patches.npz", "draws.npz")


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
    expect(
        (folder / "results.json").is_file() and (folder / "params.npz").is_file(),
        "run",
        "the folder of a finished `jaxdebias train`",
        folder,
    )
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
    options = model_options(TrainConfig(data=config["data"], model=config["model"]))
    trained = build_training(config["method"], config["model"], dataset, options)
    like = jax.eval_shape(trained.classifier.init, jax.random.key(0), dataset.splits["train"].x[:1])
    return Run(results, dataset, trained.classifier, load_params(folder / "params.npz", like), trained.vae)


def claim(out: Path, command: str, *, overwrite: bool) -> None:
    """Refuses to write over results, and clears what another run left when told to."""
    done = out / "results.json"
    expect(overwrite or not done.exists(), "out", f"a folder without results (or --overwrite to {command} anew)", out)
    expect(not out.exists() or out.is_dir(), "out", "a folder", f"{out}, which is a file")
    if overwrite:
        for name in FILES:
            (out / name).unlink(missing_ok=True)
        shutil.rmtree(out / "checkpoints", ignore_errors=True)


@contextmanager
def watching(watch: Watch | None, epochs: int, label: str) -> Iterator[Callable[[Any], None]]:
    """The observer of one stage, given records of the loop or plain dicts; silent without a watch."""
    start = time.perf_counter()
    with watch(epochs, label) if watch is not None else nullcontext(lambda record: None) as observe:

        def observe_record(record: Any) -> None:
            record = record._asdict() if hasattr(record, "_asdict") else record
            observe({**record, "seconds": time.perf_counter() - start})

        yield observe_record
