"""Tiny files in the formats that the readers read."""

import csv
import gzip

import numpy as np
from PIL import Image


def write_idx(path, array):
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()))


def write_mnist(folder, *, train=120, test=40):
    """Random images; labels 0, 1, ... 9, 0, 1, ... in order."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for part, n in (("train", train), ("t10k", test)):
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", rng.integers(0, 256, (n, 28, 28), dtype=np.uint8))
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", (np.arange(n) % 10).astype(np.uint8))
    return folder


def write_adult(folder, *, train=60, test=20):
    """Rows in UCI's layout; every seventh workclass is missing."""
    rng = np.random.default_rng(0)

    def line(i, dot):
        age, gain = int(rng.integers(17, 90)), int(rng.integers(0, 2) * rng.integers(0, 99999))
        work = "?" if i % 7 == 0 else ("Private", "State-gov")[i % 2]
        sex, race = ("Male", "Female")[int(rng.integers(2))], ("White", "Black", "Other")[int(rng.integers(3))]
        income = (">50K", "<=50K")[int(rng.integers(2))] + dot
        person = ("HS-grad", 9, "Divorced", "Sales", "Husband", race, sex)
        return ", ".join(map(str, (age, work, 1000 + i, *person, gain, 0, 40, "Cuba", income)))

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adult.data").write_text("\n".join(line(i, "") for i in range(train)) + "\n\n")
    lines = ["|1x3 Cross validator", *(line(i, ".") for i in range(test))]
    (folder / "adult.test").write_text("\n".join(lines) + "\n")
    return folder


def write_folder(folder, rows, *, header=("filename", "split", "y", "a")):
    """A metadata.csv of `rows`, and for every name in the first column that ends in .png a small image."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    rng = np.random.default_rng(0)
    for row in rows:
        if str(row[0]).endswith(".png"):
            path = folder / row[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)).save(path)
    return folder


def folder_rows(n=60, *, val=True):
    """Rows of a biased set: half train, a quarter val, a quarter test; in train 9 in 10 have a = y."""
    rows = []
    for i in range(n):
        split = (0, 0, 1 if val else 0, 2)[i % 4]
        y = i // 4 % 2
        a = y if (i // 8) % 5 or split else 1 - y
        a = (i // 8) % 2 if split else a
        rows.append((f"images/{i}.png", split, y, a))
    return rows
