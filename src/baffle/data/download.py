"""Fetching a published file from one of its mirrors, checked before it gets its name."""

from __future__ import annotations

import hashlib
import http.client
import tempfile
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from baffle.errors import DataError

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Remote:
    """A published file."""

    name: str
    """Its name in the folder."""

    sha256: str
    """The SHA-256 of its content, in hexadecimal."""

    sites: tuple[str, ...]
    """The addresses of the folders that hold it, the first one tried first; each ends in a slash."""

    def fetch(self, folder: Path) -> None:
        """Download the file into `folder`. Raises DataError: as `fetch`."""
        fetch([site + self.name for site in self.sites], folder / self.name, self.sha256)


def fetch(urls: Sequence[str], path: Path, sha256: str, *, timeout: float = 30.0) -> None:
    """Download `path` from the first of `urls` that gives the content whose SHA-256 is `sha256`.

    The content goes to a temporary place in the same folder (made if need be) and is renamed when it is complete and
    verified, so `path` is never half a file. `timeout` is in seconds of silence from the mirror.

    Raises:
        DataError: no address worked, or the folder can't be written; the text says what was tried and why it failed.
    """
    failures: list[str] = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for url in urls:
            with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
                part = Path(folder) / path.name
                if (failure := _download(url, part, sha256, timeout)) is None:
                    part.replace(path)
                    return
            failures.append(f"{url}: {failure}")
    except OSError as error:
        raise DataError(f"{path}: can't be written: {error}") from None
    tried = "".join(f"\n  {failure}" for failure in failures)
    raise DataError(f"{path.name}: no download worked; place the file in {path.parent} by hand. Tried:{tried}")


def _download(url: str, part: Path, sha256: str, timeout: float) -> str | None:
    """Write `part`, and return why its content is not what it should be, or None."""
    try:
        with part.open("wb") as file, urllib.request.urlopen(url, timeout=timeout) as response:
            length, digest = _copy(response, file)
            announced = response.headers.get("Content-Length")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    if announced not in (None, str(length)):
        return f"ended after {length} of {announced} bytes"
    return None if digest == sha256 else f"has SHA-256 {digest}, not {sha256}"


def _copy(source: IO[bytes], target: IO[bytes]) -> tuple[int, str]:
    digest, length = hashlib.sha256(), 0
    while chunk := source.read(CHUNK):
        digest.update(chunk)
        length += target.write(chunk)
    return length, digest.hexdigest()


def _remotes(sites: tuple[str, ...], sums: dict[str, str]) -> tuple[Remote, ...]:
    return tuple(Remote(name, sha256, sites) for name, sha256 in sums.items())


MNIST = _remotes(
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    {
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
)

FASHION = _remotes(
    ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    {
        "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
)

CIFAR10 = _remotes(
    ("https://www.cs.toronto.edu/~kriz/",),
    {"cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
)

CIFAR100 = _remotes(
    ("https://www.cs.toronto.edu/~kriz/",),
    {"cifar-100-binary.tar.gz": "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"},
)
