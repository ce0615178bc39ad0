"""StereoSet and CrowS-Pairs of real checkpoints, before and after FMD, with one command.

    python benchmarks/reproduce/stereosets.py bert-base-uncased gpt2 --data-dir DIR --out OUT

Each argument is a local folder in the layout of Hugging Face (`config.json`, `model.safetensors`, tokenizer files;
extra `[language]`), as `huggingface-cli download` or `save_pretrained` make it. DIR has StereoSet
(`stereoset_gender.json`, `stereoset_dev.json`), `crows_pairs_anonymized.csv`, Winogender and WikiText-2, or
language/...; what is there is used.
Each checkpoint gets a folder OUT/NAME, with the repaired checkpoint, results.json and report.md, as `jaxdebias debias
--data language --checkpoint` writes it; OUT/stereosets.json and OUT/stereosets.md have all of them side by side. Where
OUT/NAME has results, they are kept.

The edit is made from pairs of generated sentences about occupations and chosen on others of them, and on WikiText-2.
Neither StereoSet nor CrowS-Pairs chooses anything. No margins: what comes out is the finding.
"""

import argparse
import functools
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxdebias.app.language import LanguageDebiasConfig, debias_language
from jaxdebias.contracts import expect
from jaxdebias.report.language_markdown import side_by_side
from jaxdebias.results.codec import read_results, to_json
from jaxdebias.results.records import LanguageResults


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("JAXDEBIAS_DATA")
    parser.add_argument("checkpoints", nargs="+", type=Path, help="local folders")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path(default) if default else None,
        help="folder with the sentences, or with language/...; by default JAXDEBIAS_DATA",
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--block", choices=("transform", "mlp", "top"), default="top")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    names = [folder.resolve().name for folder in args.checkpoints]
    expect(len(set(names)) == len(names), "checkpoints", "folders of different names", ", ".join(names))
    found: dict[str, LanguageResults] = {}
    for name, folder in zip(names, args.checkpoints, strict=True):
        path = args.out / name / "results.json"
        if not path.exists():
            config = LanguageDebiasConfig(
                checkpoint=folder, data_dir=args.data_dir, block=args.block, rounds=args.rounds, seed=args.seed
            )
            said = functools.partial(print, name, file=sys.stderr, flush=True)
            debias_language(config, args.out / name, observe=said)
        found[name] = read_results(path)
    page = side_by_side(found)
    for name, content in (
        ("stereosets.json", json.dumps({name: to_json(one) for name, one in found.items()}, indent=1) + "\n"),
        ("stereosets.md", page),
    ):
        temporary = args.out / f"{name}.part"
        temporary.write_text(content)
        os.replace(temporary, args.out / name)
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
