"""Language models as pure functions: GPT-2 and BERT, their checkpoints, and tokenizers."""

from jaxdebias.models.language.bert import BertConfig, bert
from jaxdebias.models.language.checkpoint import load_checkpoint, save_checkpoint
from jaxdebias.models.language.gpt2 import Gpt2Config, gpt2
from jaxdebias.models.language.model import LanguageModel
from jaxdebias.models.language.objectives import TokenLoss, causal_loss, masked_loss
from jaxdebias.models.language.small import small_language_model
from jaxdebias.models.language.tokenizer import Tokenizer, read_tokenizer, word_tokenizer

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
