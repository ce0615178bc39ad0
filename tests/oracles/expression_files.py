"""Tiny files in the formats of FER2013 and RAF-DB. Each picture has one shade or colour that says which one it is."""

import io

import numpy as np
from PIL import Image

from oracles.faces import jpeg

SIDE = 48


def shade(i):
    """Of picture i, 48 x 48; a lighter corner gives each its own contrast."""
    image = np.full((SIDE, SIDE), 6 * i % 240, np.uint8)
    image[:4, : 4 + i] += 12
    return image


def fer2013_rows(n=40):
    """(emotion, usage): 24 of Training, 8 of PublicTest and 8 of PrivateTest at n = 40, all emotions in each."""
    return [(i % 7, "Training" if i < 0.6 * n else "PublicTest" if i < 0.8 * n else "PrivateTest") for i in range(n)]


def write_fer2013_csv(folder, rows, *, name="fer2013.csv"):
    folder.mkdir(parents=True, exist_ok=True)
    pixels = [" ".join(map(str, shade(i).ravel())) for i in range(len(rows))]
    if name == "fer2013.csv":
        lines = ["emotion,pixels,Usage", *(f"{y},{x},{u}" for x, (y, u) in zip(pixels, rows, strict=True))]
    else:
        lines = ["emotion, Usage, pixels", *(f"{y},{u},{x}" for x, (y, u) in zip(pixels, rows, strict=True))]
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def write_fer2013_packed(folder, rows):
    """Training and PublicTest; the pictures keep their numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, usage in (("fer2013_training_subset.npz", "Training"), ("fer2013_publictest.npz", "PublicTest")):
        chosen = [i for i, (_, of) in enumerate(rows) if of == usage]
        files = []
        for i in chosen:
            file = io.BytesIO()
            Image.fromarray(shade(i)).save(file, "JPEG", quality=95)
            files.append(np.frombuffer(file.getvalue(), np.uint8))
        np.savez(
            folder / name,
            jpeg=np.concatenate(files),
            offset=np.cumsum([0, *map(len, files)]),
            label=np.array([rows[i][0] for i in chosen], np.uint8),
        )
    return folder


def raf_db_rows(train=140, test=28, seed=0):
    """(name, expression 1..7, gender, race, age): happy women and angry men are common, some genders unsure."""
    rng = np.random.default_rng(seed)
    rows = []
    for part, n in (("train", train), ("test", test)):
        for i in range(n):
            expression = i % 7 + 1
            gender = 2 if i % 35 == 17 else int(rng.random() < (0.75 if expression % 2 else 0.25))
            rows.append((f"{part}_{i + 1:05}", expression, gender, int(rng.integers(3)), int(rng.integers(5))))
    return rows


def write_raf_db(folder, rows, *, annotations=True):
    """Picture i has colour i; the list is not in order of names."""
    (folder / "EmoLabel").mkdir(parents=True, exist_ok=True)
    (folder / "Image" / "aligned").mkdir(parents=True, exist_ok=True)
    (folder / "Annotation" / "manual").mkdir(parents=True, exist_ok=True)
    order = [*range(3, len(rows)), 0, 1, 2]
    lines = [f"{rows[i][0]}.jpg {rows[i][1]}" for i in order]
    (folder / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines) + "\n")
    for i, (name, _, gender, race, age) in enumerate(rows):
        (folder / "Image" / "aligned" / f"{name}_aligned.jpg").write_bytes(jpeg(i, height=20, width=20))
        if annotations:
            landmarks = "".join(f"{10.5 + k}\t{20.25 + k}\n" for k in range(5))
            text = f"{landmarks}{gender}\n{race}\n{age}\n"
            (folder / "Annotation" / "manual" / f"{name}_manu_attri.txt").write_text(text)
    return folder
