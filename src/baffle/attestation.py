"""What a client would have a trusted part sign: which model, which code, which plan."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from baffle.bundle import Bundle

PACKAGES = ("cryptography", "msgspec", "numpy", "onnxruntime", "safetensors")
"""What a client's code runs on."""


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides what a client's report tells about its data, as digests (BLAKE2b-256, hexadecimal)."""

    model: str
    """Of the exported model's manifest, which has those of all its files."""
    code: str
    """Of this library's source and the versions below it."""
    plan: str
    """Of the plan's bytes as they came."""

    @property
    def digest(self) -> str:
        """One digest of the three: what an attestation signs."""
        return _digest(msgspec.json.encode(self))


def statement(bundle: Bundle, plan: bytes) -> Statement:
    """Return what is to be signed for answering `plan` with the model in `bundle`."""
    return Statement(model=bundle.digest, code=code(), plan=_digest(plan))


def code(folder: Path = Path(__file__).parent) -> str:
    """Return the digest of the Python files below `folder` and of the versions of what they run on."""
    files = {path.relative_to(folder).as_posix(): _digest(path.read_bytes()) for path in folder.rglob("*.py")}
    versions = {name: _version(name) for name in PACKAGES} | {"python": platform.python_version()}
    return _digest(msgspec.json.encode((sorted(files.items()), sorted(versions.items()))))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=32).hexdigest()
