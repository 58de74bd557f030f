"""The library's exceptions, one family.

BaffleError
├── SettingsError      a setting is wrong: names the field, the value and the rule
├── DataError          a data file or array can't be used
├── ModelError         a model can't be trained by forward passes as it is
├── ReportError        a message that came in is refused, with the reason
├── LedgerError        a ledger does not verify: names the record
├── StorageError       a file can't be written: names the file and the reason
├── StoppedError       a run would spend or wait in vain, and has stopped; it can be resumed
├── DivergenceError    training left the finite numbers; the last good model is kept
└── MissingExtraError  a package that an extra brings is not installed
"""

from __future__ import annotations

from pathlib import Path


class BaffleError(Exception):
    """Whatever this library raises on purpose; its text is meant for a person."""


class SettingsError(BaffleError):
    """A setting is wrong.

    Attributes:
        field: the setting's name.
        value: what was given.
        rule: what is allowed, in words.
    """

    def __init__(self, field: str, value: object, rule: str) -> None:
        super().__init__(f"{field} = {value!r}: {rule}")
        self.field = field
        self.value = value
        self.rule = rule


class DataError(BaffleError):
    """A data file or array can't be used; the text names it and says what is expected."""


class ModelError(BaffleError):
    """A model can't be trained by forward passes as it is; the text says what to change."""


class ReportError(BaffleError):
    """A message that came in is refused; the text is the reason."""


class LedgerError(BaffleError):
    """A ledger does not verify.

    Attributes:
        record: the record's number; 0 is the header.
    """

    def __init__(self, record: int, reason: str) -> None:
        super().__init__(f"ledger record {record}: {reason}")
        self.record = record
        self.reason = reason


class StorageError(BaffleError):
    """A file can't be written, or read.

    Attributes:
        path: the file.
        reason: what the system says, in words.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} {reason}")
        self.path = path
        self.reason = reason


class DivergenceError(BaffleError):
    """Training left the finite numbers; the last good model is kept."""


class StoppedError(BaffleError):
    """A run has stopped, since to go on would spend or wait in vain; what was done is kept, and it can be resumed."""


class MissingExtraError(BaffleError):
    """A package that one of Baffle's extras brings is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; install it with: pip install 'baffle[{extra}]'")
        self.package = package
        self.extra = extra
