import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.data import aligned_folders
from jaxdebias.reproduce._miniatures import picture, write_aligned_folders


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_aligned_folders(tmp_path_factory.mktemp("files"))


def test_labels_and_attributes_are_those_of_the_names(files):
    data = aligned_folders(files, image_size=24)
    assert (data.name, data.label_names, data.attribute_names) == ("bffhq", ("young", "old"), ("female", "male"))
    np.testing.assert_array_equal(data.aligned, np.eye(2, dtype=bool))
    train, test = data.splits["train"], data.splits["test"]
    counts = [[20, 4], [4, 20]]
    assert [[int(((train.label == y) & (train.attribute == a)).sum()) for a in (0, 1)] for y in (0, 1)] == counts
    assert [len(data.splits[name].label) for name in ("edit", "accept", "test")] == [16, 8, 24]
    for i in (0, 11, 47):  # PNG keeps pixels: the picture is one of those with this label and attribute
        own = [picture(int(train.label[i]), int(train.attribute[i]), number) for number in range(24)]
        assert any(np.array_equal(train.x[i], image) for image in own)
    assert set(data.pairs) == {"edit", "accept", "test"}
    pairs = data.pairs["test"]
    assert len(pairs.label) == 12
    assert data.aligned[pairs.label, pairs.attribute].all()
    assert not np.array_equal(test.x[:2], test.x[2:4])


def test_without_valid_a_fifth_of_training_is_held_out(tmp_path):
    folder = write_aligned_folders(tmp_path, name="bar", percent="1pct", classes=6, valid=False)
    data = aligned_folders(folder / "bar", name="bar", percent="1pct", image_size=8)
    sizes = [len(data.splits[name].label) for name in ("train", "edit", "accept")]
    assert sum(sizes) == 6 * 24
    assert sizes[1] + sizes[2] == 6 * 24 // 5
    assert len(data.label_names) == 6
    again = aligned_folders(folder, name="bar", percent="1pct", image_size=8)
    np.testing.assert_array_equal(data.splits["edit"].x, again.splits["edit"].x)


def test_another_seed_divides_otherwise(files):
    first, second = (aligned_folders(files, image_size=8, seed=seed).splits["edit"].x for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_what_does_not_fit_is_refused_by_name(tmp_path):
    with pytest.raises(ContractError, match="`data_dir`: expected bffhq's folders"):
        aligned_folders(tmp_path)
    write_aligned_folders(tmp_path, each=6)
    with pytest.raises(ContractError, match="`percent`"):
        aligned_folders(tmp_path, percent="1pct")
    odd = tmp_path / "bffhq" / "0.5pct" / "align" / "0" / "7_1_0.png"
    next(odd.parent.glob("*.png")).rename(odd)
    with pytest.raises(ContractError, match=r"7_1_0.png`: expected label 0, as its folder"):
        aligned_folders(tmp_path)
    odd.rename(odd.with_name("seven.png"))
    with pytest.raises(ContractError, match=r"seven.png`: expected a name that ends in _<label>_<attribute>"):
        aligned_folders(tmp_path)
    odd.with_name("seven.png").rename(odd.with_name("7_0_1.png"))
    with pytest.raises(ContractError, match="align`: expected pictures of cells that are common"):
        aligned_folders(tmp_path)
