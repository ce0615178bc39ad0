"""Small files that the golden runs read, generated without the package, so that they outlive any move inside it."""

import csv
import json
from pathlib import Path

import numpy as np


def write_squares(folder: Path, *, named: bool = True) -> None:
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


def write_predictions(folder: Path) -> None:
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


def write_features(folder: Path) -> None:
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


def write_adult(folder: Path) -> None:
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


def write_language_model(folder: Path) -> None:
    """A GPT-2 of random weights with a few words, in the layout of Hugging Face."""
    from safetensors.numpy import save_file

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    text = """the . in was her his she he him herself himself hers nurse chef teacher guests asked whether ready on at
        noon again monday sunday woman man yesterday morning"""
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
