"""CIFAR from `tensorflow_datasets` and from files, on a few images of our own.

There is no network here and perhaps no TensorFlow, so what downloads, extracts, opens
and compresses is replaced: `tensorflow_datasets` itself then reads the authors' binary
format, shuffles, writes its records and reads them again.
"""

import functools
import importlib.util
import io
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.image_classification import cifar as builders

from experiments.data.augmentation import pad_crop_flip
from experiments.data.cifar import cifar10, cifar100

CIFAR = {"cifar10": (cifar10, 10), "cifar100": (cifar100, 100)}
ARCHIVES = {
    "cifar10": {
        "directory": "cifar-10-batches-bin",
        "train": [f"data_batch_{number}.bin" for number in range(1, 6)],
        "test": ["test_batch.bin"],
        "names": {"batches.meta.txt": 10},
    },
    "cifar100": {
        "directory": "cifar-100-binary",
        "train": ["train.bin"],
        "test": ["test.bin"],
        "names": {"coarse_label_names.txt": 20, "fine_label_names.txt": 100},
    },
}

every_cifar = pytest.mark.parametrize("name", CIFAR)


def made_up(classes):
    """Arrays as a data file holds them: 20 images to train on and 6 to test on."""
    draw = np.random.default_rng(classes)
    arrays = {}
    for split, count in (("train", 20), ("test", 6)):
        images = draw.integers(256, size=(count, 32, 32, 3), dtype=np.uint8)
        arrays[f"{split}_images"] = images
        arrays[f"{split}_labels"] = draw.integers(classes, size=count)
    return arrays


def write_archive(path, name):
    """The unpacked archive: label bytes, then a plane of bytes for each colour."""
    archive, arrays = ARCHIVES[name], made_up(CIFAR[name][1])
    directory = path / archive["directory"]
    directory.mkdir(parents=True)
    for file, count in archive["names"].items():
        (directory / file).write_text("\n".join(map(str, range(count))) + "\n")
    for split in ("train", "test"):
        planes = arrays[f"{split}_images"].transpose(0, 3, 1, 2).reshape(-1, 3072)
        labels = arrays[f"{split}_labels"].astype(np.uint8)[:, None]
        coarse = [labels // 5] if name == "cifar100" else []
        records = np.concatenate([*coarse, labels, planes], axis=1)
        files = archive[split]
        for file, part in zip(files, np.split(records, len(files)), strict=True):
            (directory / file).write_bytes(part.tobytes())


def png(feature, image):
    del feature
    data = io.BytesIO()
    Image.fromarray(image).save(data, "png")
    return data.getvalue()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The directory in which `tensorflow_datasets` has prepared both data sets."""
    archives, kept = (tmp_path_factory.mktemp(name) for name in ("archives", "kept"))
    file_system = types.SimpleNamespace(gfile=types.SimpleNamespace(GFile=open))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "tf", types.SimpleNamespace(io=file_system))
        patch.setattr(tfds.features.Image, "encode_example", png)
        for name in CIFAR:
            write_archive(archives / name, name)
            patch.setattr(
                tfds.download.DownloadManager,
                "download_and_extract",
                lambda manager, url, name=name: str(archives / name),
            )
            tfds.builder(
                name, data_dir=kept, file_format="array_record"
            ).download_and_prepare()
    return kept


def keep(monkeypatch, path, tensorflow=False):
    """Has `tensorflow_datasets` keep its data there, with TensorFlow or without."""
    source = functools.partial(tfds.data_source, data_dir=path)
    monkeypatch.setattr(tfds, "data_source", source)
    find = importlib.util.find_spec

    def found(package, *args):
        return tensorflow or None if package == "tensorflow" else find(package, *args)

    monkeypatch.setattr(importlib.util, "find_spec", found)


def saved(path, **arrays):
    np.savez(path / "images.npz", **arrays)
    return path / "images.npz"


def assert_is_made_up(data, classes):
    arrays = made_up(classes)
    assert data.classes == classes
    for split in ("train", "test"):
        images, labels = getattr(data, split)
        assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
        np.testing.assert_array_equal(images, arrays[f"{split}_images"])
        np.testing.assert_array_equal(labels, arrays[f"{split}_labels"])


@every_cifar
def test_prepared_images_are_read_in_the_order_of_the_archive(
    name, prepared, monkeypatch
):
    load, classes = CIFAR[name]
    keep(monkeypatch, prepared)

    assert_is_made_up(load(), classes)


@every_cifar
def test_a_file_is_read_as_it_is(name, tmp_path):
    load, classes = CIFAR[name]

    assert_is_made_up(load(saved(tmp_path, **made_up(classes))), classes)


@every_cifar
def test_with_nothing_prepared_the_error_names_both_remedies(
    name, tmp_path, monkeypatch
):
    keep(monkeypatch, tmp_path)

    with pytest.raises(
        ValueError, match=rf"{name} is not in the data dir.* of `tensor"
    ) as it:
        CIFAR[name][0]()

    assert '`pip install -e ".[cifar]"`' in str(it.value)
    for words in ("--data-file X.npz", "train_images [n, 32, 32, 3]", "test_labels"):
        assert words in str(it.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("tensorflow", [False, True])
def test_nothing_is_downloaded_that_could_not_be_prepared(tensorflow, monkeypatch):
    asked = {}

    def refuse(name, **options):
        asked.update(options)
        raise OSError("no network")

    monkeypatch.setattr(tfds, "data_source", refuse)
    keep(monkeypatch, "/nowhere", tensorflow)

    with pytest.raises(ValueError, match=r"\(OSError: no network\).*--data-file"):
        cifar10()

    assert asked["download"] is tensorflow


@pytest.mark.parametrize(
    ("array", "change", "message"),
    [
        (
            "test_labels",
            None,
            "an array `test_labels`, got train_images, train_l",
        ),
        ("train_images", lambda x: x / 255, r"must be uint8 .* got float64 \[20, 3"),
        ("train_images", lambda x: x.swapaxes(1, 3), r"got uint8 \[20, 3, 32, 32\]"),
        ("test_images", lambda x: x.reshape(-1, 3072), r"got uint8 \[6, 3072\]"),
        (
            "test_images",
            lambda x: x[:0],
            r"`test_im.* got uint8 \[0, 32, 32, 3\]",
        ),
        ("train_images", lambda x: np.uint8(3), r"`train_images` .* got uint8 \[1\]"),
        (
            "train_labels",
            lambda x: x / 1,
            r"be integers \[20\], .* got float64 \[",
        ),
        ("train_labels", lambda x: x[:, None], r"got int64 \[20, 1\]"),
        ("test_labels", lambda x: x[1:], r"one for each of `test_images`, .* \[5\]"),
        (
            "test_labels",
            lambda x: x + 10,
            r"in 0 to 9 for cifar10, got 1\d",
        ),
        ("train_labels", lambda x: -1 - x, "in 0 to .*, got -"),
        (
            "train_labels",
            lambda x: x.astype(object),
            r"`train_labels` .* be read \(Obj",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_an_error(array, change, message, tmp_path):
    arrays = made_up(10)
    changed = {} if change is None else {array: change(arrays[array])}
    del arrays[array]
    path = saved(tmp_path, **arrays, **changed)

    with pytest.raises(ValueError, match=message) as it:
        cifar10(path)

    assert repr(str(path)) in str(it.value)


def test_labels_up_to_99_are_of_cifar100(tmp_path):
    arrays = made_up(10)
    arrays["test_labels"][0] = 99
    path = saved(tmp_path, **arrays)

    assert cifar100(path).test.labels.max() == 99
    with pytest.raises(ValueError, match=r"in 0 to 9 for cifar10, got 99"):
        cifar10(path)


def test_a_file_of_cifar10_is_not_taken_for_cifar100(tmp_path):
    arrays = made_up(10)
    for array in ("train_images", "train_labels"):
        arrays[array] = np.repeat(arrays[array], 50, axis=0)
    path = saved(tmp_path, **arrays)

    assert len(cifar10(path).train.labels) == 1000
    with pytest.raises(ValueError, match=r"`train_labels` .* all 1,000 .* below 10"):
        cifar100(path)


def test_a_damaged_file_is_an_error(tmp_path):
    path = saved(tmp_path, **made_up(10))
    data = bytearray(path.read_bytes())
    data[1000] ^= 255  # Among the pixels of train_images, which come first.
    path.write_bytes(data)

    with pytest.raises(ValueError, match=r"`train_images` .* cannot be read \(Bad CRC"):
        cifar10(path)


def test_a_file_without_arrays_is_an_error(tmp_path):
    path = tmp_path / "images.npy"
    np.save(path, np.zeros(3))

    with pytest.raises(ValueError, match=r"got .*images.npy', which is none. Make"):
        cifar10(path)
    with pytest.raises(ValueError, match=r"got 'none.npz', which does not exist"):
        cifar10(Path("none.npz"))


@pytest.mark.parametrize(
    ("name", "mean", "deviation"),
    [
        ("cifar10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ("cifar100", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    ],
)
def test_the_network_sees_standardised_channels(name, mean, deviation, tmp_path):
    load, classes = CIFAR[name]
    data = load(saved(tmp_path, **made_up(classes)))
    images = data.train.images

    seen = jax.jit(data.prepare)(images)

    assert seen.dtype == jnp.float32
    expected = (images / 255 - np.array(mean)) / np.array(deviation)
    np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=1e-5)
    assert data.augment is pad_crop_flip


@pytest.mark.usefixtures("float64")
def test_the_network_sees_32_bits_where_64_are_allowed(tmp_path):
    data = cifar10(saved(tmp_path, **made_up(10)))

    assert data.prepare(jnp.asarray(data.test.images)).dtype == jnp.float32
