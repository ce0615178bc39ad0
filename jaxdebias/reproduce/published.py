"""Results that papers have published, for a table to stand beside: one registry, with source, variant and protocol.

What is marked `verified` was read in the source named. Anything else is shown as unverified wherever it is shown, and
nothing is concluded from it. Of a paper that has no entry here no number is quoted anywhere.
"""

from collections.abc import Mapping
from typing import NamedTuple

FORMER_NAMES = {"colored-mnist": "sih-colored-mnist", "corrupted-cifar10": "sih-corrupted-cifar10"}
"""Names of tables before each paper had its own; they are read for one more version."""


def current_name(name: str) -> str:
    """The name that a table has today.

    >>> current_name("colored-mnist")
    'sih-colored-mnist'
    """
    return FORMER_NAMES.get(name, name)


class Published(NamedTuple):
    """One method at one setting."""

    method: str
    """By the name that this library uses."""
    level: float | str
    """Share of conflicting training samples, or the name of a setting."""
    runs: tuple[float, ...]
    """Of each run; a mean where runs were not published. Test accuracy in per cent unless `quantity` says otherwise."""
    quantity: str = "accuracy"
    """Key of our rows that it stands beside."""
    percent: bool = True
    """Whether it is in per cent."""


class PublishedTable(NamedTuple):
    """What was published about one data set."""

    name: str
    """Of the experiment."""
    source: str
    variant: str
    """Which of the data sets of that name."""
    protocol: str
    """Splits, how the checkpoint was selected, what the numbers are."""
    verified: bool
    """Whether the rows were read in the source."""
    rows: tuple[Published, ...]

    def find(self, method: str, level: float | str) -> Published | None:
        """The row of a method and a level; None where there is none.

        `disent-official` finds that of `disent`: it is the method as the published code has it.
        """
        return next(
            (row for row in self.rows if row.method == method.removesuffix("-official") and _same(row.level, level)),
            None,
        )

    @property
    def said(self) -> str:
        """One sentence under a table that shows these rows: where they come from, or that they could not be checked."""
        if not self.rows:
            return ""
        return f"Published: {self.source}." if self.verified else f"Published, unverified: {self.source}."


def _same(a: float | str, b: float | str) -> bool:
    return a == b if isinstance(a, str) or isinstance(b, str) else abs(a - b) < 1e-9


def published(name: str) -> PublishedTable | None:
    """What was published of an experiment, by its name or a former one; None where nothing is known."""
    return TABLES.get(current_name(name))


def _rows(of_methods: dict[str, dict[float, str]]) -> tuple[Published, ...]:
    return tuple(
        Published(method, share, tuple(float(value) for value in runs.split()))
        for method, of_shares in of_methods.items()
        for share, runs in of_shares.items()
    )


_LOGS = "raw logs in the code of Vandenhirtz et al. 2023 (Signal is Harder); the baselines are theirs too"

COLORED_MNIST = _rows(
    {
        "erm": {
            0.005: "45.22 43.47 44.29 42.51 42.96 44.40 43.26 42.98 44.23 43.71",
            0.01: "59.92 59.07 59.55 58.94 58.80 60.02 59.51 59.36 59.53 59.36",
            0.02: "73.90 72.87 73.31 73.34 72.87 73.77 73.80 72.22 72.92 73.84",
            0.05: "85.73 84.67 85.24 84.92 85.20 86.18 86.08 85.64 85.86 85.27",
            0.1: "91.23 91.41 90.92 91.31 90.97 91.25 91.70 91.40 91.37 90.87",
            0.2: "94.71 94.89 95.42 94.81 94.80 95.14 95.12 94.87 94.77 94.64",
        },
        "lff": {
            0.005: "59.64 57.94 62.16 62.65 65.28 58.81 60.11 62.38 59.33 55.91",
            0.01: "71.67 63.50 65.40 58.91 75.51 71.34 69.55 73.95 69.08 70.14",
            0.02: "76.41 74.60 74.62 73.25 81.30 79.11 77.71 79.19 75.86 77.69",
            0.05: "82.04 82.35 82.64 78.46 84.84 83.93 81.23 82.61 78.49 75.18",
            0.1: "81.35 87.93 85.84 75.10 88.33 83.58 83.90 79.50 80.92 73.40",
            0.2: "72.72 70.49 72.72 62.73 74.72 69.98 73.98 73.21 64.22 67.01",
        },
        "disent": {
            0.005: "63.76 67.80 64.11 65.33 60.54 61.90 67.66 69.84 65.94 52.96",
            0.01: "77.53 73.81 79.08 80.20 78.46 73.17 77.33 80.20 70.85 72.64",
            0.02: "84.48 82.81 83.70 80.45 80.98 82.32 84.58 83.55 80.47 80.54",
            0.05: "86.47 89.09 86.64 82.72 84.54 81.36 89.17 85.84 85.13 84.46",
            0.1: "89.74 90.29 90.53 89.61 87.03 88.68 90.58 86.31 89.12 89.27",
            0.2: "92.70 90.95 91.31 91.92 90.65 87.21 91.73 91.40 90.54 90.96",
        },
        "sih": {
            0.005: "70.68 68.55 70.09 67.92 71.13 72.95 73.50 76.19 71.93 73.31",
            0.01: "76.69 81.09 78.38 80.26 80.50 81.73 79.54 84.12 78.66 79.34",
            0.02: "82.25 85.62 81.61 84.29 82.64 83.86 84.18 85.14 83.83 84.57",
            0.05: "84.61 88.86 86.06 85.31 86.08 86.00 86.66 87.34 87.96 82.51",
            0.1: "85.29 85.76 84.05 86.50 85.84 83.77 86.80 87.06 84.06 84.36",
            0.2: "83.86 85.55 82.69 83.05 86.50 86.52 86.71 86.47 84.36 86.66",
        },
    }
)

CORRUPTED_CIFAR10 = _rows(
    {
        "erm": {
            0.005: "21.59 23.85 23.73 22.53 22.60 22.95 21.28 21.82 21.14 21.10",
            0.01: "29.19 27.45 28.52 29.26 28.19 27.53 28.32 28.36 26.99 28.36",
            0.02: "35.05 34.66 36.26 36.04 35.25 34.81 34.51 34.76 33.72 33.93",
            0.05: "48.15 45.70 46.13 47.54 47.90 46.22 46.77 46.68 46.96 46.85",
            0.1: "58.12 56.59 57.21 57.98 56.39 56.52 57.83 56.17 56.48 57.78",
            0.2: "66.96 67.37 67.83 67.00 68.15 67.60 67.27 67.91 67.93 67.69",
        },
        "lff": {
            0.005: "30.70 28.04 31.80 29.33 30.32 28.92 30.10 27.35 31.03 32.77",
            0.01: "37.95 38.91 40.97 37.79 37.85 38.99 38.51 39.82 44.84 38.25",
            0.02: "46.06 46.09 45.79 47.82 46.51 48.30 46.33 46.40 50.69 48.57",
            0.05: "55.68 58.85 57.81 54.59 51.55 53.91 55.77 54.93 59.22 55.42",
            0.1: "59.23 59.02 56.50 61.44 52.36 60.85 61.73 58.93 63.83 58.98",
            0.2: "66.56 67.55 65.46 63.76 61.64 63.92 64.16 66.73 60.78 64.40",
        },
        "disent": {
            0.005: "28.75 33.64 36.55 28.09 33.44 34.42 30.57 35.47 26.61 32.13",
            0.01: "29.82 32.72 31.77 36.58 29.93 30.10 27.17 34.26 29.79 30.01",
            0.02: "35.66 35.66 37.17 45.73 43.08 35.70 34.79 31.55 38.21 32.29",
            0.05: "40.09 45.43 53.36 45.20 40.13 43.19 47.84 54.65 53.83 40.25",
            0.1: "48.67 53.26 57.52 57.78 56.31 43.69 51.37 55.53 55.11 55.42",
            0.2: "53.92 65.04 54.64 68.35 54.27 63.49 55.71 67.59 61.03 65.81",
        },
        "sih": {
            0.005: "24.46 30.88 27.36 27.22 30.08 27.76 27.03 27.73 25.44 25.07",
            0.01: "32.96 36.08 34.44 33.98 36.84 35.33 34.52 35.53 35.57 36.45",
            0.02: "43.75 45.96 46.61 43.04 44.98 41.62 42.88 44.19 41.03 42.55",
            0.05: "55.94 56.58 56.11 56.17 55.94 51.69 57.19 54.72 55.36 56.56",
            0.1: "62.21 61.36 63.82 62.49 61.67 56.11 61.46 60.31 60.74 62.45",
            0.2: "66.88 66.72 67.74 67.44 68.03 66.71 67.13 66.71 63.18 66.94",
        },
    }
)

FMD_COLORED_MNIST = (
    Published("erm", 0.005, (38.59,)),
    Published("lff", 0.005, (56.45,)),
    Published("fmd ext", 0.005, (71.70,)),
    Published("erm", 0.01, (51.34,)),
    Published("lff", 0.01, (64.71,)),
    Published("fmd ext", 0.01, (80.04,)),
)

TABLES: Mapping[str, PublishedTable] = {
    "sih-colored-mnist": PublishedTable(
        "sih-colored-mnist",
        _LOGS,
        "colours with severity 4",
        "plain accuracy in per cent on 10,000 test images of which 90 % conflict; 10 runs. "
        "erm: 100 epochs on all 60,000 images, last weights. sih: 54,000 images, early stopping on the "
        "biased 6,000. lff, disent: partly configured by code that is not public; whether disent is the "
        "last or the best test accuracy is not known.",
        verified=True,
        rows=COLORED_MNIST,
    ),
    "sih-corrupted-cifar10": PublishedTable(
        "sih-corrupted-cifar10",
        _LOGS,
        "corruptions of type 0, severity 4",
        "plain accuracy in per cent on 10,000 test images of which 90 % conflict; 10 runs; otherwise as for Colored "
        "MNIST, with 200 epochs of erm.",
        verified=True,
        rows=CORRUPTED_CIFAR10,
    ),
    "fmd-colored-mnist": PublishedTable(
        "fmd-colored-mnist",
        "Chen et al. 2023 (Fast Model Debias), as remembered: the text of the tables could not be read",
        "bias-aligned shares 0.995 and 0.99",
        "plain accuracy in per cent, one number per method, without seeds or deviation",
        verified=False,
        rows=FMD_COLORED_MNIST,
    ),
}
