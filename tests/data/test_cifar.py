import io
import tarfile

import numpy as np
import pytest

from baffle.data import CIFAR10, CIFAR100
from baffle.errors import DataError

PIXELS = 3072


def record(label, value, coarse=()):
    return bytes([*coarse, label]) + bytes([value]) * 1024 + bytes([value + 1]) * 1024 + bytes([value + 2]) * 1024


TEN = {name: record(number, 10 * number) for number, name in enumerate((*CIFAR10.train, *CIFAR10.test))}
HUNDRED = {"train.bin": record(99, 1, [7]) + record(3, 4, [8]), "test.bin": record(50, 9, [1])}


def write(folder, files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def pack(archive, files, prefix):
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in {"readme.html": b"hello", **files}.items():
            member = tarfile.TarInfo(f"{prefix}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.fixture(params=["loose", "subfolder", "archive"])
def ten(request, tmp_path):
    if request.param == "archive":
        pack(tmp_path / CIFAR10.archive, TEN, CIFAR10.subfolder)
    else:
        write(tmp_path / (CIFAR10.subfolder if request.param == "subfolder" else ""), TEN)
    return tmp_path


def test_cifar10_is_found_in_all_three_forms(ten):
    split = CIFAR10.load(ten)
    assert CIFAR10.missing(ten) == ()
    assert split.train.inputs.shape == (5, 3, 32, 32)
    assert split.train.classes == 10
    np.testing.assert_array_equal(split.train.targets, [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(split.test.targets, [5])
    np.testing.assert_array_equal(split.train.inputs[3, :, 0, 31], [30, 31, 32])  # red, green, blue


def test_nothing_is_unpacked(tmp_path):
    pack(tmp_path / CIFAR100.archive, HUNDRED, CIFAR100.subfolder)
    CIFAR100.load(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [CIFAR100.archive]


def test_cifar100_takes_the_fine_label(tmp_path):
    write(tmp_path, HUNDRED)
    split = CIFAR100.load(tmp_path)
    np.testing.assert_array_equal(split.train.targets, [99, 3])
    np.testing.assert_array_equal(split.train.inputs[1, :, 5, 5], [4, 5, 6])
    assert split.test.classes == 100


def test_images_are_resized(tmp_path):
    write(tmp_path, HUNDRED)
    assert CIFAR100.load(tmp_path, image_size=8).train.shape == (3, 8, 8)


def test_missing_files_are_listed(tmp_path):
    write(tmp_path, {name: TEN[name] for name in CIFAR10.train})
    assert CIFAR10.missing(tmp_path) == ("test_batch.bin",)
    with pytest.raises(DataError, match=r"test_batch\.bin missing, and no cifar-10-binary\.tar\.gz either"):
        CIFAR10.load(tmp_path)


@pytest.mark.parametrize("content", [b"", record(1, 1)[:-1], record(1, 1) + b"\0"])
def test_a_file_that_is_not_whole_records_is_named(tmp_path, content):
    write(tmp_path, TEN | {"data_batch_4.bin": content})
    with pytest.raises(DataError, match=rf"data_batch_4\.bin: {len(content)} bytes; must be .* records of 3073 bytes"):
        CIFAR10.load(tmp_path)


def test_a_label_that_is_no_class_is_refused(tmp_path):
    write(tmp_path, TEN | {"test_batch.bin": record(10, 0)})
    with pytest.raises(DataError, match=r"test_batch\.bin: label 10 of sample 0"):
        CIFAR10.load(tmp_path)


def test_an_archive_without_a_file_says_which(tmp_path):
    pack(tmp_path / CIFAR100.archive, {"train.bin": HUNDRED["train.bin"]}, CIFAR100.subfolder)
    with pytest.raises(DataError, match=r"cifar-100-binary\.tar\.gz: holds no test\.bin"):
        CIFAR100.load(tmp_path)


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda _: b"no archive"])
def test_a_damaged_archive_is_named(tmp_path, damage):
    pack(tmp_path / CIFAR10.archive, TEN, CIFAR10.subfolder)
    content = (tmp_path / CIFAR10.archive).read_bytes()
    (tmp_path / CIFAR10.archive).write_bytes(damage(content))
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz: can't be read"):
        CIFAR10.load(tmp_path)
