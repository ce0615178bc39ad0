"""`jaxdebias data list` and `jaxdebias data prepare`: the data sets by name, and their files for other pipelines."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from jaxdebias.app.option_types import Float, Folder, Int
from jaxdebias.data import _registry as registry


@dataclass(frozen=True, kw_only=True)
class List:
    """List the data sets by name, what each needs, and whether its files are there."""

    data_dir: Folder = None
    """Folder to look into; without it the environment variable JAXDEBIAS_DATA."""

    def execute(self) -> int:
        from jaxdebias.report._tables import print_rows

        columns = {"name": "name", "kind": "kind", "what it is": "summary", "needs": "needs", "ready": "found"}
        print_rows(registry.describe(self.data_dir), columns)
        print("Next:\n  jaxdebias train --data NAME --out RUN   with --data-dir where it needs files")
        return 0


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """Turn the files of a data set into TFDS records (array_record) that any JAX input pipeline reads."""

    name: Annotated[str, Positional, arg(metavar="NAME")]
    """Name of the data set."""
    data_dir: Path
    """Folder with the original files."""
    out: Folder = None
    """Folder for the records; by default DATA_DIR/tfds."""
    conflicting: Float = None
    """Share of bias-conflicting training samples, where it can be chosen."""
    image_size: Int = None
    """Height and width to which the pictures of a folder are resized."""
    seed: Int = None
    """Seed of the data, where it can be chosen."""

    def execute(self) -> int:
        options = {name: getattr(self, name) for name in ("conflicting", "image_size", "seed")}
        options = {name: value for name, value in options.items() if value is not None}
        print(registry.prepare(self.name, self.data_dir, self.out or self.data_dir / "tfds", **options))
        print(f"Next:\n  jaxdebias train --data {self.name} --data-dir {self.data_dir} --out RUN")
        return 0
