import json

import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.language.models import read_tokenizer, word_tokenizer

TEXTS = ["The nurse said that she was late.", "The chef left ...", "Naïve café 3,000!"]
TRICKY = [
    "the NURSE -- left",
    "[MASK] was [UNK] late",
    "unheard-of",
    "  ",
    "a[SEP]b",
    "don't",
    "日本 naïve",
    "x_1 3,000 %",
]


def write(folder, tokenizer):
    for name, content in tokenizer.files.items():
        (folder / name).write_bytes(content)


def test_words_are_numbered_by_frequency_then_alphabet():
    tokenizer = word_tokenizer(["b b a c", "a b"])
    assert tokenizer.encode("b a c d [MASK]") == [5, 6, 7, 1, 4]
    assert tokenizer.size == 8
    assert word_tokenizer(["b b a c", "a b"], size=7).encode("b a c") == [5, 6, 1]
    assert word_tokenizer(["b b a c", "a b"], least=2).encode("b a c") == [5, 6, 1]
    assert word_tokenizer(["A a"], lowercase=False).encode("A a") == [5, 6]


def test_rows_are_framed_cut_and_padded():
    tokenizer = word_tokenizer(["a b c d"])
    rows = tokenizer.rows(["a b", "a b c d"], length=5)
    np.testing.assert_array_equal(rows, [[2, 5, 6, 3, 0], [2, 5, 6, 7, 3]])
    assert tokenizer.framed("d") == [2, 8, 3]
    assert tokenizer.special == {0, 2, 3, 4}


@pytest.mark.parametrize("lowercase", [True, False])
def test_own_file_comes_back_without_the_library(lowercase, tmp_path):
    tokenizer = word_tokenizer(TEXTS, lowercase=lowercase)
    write(tmp_path, tokenizer)
    again = read_tokenizer(tmp_path)
    assert [again.encode(text) for text in TEXTS + TRICKY] == [tokenizer.encode(text) for text in TEXTS + TRICKY]
    assert again.files == tokenizer.files


@pytest.mark.parametrize("lowercase", [True, False])
def test_the_library_reads_our_file_alike(lowercase, tmp_path):
    library = pytest.importorskip("tokenizers")
    tokenizer = word_tokenizer(TEXTS, lowercase=lowercase)
    write(tmp_path, tokenizer)
    theirs = library.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in TEXTS + TRICKY:
        assert theirs.encode(text).ids == tokenizer.encode(text)


def test_tokenizers_of_checkpoints(tmp_path):
    pytest.importorskip("tokenizers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "nur", "##se", "left"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    bert = read_tokenizer(tmp_path)
    assert bert.framed("The nurse left [MASK]") == [2, 5, 6, 7, 8, 4, 3]
    assert (bert.pad, bert.start, bert.end, bert.mask, bert.unknown, bert.size) == (0, 2, 3, 4, 1, 9)

    folder = tmp_path / "gpt2"
    folder.mkdir()
    pieces = ["t", "h", "e", "Ġ", "th", "the", "Ġthe", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e\nĠ the\n")
    gpt2 = read_tokenizer(folder)
    assert gpt2.encode("the the") == [5, 6]
    assert (gpt2.pad, gpt2.start, gpt2.end, gpt2.mask) == (7, 7, 7, None)
    assert gpt2.decode([5, 6]) == "the the"


def test_missing_files_and_library_are_named(tmp_path, monkeypatch):
    with pytest.raises(ContractError, match=r"tokenizer\.json, vocab\.txt"):
        read_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]")
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(ContractError, match="pip install tokenizers"):
        read_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"version https://git-lfs.github.com/spec/v1\n",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"model": null}',
        b'{"model": {"type": "BPE"}}',
    ],
)
def test_damaged_tokenizers_are_one_line(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ContractError, match=r"tokenizer") as caught:
        read_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("vocabulary", [None, [], {}, {"a": 0, "b": 5}, {"a": 0, "b": "1"}, {"a": 0, "b": True}])
def test_a_vocabulary_has_numbers_from_0(tmp_path, vocabulary):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(word_tokenizer(["a b"]).files["tokenizer.json"])
    content = json.loads(path.read_text())
    content["model"]["vocab"] = vocabulary
    path.write_text(json.dumps(content))
    with pytest.raises(ContractError, match=r"vocab in tokenizer.json"):
        read_tokenizer(tmp_path)
    content["model"]["vocab"] = {"a": 0}
    path.write_text(json.dumps(content), encoding="utf-8-sig")
    assert read_tokenizer(tmp_path).size == 1
