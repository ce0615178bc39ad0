import re
from html.parser import HTMLParser

import jaxtyping
import numpy as np
import pytest
from report.fake_parts import as_record, between, changed, common, measurement
from report.fake_results import FAKES, digits, fake
from results.small_records import features

from jaxdebias.contracts import ContractError
from jaxdebias.report import Pictures, write_page
from jaxdebias.report.pictures import IMAGES

SECTIONS = {
    "digits": "verdict findings numbers pairs baselines groups worst confusion harmful edit training metrics "
    "provenance",
    "digits_erm": "verdict numbers pairs groups worst confusion harmful training metrics provenance",
    "birds": "verdict numbers groups worst confusion training metrics provenance",
    "census": "verdict numbers groups confusion harmful edit training metrics provenance",
    "fair": "verdict numbers groups confusion training provenance",
    "faces": "verdict numbers pairs groups confusion harmful edit training metrics provenance",
}
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Outline(HTMLParser):
    """Checks that every tag is closed in order; collects ids, text and references."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.text, self.references = [], [], [], []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.references += [attributes[k] for k in ("src", "href", "srcset", "action", "data") if k in attributes]
        assert tag not in ("script", "link", "iframe", "object", "form")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag in ("rect", "line", "path"), f"<{tag}/> is not self-closing in HTML"

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


def written(record, pictures, tmp_path):
    write_page(record, pictures, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    outline = Outline()
    outline.feed(html)
    outline.close()
    assert not outline.open
    text = " ".join(" ".join(outline.text).split()).replace("\u202f", " ").replace("\u00a0", " ")
    return html, outline, text


@pytest.mark.parametrize("name", FAKES)
def test_page_is_whole_and_self_contained(name, tmp_path):
    html, outline, text = written(*fake(name), tmp_path)
    assert outline.ids == SECTIONS[name].split()
    assert all(reference.startswith("data:image/png;base64,") for reference in outline.references)
    assert not re.search(r"https?:|//\w|@import|url\(", re.sub(r"base64,[^\"]+", "", html))
    assert "None" not in text
    assert "nan" not in text.lower().split()


def test_page_says_what_was_measured(tmp_path):
    record = changed(
        digits(),
        before__accuracy=between(0.4512, 0.4771, 0.5014),
        after__accuracy=between(0.4612, 0.4871, 0.5114),
    )
    _, _, text = written(record, None, tmp_path)
    card = text[text.index("Share of the test digits") :][:140]
    assert "47.7 %" in card
    assert "45.1–50.1" in card
    assert "48.7 %" in card
    assert "not separable" in card


def test_rounds_start_at_the_model_before_the_edit(tmp_path):
    html, _, _ = written(digits(), None, tmp_path)
    marks = html[html.index('id="edit"') :]
    assert '<span style="left:0.00%">0</span>' in marks
    assert 'class="line after" d="M0.00 48.00 ' in marks  # accuracy .52 before the first round


def test_matched_pairs_are_called_what_they_are(tmp_path):
    _, _, text = written(*fake("faces"), tmp_path)
    for claim in ("nothing but the age", "only the age changes", "The same thing twice", "Counterfactual bias"):
        assert claim not in text
    assert "Matched pairs Two different faces of one label" in text
    assert "Matched-pair gap Pairs of different faces of one label, with the age" in text
    _, _, text = written(*fake("digits"), tmp_path)
    assert "The same thing twice" in text
    assert "when only the colour changes" in text
    assert "atched" not in text


def test_helpful_samples_stand_beside_the_harmful_ones(tmp_path):
    html, _, text = written(*fake("faces"), tmp_path)
    start = text.index("Training samples that teach the bias, and that counter it")
    section = text[start : text.index("The edit, round by round")]
    harmful, helpful = section.split("Most helpful")
    assert "in units of 10 −3" in harmful
    assert "2.40 male · 20 or older" in harmful
    assert "12 of these 12 are bias-aligned; of all training samples 98.0 % are." in harmful
    assert "−2.40 male · 12 or younger" in helpful
    assert "0 of these 12 are bias-aligned" in helpful
    assert html[html.index('id="harmful"') : html.index('id="edit"')].count("<img") == 24
    _, _, text = written(changed(fake("faces")[0], helpful=()), None, tmp_path)
    assert "Most helpful" not in text
    assert "and that counter it" not in text


def test_text_is_escaped(tmp_path):
    record = digits()
    record = changed(
        record, findings=("<script>alert(1)</script> & more",), label_names=("<b>0", *record.label_names[1:])
    )
    html, _, text = written(record, fake("digits")[1], tmp_path)
    assert "<script>" not in html
    assert "<script>alert(1)</script> & more" in text


def test_rolled_back_edit_shows_one_model(tmp_path):
    html, _, text = written(*fake("census"), tmp_path)
    assert 'class="after"' not in html
    assert "not accepted no step lowered the bias" in text


def test_wide_data_leaves_out_what_nobody_could_read(tmp_path):
    k = 30
    rng, names, aligned = np.random.default_rng(0), [f"class {i}" for i in range(k)], np.eye(k, dtype=bool)
    n = rng.integers(1, 4, (k, k))
    made = measurement(rng, n, np.full((k, k), 0.7), 0.5, names, names, aligned, n)
    record = as_record(common)(
        dataset="wide",
        variant={},
        method="erm",
        model="m",
        seconds=1.0,
        seconds_by_step={},
        label_names=names,
        attribute_names=names,
        train_counts=n,
        aligned=aligned.tolist(),
        before=made,
        training={"epochs": 1, "loss": [1.0]},
    )
    _, outline, _ = written(record, None, tmp_path)
    assert "confusion" not in outline.ids
    assert (tmp_path / "report.html").stat().st_size < 60_000


def test_another_record_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # annotations off, as they are for users
    with pytest.raises(ContractError, match="`record`: expected RunResults, got FeatureResults"):
        write_page(features(), None, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (Pictures(worst_label=np.zeros(3, int)), "pictures.worst_label"),
        (
            Pictures(pairs=np.zeros((3, 2, 8, 8, 3), np.uint8), pairs_before=np.zeros(3)),
            r"pairs_before`: expected shape \[3, 2\]",
        ),
    ],
)
def test_wrong_pictures_are_named(pictures, message, tmp_path):
    with pytest.raises(ContractError, match=message):
        write_page(digits(), pictures, tmp_path / "report.html")


@pytest.mark.parametrize("channels", [2, 4, 12])
@pytest.mark.parametrize("name", ["digits", "birds", "faces"])
def test_pictures_of_other_channels_cost_no_page(name, channels, tmp_path):
    """Of four channels three are shown, of other numbers none: the work before is not lost."""
    results, pictures = fake(name)
    image_fields = (*IMAGES, "rare_decoded", "common_decoded")

    def other(value):
        return np.repeat(np.asarray(value)[..., :1], channels, axis=-1)

    changed_ones = {k: other(v) for k in image_fields if (v := getattr(pictures, k)) is not None}
    write_page(results, pictures._replace(**changed_ones), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert ("data:image" in page.replace("data:image/svg", "")) == (channels == 4)
    assert results.items in page
