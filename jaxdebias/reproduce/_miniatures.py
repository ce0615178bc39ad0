"""Miniatures of released data sets: a few generated pictures in files of the same names and formats, for trials.

Every writer takes an empty folder and writes what the readers in `data` read. A class and the attribute that goes with
it are told by coarse colours, so that a reader's rows can be told apart; there is nothing else in the pictures.
"""

import gzip
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

SIDE = 24
"""Height and width of a picture where the format leaves it open."""


def picture(label: int, attribute: int, number: int, *, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """`[h w 3]` uint8: the label decides on the upper half, the attribute on the lower, the number on some noise."""
    rng = np.random.default_rng([label, attribute, number])
    image = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
    image[: height // 2, :, label % 3] += np.uint8(90 + 10 * label)
    image[height // 2 :, :, attribute % 3] += np.uint8(90 + 10 * attribute)
    return image


def encoded(image: np.ndarray, kind: str = "JPEG") -> bytes:
    """A picture as the bytes of a file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return file.getvalue()


def packed(images: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """JPEG files back to back and where each begins, as the packed copies have them."""
    files = [np.frombuffer(encoded(image), np.uint8) for image in images]
    return {"jpeg": np.concatenate(files), "offset": np.cumsum([0, *map(len, files)])}


def write_mnist(folder: Path, *, train: int = 160, test: int = 40) -> Path:
    """MNIST's four idx files; a digit is a bar whose place tells the class."""

    def write(path: Path, array: np.ndarray) -> None:
        sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
        path.write_bytes(gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes(), compresslevel=1))

    folder.mkdir(parents=True, exist_ok=True)
    for part, n in (("train", train), ("t10k", test)):
        label = (np.arange(n) % 10).astype(np.uint8)
        images = np.random.default_rng(n).integers(0, 40, (n, 28, 28), dtype=np.uint8)
        for i, digit in enumerate(label):
            images[i, 2 + 2 * digit : 6 + 2 * digit, 4:24] = 200
        write(folder / f"{part}-images-idx3-ubyte.gz", images)
        write(folder / f"{part}-labels-idx1-ubyte.gz", label)
    return folder


def write_cifar10(folder: Path, *, train: int = 80, test: int = 20) -> Path:
    """The two packed files of CIFAR-10."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, n in (("train", train), ("test", test)):
        label = (np.arange(n) % 10).astype(np.uint8)
        images = [picture(int(y), 0, i, height=32, width=32) for i, y in enumerate(label)]
        np.savez(folder / f"cifar10_{part}_jpeg.npz", label=label, **packed(images))
    return folder


CELEBA_NAMES = ("Attractive", "Bald", "Blond_Hair", "Eyeglasses", "Male", "Smiling", "Wearing_Earrings", "Young")


def write_celeba(folder: Path, *, n: int = 192) -> Path:
    """CelebA's two lists and its pictures: half train, a quarter validation, a quarter test.

    Blond hair and being attractive go with being a woman, in training in five of six pictures, elsewhere in two of
    three; all four cells of every split are filled.
    """
    rng = np.random.default_rng(0)
    values = rng.choice([-1, 1], (n, len(CELEBA_NAMES)))
    part = np.repeat([0, 1, 2], [n // 2, n // 4, n - n // 2 - n // 4])
    place = np.arange(n)
    blond = np.where(place % 2, 1, -1)
    against = np.where(part == 0, place // 2 % 6 == 0, place // 2 % 3 == 0)
    male = np.where(against, blond, -blond)
    columns = {"Blond_Hair": blond, "Male": male, "Attractive": np.where(rng.random(n) < 0.2, male, -male)}
    for name, column in columns.items():
        values[:, CELEBA_NAMES.index(name)] = column
    names = [f"{i + 1:06}.jpg" for i in range(n)]
    lines = [f"{name} " + " ".join(f"{one:2}" for one in row) for name, row in zip(names, values, strict=True)]
    (folder / "img_align_celeba").mkdir(parents=True, exist_ok=True)
    (folder / "list_attr_celeba.txt").write_text(f"{n}\n{' '.join(CELEBA_NAMES)} \n" + "\n".join(lines) + "\n")
    listed = [f"{name} {number}\n" for name, number in zip(names, part, strict=True)]
    (folder / "list_eval_partition.txt").write_text("".join(listed))
    for i, name in enumerate(names):
        image = picture(int(blond[i] > 0), int(male[i] > 0), i, height=SIDE + 4, width=SIDE)
        (folder / "img_align_celeba" / name).write_bytes(encoded(image))
    return folder


def write_utkface(folder: Path, *, n: int = 320) -> Path:
    """UTKFace's packed file: of each gender a third is 12 or younger, the rest 20 or older; two races."""
    place = np.arange(n)
    gender = place // 2 % 2
    young = place % 3 == 0
    age = np.where(young, 3 + place % 9, 22 + place % 50)
    race = place // 5 % 2
    folder.mkdir(parents=True, exist_ok=True)
    images = [picture(int(gender[i]), int(young[i]), i) for i in range(n)]
    columns = {"age": age, "gender": gender, "race": race}
    np.savez(
        folder / "utkface_96.npz", **packed(images), **{name: value.astype(np.uint8) for name, value in columns.items()}
    )
    return folder


def write_waterbirds(folder: Path, *, n: int = 192) -> Path:
    """A folder of group_DRO's generator without segmentations: half train, of which 5 in 6 are aligned."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["img_id,img_filename,y,split,place,place_filename"]
    for i in range(n):
        y, row = i % 2, i // 2
        split = (0, 0, 1, 2)[row % 4]
        place = (y if row % 6 else 1 - y) if split == 0 else (y + row // 4) % 2
        name = f"{2 * y + row // 8 % 2 + 1:03}.Species/bird_{i:03}.jpg"
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(encoded(picture(y, place, i)))
        lines.append(f"{i + 1},{name},{y},{split},{place},/o/ocean/{i:08}.jpg")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_aligned_folders(
    folder: Path, *, name: str = "bffhq", percent: str = "0.5pct", classes: int = 2, each: int = 24, valid: bool = True
) -> Path:
    """A set released as `align` and `conflict`: pictures called `<number>_<label>_<attribute>.png`.

    Of `each` training pictures of a class a sixth conflicts; valid and test have every cell equally often.
    """
    root = folder / name
    for y in range(classes):
        for i in range(each):
            a = y if i % 6 else (y + 1) % classes
            _write_named(root / percent / ("align" if a == y else "conflict") / str(y), i, y, a)
    for part in ("valid", "test") if valid else ("test",):
        for y in range(classes):
            for a in range(classes):
                for i in range(max(2, 24 // classes**2)):
                    _write_named(root / part, 1000 * (part == "test") + 100 + i, y, a)
    return folder


def _write_named(folder: Path, number: int, label: int, attribute: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{number}_{label}_{attribute}.png").write_bytes(encoded(picture(label, attribute, number), "PNG"))


def write_fer2013(folder: Path, *, n: int = 140) -> Path:
    """FER2013's table: three fifths Training, a fifth PublicTest, a fifth PrivateTest; all emotions in each."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["emotion,pixels,Usage"]
    for i in range(n):
        usage = "Training" if i < 0.6 * n else "PublicTest" if i < 0.8 * n else "PrivateTest"
        image = np.random.default_rng(i).integers(0, 40, (48, 48), dtype=np.uint8)
        image[6 * (i % 7) : 6 * (i % 7) + 6] += 180
        lines.append(f"{i % 7},{' '.join(map(str, image.ravel()))},{usage}")
    (folder / "fer2013.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_raf_db(folder: Path, *, train: int = 140, test: int = 56) -> Path:
    """RAF-DB's list, aligned pictures and annotations; expressions of odd number are mostly women's."""
    rng = np.random.default_rng(0)
    for part in ("EmoLabel", "Image/aligned", "Annotation/manual"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    lines = []
    for part, count in (("train", train), ("test", test)):
        for i in range(count):
            name, expression = f"{part}_{i + 1:05}", i % 7 + 1
            gender = int(rng.random() < (0.75 if expression % 2 else 0.25)) if part == "train" else i // 7 % 2
            lines.append(f"{name}.jpg {expression}")
            image = picture(expression % 3, gender, i)
            (folder / "Image" / "aligned" / f"{name}_aligned.jpg").write_bytes(encoded(image))
            people = f"{gender}\n{int(rng.integers(3))}\n{int(rng.integers(5))}\n"
            landmarks = "".join(f"{10.5 + k}\t{20.25 + k}\n" for k in range(5))
            (folder / "Annotation" / "manual" / f"{name}_manu_attri.txt").write_text(landmarks + people)
    (folder / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines) + "\n")
    return folder
