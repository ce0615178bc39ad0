"""`jaxdebias reproduce TABLE`: a paper's table by the published protocol, beside the published rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from jaxdebias.app import progress
from jaxdebias.app.option_types import Folder
from jaxdebias.contracts import check_choice
from jaxdebias.data import _registry as registry
from jaxdebias.files import locked


@dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Reproduce a paper's table by the published protocol, beside the published rows.

    Every row is written to OUT as soon as it is measured; stopped early, the same command resumes.
    """

    table: Annotated[str, Positional, arg(metavar="TABLE")]
    """colored-mnist, or corrupted-cifar10, whose ResNets want an accelerator."""
    out: Path
    """JSON file of the rows; made if missing, and added to if not."""
    data_dir: Folder = None
    """Folder with the data set's files; without it the environment variable JAXDEBIAS_DATA."""
    seeds: int = 1
    """Seeds 0 to SEEDS - 1; the papers use 10."""
    methods: tuple[str, ...] = ("erm", "sih", "aug-cell")
    """Of erm, sih, sih-fixed, aug-cell, lff, disent, group-balanced; on digits also gce, aug-cell-cnn,
    disent-official, jtt and group-dro. A name with @plain, @worst-class or @worst-group (an oracle) chooses the
    epoch on held-out rows, not by the protocol."""
    ratios: tuple[float, ...] = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
    """Shares of conflicting training samples."""

    def execute(self) -> int:
        from jaxdebias import reproduce
        from jaxdebias.reproduce.view import print_reproduced

        check_choice("table", self.table, reproduce.DATA)
        config = reproduce.TableConfig(
            data=self.table,
            data_dir=registry.files_of(self.table, self.data_dir),
            seeds=self.seeds,
            methods=self.methods,
            ratios=self.ratios,
        )
        with locked(self.out):
            table = reproduce.reproduce_table(config, self.out, observe=progress.print_line)
        print_reproduced(table)
        print(f"Wrote to {self.out}: all rows and their summary.")
        print("Next:\n  the same command with more --seeds, --methods or --ratios adds their rows")
        return 0
