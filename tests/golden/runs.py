"""A dozen and a half small runs by the command line alone, and what they write with all that depends on the machine
taken out.

    python tests/golden/runs.py OUT              all runs; per run a folder with its texts, made ready for `diff -r`
    python tests/golden/runs.py OUT tables       one chain of them

Everything that a run reads is generated here, without the package, so that these runs outlive any move inside it.
The clock stands still and compilation is fast and the same everywhere: what is written depends on the input, the
package and its libraries only.
"""

import contextlib
import csv
import importlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ENTRIES = ("app/cli.py", "cli.py")
"""Of the package, where `main` is: the first of them that there is."""
TEXTS = ("results.json", "report.md", "model_card.md", "report.html")
TIMES = ("seconds", "seconds_by_step")
"""Keys of results.json whose numbers depend on the machine, wherever they are."""
MACHINE = ("device", "versions")


class Run(NamedTuple):
    """A command; its arguments name files of the folder that all runs of a chain share."""

    name: str
    """Of the run, and of the folder that it writes, if it writes one."""
    arguments: str
    code: int = 0


class Chain(NamedTuple):
    """Runs in order, of which later ones read what earlier ones wrote."""

    runs: tuple[Run, ...]
    make: Callable[[Path], None] = lambda folder: None
    """Writes the input files."""
    slow: bool = True
    optimised: bool = False
    """Compiled as users have it: worth it where more is computed than compiled."""


def _write_squares(folder: Path, *, named: bool = True) -> None:
    """Bright and dark squares on red or blue ground: a column a (if `named`) and two that go with nothing."""
    from PIL import Image

    root, rng, lines = folder / "squares", np.random.default_rng(0), []
    root.mkdir()
    for i in range(600):
        split, y = ("train", "val", "test")[i % 3], i // 3 % 2
        ground = y if rng.random() < (0.95 if split == "train" else 0.5) else 1 - y
        image = np.zeros((16, 16, 3), np.uint8)
        image[..., 2 * ground] = 160
        image[4:12, 4:12] = (90, 165)[y] + rng.integers(-70, 70)
        Image.fromarray(image).save(root / f"{i}.png")
        told = [("red", "blue")[ground]] if named else []
        lines.append(
            [f"{i}.png", split, ("dark", "bright")[y], *told, ("A", "B")[rng.integers(2)], rng.integers(0, 90)]
        )
    with open(root / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["filename", "split", "y", *(["a"] if named else []), "camera", "age"], *lines])


def _write_predictions(folder: Path) -> None:
    """Land and water birds by a model that half follows the background; the weather goes with nothing."""
    rng, names, places = np.random.default_rng(0), ("landbird", "waterbird"), ("land", "water")
    rows = []
    for i in range(1800):
        train, y = i >= 600, int(rng.random() < 0.5)
        place = (y if rng.random() < 0.9 else 1 - y) if train else int(rng.random() < 0.5)
        predicted = place if rng.random() < 0.5 else y if rng.random() < 0.9 else 1 - y
        rows.append(
            [
                names[y],
                "" if train else names[predicted],
                "train" if train else "test",
                places[place],
                "" if rng.random() < 0.1 else ("sun", "rain")[rng.integers(2)],
                f"{rng.normal():.3f}",
            ]
        )
    with open(folder / "birds.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["y", "prediction", "split", "background", "weather", "weight"], *rows])
    with open(folder / "untrained.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [["label", "predicted", "weather"], *([row[0], row[1], row[4]] for row in rows[:600])]
        )


def _write_features(folder: Path) -> None:
    """Two features that give the label away, one of them noisy, the other the shortcut; and a head that takes both."""
    arrays = {}
    for seed, (name, n) in enumerate((("train", 400), ("edit", 120), ("accept", 120), ("test", 200))):
        rng = np.random.default_rng(seed)
        label = rng.integers(0, 2, n)
        signal = (2.0 * label - 1)[:, None] + rng.normal(size=(n, 1))
        aligned = np.hstack(
            [signal, (2.0 * label - 1)[:, None] + 0.1 * rng.normal(size=(n, 1)), 0.3 * rng.normal(size=(n, 1))]
        )
        conflicting = aligned * np.array([1, -1, 1])
        shown = rng.random(n) < (0.95 if name == "train" else 0.5)
        x = np.where(shown[:, None], aligned, conflicting)
        pairs = (
            {}
            if name == "train"
            else {"edit": {"edit": aligned, "edit_twin": conflicting}}.get(
                name, {f"{name}_pairs": aligned, f"{name}_twin": conflicting, f"{name}_pairs_label": label}
            )
        )
        arrays |= {name: x, f"{name}_label": label, **pairs}
        if name != "edit":
            arrays[f"{name}_attribute"] = np.where(shown, label, 1 - label)
    arrays = {name: a.astype(np.float32 if a.dtype.kind == "f" else np.int64) for name, a in arrays.items()}
    np.savez(folder / "features.npz", **arrays)
    np.savez(
        folder / "head.npz",
        **{
            "fc.weight": np.array([[-0.5, -2.0, 0.1], [0.5, 2.0, -0.1]], np.float32),
            "fc.bias": np.zeros(2, np.float32),
        },
    )


def _write_adult(folder: Path) -> None:
    """Census rows in UCI's layout, of which sex and education decide the income."""
    rng = np.random.default_rng(0)

    def line(i: int, dot: str) -> str:
        sex, years = int(rng.integers(2)), int(rng.integers(5, 16))
        rich = rng.random() < 1 / (1 + np.exp(-(0.5 * (years - 11) + 3 * sex - 1.5)))
        person = (
            "?" if i % 7 == 0 else ("Private", "State-gov")[i % 2],
            1000 + i,
            "HS-grad",
            years,
            "Divorced",
            "Sales",
            ("Wife", "Husband")[sex],
            ("White", "Black", "Other")[rng.integers(3)],
            ("Female", "Male")[sex],
            int(rng.integers(0, 2) * rng.integers(0, 9999)),
            0,
            40,
            "Cuba",
        )
        return ", ".join(map(str, (int(rng.integers(17, 90)), *person, ("<=50K", ">50K")[int(rich)] + dot)))

    (folder / "adult").mkdir()
    (folder / "adult" / "adult.data").write_text("\n".join(line(i, "") for i in range(8500)) + "\n\n")
    (folder / "adult" / "adult.test").write_text(
        "\n".join(["|1x3 Cross validator", *(line(i, ".") for i in range(400))]) + "\n"
    )


def _write_language_model(folder: Path) -> None:
    """A GPT-2 of random weights with a few words, in the layout of Hugging Face."""
    from safetensors.numpy import save_file

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    text = """the . in was her his she he him herself himself hers nurse chef teacher guests asked whether ready on at noon
        again monday sunday woman man yesterday morning"""
    words = [*special, *text.split()]
    width, hidden, positions, depth = 8, 16, 64, 2
    shapes = {
        "wte.weight": (len(words), width),
        "wpe.weight": (positions, width),
        "ln_f.weight": (width,),
        "ln_f.bias": (width,),
    }
    for i in range(depth):
        shapes |= {
            f"h.{i}.{name}": shape
            for name, shape in {
                "ln_1.weight": (width,),
                "ln_1.bias": (width,),
                "attn.c_attn.weight": (width, 3 * width),
                "attn.c_attn.bias": (3 * width,),
                "attn.c_proj.weight": (width, width),
                "attn.c_proj.bias": (width,),
                "ln_2.weight": (width,),
                "ln_2.bias": (width,),
                "mlp.c_fc.weight": (width, hidden),
                "mlp.c_fc.bias": (hidden,),
                "mlp.c_proj.weight": (hidden, width),
                "mlp.c_proj.bias": (width,),
            }.items()
        }
    rng, root = np.random.default_rng(0), folder / "gpt2"
    root.mkdir()
    save_file(
        {
            f"transformer.{name}": (0.3 * rng.normal(size=shape) + (".ln_" in f".{name}" and "weight" in name)).astype(
                np.float32
            )
            for name, shape in shapes.items()
        },
        root / "model.safetensors",
    )
    (root / "config.json").write_text(
        json.dumps(
            {
                "model_type": "gpt2",
                "architectures": ["GPT2LMHeadModel"],
                "vocab_size": len(words),
                "n_positions": positions,
                "n_embd": width,
                "n_layer": depth,
                "n_head": 2,
                "n_inner": hidden,
                "layer_norm_epsilon": 1e-5,
                "activation_function": "gelu_new",
                "resid_pdrop": 0.0,
                "embd_pdrop": 0.0,
                "attn_pdrop": 0.0,
                "bos_token_id": 2,
                "eos_token_id": 3,
            }
        )
    )
    (root / "tokenizer.json").write_text(
        json.dumps(
            {
                "version": "1.0",
                "truncation": None,
                "padding": None,
                "post_processor": None,
                "decoder": None,
                "added_tokens": [
                    {
                        "id": i,
                        "content": word,
                        "single_word": False,
                        "lstrip": False,
                        "rstrip": False,
                        "normalized": False,
                        "special": True,
                    }
                    for i, word in enumerate(special)
                ],
                "normalizer": {"type": "Lowercase"},
                "pre_tokenizer": {"type": "Whitespace"},
                "model": {
                    "type": "WordLevel",
                    "vocab": {word: i for i, word in enumerate(words)},
                    "unk_token": "[UNK]",
                },
            }
        )
    )
    (root / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "pad_token": "[PAD]",
                "unk_token": "[UNK]",
                "cls_token": "[CLS]",
                "sep_token": "[SEP]",
                "mask_token": "[MASK]",
                "bos_token": "[CLS]",
                "eos_token": "[SEP]",
            }
        )
    )


CHAINS = {
    "predictions": Chain(
        (
            Run("predictions", "audit --predictions birds.csv --out predictions"),
            Run("predictions_of_test", "audit --predictions untrained.csv --out predictions_of_test"),
            Run("check_predictions", "check predictions --max-gap 0.1", 1),
        ),
        _write_predictions,
        slow=False,
    ),
    "features": Chain(
        (
            Run(
                "features_fmd",
                "debias --features features.npz --head head.npz --rounds 2 --save-factor factor.npz --out features_fmd",
            ),
            Run("features_dfr", "debias --features features.npz --head head.npz --method dfr --out features_dfr"),
        ),
        _write_features,
        slow=False,
    ),
    "digits": Chain(
        (
            Run("digits_erm", "train --data digits --epochs 20 --out digits_erm"),
            Run("check_digits", "check digits_erm --max-gap 0.2 --min-worst-group 0", 1),
            Run("digits_fmd", "debias digits_erm --rounds 2 --no-baselines --out digits_fmd"),
            Run("digits_dfr", "debias digits_erm --method dfr --no-baselines --out digits_dfr"),
            Run("digits_mixing", "debias digits_erm --method mixing --no-baselines --out digits_mixing"),
            Run("digits_audit", "audit digits_erm --out digits_audit --fix --pixels none"),
            Run("check_audit", "check digits_audit --max-gap 0.9"),
        )
    ),
    "tables": Chain(
        (
            Run("adult_erm", "train --data adult --data-dir adult --epochs 2 --out adult_erm"),
            Run("adult_fmd", "debias adult_erm --rounds 1 --out adult_fmd"),
        ),
        _write_adult,
    ),
    "learners": Chain(
        (
            Run("digits_gce", "train --data digits --method gce --epochs 2 --out digits_gce"),
            Run("digits_dro", "train --data digits --method group-dro --epochs 2 --out digits_dro"),
            Run("digits_lff", "train --data digits --method lff --epochs 2 --out digits_lff"),
        )
    ),
    "dbvae": Chain(
        (Run("digits_dbvae", "train --data digits --method dbvae --model mlp --epochs 2 --out digits_dbvae"),)
    ),
    "scenes": Chain(
        (
            Run("scenes_erm", "train --data scenes --model pooled-cnn --epochs 1 --out scenes_erm"),
            Run("scenes_erm", "audit scenes_erm --maps"),
        )
    ),
    "folder": Chain(
        (
            Run("squares_erm", "train --data folder --data-dir squares --image-size 16 --epochs 4 --out squares_erm"),
            Run(
                "squares_audit",
                "audit squares_erm --out squares_audit --fix --candidates camera age --attribute ground --pixels maps",
            ),
        ),
        _write_squares,
    ),
    "patches": Chain(
        (
            Run(
                "patches", "train --data folder --data-dir squares --image-size 12 --model mlp --epochs 2 --out patches"
            ),
            Run("patches", "audit patches --patches"),
        ),
        _write_squares,
        optimised=True,
    ),
    "blind": Chain(
        (
            Run("blind_erm", "train --data folder --data-dir squares --image-size 16 --epochs 2 --out blind_erm"),
            Run("blind_audit", "audit blind_erm --out blind_audit --pixels none"),
        ),
        lambda folder: _write_squares(folder, named=False),
    ),
    "language": Chain(
        (Run("language", "debias --data language --checkpoint gpt2 --rounds 1 --no-baselines --out language"),),
        _write_language_model,
    ),
}


def main_of_package() -> Callable[[list[str]], None]:
    """Chosen by file: of an editable installation, import falls back on another checkout for a module that is gone."""
    import jaxdebias

    root = Path(jaxdebias.__file__).parent
    entry = next(entry for entry in ENTRIES if (root / entry).is_file())
    return importlib.import_module(f"jaxdebias.{entry.removesuffix('.py').replace('/', '.')}").main


def execute(chain: Chain, folder: Path, out: Path) -> dict[str, float]:
    """Makes the runs of a chain in `folder`, and writes to `out` what each wrote; -> run: CPU seconds.

    Raises:
      AssertionError: a command ended with another exit code.
    """
    import jax

    jax.clear_caches()  # a chain alone writes what it writes after others
    jax.config.update("jax_disable_most_optimizations", not chain.optimised)
    clock, main, took = time.perf_counter, main_of_package(), {}
    chain.make(folder)
    os.chdir(folder)
    for run in chain.runs:
        began, printed, code = time.process_time(), io.StringIO(), 0
        time.perf_counter = lambda: 0.0
        try:
            with contextlib.redirect_stdout(printed):
                main(run.arguments.split())
        except SystemExit as stop:
            code = stop.code
        finally:
            time.perf_counter = clock
        assert code == run.code, f"jaxdebias {run.arguments}: exit code {code} instead of {run.code}"
        _keep(run, folder, out / run.name, printed.getvalue())
        took[run.name] = took.get(run.name, 0.0) + time.process_time() - began
    return took


def _keep(run: Run, folder: Path, out: Path, printed: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "printed.txt", "a", encoding="utf-8") as file:
        file.write(_anywhere(printed, folder))
    made = folder / run.name
    if not made.is_dir():
        return
    results = json.loads((made / "results.json").read_text(encoding="utf-8"))
    for name in TEXTS:
        if (made / name).is_file():
            text = _anywhere((made / name).read_text(encoding="utf-8"), folder)
            if name == "results.json":
                text = json.dumps(_timeless(json.loads(text)), indent=1) + "\n"
            elif "device" in results:
                text = text.replace(str(results["device"]), "DEVICE")
            (out / name).write_text(text, encoding="utf-8")
    arrays = {str(path.relative_to(made)): _arrays(path) for path in sorted(made.rglob("*.npz"))}
    (out / "arrays.json").write_text(json.dumps(arrays, indent=1) + "\n")
    files = sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file())
    (out / "files.txt").write_text("\n".join(files) + "\n")


def _anywhere(text: str, folder: Path) -> str:
    return text.replace(str(folder), "HERE")


def _timeless(value: Any) -> Any:
    """Without what depends on the machine; the keys stay."""
    if isinstance(value, dict):
        return {
            key: _zero(one) if key in TIMES else "-" if key in MACHINE else _timeless(one) for key, one in value.items()
        }
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def _zero(value: Any) -> Any:
    return dict.fromkeys(value, 0) if isinstance(value, dict) else 0


def _arrays(path: Path) -> dict[str, Any]:
    """name -> [shape, dtype, three numbers of the values] of a file of arrays."""
    with np.load(path) as file:
        return {
            name: [list(file[name].shape), str(file[name].dtype), digest(file[name])]
            for name in sorted(file)
            if file[name].dtype.kind in "iufb"
        }


def digest(numbers: Any) -> list[float]:
    """Mean, root mean square, and a mean whose weights rise from 1 to 2, which depends on the order.

    >>> digest([1.0, 3.0])
    [2.0, 2.23606797749979, 3.5]
    """
    x = np.asarray(numbers, np.float64).ravel()
    if not x.size:
        return [0.0, 0.0, 0.0]
    return [float(x.mean()), float(np.sqrt(np.mean(x * x))), float(np.mean(x * np.linspace(1, 2, x.size)))]


def prepare() -> None:
    """One thread, on the processor, without the caller's flags and data. Call it before JAX is imported."""
    os.environ.pop("XLA_FLAGS", None)
    os.environ.pop("JAXDEBIAS_DATA", None)
    os.environ |= {"JAX_PLATFORMS": "cpu", "NPROC": "1", "COLUMNS": "120"}


if __name__ == "__main__":
    prepare()
    out, wanted = Path(sys.argv[1]).resolve(), sys.argv[2:] or list(CHAINS)
    for name in wanted:
        with tempfile.TemporaryDirectory() as folder:
            for run, seconds in execute(CHAINS[name], Path(folder).resolve(), out).items():
                print(f"{seconds:6.1f} s  {run}", flush=True)
            os.chdir("/")
