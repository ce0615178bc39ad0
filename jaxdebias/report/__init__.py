"""Tables, figures, one HTML page, JSON: the only place that rounds, formats or draws."""

from jaxdebias.report.markdown import model_card
from jaxdebias.report.page import Pictures, write_page
from jaxdebias.report.progress import progress_bar
from jaxdebias.report.results import check_results, read_results, write_results
from jaxdebias.report.tables import markdown_table, print_summary

__all__ = [
    "Pictures",
    "check_results",
    "markdown_table",
    "model_card",
    "print_summary",
    "progress_bar",
    "read_results",
    "write_page",
    "write_results",
]
