"""What is said about a training that chose among candidates."""

import numpy as np

from jaxdebias.explain import Cells
from jaxdebias.mitigate import AugCellInfo
from jaxdebias.mitigate._aug_cell.comparison import CandidateScore
from jaxdebias.report.wording import aug_cell


def test_what_aug_cell_guessed_and_chose():
    cells = Cells(np.zeros(100), np.zeros((100, 2)), np.zeros((1, 100)), np.array([[45, 5], [5, 45]]))
    scores = {
        "erm": CandidateScore(0.99, 0.6, 0.03, 0.0, 0.0, False),
        "aug-cell": CandidateScore(0.97, 0.9, 0.02, 0.3, 0.04, False),
    }
    info = AugCellInfo("aug-cell", scores, cells, 0.9, np.arange(10), np.zeros(100, bool), 0, {}, (0.95, 0.99), False)
    first, chosen = aug_cell(info, "digits")
    assert first == (
        "AUG-CELL read no attribute: 10.0 % of the training digits look like another class to judges that "
        "have not seen them."
    )
    assert "the candidate 'aug-cell'" in chosen
    assert "90.0 % right and plain training 60.0 %: 30.0 points more, standard error 4.0 points." in chosen
    first, plain = aug_cell(info._replace(chosen="erm"), "digits")
    assert plain == "No candidate is clearly better than plain training, which is returned."
