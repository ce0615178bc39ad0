"""Files made to do harm: bombs, claims of their headers, JSON of other shapes, names that point elsewhere."""

import json
import os
import struct
import zlib

import numpy as np
import pytest
from fuzz.mutations import REFUSED, outcome

from jaxdebias.contracts import ContractError
from jaxdebias.data import folder
from jaxdebias.data._folder import read_metadata
from jaxdebias.data.decode import decode_all
from jaxdebias.language.models import load_checkpoint, read_tokenizer
from jaxdebias.models._torchvision_weights import read_safetensors

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
GPT2 = {"model_type": "gpt2", "vocab_size": 8, "n_positions": 4, "n_embd": 4, "n_layer": 1, "n_head": 2,
        "resid_pdrop": 0.1, "attn_pdrop": 0.1, "layer_norm_epsilon": 1e-5}  # fmt: skip
VALUES = (None, True, -1, 0, 10**9, 10**30, 1e400, float("nan"), "4", "x" * 10_000, [], [1], {}, {"a": {}})


def png(width, height):
    """A picture of one colour, of any size, in a few bytes a thousand pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * min(height, 8))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def pictures(root, names):
    """A folder whose metadata name these pictures, in every split."""
    rows = [
        f"{name},{split},{i % 2},{i // 2}" for split in ("train", "val", "test") for i in range(4) for name in names
    ]
    (root / "metadata.csv").write_text("\n".join(["filename,split,y,a", *rows]) + "\n")
    return root


def test_pictures_that_unpack_to_gigabytes_are_refused_by_their_header(tmp_path):
    (tmp_path / "0.png").write_bytes(png(9000, 9000))
    pictures(tmp_path, ["0.png"])
    said = r"metadata\.csv line 2`: expected a picture of at most 50,000,000 pixels, got 9000 x 9000"
    with pytest.raises(ContractError, match=said):
        folder(tmp_path, image_size=8)
    with pytest.raises(ContractError, match="expected a picture of at most 50,000,000 pixels"):
        decode_all(1, 8, lambda i: tmp_path / "0.png", lambda i: "a picture")
    (tmp_path / "0.png").write_bytes(png(4, 4))
    assert folder(tmp_path, image_size=8, max_pixels=16).splits["test"].x.shape == (4, 8, 8, 3)
    with pytest.raises(ContractError, match=r"at most 16 pixels|at most 15 pixels"):
        folder(tmp_path, image_size=8, max_pixels=15, cache_dir=tmp_path / "other")
    with pytest.raises(ContractError, match=r"at most 1,000 bytes in memory, got 12 of 8 x 8, 2,304 bytes"):
        folder(tmp_path, image_size=8, max_bytes=1000)


@pytest.mark.parametrize(
    "name", ["../0.png", "a/../../0.png", "/etc/hostname", "a" * 300, "b/" * 2500 + "c", "loop.png"]
)
def test_names_that_point_elsewhere_or_nowhere(tmp_path, name):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "0.png").write_bytes(png(4, 4))
    os.symlink("loop.png", root / "loop.png")
    found = outcome(read_metadata, {"root": pictures(root, [name])})
    assert found is REFUSED
    os.symlink(tmp_path / "0.png", root / "link.png")  # of the user's own making
    assert len(read_metadata(pictures(root, ["link.png"]))) == 12


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        b"", LFS, struct.pack("<Q", 2**63) + b"{}", safetensors(b"[" * 100_000), safetensors(b"[]"),
        safetensors(b"null"),
        safetensors(b"\xff\xfe"), safetensors({"a": None}), safetensors({"a\nb": {**ENTRY, "dtype": "F4"}}, bytes(8)),
        *(safetensors({"a": {**ENTRY, key: value}}, bytes(8))
          for key in ENTRY for value in (*VALUES, [-2], [-1, -2], [0, 10**30], [2.0], ["2"], [8, 0], [0, 4])),
    ],
)  # fmt: skip
def test_weights_of_any_header(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    assert outcome(read_safetensors, {"path": tmp_path / "a.safetensors"}) is REFUSED


@pytest.mark.parametrize("content", [b"", LFS, b"[" * 100_000, b"\xef\xbb\xbf[]", b"null", b'{"model_type": "gpt2"}'])
def test_configurations_of_any_bytes(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(safetensors({"wte.weight": ENTRY}, np.ones(2, np.float32).tobytes()))
    (tmp_path / "config.json").write_bytes(content)
    assert outcome(load_checkpoint, {"folder": tmp_path}) is REFUSED
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "merges.txt"):
        for other in ("merges.txt", "vocab.json"):
            (tmp_path / other).write_bytes(b"{}")
        (tmp_path / name).write_bytes(content)
        outcome(read_tokenizer, {"folder": tmp_path})


def test_configurations_of_any_values(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(safetensors({"wte.weight": ENTRY}, np.ones(2, np.float32).tobytes()))
    for key in (*GPT2, "n_inner", "activation_function", "tie_word_embeddings"):
        for value in VALUES:
            (tmp_path / "config.json").write_text(json.dumps({**GPT2, key: value}))
            assert (
                outcome(load_checkpoint, {"folder": tmp_path}) is REFUSED
            )  # of weights that are missing, if not before
