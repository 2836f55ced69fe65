"""Short runs of the script that kills: with SIGKILL, and with Ctrl-C."""

import json
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("kinds", "kills", "how"), [(["caption"], 16, "INT"), ([], 1, "KILL")])
def test_what_is_left_is_whole_and_gone_on_with(kinds, kills, how):
    command = [sys.executable, "-m", "tests.kills", *kinds, "--kills", str(kills), "--signal", how, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    tallies = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["what"] for one in tallies] == [*(() if kinds else ("Train", "Cache", "Convert")), "Folder", "Lines"]
    assert sum(one["kills"] for one in tallies) >= kills * (1 if kinds else 4)
