"""A run to be killed: `python interrupted_run.py FOLDER` trains, saves into the folder and writes the final bits."""

import pathlib
import sys

import jax
import numpy as np
from train.tiny import BARE, table

from jaxdebias.mitigate import erm
from jaxdebias.train import EarlyStop, FitConfig, Optimizer, Plateau, fit

EPOCHS = 60
CONFIG = FitConfig(
    epochs=EPOCHS, batch_size=16, plateau=Plateau(patience=5), early_stop=EarlyStop(patience=EPOCHS), keep="best"
)


def train(folder: pathlib.Path | None):
    arguments = {} if folder is None else {"checkpoint": folder / "run", "log": folder / "log.jsonl"}
    learner = erm(BARE, optimizer=Optimizer(learning_rate=0.01))
    return fit(jax.random.key(7), learner, table(100), CONFIG, held_out=table(50, seed=1), **arguments)


def bits(result) -> dict[str, np.ndarray]:
    """The final state, and the history without its times."""
    leaves = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(result.state))}
    history = [(r.epoch, r.loss, r.info["accuracy"], r.held_out, r.improved, r.lr_scale) for r in result.history]
    return leaves | {"history": np.array(history, np.float64)}


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1])
    np.savez(out / "final.npz", **bits(train(out)))
