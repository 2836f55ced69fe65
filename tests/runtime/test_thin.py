"""What captioning leaves alone: the disk, the network, other processes."""

import subprocess
import sys

import pytest

from tests.conftest import FUSED, VARIANTS

WATCHED = """
import os, sys

def watch(event, arguments):
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    others = ("socket.", "tempfile.", "subprocess.", "os.mkdir", "os.rename", "os.remove", "os.symlink", "urllib.")
    if (writes and arguments[0] != os.devnull) or event.startswith(others):
        print(event, arguments)

sys.addaudithook(watch)
import capexport
captioner = capexport.load(sys.argv[1])
captioner.caption(sys.argv[2:])
captioner.caption(sys.argv[2:], beams=2)
captioner.caption(sys.argv[2:], temperature=1.0)
"""


@pytest.mark.parametrize("variant", [*VARIANTS, *FUSED])
def test_captioning_writes_nothing_and_calls_nobody(variant, tiny_bundles, photos, tmp_path):
    command = [sys.executable, "-B", "-c", WATCHED, str(tiny_bundles[variant].directory), *map(str, photos[:2])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_the_watch_sees_what_it_should(tmp_path):
    """Otherwise the test above could not fail."""
    code = WATCHED.split("import capexport")[0] + "import socket, tempfile\ntempfile.mkdtemp(dir='.')\n"
    code += "open('a', 'w')\nsocket.socket().connect_ex(('127.0.0.1', 9))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert {"tempfile.mkdtemp", "open", "socket.connect"} <= {line.split()[0] for line in done.stdout.splitlines()}
