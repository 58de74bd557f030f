"""Packages that only some of Baffle's users need, imported when they are asked for."""

from __future__ import annotations

import importlib
from types import ModuleType

from baffle.errors import MissingExtraError


def require(module: str, extra: str) -> ModuleType:
    """Return the imported `module`.

    Raises:
        MissingExtraError: the package is not installed; the text names the `extra` that brings it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] == package:
            raise MissingExtraError(package, extra) from None
        raise
