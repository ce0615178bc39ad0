"""Tables, figures and one HTML page of a record: the only place that rounds, formats or draws."""

from jaxdebias.report._markdown import model_card
from jaxdebias.report._page import write_page
from jaxdebias.report._tables import markdown_table, print_summary
from jaxdebias.report.pictures import Pictures

__all__ = [
    "Pictures",
    "markdown_table",
    "model_card",
    "print_summary",
    "write_page",
]
