"""Language models small enough to be trained from scratch on a CPU in half a minute."""

from jaxdebias.contracts import check_choice
from jaxdebias.language.models._bert import BertConfig, bert
from jaxdebias.language.models._gpt2 import Gpt2Config, gpt2
from jaxdebias.language.models._model import LanguageModel

KINDS = ("gpt2", "bert")


def small_language_model(
    kind: str, vocabulary: int, *, positions: int = 32, width: int = 64, depth: int = 2, heads: int = 4
) -> LanguageModel:
    """A `gpt2`, with a bias on its logits, or a `bert`, without dropout; the same object for equal arguments.

    >>> small_language_model("bert", 100).config.hidden
    128
    """
    check_choice("kind", kind, KINDS)
    sizes = {
        "vocabulary": vocabulary,
        "positions": positions,
        "width": width,
        "depth": depth,
        "heads": heads,
        "hidden": 2 * width,
        "dropout": 0.0,
        "attention_dropout": 0.0,
    }
    return gpt2(Gpt2Config(**sizes, head_bias=True)) if kind == "gpt2" else bert(BertConfig(**sizes))
