"""What a language model is tested on: pairs and texts of its sets, and the published benchmarks that are at hand."""

from pathlib import Path
from typing import Any

from jaxdebias.contracts import ContractError
from jaxdebias.language._datasets import crows_pairs, language_file, stereoset
from jaxdebias.language._evaluation import LanguageTests
from jaxdebias.language._sentence_scores import BUCKETS
from jaxdebias.language.models import LanguageModel, Tokenizer
from jaxdebias.language.training_sets import LanguageSets


def language_tests(
    sets: LanguageSets, model: LanguageModel, tokenizer: Tokenizer, data_dir: Path | None = None
) -> LanguageTests:
    """All test pairs and texts of the sets, and of StereoSet and CrowS-Pairs what is at hand and fits in the model."""
    items, crows = {}, {}
    room = max((size for size in BUCKETS if size <= model.config.positions), default=model.config.positions)

    def fits(*texts: str) -> bool:
        return all(0 < len(tokenizer.encode(text)) <= room - 2 for text in texts)

    if data_dir is not None:
        read = [
            item
            for name in ("stereoset_gender.json", "stereoset_dev.json")
            for item in _optional(stereoset, data_dir, name)
            if fits(*item.sentences)
        ]
        for kind in sorted({item.bias_type for item in read}):
            items[kind] = [item for item in read if item.bias_type == kind]
        every = [
            pair
            for pair in _optional(crows_pairs, data_dir, "crows_pairs_anonymized.csv")
            if fits(pair.stereotype, pair.anti)
        ]
        parts = {"all": every, "gender": [pair for pair in every if pair.topic == "gender"]}
        crows = {name: pairs for name, pairs in parts.items() if pairs}
    tests = {name: [pair for pair in pairs if fits(pair.stereotype, pair.anti)] for name, pairs in sets.tests.items()}
    return LanguageTests({name: pairs for name, pairs in tests.items() if pairs}, sets.test_texts, items, crows)


def _optional(reader: Any, data_dir: Path, name: str) -> list[Any]:
    """What is in a file, or nothing where there is no such file."""
    try:
        path = language_file(data_dir, name)
    except ContractError:
        return []
    return reader(path)
