import pickle

import pytest

import capexport
from capexport.errors import CapexportError, DataError, DownloadError, MissingExtraError, OptionError


@pytest.mark.parametrize(
    ("sign", "escape"), [("\n", r"\n"), ("\r", r"\r"), ("\0", r"\x00"), ("\x1b", r"\x1b"), ("\ud800", r"\ud800")]
)
def test_a_message_is_one_printable_line_whatever_it_quotes(sign, escape):
    assert str(DataError(f"the photo a{sign}b.jpg is missing.")) == f"the photo a{escape}b.jpg is missing."
    assert escape in str(DownloadError(f"http://host/{sign}", "there is no host"))


def test_words_of_any_language_stay_as_they_are():
    assert str(OptionError("the word 'Fuß' or '犬' is unknown.")) == "the word 'Fuß' or '犬' is unknown."


@pytest.mark.parametrize(
    "error", [OptionError("too many."), DownloadError("http://host/a", "it is gone", True), MissingExtraError("a", "b")]
)
def test_errors_come_out_of_other_processes_as_they_were(error):
    come = pickle.loads(pickle.dumps(error))
    assert (type(come), str(come), vars(come)) == (type(error), str(error), vars(error))


def test_a_missing_extra_says_what_to_install():
    error = MissingExtraError("rich", "evaluate")
    assert isinstance(error, CapexportError)
    assert isinstance(error, ImportError)
    assert str(error) == "rich is not installed; install it with: pip install 'capexport[evaluate]'"
    assert capexport.CapexportError is CapexportError
