"""From text to numbers: the tokenizers of checkpoints, and a small one of words for text that is generated here."""

import json
import pathlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxdebias.contracts import ContractError, expect
from jaxdebias.files import one_line
from jaxdebias.language.models._json import POINTER, read_object

PAD, UNKNOWN, START, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
GPT2_END = "<|endoftext|>"
_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """A tokenizer as a function and its special tokens. Equal only to itself."""

    encode: Callable[[str], list[int]] = field(repr=False)
    """text -> tokens, without a start or an end."""
    decode: Callable[[Sequence[int]], str] = field(repr=False)
    """tokens -> text, for people."""
    size: int
    """Tokens are 0..size-1."""
    pad: int
    start: int
    """What a text begins with: BERT's [CLS], GPT-2's <|endoftext|>."""
    end: int
    """What a text ends with: BERT's [SEP], GPT-2's <|endoftext|>."""
    mask: int | None = None
    """None: there is none, as for GPT-2."""
    unknown: int | None = None
    """None: every text can be written, as for GPT-2."""
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """What a checkpoint's folder needs to bring this tokenizer back."""

    @property
    def special(self) -> frozenset[int]:
        """Tokens that are no text."""
        return frozenset({self.pad, self.start, self.end, self.mask} - {None})

    def framed(self, text: str) -> list[int]:
        """The text's tokens between a start and an end: what BERT reads."""
        return [self.start, *self.encode(text), self.end]

    def rows(self, texts: Sequence[str], *, length: int) -> Int[np.ndarray, "n t"]:
        """`framed` texts as int32 `[n length]`, padded on the right; of longer texts the beginning, framed."""
        expect(length > 2, "length", "more than the start and the end", length)
        rows = np.full((len(texts), length), self.pad, np.int32)
        for row, text in zip(rows, texts, strict=True):
            tokens = [self.start, *self.encode(text)[: length - 2], self.end]
            row[: len(tokens)] = tokens
        return rows


def word_tokenizer(texts: Iterable[str], *, size: int = 8192, least: int = 1, lowercase: bool = True) -> Tokenizer:
    """A tokenizer whose tokens are words and runs of other signs, from the texts themselves.

    For models that are trained from scratch on generated text. Its file is a `tokenizer.json` of the `tokenizers`
    library's kind `WordLevel`, split by `Whitespace`; reading it back needs no library.

    Args:
      texts: where the words come from.
      size: at most so many tokens, the five special ones included; the most frequent words, ties by the alphabet.
      least: words seen less often are unknown.
      lowercase: makes no difference between "The" and "the".

    >>> tokenizer = word_tokenizer(["The nurse said that she was late.", "The nurse left."])
    >>> tokenizer.encode("the nurse left early .")
    [7, 6, 9, 1, 5]
    >>> tokenizer.decode([7, 6, 9])
    'the nurse left'
    """
    expect(size > 5, "size", "more than the five special tokens", size)
    counts = Counter(word for text in texts for word in _words(text, lowercase))
    for word in _SPECIAL:
        counts.pop(word, None)
    kept = sorted((word for word, count in counts.items() if count >= least), key=lambda word: (-counts[word], word))
    return _word_tokenizer((*_SPECIAL, *kept[: size - 5]), lowercase)


def read_tokenizer(folder: str | pathlib.Path) -> Tokenizer:
    """The tokenizer of a checkpoint's folder.

    Reads `tokenizer.json`, else BERT's `vocab.txt`, else GPT-2's `vocab.json` with `merges.txt`. All but the files of
    `word_tokenizer` need the `tokenizers` library.

    Raises:
      ContractError: no such files, no such library, or a tokenizer without a start and an end of texts.
    """
    folder = pathlib.Path(folder)
    files = {name: (folder / name).read_bytes() for name in _FILES if (folder / name).is_file()}
    if "tokenizer.json" in files:
        content = read_object("tokenizer.json", files["tokenizer.json"])
        model = content.get("model")
        expect(isinstance(model, dict), "model in tokenizer.json", "an object {...}", type(model).__name__)
        if model.get("type") == "WordLevel" and content.get("added_tokens") == _ADDED:
            vocabulary = model.get("vocab")
            numbers = [repr(number) for number in vocabulary.values()] if isinstance(vocabulary, dict) else []
            numbered = bool(numbers) and set(numbers) == {repr(i) for i in range(len(numbers))}
            expect(numbered, "vocab in tokenizer.json", "words with their numbers 0, 1, ...", type(vocabulary).__name__)
            words = tuple(sorted(vocabulary, key=vocabulary.get))
            return _word_tokenizer(words, content.get("normalizer") is not None)
    found = "tokenizer.json" in files or "vocab.txt" in files or {"vocab.json", "merges.txt"} <= set(files)
    expect(found, "folder", "a folder with tokenizer.json, vocab.txt, or vocab.json and merges.txt", folder)
    try:
        import tokenizers
    except ImportError:
        raise ContractError(
            "`tokenizers`: expected the library (pip install tokenizers), got an environment without it"
        ) from None
    settings = read_object("tokenizer_config.json", files.get("tokenizer_config.json", b"{}"))
    source = "tokenizer.json" if "tokenizer.json" in files else "vocab.txt" if "vocab.txt" in files else "vocab.json"
    for name, content in files.items():
        expect(not content.startswith(POINTER), name, "a file of a tokenizer", "a Git LFS pointer")
    try:
        if source == "tokenizer.json":
            library = tokenizers.Tokenizer.from_str(files[source].decode("utf-8-sig"))
        elif source == "vocab.txt":
            lowercase = bool(settings.get("do_lower_case", True))
            library = tokenizers.BertWordPieceTokenizer(str(folder / source), lowercase=lowercase)
        else:
            library = tokenizers.ByteLevelBPETokenizer(str(folder / source), str(folder / "merges.txt"))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises nothing narrower; its panics are no Exception
        raise ContractError(f"`{source}`: expected a tokenizer, got {one_line(error)}") from None
    library.no_padding()
    library.no_truncation()
    return _from_library(library, files)


def _from_library(library: Any, files: Mapping[str, bytes]) -> Tokenizer:
    def one_of(*names: str) -> int | None:
        return next((number for name in names if (number := library.token_to_id(name)) is not None), None)

    start, end = one_of(START, "<s>", GPT2_END), one_of(END, "</s>", GPT2_END)
    expect(start is not None and end is not None, "tokenizer", f"tokens {START} and {END}, or {GPT2_END}", "neither")
    pad = one_of(PAD, "<pad>")
    return Tokenizer(
        encode=lambda text: list(library.encode(text, add_special_tokens=False).ids),
        decode=lambda tokens: library.decode(list(tokens), skip_special_tokens=False),
        size=library.get_vocab_size(),
        pad=end if pad is None else pad,
        start=start,
        end=end,
        mask=one_of(MASK, "<mask>"),
        unknown=one_of(UNKNOWN, "<unk>"),
        files=files,
    )


_SPECIAL = (PAD, UNKNOWN, START, END, MASK)
_ADDED = [
    {
        "id": number,
        "content": word,
        "special": True,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
    }
    for number, word in enumerate(_SPECIAL)
]


def _word_tokenizer(vocabulary: tuple[str, ...], lowercase: bool) -> Tokenizer:
    number = {word: i for i, word in enumerate(vocabulary)}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _ADDED,
        "normalizer": {"type": "Lowercase"} if lowercase else None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": number, "unk_token": UNKNOWN},
    }
    # What PyTorch's AutoTokenizer wants to know beside it.
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "cls_token": START,
        "sep_token": END,
        "mask_token": MASK,
        "bos_token": START,
        "eos_token": END,
    }
    return Tokenizer(
        encode=lambda text: [number.get(word, 1) for word in _words(text, lowercase)],
        decode=lambda tokens: " ".join(vocabulary[i] for i in tokens),
        size=len(vocabulary),
        pad=0,
        unknown=1,
        start=2,
        end=3,
        mask=4,
        files={
            "tokenizer.json": json.dumps(content, indent=1).encode(),
            "tokenizer_config.json": json.dumps(settings, indent=1).encode(),
        },
    )


def _words(text: str, lowercase: bool) -> list[str]:
    """Special tokens first, then the pattern of the library's `Whitespace`: words, and runs of other signs."""
    words = []
    for i, piece in enumerate(re.split(r"(\[(?:PAD|UNK|CLS|SEP|MASK)\])", text)):
        words += [piece] if i % 2 else re.findall(r"\w+|[^\w\s]+", piece.lower() if lowercase else piece)
    return words
