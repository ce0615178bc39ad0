"""Time and memory of a full audit, step by step: `python benchmarks/speed/audit.py --data-dir DIR`.

A ResNet-18 on faces of 96 x 96: all 4,838 pictures of UTKFace that DIR has, 3,000 to train on, 600 each for edit and
accept, the rest to test. The attribute is a marker planted in a corner, at 5 % conflicting (`plant` of
`utkface_planted`), so that there is a shortcut and every step has work: predictions, six candidates, measures,
influence of samples, maps,
patches, advice, verification. The trunk's weights are random, and only the head is trained, for a minute at most: time
depends on shapes, not on how good the network is. That is said because numbers about its bias would mean nothing.

The audit runs twice in one process: the first call compiles, the second does not. Peak memory is the process's, with
the data set in it. What is computed twice is counted afterwards, on the same pictures with a tiny network that reports
the rows it is shown: rows that go through the trunk, against distinct rows. (Even chunks may add some padding.)
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from side_by_side import write

import jaxdebias
from jaxdebias import models
from jaxdebias.batching import map_rows
from jaxdebias.core import Array, Batch, Classifier, Dataset, Params, Split
from jaxdebias.data._aligned import biased_attribute
from jaxdebias.data._sets.utkface import GENDERS, RACES, read_faces, read_images, utkface_folder
from jaxdebias.data._sets.utkface_planted import MARKS, plant
from jaxdebias.data.streams import named_rng
from jaxdebias.explain.influence import find_head, head_problem, refit

PATH = Path(__file__).parents[1] / "results" / "audit_cost.json"
SIZE = 96
SIZES = {"train": 3000, "edit": 600, "accept": 600, "test": 638}
CONFLICTING = 0.05
HEAD_ROWS = 1000
AT_MOST = {"rows through the trunk / distinct rows": 1.01}
"""Set before this was first run. The hundredth is room for padding."""


def faces(data_dir: Path, size: int, share: float = 1.0) -> tuple[Dataset, dict[str, dict[str, np.ndarray]]]:
    """The data set, whose own attribute is unknown, and six columns: the marker first."""
    folder = utkface_folder(data_dir)
    said, images = read_faces(folder), read_images(folder, size)
    rng = named_rng(0, "audit cost")
    order = rng.permutation(len(images))
    ends = np.cumsum([int(share * n) for n in SIZES.values()])
    splits, columns = {}, {}
    for name, rows in zip(SIZES, np.split(order, ends)[:4], strict=True):
        label = said.gender[rows].astype(np.int32)
        marker = biased_attribute(rng, label, CONFLICTING if name == "train" else 0.5, 2)
        plain, marked, _ = plant(rng, images[rows])
        splits[name] = Batch(
            x=np.where(marker[:, None, None, None] == 1, marked, plain),
            label=label,
            attribute=np.full(len(rows), -1, np.int32),
        )
        columns[name] = {
            "marker": np.array(MARKS)[marker],
            "age": said.age[rows],
            "race": np.array(RACES)[said.race[rows]],
            **{f"lot {letter}": np.array(["one", "two", "three"])[rng.integers(0, 3, len(rows))] for letter in "abc"},
        }
    dataset = Dataset(
        name="utkface with a marker",
        variant={"image_size": size, "conflicting": CONFLICTING},
        splits=splits,
        pairs={},
        label_names=GENDERS,
        attribute_names=("unknown",),
        aligned=np.zeros((2, 1), bool),
        pairing="none",
    )
    return dataset, {name: {split: columns[split][name] for split in SIZES} for name in columns["test"]}


def with_head(classifier: Classifier, dataset: Dataset) -> Params:
    """Random weights, but for the head: fitted on `HEAD_ROWS` training pictures."""
    train = dataset.splits["train"]
    params = classifier.init(jax.random.key(0), train.x[:1])
    z = np.asarray(map_rows(classifier.vector.features, params, jnp.asarray(train.x[:HEAD_ROWS]), batch_size=256))
    mean, scale = z.mean(0), z.std(0) + 1e-6
    head, put = find_head(classifier.vector.head, params, classifier.head_path, z.shape[1])
    problem = head_problem((z - mean) / scale, train.label[:HEAD_ROWS], head, l2=1.0)
    fitted, _ = refit(problem, tolerance=1e-3, max_steps=30)
    kernel = np.asarray(fitted.kernel) / scale[:, None]
    bias = np.asarray(fitted.bias) - mean @ kernel
    return put(params, head._replace(kernel=jnp.asarray(kernel, jnp.float32), bias=jnp.asarray(bias, jnp.float32)))


class Counter:
    """Rows that a network is shown, trunk by trunk."""

    def __init__(self) -> None:
        self.rows = {"vector": 0, "spatial": 0}

    def __call__(self, name: str, features: Callable[[Params, Array], jax.Array]) -> Callable:
        def counted(params: Params, x: Array) -> jax.Array:
            def seen(one: np.ndarray) -> None:
                del one
                self.rows[name] += x.shape[0]

            jax.debug.callback(seen, x.reshape(-1)[0])
            return features(params, x)

        return counted


def twice_computed(dataset: Dataset, candidates: dict[str, Any]) -> dict[str, float]:
    """Rows through the trunk of a tiny network, against distinct rows."""
    tiny, counter = models.pooled_cnn(channels=(4, 4), kernels=(5, 3), strides=(8, 2), classes=2), Counter()
    params = with_head(tiny, dataset)
    counted = tiny._replace(
        vector=Split(counter("vector", tiny.vector.features), tiny.vector.head),
        spatial=Split(counter("spatial", tiny.spatial.features), tiny.spatial.head),
    )
    report = jaxdebias.audit(counted, params, dataset, candidates=candidates, pixels="maps", fix=True)
    jax.effects_barrier()
    distinct = sum(len(batch.label) for batch in dataset.splits.values())
    return {
        "distinct rows": distinct,
        "rows through the trunk": counter.rows["vector"],
        "of them shared with the maps": counter.rows["spatial"],
        "rows through the trunk / distinct rows": counter.rows["vector"] / distinct,
        "reliance": {one.attribute: one.state for one in report.verdict.reliance},
        "advice": report.verdict.advice.state,
    }


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def call(classifier: Classifier, params: Params, dataset: Dataset, candidates: dict[str, Any]) -> dict[str, Any]:
    began, busy = time.perf_counter(), time.process_time()
    report = jaxdebias.audit(classifier, params, dataset, candidates=candidates, pixels="both", fix=True)
    row = {
        "seconds": report.record.provenance.seconds_by_step,
        "wall": time.perf_counter() - began,
        "processor": time.process_time() - busy,
        "peak_gib": peak_gib(),
        "reliance": {one.attribute: one.state for one in report.verdict.reliance},
        "advice": report.verdict.advice.state,
        "verified": report.verdict.advice.test is not None,
    }
    print(row, flush=True)
    return row


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("JAXDEBIAS_DATA"))
    parser.add_argument("--out", type=Path, default=PATH)
    parser.add_argument(
        "--trial", action="store_true", help="a tenth of the faces at 32 x 32, and a small CNN, into a temporary folder"
    )
    arguments = parser.parse_args()
    size, share = (32, 0.1) if arguments.trial else (SIZE, 1.0)
    if arguments.trial:
        arguments.out = Path(tempfile.mkdtemp()) / arguments.out.name
    dataset, candidates = faces(arguments.data_dir, size, share)
    # A trial sees that everything runs, and most of its time would go into compiling a large network.
    name = "a small CNN" if arguments.trial else "ResNet-18"
    classifier = models.pooled_cnn(classes=2) if arguments.trial else models.resnet(depth=18, classes=2)
    params = with_head(classifier, dataset)
    ready = peak_gib()
    first = call(classifier, params, dataset, candidates)
    second = call(classifier, params, dataset, candidates)
    counts = twice_computed(dataset, candidates)
    missed = [name for name, bound in AT_MOST.items() if counts[name] > bound]
    cores = len(os.sched_getaffinity(0))
    said = (
        f"{name}, {counts['distinct rows']:,} pictures of {size} x {size}, {cores} core{'s' * (cores > 1)}; "
        f"steps: reliance {', '.join(f'{name} {state}' for name, state in first['reliance'].items())}; "
        f"advice {first['advice']}. Peak memory "
        f"{second['peak_gib']:.2f} GiB, of which {ready:.2f} before the audit. Counted on a tiny network: "
        f"{counts['rows through the trunk']:,} rows through the trunk, "
        f"{counts['distinct rows']:,} distinct ones."
    )
    write(
        arguments.out,
        at_most=AT_MOST,
        missed=missed,
        pictures=counts["distinct rows"],
        image_size=size,
        ready_gib=ready,
        counts=counts,
        said=said,
        **{"first call": first, "second call": second},
    )
    print(said, arguments.out, *(f"MISSED {name}" for name in missed), sep="\n")
    return not missed


if __name__ == "__main__":
    sys.exit(not main())
