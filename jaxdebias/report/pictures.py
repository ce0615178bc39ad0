"""The pictures of the page: which samples are shown, and what is written under them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdebias import auditing
from jaxdebias.auditing.pipeline import Advised
from jaxdebias.contracts import describe, expect
from jaxdebias.core import Array, Dataset
from jaxdebias.files import read_arrays
from jaxdebias.results.records import RunResults, Sample

IMAGES = ("worst", "harmful", "helpful", "pairs", "train", "maps", "patch", "rare", "common", "suspects", "mistaken")
"""Fields that hold images; all others describe the images whose name they begin with."""
OF_ANY_SIZE = ("maps_shown", "patch_attribute", "patch_label", "rare_decoded", "common_decoded")


class Pictures(NamedTuple):
    """Images with 1 or 3 channels, uint8 or float in [0, 1], and what is written under them. Any field may be None."""

    worst: Array | None = None
    """`[m h w c]` test images of the worst group of the trained model."""
    worst_label: Array | None = None
    """`[m]` their true labels."""
    worst_before: Array | None = None
    """`[m]` what the trained model predicts."""
    worst_after: Array | None = None
    """`[m]` what the repaired model predicts."""
    harmful: Array | None = None
    """`[m h w c]` the first m of the record's harmful training samples."""
    helpful: Array | None = None
    """`[m h w c]` the first m of the helpful ones."""
    pairs: Array | None = None
    """`[m 2 h w c]` the aligned and the conflicting side: the same sample, or matched ones."""
    pairs_label: Array | None = None
    """`[m]` their labels."""
    pairs_before: Array | None = None
    """`[m 2]` probability of the true label, trained model."""
    pairs_after: Array | None = None
    """`[m 2]` the same, repaired model."""
    train: Array | None = None
    """`[m h w c]` training samples drawn at random."""
    maps: Array | None = None
    """`[m h w c]` the examples of the record's maps, test images."""
    maps_shown: Array | None = None
    """`[m u v]` their maps, in 0..1."""
    patch: Array | None = None
    """`[m h w c]` the examples of the record's patches, held-out images."""
    patch_attribute: Array | None = None
    """`[m u v]` their maps of the attribute, in 0..1."""
    patch_label: Array | None = None
    """`[m u v]` their maps of the label."""
    rare: Array | None = None
    """`[m h w c]` the rarest samples of the record's draws, training images."""
    rare_decoded: Array | None = None
    """`[m h w c]` as the model's decoder rebuilds them."""
    common: Array | None = None
    """`[m h w c]` the commonest ones."""
    common_decoded: Array | None = None
    """`[m h w c]` as the decoder rebuilds them."""
    suspects: Array | None = None
    """`[m h w c]` the typical rows of the bias cells that were discovered, training images."""
    mistaken: Array | None = None
    """`[m h w c]` the typical rows of the first groups of mistakes that were discovered, test images."""


def check_pictures(pictures: Pictures) -> None:
    """Checks that what describes images is as long as they are.

    Raises:
      ContractError: naming the first field that is not.
    """
    for name, value in pictures._asdict().items():
        if value is None or name in IMAGES:
            continue
        images = getattr(pictures, name.split("_")[0])
        expect(images is not None, f"pictures.{name}", "the images that it describes", "none")
        shape = (len(images), 2) if name in ("pairs_before", "pairs_after") else (len(images),)
        shape += np.shape(value)[1:] if name in OF_ANY_SIZE else ()
        expect(np.shape(value) == shape, f"pictures.{name}", f"shape {list(shape)}", describe(value))


def with_shown_channels(pictures: Pictures) -> Pictures:
    """The pictures as a page can show them: of four channels (RGBA) the first three, of other numbers (2, 12) none."""
    images = {name: np.asarray(value) for name in IMAGES if (value := getattr(pictures, name)) is not None}
    if any(image.shape[-1] not in (1, 3, 4) for image in images.values()):
        return Pictures()
    rebuilt = {
        name: np.asarray(value)
        for name in ("rare_decoded", "common_decoded")
        if (value := getattr(pictures, name)) is not None
    }
    four = {name: image[..., :3] for name, image in (images | rebuilt).items() if image.shape[-1] == 4}
    return pictures._replace(**four)


def pictures(
    dataset: Dataset,
    harmful: Sequence[auditing.Harmful | Sample],
    before: auditing.Measurement,
    after: auditing.Measurement | None = None,
    *,
    helpful: Sequence[auditing.Harmful | Sample] = (),
) -> Pictures | None:
    """The images of the page; None for a table.

    Args:
      dataset: gives the images.
      harmful: the most harmful training samples.
      before: what the trained model does on the test split.
      after: what the repaired one does.
      helpful: the most helpful training samples.
    """
    train, test = dataset.splits["train"], dataset.splits["test"]
    if train.x.ndim != 4:
        return None
    rng = np.random.default_rng(0)
    worst = auditing.worst_rows(test, before) if before.groups.worst_group[0] >= 0 else np.zeros(0, np.int64)
    shown = Pictures(train=train.x[np.sort(rng.choice(len(train.label), min(24, len(train.label)), replace=False))])
    if worst.size:
        shown = shown._replace(
            worst=test.x[worst],
            worst_label=test.label[worst],
            worst_before=before.logits[worst].argmax(-1),
            worst_after=None if after is None else after.logits[worst].argmax(-1),
        )
    if harmful:
        shown = shown._replace(harmful=train.x[[sample.index for sample in harmful]])
    if helpful:
        shown = shown._replace(helpful=train.x[[sample.index for sample in helpful]])
    if "test" in dataset.pairs:
        pairs = dataset.pairs["test"]
        rows = np.sort(rng.choice(len(pairs.label), min(8, len(pairs.label)), replace=False))
        shown = shown._replace(
            pairs=np.stack([pairs.x[rows], pairs.twin[rows]], axis=1),
            pairs_label=pairs.label[rows],
            pairs_before=before.pair_probability[rows],
            pairs_after=None if after is None else after.pair_probability[rows],
        )
    return shown


def with_draws(shown: Pictures | None, record: RunResults, dataset: Dataset, kept: Path) -> Pictures | None:
    """The pictures with the samples at both ends of the draws beside what the model makes of them, if there are any.

    Args:
      shown: the pictures so far.
      record: of the run; its draws name the samples.
      dataset: gives the images.
      kept: the draws.npz of the run.

    Raises:
      ContractError: a file that is damaged or lacks the reconstructions.
    """
    if shown is None or record.draws is None or not kept.is_file():
        return shown
    decoded = read_arrays("draws", kept)
    rare, common = decoded.get("rarest"), decoded.get("commonest")
    both = rare is not None and common is not None
    expect(both, str(kept), "arrays rarest and commonest", ", ".join(decoded))
    x = dataset.splits["train"].x
    return shown._replace(
        rare=x[[sample.index for sample in record.draws.rarest]],
        rare_decoded=rare,
        common=x[[sample.index for sample in record.draws.commonest]],
        common_decoded=common,
    )


def audit_pictures(state: Advised) -> Pictures | None:
    """The images of the page; None for a table, predictions, or without training images."""
    splits = state.data.dataset.splits
    if not state.data.has_pictures or state.request.model is None or "train" not in splits:
        return None
    harmful, helpful = state.samples
    shown = pictures(state.data.dataset, harmful, state.before, state.after, helpful=helpful)
    if state.maps is not None:
        shown = shown._replace(maps=splits["test"].x[state.maps.examples], maps_shown=state.maps.example_maps)
    if state.places is not None:
        shown = shown._replace(
            patch=splits[state.places.split].x[state.places.examples],
            patch_attribute=state.places.attribute_maps,
            patch_label=state.places.label_maps,
        )
    if state.guesses is not None and len(state.guesses.typical):
        shown = shown._replace(suspects=splits["train"].x[state.guesses.typical])
    if state.error_groups:
        rows = np.concatenate([group.typical for group in state.error_groups[:6]])
        shown = shown._replace(mistaken=splits["test"].x[rows])
    return shown
