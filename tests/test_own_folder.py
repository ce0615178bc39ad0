"""What a user does with own images: a folder with metadata.csv, trained, measured and repaired from the CLI."""

import csv
import io

import numpy as np
import pytest

from jaxdebias.app import cli
from jaxdebias.results.codec import read_run


def composites(source, out, *, conflicting=0.05, seed=0):
    """Animals and motorbikes on forest and sea, as PNG files with a metadata.csv; objects do not cross splits."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    cutouts = np.load(source / "cutouts.npz")
    scenes = np.load(source / "scenes.npz")
    rgb, mask, superclass = cutouts["rgb"], cutouts["mask"], cutouts["superclass"]
    jpeg, offset, place = scenes["jpeg"], scenes["offset"], scenes["place"]
    rows = []
    (out / "images").mkdir(parents=True)
    for label in (0, 1):
        objects = rng.permutation(np.flatnonzero(superclass == label))
        cuts = np.split(objects, [int(0.5 * len(objects)), int(0.75 * len(objects))])
        for split, (members, copies, share) in enumerate(zip(cuts, (6, 4, 4), (conflicting, 0.5, 0.5), strict=True)):
            for number, index in enumerate(np.tile(members, copies)):
                background = 1 - label if rng.random() < share else label
                scene = rng.choice(np.flatnonzero(place == background))
                image = Image.open(io.BytesIO(jpeg[offset[scene] : offset[scene + 1]].tobytes())).convert("RGB")
                pixels = np.asarray(image.resize((128, 128)))
                name = f"images/{split}_{label}_{number}.png"
                picture = np.where(mask[index][..., None] == 1, rgb[index], pixels)
                Image.fromarray(picture).resize((64, 64)).save(out / name)
                rows.append((name, split, ("animal", "motorbike")[label], ("forest", "sea")[background]))
    with open(out / "metadata.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("filename", "split", "y", "a"))
        writer.writerows(rows)


@pytest.mark.slow
@pytest.mark.realdata
def test_own_images_from_the_command_line(data_dir, tmp_path, capsys):
    images, trained, fixed = tmp_path / "images", tmp_path / "trained", tmp_path / "fixed"
    composites(data_dir / "objects_on_scenes", images)
    cli.main(
        [
            "train",
            "--data",
            "folder",
            "--data-dir",
            str(images),
            "--image-size",
            "32",
            "--epochs",
            "12",
            "--out",
            str(trained),
        ]
    )
    cli.main(["debias", str(trained), "--out", str(fixed)])
    results = read_run(fixed)
    before, after = results.before, results.after
    # The background is a shortcut here: the model does better where it goes with the object.
    assert before.bias_aligned_accuracy.low > before.bias_conflicting_accuracy.high
    # Different objects on both sides of a pair: the bias is a gap of means, and the page says so.
    assert any("gap between the means" in finding for finding in results.findings)
    assert after.counterfactual_bias.value <= before.counterfactual_bias.value
    assert {group.label_name for group in after.groups} == {"animal", "motorbike"}
    assert set(results.baselines) == {"dfr", "fine_tune", "scratch"}
    assert "forest" in (fixed / "report.html").read_text()
