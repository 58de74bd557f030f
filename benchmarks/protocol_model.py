"""A lying server against the rules that clients keep to, for long: promises that break are found by chance, or not.

    python benchmarks/protocol_model.py [--steps 100000] [--seed 0] [--without book,folded,signed]

Clients are the real ones, 4 to 7 of them, with 0 to t − 1 colluders, restarts, deleted folders, new epochs, rosters and
sets of reports that differ from client to client: see `tests/protocol.py` for what is asked and what may not be known.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import machine

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from protocol import BrokenError, Rules, play


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without", default="", help="rules that are left out, by commas")
    options = parser.parse_args()
    left_out = [name for name in options.without.split(",") if name]
    rules = Rules(**dict.fromkeys(left_out, False))
    print(machine.told())
    began = time.perf_counter()
    try:
        done, opened = play(options.steps, options.seed, rules)
    except BrokenError as error:
        sys.exit(f"a promise is broken {error}; {time.perf_counter() - began:.0f} s")
    told = ", ".join(f"{name} {count:,}" for name, count in sorted(done.items()))
    print(f"{options.steps:,} steps in {time.perf_counter() - began:.0f} s: {told}")
    print(f"{opened:,} sums were opened, and no promise was broken")


if __name__ == "__main__":
    main()
