"""How many probes each block gets."""

from __future__ import annotations

from baffle.errors import SettingsError


def equal(directions: int, blocks: int, least: int) -> tuple[int, ...]:
    """Return budgets that share `directions` equally over `blocks`; the first ones get what does not divide.

    Raises:
        SettingsError: a block would get fewer than `least`.
    """
    share, extra = divmod(directions, blocks)
    if share < least:
        raise SettingsError(
            "forwards",
            directions,
            f"leaves K = {share} directions a block; {blocks} block(s) need at least {least} each",
        )
    return tuple(share + (block < extra) for block in range(blocks))
