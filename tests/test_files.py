"""Files: what is written is whole, what is read has shown that it is, and one process at a time fills a folder."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from fuzz.mutations import REFUSED, outcome

from jaxdebias import files
from jaxdebias.contracts import ContractError

HOLD = "import fcntl,os,sys,time; fcntl.flock(os.open(sys.argv[1], 0), 2); print(flush=True); time.sleep(60)"


def test_a_lock_ends_with_the_process_that_holds_it(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(ContractError, match=f"{tmp_path}.*one in use"), files.locked(tmp_path):
            pass
        other.kill()
    with files.locked(tmp_path) as check:
        check()
        tmp_path.rename(tmp_path.with_suffix(".moved"))
        with pytest.raises(ContractError, match="the folder that was there at the start"):
            check()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_what_cannot_be_written_is_said_in_one_line_and_the_old_file_stays(tmp_path, monkeypatch, number, call):
    path = tmp_path / "a.json"
    files.write_text(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, lambda *_, **__: (_ for _ in ()).throw(OSError(number, os.strerror(number))))
        with pytest.raises(ContractError, match=os.strerror(number)) as error:
            files.write_text(path, "new")
    assert str(path) in str(error.value)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_sealed_file_refuses_every_flip_of_a_bit_that_changes_it(tmp_path):
    path, content = tmp_path / "a.json", {"loss": [0.25, float("inf")], "name": "é", "n": {"b": 1, "a": None}}
    files.write_sealed(path, content)
    assert files.read_sealed(path) == content
    whole, refused = path.read_bytes(), 0
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        found = outcome(files.read_sealed, {"path": path})
        assert found is REFUSED or found == content
        refused += found is REFUSED
    assert refused > 4 * len(whole)
    for text in ("[" * 100_000, "null", "[]", "{}", '{"sha256": 1}', "\ufeff{}"):
        path.write_text(text)
        with pytest.raises(ContractError, match=str(path)):
            files.read_sealed(path)


def claims(path, shape, held=8):
    """An archive whose only member has a header of that shape and a few bytes."""
    import zipfile

    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(held))
    return path


@pytest.mark.parametrize("shape", ["(549755813888,)", "(2, -1)", "(-8,)", "(2**3,)", "(1.0,)", "()" + "*9"])
def test_headers_that_claim_more_than_there_is(tmp_path, shape):
    with pytest.raises(ContractError, match=r"a\.npz"):
        files.read_arrays("arrays", claims(tmp_path / "a.npz", shape))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    files.write_arrays(path, {"a": np.zeros(1 << 20)}, compressed=True)
    assert files.read_arrays("arrays", path)["a"].size == 1 << 20
    monkeypatch.setattr(files, "MOST_UNPACKED", 1 << 20)
    with pytest.raises(ContractError, match=r"unpacks to at most 1,048,576 bytes, got 8,388,736 bytes"):
        files.read_arrays("arrays", path)
    files.write_arrays(path, {"a": np.zeros(1 << 20)})  # as large as it says: no bomb
    assert files.read_arrays("arrays", path)["a"].size == 1 << 20


def test_members_that_are_no_arrays(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("readme.txt", json.dumps("no array"))
    with pytest.raises(ContractError, match=r"a\.npz"):
        files.read_arrays("arrays", tmp_path / "a.npz")
