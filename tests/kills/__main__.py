"""Kills runs again and again, with SIGKILL, and looks what the next run makes of what is left.

    python -m tests.kills [train] [cache] [convert] [caption] [--kills 100] [--signal KILL] [--seed 1] [--json]

train    `capexport train` of a tiny captioner on a folder of small photos
cache    the features of photos that training keeps
convert  `capexport convert`, half of the time over a bundle that is there already, with --force
caption  a folder of photos captioned into .jsonl or .csv, with sidecars and XMP packets, with --resume

So many kills of each, half of them at a random time, half just before a random one of the run's changes to files
(opening one to write, renaming, removing), where half-done work is likeliest. After each kill whatever lies under a
final name must be whole. After some kills a run is left in peace: it must end well, with what an undisturbed run makes,
and leave no other file. With --signal INT (Ctrl-C) a run itself must leave nothing half-written, and end with exit code
130. The exit code is 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np

from .scenarios import SCENARIOS, prepared
from .series import WrongError, series


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help=f"of {', '.join(SCENARIOS)} (default: all)")
    parser.add_argument("--kills", type=int, default=100, help="of each (default: 100)")
    parser.add_argument("--signal", choices=("KILL", "INT"), default="KILL")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object a kind and line")
    parsed = parser.parse_args()
    if unknown := {*parsed.what} - {*SCENARIOS}:
        parser.error(f"there is no {min(unknown)}, but {', '.join(SCENARIOS)}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Imported once, and not used in this process: a fork then begins with its own TensorFlow.
    __import__("capexport.export.convert")
    __import__("capexport.captioner.training")
    __import__("capexport.cli.caption")
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepared(folder)
        for name in parsed.what or SCENARIOS:
            kinds = SCENARIOS[name]
            for kind in kinds:
                scenario = kind(folder, np.random.default_rng(parsed.seed), signal.Signals[f"SIG{parsed.signal}"])
                try:
                    tally = series(scenario, -(-parsed.kills // len(kinds)))
                except WrongError as error:
                    failed = True
                    print(f"{kind.__name__}: {error}", file=sys.stderr)
                    continue
                said = f"{tally.kills} kills, {tally.at_events} of them at a change of a file; {tally.ended} runs ended"
                line = {"what": kind.__name__, **vars(tally)}
                print(
                    json.dumps(line) if parsed.json else f"{kind.__name__}: {said}; {tally.seconds:.0f} s", flush=True
                )
    return failed


if __name__ == "__main__":
    sys.exit(main())
