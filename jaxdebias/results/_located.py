"""Records of where: class maps of a model, patch maps of the data, and the draws of a method that resamples."""

from dataclasses import dataclass
from typing import Literal

from jaxdebias.results._measured import Count, Interval, Rate, Share

Grid = tuple[tuple[float, ...], ...]
"""A map `[h][w]`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MapRegion:
    """How the class maps of a set of images agree with one region of the masks."""

    region: str
    """Name of the region."""
    score: Rate
    """Mean Attention-IoU with the region over the images in which it is present; null value where it never is."""
    chance: Share | None
    """What a uniform map scores on the same images; null where the region is never present."""
    inside: Rate
    """Share of the map within the region."""
    area: Share | None
    """Share of the image that the region fills, what `inside` is for a uniform map; null where it is never present."""
    n: Count
    """Number of images that entered: the region is present and the map is not empty."""
    flagged: bool
    """Whether fewer than 30 independent images entered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MapSet:
    """Class maps of one set of test images."""

    kind: Literal["all", "aligned", "conflicting", "group"]
    """Which images: all, bias-aligned, bias-conflicting, or those of one group."""
    label: int | None
    """Index into `label_names`; null unless `kind` is group."""
    attribute: int | None
    """Index into `attribute_names`; null unless `kind` is group."""
    n: Count
    """Number of images."""
    without_map: Count
    """Number of images whose map is empty; they enter no average and no score."""
    average: Grid | None
    """Mean map `[h][w]`; 1 is the value of a uniform map. Null where no image has a map."""
    regions: tuple[MapRegion, ...]
    """Scores, one for each of the maps' regions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MapExample:
    """A test image whose map is shown."""

    row: Count
    """Row of the test split."""
    label: Count
    """Index into `label_names`."""
    attribute: int
    """Index into `attribute_names`; -1 unknown."""
    predicted: Count
    """Predicted label, of which the map is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Maps:
    """Where the model looks on the test set, after the repair if there was one."""

    method: str
    """Method of the maps: gradcam."""
    target: str
    """Class that the maps are of: predicted."""
    grid: tuple[int, int]
    """Height and width of a map in cells; scores on different grids are not comparable."""
    regions: tuple[str, ...]
    """Names of the regions; empty without masks."""
    agreement: Share | None
    """Mean Attention-IoU of these maps with HiResCAM's; null where no image has both."""
    rows: tuple[MapSet, ...]
    """The sets of images: all, aligned, conflicting, then every group."""
    examples: tuple[MapExample, ...]
    """Images whose maps are shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where the data show the attribute, or the label."""

    map: Grid
    """Information of the patches over a pixel, in nats `[h][w]`, coarser than the images; negative where misleading."""
    information: Interval
    """Share of all there is to know that a patch in the top region tells, on held-out images; may be negative."""
    held: float
    """Share of the information that the top pixels hold."""
    spread: bool
    """Whether the information is spread so far that hiding the top pixels leaves it readable."""
    found: bool
    """Whether patches tell anything, beyond the error."""
    area: Share
    """Share of the pixels that hold 90 % of the information."""
    classes: Count
    """Number of values that were told apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchExample:
    """A held-out image whose patch maps are shown."""

    row: Count
    """Row of the split."""
    label: Count
    """Index into `label_names`."""
    attribute: int
    """Index into `attribute_names`; -1 unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Patches:
    """Where held-out images show the attribute and the label. Maps at full size are in `patches.npz`."""

    split: str
    """Split whose images the maps are of."""
    rows: Count
    """Number of images of the maps."""
    train_rows: Count
    """Number of images that the two networks were trained on."""
    patch: Count
    """Side of a patch in pixels."""
    stride: Count
    """Distance between patches in pixels."""
    missing: Count
    """Number of groups without an image, in training or held out."""
    top: Share
    """Share of the pixels that are called top."""
    attribute: Place
    """Where the attribute shows."""
    label: Place
    """Where the label shows."""
    overlap: Share
    """Intersection over union of the top pixels of both maps."""
    chance: Share
    """What the overlap is for two unrelated masks of these sizes."""
    examples: tuple[PatchExample, ...]
    """Images whose maps are shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnSet:
    """What a set of training rows gets of the draws."""

    rows: Count
    """Number of rows."""
    row_share: Share
    """Share of all rows of known group."""
    draw_share: Share
    """Share of the draws of all rows of known group."""
    auc: Share | None
    """Chance that one of its rows outweighs another row of its label; 0.5: the weights do not know the set. Null where
    no label has rows on both sides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnGroup(DrawnSet):
    """What one group of training rows gets of the draws."""

    label: Count
    """Index into `label_names`."""
    attribute: Count
    """Index into `attribute_names`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnSample:
    """A training sample at one end of the weights."""

    index: Count
    """Row of the training split."""
    label: Count
    """Index into `label_names`."""
    attribute: int
    """Index into `attribute_names`; -1 unknown."""
    ratio: float
    """Weight divided by the mean weight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """Which training samples a method that draws by rarity draws more often, after the last epoch. All weights, and
    reconstructions of the samples named here, are in `draws.npz`."""

    rows: Count
    """Number of training rows."""
    ess: Share
    """Effective sample size of the weights, as a share of the rows."""
    largest: Share
    """Share of the draws of the heaviest row."""
    never_drawn: Share
    """Expected share of the rows that are left out of an epoch."""
    edges: tuple[float, ...]
    """Edges of the bins of the histogram, as multiples of the mean weight."""
    histogram: tuple[Count, ...]
    """Number of rows in each bin."""
    kl: tuple[float, ...]
    """Mean divergence of each latent from its prior, in nats."""
    carrying: Count
    """Number of latents that carry at least 0.01 nats."""
    epochs: tuple[int, ...]
    """Last epoch of each chunk of training."""
    ess_by_epoch: tuple[float, ...]
    """Effective sample size at these epochs."""
    never_by_epoch: tuple[float, ...]
    """Share of rows left out at these epochs."""
    groups: tuple[DrawnGroup, ...]
    """Groups with training rows; empty where no attribute is known."""
    conflicting: DrawnSet | None
    """All bias-conflicting rows together; null where there are none."""
    rarest: tuple[DrawnSample, ...]
    """Rows of largest weight, heaviest first."""
    commonest: tuple[DrawnSample, ...]
    """Rows of smallest weight, lightest first."""
