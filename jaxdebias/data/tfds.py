"""tensorflow-datasets without TensorFlow: our sets written as array_record, and any prepared set read.

The one module that imports tensorflow_datasets, inside its functions. TFDS works without TensorFlow as long as a
builder encodes its images itself and writes array_record, and a reader asks for a data source; `tfds.load` needs
TensorFlow.
"""

import dataclasses
import functools
import hashlib
import io
import pathlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from jaxdebias.contracts import ContractError, check_choice, expect
from jaxdebias.core import Batch, Dataset
from jaxdebias.data._folder import folder
from jaxdebias.data._sets.colored_mnist import colored_mnist

BUILDERS = {"colored-mnist": colored_mnist, "folder": folder}
LARGEST_SPLIT = 1_000_000_000  # bytes: beyond about this, the shuffler of TFDS spills to disk through TensorFlow


def prepare(name: str, data_dir: str | pathlib.Path, out_dir: str | pathlib.Path, **options: Any) -> pathlib.Path:
    """Builds one of our sets and writes its splits as a TFDS data set (array_record) that any TFDS reader can open.

    Records hold `image` (PNG), `label`, `attribute`, `unit` (the row where the set has no units) and `row`, the
    example's place in the split before TFDS shuffled it. Pairs are not stored.

    Args:
      name: `colored-mnist` or `folder`.
      data_dir: the folder of the original files.
      out_dir: where TFDS keeps data sets; written in `out_dir/<name>/<variant>/1.0.0`.
      **options: of `colored_mnist` or `folder`.

    Returns:
      The folder that `read` takes. One that is already complete is kept as it is.

    Raises:
      ContractError: an unknown name, bad files, a split above 1 GB, or tensorflow-datasets not installed.
    """
    check_choice("name", name, BUILDERS)
    tfds = _tfds()
    dataset = BUILDERS[name](data_dir, **options)
    for split, batch in dataset.splits.items():
        size = batch.x.nbytes
        expect(size <= LARGEST_SPLIT, f"splits[{split!r}]", "at most 1 GB of pixels for TFDS", f"{size} bytes")
    config = _config_class()(name=_config_name(dataset, options), dataset=dataset)
    builder = _builder_class(name)(data_dir=str(out_dir), config=config, file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    return pathlib.Path(builder.data_path)


def read(prepared_dir: str | pathlib.Path, split: str) -> Any:
    """A source of one split of a prepared folder: `len(source)`, `source[i]` -> dictionary. No builder class needed.

    Args:
      prepared_dir: what `prepare` returned, or any folder with `dataset_info.json` in array_record or parquet format.
      split: as in TFDS, for instance `"train[:10%]"`.

    Raises:
      ContractError: no prepared data set there, or no such split.
    """
    tfds = _tfds()
    path = pathlib.Path(prepared_dir).expanduser()
    info = "dataset_info.json"
    expect((path / info).is_file(), "prepared_dir", f"a folder with {info}", f"{path} without it")
    return _data_source(lambda: tfds.builder_from_directory(str(path)).as_data_source(split=split), str(path))


def source(name: str, split: str, data_dir: str | pathlib.Path | None = None) -> Any:
    """A source of one split of a set that TFDS knows and that someone prepared as array_record. Never downloads.

    Args:
      name: for instance `"mnist"`, `"celeb_a"`, `"cifar10_corrupted/fog_5"`.
      split: for instance `"train"`.
      data_dir: where TFDS keeps data sets; None is its own default.

    Raises:
      ContractError: not prepared there, or prepared in a format that needs TensorFlow.
    """
    tfds = _tfds()
    place = None if data_dir is None else str(data_dir)
    return _data_source(lambda: tfds.data_source(name, split=split, data_dir=place, download=False), name)


def _data_source(open_source: Callable[[], Any], what: str) -> Any:
    try:
        return open_source()
    except (NotImplementedError, AssertionError, ValueError, FileNotFoundError, KeyError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ContractError(f"`{what}`: expected a split prepared as array_record, got {reason}") from error


def _tfds() -> ModuleType:
    try:
        import tensorflow_datasets
    except ImportError as error:
        wanted = "to be installed (pip install 'jaxdebias[data]')"
        raise ContractError(f"`tensorflow-datasets`: expected {wanted}, got {error}") from error
    return tensorflow_datasets


def _config_name(dataset: Dataset, options: dict[str, Any]) -> str:
    """A folder's name: the given options and a hash of the data, so that changed data get a folder of their own."""
    chosen = {key: value for key, value in options.items() if key != "cache_dir"}
    if dataset.name == "folder":
        chosen = {"folder": dataset.variant["folder"], **chosen}
    digest = hashlib.sha256()
    for batch in dataset.splits.values():
        for array in (batch.x, batch.label, batch.attribute):
            digest.update(np.ascontiguousarray(array).data)
    words = [f"{key}_{value}" for key, value in sorted(chosen.items())] + [digest.hexdigest()[:8]]
    return "".join(c if c.isalnum() or c in "._" else "_" for c in "-".join(words))


# TFDS registers a builder by its class and takes its folder's name from it, once per process: hence classes made on
# first use and kept.


@functools.cache
def _config_class() -> type:
    tfds = _tfds()

    @dataclasses.dataclass(eq=False, kw_only=True)
    class Config(tfds.core.BuilderConfig):
        dataset: Dataset = dataclasses.field(repr=False)

    return Config


@functools.cache
def _builder_class(name: str) -> type:
    tfds = _tfds()

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # pyright: ignore[reportGeneralTypeIssues]
        """A jaxdebias data set."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            dataset = self.builder_config.dataset
            features = tfds.features
            return tfds.core.DatasetInfo(
                builder=self,
                description=f"{dataset.name} as built by jaxdebias: {dict(dataset.variant)}",
                features=features.FeaturesDict(
                    {
                        "image": features.Image(shape=dataset.splits["train"].x.shape[1:], encoding_format="png"),
                        "label": features.ClassLabel(names=list(dataset.label_names)),
                        "attribute": features.ClassLabel(names=list(dataset.attribute_names)),
                        "unit": np.int32,
                        "row": np.int32,
                    }
                ),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
            del dl_manager  # the data set was read from local files before
            return {split: _records(batch) for split, batch in self.builder_config.dataset.splits.items()}

        def _generate_examples(self) -> Iterator:
            raise NotImplementedError("unused: the splits' generators come from _records")

    Builder.name = name.replace("-", "_")
    return Builder


def _records(batch: Batch) -> Iterator[tuple[int, dict[str, Any]]]:
    for row in range(len(batch.label)):
        yield (
            row,
            {
                "image": _png(batch.x[row]),
                "label": int(batch.label[row]),
                "attribute": int(batch.attribute[row]),
                "unit": row if batch.unit is None else int(batch.unit[row]),
                "row": row,
            },
        )


def _png(image: np.ndarray) -> bytes:
    """PNG bytes: TFDS encodes arrays only through TensorFlow."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
