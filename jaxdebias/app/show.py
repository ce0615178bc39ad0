"""`jaxdebias show RUN`: what a command has measured; with `--maps`, `--patches` where the model looks, where the data
show the bias, which is then added to the results and to the page.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
from tyro.conf import Positional, arg

from jaxdebias import auditing
from jaxdebias.app.compare import markdown
from jaxdebias.app.ending import print_ending
from jaxdebias.app.option_types import Folder
from jaxdebias.app.run_folder import check_trained, load
from jaxdebias.auditing import class_maps, patch_places
from jaxdebias.contracts import expect
from jaxdebias.files import locked, read_arrays, write_arrays
from jaxdebias.report._page import write_page
from jaxdebias.report.pictures import pictures, with_draws
from jaxdebias.results import build
from jaxdebias.results.codec import read_results, write_results
from jaxdebias.results.provenance import Clock
from jaxdebias.results.records import CompareResults, FeatureResults, LanguageResults, Results, RunResults, TableResults


@dataclass(frozen=True, kw_only=True)
class Show:
    """Show what a command has measured; with --maps or --patches look further, and add that to its page.

    Both go into results.json and report.html of RUN, which a train or debias command wrote.
    """

    run: Annotated[Path, Positional, arg(metavar="RUN")]
    """Folder that any command wrote, or a table of `reproduce`."""
    maps: bool = False
    """Where the model looks: class maps (Grad-CAM) of every test picture. Needs a model that keeps places, as
    `train --model cnn` or `pooled-cnn` makes one."""
    patches: bool = False
    """Where the data show the bias: two small networks on patches, mapped on held-out pictures; about a minute. The
    maps at full size go to RUN/patches.npz."""
    data_dir: Folder = None
    """Folder with the data set's files, if it has moved since the training."""

    def execute(self) -> int:
        print_results(show(self.run, maps=self.maps, patches=self.patches, data_dir=self.data_dir))
        if self.maps or self.patches:
            print_ending("show", self.run, next_steps=(f"open {self.run / 'report.html'}",))
        return 0


def print_results(record: Results) -> None:
    """Prints the results of any command as that command does."""
    from jaxdebias.report import _tables, answers, language_markdown

    match record:
        case FeatureResults():
            _tables.print_repair(record)
        case LanguageResults():
            print(language_markdown.markdown(record))
        case CompareResults():
            print(markdown(record))
        case TableResults():
            from jaxdebias.reproduce.view import print_reproduced  # it knows every experiment, which takes a while

            print_reproduced(record)
        case RunResults(answers=None):
            _tables.print_summary(record)
        case _:
            print(answers.text(record))


def show(folder: Path, *, maps: bool = False, patches: bool = False, data_dir: Path | None = None) -> Results:
    """What a folder holds; of a run, with `maps` or `patches`, also what these say, added to its results and its page.

    Args:
      folder: of a result; with `maps` or `patches` of a run that `train` or `debias` wrote. A repaired run also needs
        the run that it was made from.
      maps: where its model looks: class maps on the test split, by group and beside the regions of the data's masks
        (`class_maps`). Made anew with `patches`, if the run has them. Of a repaired run: after the repair.
      patches: where the data show the attribute (`patch_places`); the maps at full size go to patches.npz.
      data_dir: where the data set's files are now, if they have moved.

    Raises:
      ContractError: no run there; one that was not trained, a table, images too small for patches, or, with `maps`, a
        model without maps.
    """
    folder = Path(folder)
    if not (maps or patches):
        return read_results(folder)
    check_trained(folder)
    with locked(folder):
        return _look_further(folder, maps, patches, data_dir)


def _look_further(folder: Path, maps: bool, patches: bool, data_dir: Path | None) -> Results:
    """Adds maps and patches to the results and the page of a run."""
    clock = Clock()
    record, _, dataset, classifier, params, _ = load(folder, data_dir=data_dir, repaired=True)
    if not patches and record.patches is not None and (folder / "patches.npz").is_file():
        read_arrays("patches", folder / "patches.npz")  # refused before anything is measured
    original = params
    if record.edit is not None:
        trained = Path(record.trained or "")
        expect(
            (trained / "params.npz").is_file(),
            "run",
            "the trained run that it was repaired from, in the same place as then",
            trained,
        )
        original = load(trained, data_dir=data_dir).params
    maps = maps or record.maps is not None  # their pictures are only on the page
    if maps:
        expect(dataset.splits["test"].x.ndim == 4, "maps", "a run on images", f"{dataset.name}, a table")
        expect(
            classifier.spatial is not None,
            "maps",
            "a model whose last layers keep places (train with --model cnn or pooled-cnn)",
            record.model,
        )
    if patches:
        patch_places.check_pictures(dataset)
    clock.lap("data")
    count = len(dataset.splits["train"].label)
    for sample in (*record.harmful, *record.helpful):
        expect(0 <= sample.index < count, f"{folder / 'results.json'}: harmful", f"rows 0..{count - 1}", sample.index)
    # As in `train`: the same keys, so that the pictures of the page are the same.
    _, _, key_measure = jax.random.split(jax.random.key(record.provenance.seed), 3)
    before = auditing.measure(key_measure, classifier.apply, original, dataset)
    after = None if record.edit is None else auditing.measure(key_measure, classifier.apply, params, dataset)
    shown = pictures(dataset, record.harmful, before, after, helpful=record.helpful)
    kept = folder / "patches.npz"
    laps = dict(record.provenance.seconds_by_step)
    if maps:
        seen = class_maps.audit_maps(jax.random.fold_in(key_measure, 1), classifier.spatial, params, dataset)
        shown = shown._replace(maps=dataset.splits["test"].x[seen.examples], maps_shown=seen.example_maps)
        clock.lap("maps")
        laps["maps"] = sum(clock.laps.values())
        record = dataclasses.replace(record, maps=build.maps(seen, dataset))
    if patches:
        places = patch_places.audit_patches(jax.random.fold_in(key_measure, 2), dataset)
        write_arrays(
            kept,
            {
                "attribute": places.attribute.map,
                "label": places.label.map,
                "example_attribute": places.attribute_maps,
                "example_label": places.label_maps,
            },
            compressed=True,
        )
        clock.lap("patches")
        laps["patches"] = clock.laps["patches"] if maps else sum(clock.laps.values())
        record = dataclasses.replace(record, patches=build.patches(places, dataset))
    if record.patches is not None and kept.is_file():
        arrays = read_arrays("patches", kept)
        wanted = {"example_attribute", "example_label"}
        expect(wanted <= set(arrays), str(kept), f"arrays {' and '.join(sorted(wanted))}", ", ".join(arrays) or "none")
        shown = shown._replace(
            patch=dataset.splits[record.patches.split].x[np.array([one.row for one in record.patches.examples], int)],
            patch_attribute=arrays["example_attribute"],
            patch_label=arrays["example_label"],
        )
    shown = with_draws(shown, record, dataset, folder / "draws.npz")
    timed = dataclasses.replace(record.provenance, seconds=sum(laps.values()), seconds_by_step=laps)
    record = dataclasses.replace(record, provenance=timed)
    write_page(record, shown, folder / "report.html")
    write_results(folder / "results.json", record)
    return record
