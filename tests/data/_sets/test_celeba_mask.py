import numpy as np
import pytest
from oracles.faces import colour_of
from oracles.masked_files import MASK_NAMES, PARTS, part_boxes, write_celeba_mask

from jaxdebias.contracts import ContractError
from jaxdebias.data import celeba_mask
from jaxdebias.data._sets.celeba_mask import (
    PART_REGIONS,
    REGION_NAMES,
    REGION_OF_ATTRIBUTE,
    protocol_split,
    read_annotations,
    read_faces,
)
from jaxdebias.measure import region_masks

N = 160
BLOND, MALE = MASK_NAMES.index("Blond_Hair"), MASK_NAMES.index("Male")


def some_values():
    """In training 5 of 6 blond are women and 5 of 6 others men; elsewhere half."""
    values = np.random.default_rng(0).choice([-1, 1], (N, 6))
    for rows in protocol_split(N).values():
        place = np.arange(len(rows))
        values[rows, BLOND] = np.where(place % 2, 1, -1)
        conflicting = place // 2 % (6 if len(rows) > N / 2 else 2) == 0
        values[rows, MALE] = np.where(conflicting, 1, -1) * values[rows, BLOND]
    return values


VALUES = some_values()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_celeba_mask(tmp_path_factory.mktemp("files") / "CelebAMask-HQ", VALUES)


def whose(images):
    colours = np.array([colour_of(i) for i in range(N)], int)
    distance = abs(images.mean(axis=(1, 2))[:, None] - colours).sum(-1)
    assert distance.min(axis=1).max() < 12
    return distance.argmin(axis=1)


def painted(i):
    """The label mask by the original's loop: parts in their order, the later over the earlier."""
    mask = np.zeros((32, 32), int)
    for part in PARTS:
        if part in part_boxes(i):
            top, bottom, left, right = part_boxes(i)[part]
            mask[top:bottom, left:right] = REGION_NAMES.index(PART_REGIONS[part])
    return mask


def test_the_published_split():
    parts = protocol_split(30_000)
    np.random.seed(0)  # noqa: NPY002
    order = np.random.permutation(30_000)  # noqa: NPY002
    np.testing.assert_array_equal(np.concatenate(list(parts.values())), order)
    assert [len(rows) for rows in parts.values()] == [21_000, 4_500, 4_500]


def test_masks_of_fourteen_regions(files):
    faces = read_faces(files, read_annotations(files), np.array([7, 0, 9]), image_size=32, crop=1.0)
    np.testing.assert_array_equal(whose(faces.x), [7, 0, 9])
    np.testing.assert_array_equal(faces.values, VALUES[[7, 0, 9]] == 1)
    for mask, i in zip(faces.mask, (7, 0, 9), strict=True):
        np.testing.assert_array_equal(mask, painted(i))
    assert len(REGION_NAMES) == 14
    assert list(PART_REGIONS) == list(PARTS)
    assert set(PART_REGIONS.values()) | {"background"} == set(REGION_NAMES)
    assert len(REGION_OF_ATTRIBUTE) == 17
    assert set(REGION_OF_ATTRIBUTE.values()) < set(REGION_NAMES)
    regions = np.asarray(region_masks(faces.mask, [[r] for r in range(14)], grid=(4, 4)))
    np.testing.assert_allclose(regions.sum(1), 1.0, atol=1e-6)
    glasses, hat = REGION_NAMES.index("eyeglasses"), REGION_NAMES.index("hat")
    assert (regions[:, glasses].sum((1, 2)) > 0).tolist() == [True, False, True]
    assert (regions[:, hat].sum((1, 2)) > 0).tolist() == [False, True, True]


def test_a_target_and_its_bias(files):
    data = celeba_mask(files.parent, image_size=16)
    parts = protocol_split(N)
    rows = {name: whose(batch.x) for name, batch in data.splits.items()}
    np.testing.assert_array_equal(rows["train"], np.sort(parts["train"]))
    np.testing.assert_array_equal(rows["test"], np.sort(parts["test"]))
    np.testing.assert_array_equal(np.sort([*rows["edit"], *rows["accept"]]), np.sort(parts["validation"]))
    for name, batch in data.splits.items():
        np.testing.assert_array_equal(batch.label, VALUES[rows[name], BLOND] == 1)
        np.testing.assert_array_equal(batch.attribute, VALUES[rows[name], MALE] == 1)
        assert batch.mask.shape == batch.x.shape[:3]
    np.testing.assert_array_equal(data.aligned, [[False, True], [True, False]])
    for name in ("edit", "accept", "test"):
        x, twin = whose(data.pairs[name].x), whose(data.pairs[name].twin)
        np.testing.assert_array_equal(VALUES[x, BLOND], VALUES[twin, BLOND])
        assert (VALUES[x, MALE] == -VALUES[x, BLOND]).all()
        assert (VALUES[twin, MALE] == VALUES[twin, BLOND]).all()
    few = celeba_mask(files, image_size=8, max_train=10, seed=1)
    assert set(whose(few.splits["train"].x)) < set(parts["train"])
    assert len(few.splits["train"].label) == 10


def test_bad_files_are_named(tmp_path):
    values = VALUES[:20]
    files = write_celeba_mask(tmp_path, values)
    listed = read_annotations(files)
    for path in (files / "CelebAMask-HQ-mask-anno" / "1").glob("00007_*.png"):
        path.unlink()
    with pytest.raises(ContractError, match=r"^`CelebAMask-HQ-mask-anno/\*/00007_skin.png`: expected a mask of this"):
        read_faces(files, listed, np.array([6, 7]), image_size=8)
    (files / "CelebA-HQ-img" / "3.jpg").unlink()
    with pytest.raises(ContractError, match=r"^`CelebA-HQ-img/3.jpg`: expected an image file, got none$"):
        read_faces(files, listed, np.array([3]), image_size=8)
    (files / "CelebAMask-HQ-mask-anno" / "0" / "00002_nose.png").write_bytes(b"")
    with pytest.raises(ContractError, match=r"^`0/00002_nose.png`: expected a readable image, got"):
        read_faces(files, listed, np.array([2]), image_size=8)
    path = files / "CelebAMask-HQ-attribute-anno.txt"
    text = path.read_text()
    for old, new, message in (
        ("20\n", "21\n", "line 1`: expected the number of rows, 20, got"),
        ("\n3.jpg", "\nx.jpg", "line 6`: expected a name like 0.jpg, got 'x.jpg'"),
        ("\n3.jpg ", "\n3.jpg 0 ", "line 6`: expected a file name and 6 values of -1 or 1"),
    ):
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(ContractError, match=message):
            read_annotations(files)
    path.unlink()
    with pytest.raises(ContractError, match=r"`data_dir`: expected CelebAMask-HQ's list, pictures and masks, also Cel"):
        celeba_mask(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "Blond_hair"}, r"`target`: expected one of Bald, .* got 'Blond_hair' .did you mean 'Blond_Hair'"),
        ({"attribute": "Blond_Hair"}, r"`attribute`: expected another attribute than the target Blond_Hair"),
        ({"max_train": 0}, r"`max_train`: expected at least 1, or None for all, got 0"),
        ({"accept_share": 0.01}, r"`accept_share`: expected a share that divides 24 pictures, got 0.01"),
    ],
)
def test_bad_arguments_are_refused(files, options, message):
    with pytest.raises(ContractError, match=message):
        celeba_mask(files, **{"image_size": 8} | options)
