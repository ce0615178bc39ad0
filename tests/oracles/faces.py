"""Tiny files in the formats of UTKFace and CelebA. Each picture has one colour that says which one it is."""

import io

import numpy as np
from PIL import Image


def colour_of(i):
    """Colours so far apart that JPEG does not confuse them."""
    return np.array([40 * (i % 6) + 20, 40 * (i // 6 % 6) + 20, 40 * (i // 36 % 6) + 20], np.uint8)


def jpeg(i, *, height=24, width=24):
    file = io.BytesIO()
    Image.fromarray(np.broadcast_to(colour_of(i), (height, width, 3))).save(file, "JPEG", quality=95)
    return file.getvalue()


def utkface_rows(n=192, seed=0):
    """(age, gender, race): of each gender 36 young, 48 grown and 12 between at n = 192; races 0 and 3 at random."""
    rng = np.random.default_rng(seed)
    return [((5, 30, 12, 20, 50, 2, 15, 70)[i % 8], i // 8 % 2, 3 * int(rng.integers(2))) for i in range(n)]


def write_packed_utkface(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    files = [np.frombuffer(jpeg(i), np.uint8) for i in range(len(rows))]
    age, gender, race = (np.array(column, np.uint8) for column in zip(*rows, strict=True))
    np.savez(
        folder / "utkface_96.npz",
        jpeg=np.concatenate(files),
        offset=np.cumsum([0, *map(len, files)]),
        age=age,
        gender=gender,
        race=race,
    )
    return folder


def write_original_utkface(folder, rows):
    """Dates ascend with i, but names sort by age first."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, (age, gender, race) in enumerate(rows):
        (folder / f"{age}_{gender}_{race}_2017{i:013}.jpg").write_bytes(jpeg(i))
    return folder


CELEBA_NAMES = ("Bald", "Blond_Hair", "Eyeglasses", "Male", "Smiling", "Young")


def celeba_values(n=144, seed=0):
    """`[n 6]` of -1 and 1: half blond, and in train (the first half) 5 of 6 blond are women, 5 of 6 others men."""
    rng = np.random.default_rng(seed)
    values = rng.choice([-1, 1], (n, 6))
    i = np.arange(n)
    values[:, 1] = np.where(i % 2, 1, -1)
    conflicting = np.where(i < n // 2, i // 2 % 6 == 0, i // 2 % 2 == 0)
    values[:, 3] = np.where(conflicting, values[:, 1], -values[:, 1])
    return values


def write_celeba(folder, values):
    """The first half is train, the next quarter validation, the last test. Pictures of 22 x 18 pixels."""
    n = len(values)
    (folder / "img_align_celeba").mkdir(parents=True, exist_ok=True)
    names = [f"{i + 1:06}.jpg" for i in range(n)]
    rows = [f"{name} " + " ".join(f"{value:2}" for value in of_one) for name, of_one in zip(names, values, strict=True)]
    (folder / "list_attr_celeba.txt").write_text(f"{n}\n{' '.join(CELEBA_NAMES)} \n" + "\n".join(rows) + "\n")
    part = [0 if i < n // 2 else 1 if i < 3 * n // 4 else 2 for i in range(n)]
    lines = [f"{name} {number}\n" for name, number in zip(names, part, strict=True)]
    (folder / "list_eval_partition.txt").write_text("".join(lines))
    for i, name in enumerate(names):
        (folder / "img_align_celeba" / name).write_bytes(jpeg(i, height=22, width=18))
    return folder
