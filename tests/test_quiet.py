"""Silence of standard error, which is one for all threads."""

import os
import subprocess
import sys

from capexport.quiet import silenced_stderr


def test_silence_that_overlaps(capfd):
    first, second = silenced_stderr(), silenced_stderr()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    os.write(2, b"unheard")
    second.__exit__(None, None, None)
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


def test_a_process_without_standard_error(tiny_bundles, photos):
    directory = str(tiny_bundles["tflite", "fp32"].directory)
    code = "import capexport, sys; print(capexport.load(sys.argv[1]).caption(sys.argv[2]).text)"
    command = ["sh", "-c", '"$@" 2>&-', "sh", sys.executable, "-c", code, directory, str(photos[0])]
    assert subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
