"""Miniatures of CIFAR-10's files: the pickles as Python 2 wrote them, and packed JPEG copies."""

import io
import pickle
from typing import ClassVar

import numpy as np
from PIL import Image


def pictures(n, seed=0):
    """Smooth random pictures `[n 32 32 3]`, which JPEG keeps nearly as they are, and labels 0, 1, ..., 9, 0, ..."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 226, (n, 4, 4, 3), dtype=np.uint8)
    x = np.stack([np.asarray(Image.fromarray(c).resize((32, 32), Image.Resampling.BICUBIC)) for c in coarse])
    return x, np.arange(n) % 10


class _AsPython2(pickle._Pickler):
    """Protocol 2 with strings and bytes as plain strings, which is what Python 2 wrote."""

    def plain(self, value):
        raw = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + len(raw).to_bytes(4, "little") + raw)
        self.memoize(value)

    dispatch: ClassVar = {**pickle._Pickler.dispatch, str: plain, bytes: plain}


def python2_pickle(value):
    buffer = io.BytesIO()
    _AsPython2(buffer, protocol=2).dump(value)
    return buffer.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def write_batches(folder, *, train=200, test=100):
    """data_batch_1 .. data_batch_5 and test_batch."""
    folder.mkdir(parents=True, exist_ok=True)
    x, y = pictures(train)
    parts = {f"data_batch_{i}": (x[rows], y[rows]) for i, rows in enumerate(np.split(np.arange(train), 5), 1)}
    for name, (images, labels) in (parts | {"test_batch": pictures(test, seed=1)}).items():
        data = np.ascontiguousarray(images.transpose(0, 3, 1, 2).reshape(len(images), -1))
        stored = {"batch_label": name, "labels": labels.tolist(), "data": data, "filenames": ["a.png"] * len(labels)}
        (folder / name).write_bytes(python2_pickle(stored))
    return folder


def write_packed(folder, *, train=200, test=100):
    folder.mkdir(parents=True, exist_ok=True)
    for part, (x, y) in (("train", pictures(train)), ("test", pictures(test, seed=1))):
        files = []
        for image in x:
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG", quality=95)
            files.append(buffer.getvalue())
        offset = np.cumsum([0, *map(len, files)])
        np.savez(
            folder / f"cifar10_{part}_jpeg.npz",
            jpeg=np.frombuffer(b"".join(files), np.uint8),
            offset=offset,
            label=y.astype(np.uint8),
        )
    return folder
