"""Language models as pure functions: GPT-2 and BERT, their checkpoints, and tokenizers."""

from jaxdebias.language.models.bert import BertConfig, bert
from jaxdebias.language.models.checkpoint import load_checkpoint, save_checkpoint
from jaxdebias.language.models.gpt2 import Gpt2Config, gpt2
from jaxdebias.language.models.model import LanguageModel
from jaxdebias.language.models.objectives import TokenLoss, causal_loss, masked_loss
from jaxdebias.language.models.small import small_language_model
from jaxdebias.language.models.tokenizer import Tokenizer, read_tokenizer, word_tokenizer

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
