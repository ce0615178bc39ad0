"""The papers' tables and figures, each one command: methods x levels x seeds, beside what was published."""

from jaxdebias.reproduce._experiment import Cell, Experiment, Margin, Rate
from jaxdebias.reproduce._registry import EXPERIMENTS, Listed, list_experiments
from jaxdebias.reproduce._summary import compare, counts, paired, summary
from jaxdebias.reproduce._table import TableConfig, reproduce_table, results_path

__all__ = [
    "EXPERIMENTS",
    "Cell",
    "Experiment",
    "Listed",
    "Margin",
    "Rate",
    "TableConfig",
    "compare",
    "counts",
    "list_experiments",
    "paired",
    "reproduce_table",
    "results_path",
    "summary",
]
