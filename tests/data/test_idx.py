import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from baffle.data import load_idx
from baffle.data.idx import FILES, missing_idx
from baffle.errors import DataError

TRAIN, TRAIN_LABELS, TEST, TEST_LABELS = FILES


def idx(array):
    lengths = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes((0, 0, 8, array.ndim)) + lengths + array.astype(np.uint8).tobytes()


def images(samples):
    return np.random.default_rng(samples).integers(0, 256, (samples, 4, 4))


@pytest.fixture
def folder(tmp_path):
    for name, array in zip(FILES, (images(6), np.arange(6), images(3), np.arange(3)), strict=True):
        (tmp_path / name).write_bytes(idx(array))
    return tmp_path


def test_images_and_labels_arrive_as_written(folder):
    split = load_idx(folder)
    np.testing.assert_array_equal(split.train.inputs[:, 0], images(6))
    np.testing.assert_array_equal(split.test.inputs[:, 0], images(3))
    np.testing.assert_array_equal(split.train.targets, np.arange(6))
    assert split.train.classes == 10
    assert split.train.take(np.array([0]))[0].max() <= 1


def test_gzipped_files_are_the_same(folder):
    plain = load_idx(folder)
    for name in FILES:
        path = folder / name
        (folder / f"{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    np.testing.assert_array_equal(load_idx(folder).train.inputs, plain.train.inputs)


def test_images_are_resized(folder):
    assert load_idx(folder, image_size=8).train.inputs.shape == (6, 1, 8, 8)


def test_missing_files_are_listed(folder):
    assert missing_idx(folder) == ()
    (folder / TEST).unlink()
    assert missing_idx(folder) == (TEST,)
    with pytest.raises(DataError, match=f"{TEST}: there is no such file, gzipped or not"):
        load_idx(folder)


good = idx(images(6))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (TRAIN, b"", "begins with 0x, not the IDX magic number 0x00000803"),
        (TRAIN, b"PK\x03\x04 and so on", "begins with 0x504b0304"),
        (TRAIN, idx(np.arange(6)), "begins with 0x00000801, not the IDX magic number 0x00000803"),
        (TRAIN_LABELS, good, "begins with 0x00000803, not the IDX magic number 0x00000801"),
        (TRAIN, good[:10], "ends inside its header, after 10 of 16 bytes"),
        (TRAIN, good[:-1], "holds 95 bytes of data where its header says 6 x 4 x 4 = 96"),
        (TRAIN, good + b"\0", "holds 97 bytes of data"),
        (
            TRAIN,
            good[:4] + b"\xff" * 12,
            "holds 0 bytes of data where its header says 4294967295 x 4294967295 x 4294967295 = 792281624",
        ),
        (TRAIN, idx(np.zeros((0, 4, 4))), "holds 0 bytes of data where its header says 0 x 4 x 4 = 0"),
        (TRAIN_LABELS, idx(np.arange(5)), f"5 labels for the 6 images of {TRAIN}"),
        (TEST_LABELS, idx(np.array([0, 10, 1])), "label 10 of sample 1: must be a whole number from 0 to 9"),
    ],
)
def test_a_damaged_file_is_named_with_the_reason(folder, name, content, words):
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: {words}"):
        load_idx(folder)


@pytest.mark.parametrize(
    "content",
    [gzip.compress(good)[:-9], good, b"", gzip.compress(good)[:20] + b"\xff" * 40],
    ids=["cut", "plain", "empty", "spoilt"],
)
def test_a_damaged_gzip_file_is_named(folder, content):
    (folder / TRAIN).unlink()
    (folder / f"{TRAIN}.gz").write_bytes(content)
    with pytest.raises(DataError, match=rf"{TRAIN}\.gz: "):
        load_idx(folder)


@pytest.mark.mnist
def test_the_real_mnist_is_read():
    if not (place := os.environ.get("BAFFLE_MNIST")):
        pytest.skip("BAFFLE_MNIST names no folder of MNIST's IDX files")
    split = load_idx(Path(place), image_size=32)
    assert split.train.shape == (1, 32, 32)
    assert len(split.test) == 10_000
    assert set(split.train.targets.tolist()) == set(range(10))
    mean = split.train.take(np.arange(len(split.train)))[0].mean()
    assert 0.12 < mean < 0.14  # 0.1307 is the published mean of the training images
