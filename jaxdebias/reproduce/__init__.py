"""The papers' tables: methods x ratios x seeds by the published protocol, beside the published rows."""

from jaxdebias.reproduce._cases import DATA, Case, Cases, Pictures
from jaxdebias.reproduce._colored_mnist import aug_cell_said
from jaxdebias.reproduce._fitting import Fitted, Method, accuracies
from jaxdebias.reproduce._methods import METHODS
from jaxdebias.reproduce._table import RATIOS, TableConfig, compare, paired, reproduce_table, summary

__all__ = [
    "DATA",
    "METHODS",
    "RATIOS",
    "Case",
    "Cases",
    "Fitted",
    "Method",
    "Pictures",
    "TableConfig",
    "accuracies",
    "aug_cell_said",
    "compare",
    "paired",
    "reproduce_table",
    "summary",
]
