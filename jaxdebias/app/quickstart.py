"""`jaxdebias quickstart`: train on the embedded digits, measure, repair, compare, report."""

from dataclasses import dataclass
from pathlib import Path

from jaxdebias.app import progress
from jaxdebias.app.debias import DebiasConfig, debias
from jaxdebias.app.ending import print_ending
from jaxdebias.app.recipes import TrainConfig
from jaxdebias.app.result_set import is_complete
from jaxdebias.app.run_folder import Watch
from jaxdebias.app.train import train
from jaxdebias.results.records import RunResults


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """Real handwritten digits whose colour is associated with the class: train, measure, repair, compare, report.

    Needs no download. Writes the trained run to OUT/trained, the repaired one with all comparisons to OUT.
    """

    out: Path = Path("jaxdebias-quickstart")
    """Folder of both; made if missing. Stopped early, the same command resumes."""
    conflicting: float = 0.02
    """Share of training digits with a colour of another class, above 0 and below 0.9."""
    seed: int = 0
    """Seed of the data, the model and the training."""
    overwrite: bool = False
    """Replace results in OUT, once the new ones are complete."""

    def execute(self) -> int:
        from jaxdebias.report._tables import print_summary

        done_before = is_complete(self.out) and not self.overwrite
        print_summary(
            quickstart(
                self.out,
                conflicting=self.conflicting,
                seed=self.seed,
                overwrite=self.overwrite,
                watch=progress.progress_bar,
            )
        )
        next_steps = (
            f"open {self.out / 'report.html'}",
            "jaxdebias train --data folder --data-dir DIR --out RUN   the same for your own pictures",
        )
        print_ending("quickstart", self.out, done_before=done_before, next_steps=next_steps)
        return 0


def quickstart(
    out: Path, *, conflicting: float = 0.02, seed: int = 0, overwrite: bool = False, watch: Watch | None = None
) -> RunResults:
    """`train` on the embedded digits into OUT/trained, then `debias` into OUT, with every comparison."""
    out = Path(out)
    config = TrainConfig(data="digits", options={"conflicting": conflicting}, seed=seed)
    train(config, out / "trained", overwrite=overwrite, watch=watch)
    return debias(out / "trained", DebiasConfig(seed=seed), out, overwrite=overwrite, watch=watch)
