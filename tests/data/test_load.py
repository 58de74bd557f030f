import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from baffle.data import CIFAR10, default_folder, load
from baffle.data.download import Remote
from baffle.errors import DataError, SettingsError
from baffle.keys import Key

KEY = Key.root(0)


def idx(array):
    lengths = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes((0, 0, 8, array.ndim)) + lengths + array.astype(np.uint8).tobytes()


@pytest.fixture
def mnist(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(np.zeros((3, 28, 28))))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(3)))
    return folder


@pytest.fixture
def mirrored(tmp_path, monkeypatch):
    """A CIFAR-10 whose mirror is a folder of this machine, and which is one record a file."""
    import tarfile

    from baffle.data import cifar

    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for name in (*CIFAR10.train, *CIFAR10.test):
        (mirror / name).write_bytes(bytes(3073))
    archive = mirror / CIFAR10.archive
    with tarfile.open(archive, "w:gz") as tar:
        for name in (*CIFAR10.train, *CIFAR10.test):
            tar.add(mirror / name, f"{CIFAR10.subfolder}/{name}")
    remote = Remote(archive.name, hashlib.sha256(archive.read_bytes()).hexdigest(), (f"{mirror.as_uri()}/",))
    _replace(monkeypatch, "cifar10", read=cifar.CIFAR10.load, missing=cifar.CIFAR10.missing, remotes=(remote,))
    return archive


def _replace(monkeypatch, name, **fields):
    import importlib
    from dataclasses import replace

    published = importlib.import_module("baffle.data.load")._PUBLISHED
    monkeypatch.setitem(published, name, replace(published[name], **fields))


@pytest.mark.parametrize("name", ["mnist", "fashion"])
def test_mnist_is_32_wide_unless_told_otherwise(mnist, name):
    assert load(name, data_dir=mnist, key=KEY).train.shape == (1, 32, 32)
    assert load(name, data_dir=mnist, key=KEY, image_size=0).train.shape == (1, 28, 28)
    assert load(name, data_dir=mnist, key=KEY, image_size=14).test.shape == (1, 14, 14)


def test_digits_need_no_folder():
    assert load("digits", key=KEY).train.shape == (1, 8, 8)


def test_the_key_decides_what_is_held_out_of_the_digits():
    first, again, other = (load("digits", key=Key.root(seed)).test.inputs for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_files_of_ones_own(tmp_path):
    np.savez(tmp_path / "own.npz", x=np.zeros((5, 2)), y=np.zeros(5, int))
    (tmp_path / "own.csv").write_text("a,kind,site\n1,x,s\n2,y,t\n")
    assert load(str(tmp_path / "own.npz"), key=KEY).train.shape == (2,)
    split = load(str(tmp_path / "own.csv"), key=KEY, label_column="kind", client_column="site")
    assert split.train.owner_names == ("s", "t")


@pytest.mark.parametrize("name", ["own.npz", "own.CSV"])
def test_files_of_ones_own_are_not_resized(name):
    with pytest.raises(SettingsError, match=f"image_size = 8: must be left out for {name}"):
        load(name, key=KEY, image_size=8)


@pytest.mark.parametrize("name", ["", "mnsit", "data.txt", "MNIST"])
def test_an_unknown_name_is_refused_with_the_names_there_are(name):
    with pytest.raises(
        SettingsError, match=f"dataset = '{name}': must be digits, mnist, fashion, cifar10, cifar100, or"
    ):
        load(name, key=KEY)


@pytest.mark.parametrize("size", [-1, 5000])
def test_a_size_out_of_range_is_refused_before_anything_is_downloaded(tmp_path, size):
    with pytest.raises(SettingsError, match=f"image_size = {size}"):
        load("mnist", data_dir=tmp_path / "none", image_size=size, key=KEY)
    assert not (tmp_path / "none").exists()


def test_missing_files_are_listed_where_downloading_is_off(mnist):
    (mnist / "train-labels-idx1-ubyte").unlink()
    (mnist / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(DataError) as caught:
        load("mnist", data_dir=mnist, key=KEY, download=False)
    names = "train-labels-idx1-ubyte, t10k-images-idx3-ubyte"
    hint = "with no data_dir the command line downloads them"
    assert str(caught.value) == f"mnist: {names} missing in {mnist}, and downloading is off; {hint}"


def test_only_missing_files_are_downloaded(mnist, tmp_path, monkeypatch):
    mirror = tmp_path / "mirror"
    shutil.copytree(mnist, mirror)
    (mnist / "t10k-labels-idx1-ubyte").unlink()
    content = (mirror / "t10k-labels-idx1-ubyte").read_bytes()
    wanted = Remote("t10k-labels-idx1-ubyte", hashlib.sha256(content).hexdigest(), (f"{mirror.as_uri()}/",))
    others = tuple(Remote(name, "", ()) for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"))
    _replace(monkeypatch, "mnist", remotes=(*others, wanted))
    assert len(load("mnist", data_dir=mnist, key=KEY).test) == 3


def test_an_archive_is_downloaded_once_to_the_cache(mirrored, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert len(load("cifar10", key=KEY).train) == 5
    mirrored.unlink()
    assert len(load("cifar10", key=KEY).train) == 5
    assert [path.name for path in (tmp_path / "cache" / "baffle" / "cifar10").iterdir()] == [CIFAR10.archive]


def test_a_failed_download_lists_what_is_missing_and_where_it_goes(mirrored, tmp_path):
    mirrored.unlink()
    with pytest.raises(DataError) as caught:
        load("cifar10", data_dir=tmp_path / "own", key=KEY)
    text = str(caught.value)
    assert (
        f"data_batch_5.bin, test_batch.bin missing in {tmp_path / 'own'}. cifar-10-binary.tar.gz: no download" in text
    )
    assert f"place the file in {tmp_path / 'own'} by hand" in text


def test_the_cache_lies_where_the_desktop_says(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_folder("mnist") == Path("/somewhere/baffle/mnist")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_folder("mnist") == Path("/home/somebody/.cache/baffle/mnist")
