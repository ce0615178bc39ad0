"""Tiny files in the formats of Waterbirds, CelebAMask-HQ and the cut-outs, with masks. A picture's colour names it."""

import csv
import io

import numpy as np
from PIL import Image

from oracles.faces import colour_of

SPECIES = ("001.Rail", "002.Gull", "003.Wren", "004.Teal")


def waterbirds_rows(n=192):
    """(file, y, split, place): half train, of which 5 in 6 are aligned; the other half balanced over the cells."""
    rows = []
    for i in range(n):
        y, j = i % 2, i // 2
        split = (0, 0, 1, 2)[j % 4]
        place = (y if j % 6 else 1 - y) if split == 0 else (y + j // 4) % 2
        rows.append((f"{SPECIES[2 * y + j // 8 % 2]}/bird_{i:03}.jpg", y, split, place))
    return rows


def bird_mask(i, height=32, width=48):
    """A box in the middle of the picture, wider for higher numbers; beside it a spot that few annotators drew."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : 3 * height // 4, width // 4 : width // 2 + i % 12] = 204
    mask[2:6, 2:6] = 51
    return mask


def write_waterbirds(folder, rows, *, layout="segmentations"):
    """As group_DRO's generator writes it, with CUB's segmentations or with masks beside the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "metadata.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("img_id", "img_filename", "y", "split", "place", "place_filename"))
        for i, (name, y, split, place) in enumerate(rows):
            writer.writerow((i + 1, name, y, split, place, f"/o/ocean/{i:08}.jpg"))
    for i, (name, *_) in enumerate(rows):
        path, mask = folder / name, Image.fromarray(bird_mask(i))
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.broadcast_to(colour_of(i), (32, 48, 3))).save(path, quality=95)
        if layout == "segmentations":
            place = (folder / "segmentations" / name).with_suffix(".png")
        else:
            place = path.parent / "mask" / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        mask.save(place)
    return folder


MASK_NAMES = ("Bald", "Blond_Hair", "Eyeglasses", "Male", "Smiling", "Young")
PARTS = (
    "skin",
    "nose",
    "eye_g",
    "l_eye",
    "r_eye",
    "l_brow",
    "r_brow",
    "l_ear",
    "r_ear",
    "mouth",
    "u_lip",
    "l_lip",
    "hair",
    "hat",
    "ear_r",
    "neck_l",
    "neck",
    "cloth",
)


def part_boxes(i):
    """Part -> box (top, bottom, left, right) on 32 x 32: a face, with glasses where i is odd, a hat on every third."""
    boxes = {
        "skin": (8, 26, 8, 24),
        "nose": (15, 19, 14, 18),
        "l_eye": (12, 14, 10, 13),
        "r_eye": (12, 14, 19, 22),
        "l_brow": (10, 11, 10, 13),
        "mouth": (21, 24, 12, 20),
        "l_lip": (23, 24, 12, 20),
        "hair": (3, 9, 6, 26),
        "neck": (26, 29, 12, 20),
        "cloth": (29, 32, 2, 30),
    }
    if i % 2:
        boxes["eye_g"] = (11, 15, 9, 23)
    if i % 3 == 0:
        boxes["hat"] = (0, 5, 5, 27)
    return boxes


def write_celeba_mask(folder, values):
    """`values` `[n 6]` of -1 and 1. Masks in folders of 5 pictures, RGB as in the original, one per part there is."""
    n = len(values)
    for name in ("CelebA-HQ-img", "CelebAMask-HQ-mask-anno"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    lines = [f"{i}.jpg  " + " ".join(f"{value:2}" for value in row) for i, row in enumerate(values)]
    (folder / "CelebAMask-HQ-attribute-anno.txt").write_text("\n".join([str(n), " ".join(MASK_NAMES), *lines, ""]))
    for i in range(n):
        picture = Image.fromarray(np.broadcast_to(colour_of(i), (32, 32, 3)))
        picture.save(folder / "CelebA-HQ-img" / f"{i}.jpg", quality=95)
        place = folder / "CelebAMask-HQ-mask-anno" / str(i // 5)
        place.mkdir(exist_ok=True)
        for part, (top, bottom, left, right) in part_boxes(i).items():
            mask = np.zeros((32, 32, 3), np.uint8)
            mask[top:bottom, left:right] = 255
            Image.fromarray(mask).save(place / f"{i:05}_{part}.png")
    return folder


def write_objects_on_scenes(folder, *, cutouts=60, scenes=80, side=32):
    """Every third cut-out is a motorbike: a red box, the others blue. Forests are green, the sea is white."""
    folder.mkdir(parents=True, exist_ok=True)
    superclass = (np.arange(cutouts) % 3).astype(np.uint8)
    mask = np.zeros((cutouts, side, side), np.uint8)
    for i in range(cutouts):
        mask[i, 4 : 28 - i % 6, 6 : 20 + i % 9] = 1
    colour = np.where(superclass[:, None] == 1, (250, 0, 0), (0, 0, 250))
    rgb = (mask[..., None] * colour[:, None, None]).astype(np.uint8)
    np.savez(folder / "cutouts.npz", rgb=rgb, mask=mask, superclass=superclass)
    place, files = (np.arange(scenes) % 2).astype(np.uint8), []
    for i in range(scenes):
        file = io.BytesIO()
        shade = 40 + i * 2
        picture = np.broadcast_to(((250, 250, shade) if place[i] else (0, 120, shade)), (24, 24, 3)).astype(np.uint8)
        Image.fromarray(picture).save(file, "JPEG", quality=95)
        files.append(np.frombuffer(file.getvalue(), np.uint8))
    np.savez(folder / "scenes.npz", jpeg=np.concatenate(files), offset=np.cumsum([0, *map(len, files)]), place=place)
    return folder
