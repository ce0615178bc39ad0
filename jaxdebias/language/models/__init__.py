"""Language models as pure functions: GPT-2 and BERT, their checkpoints, and tokenizers."""

from jaxdebias.language.models._bert import BertConfig, bert
from jaxdebias.language.models._checkpoint import load_checkpoint, save_checkpoint
from jaxdebias.language.models._gpt2 import Gpt2Config, gpt2
from jaxdebias.language.models._model import LanguageModel
from jaxdebias.language.models._objectives import TokenLoss, causal_loss, masked_loss
from jaxdebias.language.models._small import small_language_model
from jaxdebias.language.models._tokenizer import Tokenizer, read_tokenizer, word_tokenizer

__all__ = [
    "BertConfig",
    "Gpt2Config",
    "LanguageModel",
    "TokenLoss",
    "Tokenizer",
    "bert",
    "causal_loss",
    "gpt2",
    "load_checkpoint",
    "masked_loss",
    "read_tokenizer",
    "save_checkpoint",
    "small_language_model",
    "word_tokenizer",
]
