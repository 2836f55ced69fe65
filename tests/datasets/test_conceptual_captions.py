"""Conceptual Captions: photos from a real server that is as unreliable as the web, asked once and never in vain."""

import functools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capexport import DataError
from capexport.datasets import load_dataset, web_photos
from capexport.datasets.conceptual_captions import SPLIT_FILES, read_listing
from capexport.download import fetch
from tests.web import hangs_up, in_turn, jpeg, redirects, sends, trickles, waits

LIMIT = 20_000  # bytes of a photo


@pytest.fixture(autouse=True)
def frugal(monkeypatch):
    monkeypatch.setattr(web_photos, "fetch", functools.partial(fetch, limit=LIMIT, retries=1))


@pytest.fixture
def data(tmp_path):
    (tmp_path / "gcc").mkdir()
    return tmp_path / "gcc"


def listing(data, urls, split="train"):
    text = "".join(f"caption {number}\t{url}\n" for number, url in enumerate(urls))
    (data / SPLIT_FILES[split]).write_text(text)


def good(web, *numbers):
    web.answers |= {f"/{number}": sends(jpeg(number)) for number in numbers}
    return [web.url(f"/{number}") for number in numbers]


def take(data, limit=None, split="train", **options):
    return load_dataset("conceptual-captions", data, split, limit, private=True, **options)


def numbers(photos):
    return [int(text.split()[1]) for photo in photos for text in photo.captions]


def kept(data):
    return sorted(path.name for path in (data / "conceptual-captions").iterdir() if path.name != "failures.tsv")


def test_photos_come_in_the_listings_order(web, data):
    urls = good(web, *range(60))
    web.answers["/3"] = waits(0.2, web.answers["/3"])
    listing(data, urls)
    photos = take(data)
    assert numbers(photos) == list(range(60))
    assert [photo.path.read_bytes() for photo in photos] == [jpeg(number) for number in range(60)]
    assert len(kept(data)) == 60


def test_many_at_a_time_but_not_too_many(web, data):
    listing(data, good(web, *range(150)))
    web.answers = {path: waits(0.05, answer) for path, answer in web.answers.items()}
    assert len(take(data)) == 150
    assert 8 <= web.most_at_once <= web_photos.CONNECTIONS


def test_photos_of_private_hosts_are_asked_for_once_that_is_allowed(web, data):
    listing(data, good(web, 0, 1))
    for _ in range(2):
        with pytest.raises(DataError, match=r"not one of 2 photos .*--private-hosts allows that"):
            load_dataset("conceptual-captions", data, "train")
    assert not web.requests
    assert numbers(take(data)) == [0, 1]


@pytest.fixture
def unreliable(web, data, monkeypatch):
    """Twelve addresses; 0, 1, 2 and 3 give photos, the others fail in all ways."""
    monkeypatch.setattr(web_photos, "TIMEOUT", 5)  # a busy machine may stand still for a second or two
    urls = good(web, *range(12))
    web.answers["/1"] = redirects("/0")
    web.answers["/2"] = in_turn(sends(b"", 500), sends(jpeg(2)))
    web.answers["/3"] = in_turn(hangs_up, sends(jpeg(3)))
    del web.answers["/4"]
    web.answers["/5"] = sends(b"<html>sorry</html>")
    web.answers["/6"] = sends(jpeg(6)[:-200])
    web.answers["/7"] = sends(b"x" * (LIMIT + 1))
    web.answers["/8"] = sends(jpeg(8), length=10_000)
    web.answers["/9"] = trickles(jpeg(9), 0.05)
    web.answers["/10"] = sends(b"", 503)
    web.answers["/11"] = redirects("file:///etc/passwd")
    listing(data, [*urls, "ftp://127.0.0.1/photo.jpg"])
    return data


REASONS = {
    "HTTP 404": 1,
    "it is not a photo that can be read": 2,
    "it is larger than 0.02 MB": 1,
    "the answer was cut off": 1,
    "it took too long": 1,
    "HTTP 503": 1,
    "HTTP 302": 1,
    "it is not an address of http or https": 1,
}


def test_what_fails_is_skipped_counted_and_not_asked_again(web, unreliable, capsys):
    photos = take(unreliable)
    assert numbers(photos) == [0, 1, 2, 3]
    assert len(kept(unreliable)) == 4
    [report] = capsys.readouterr().err.splitlines()
    assert f"{SPLIT_FILES['train']}: 4 photos, 9 cannot be had (" in report
    assert all(f"{reason}: {count}" in report for reason, count in REASONS.items())
    asked = Counter({f"/{number}": 1 for number in range(12)}) + Counter(("/0", "/2", "/3", "/8", "/10"))
    assert web.requests == asked
    assert take(unreliable) == photos
    assert web.requests == asked
    assert capsys.readouterr().err.splitlines() == [report]


def test_a_pass_that_was_cut_off_goes_on(web, unreliable, monkeypatch):
    """Photos and failures for good are not asked again, failures that may pass are."""

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as at_the_end, pytest.raises(KeyboardInterrupt):
        at_the_end.setattr(web_photos.WebPhotos, "_report", interrupt)
        take(unreliable)
    failures = unreliable / "conceptual-captions/failures.tsv"
    assert len(failures.read_text().splitlines()) == 6
    with failures.open("a") as file:
        file.write("half a li")
    (unreliable / "conceptual-captions/.abc.999999999.part").write_bytes(b"half")
    web.requests.clear()
    web.answers["/8"] = web.answers["/9"] = sends(jpeg(8))
    assert numbers(take(unreliable)) == [0, 1, 2, 3, 8, 9]
    assert web.requests == {"/8": 1, "/9": 1, "/10": 2}
    assert len(kept(unreliable)) == 6


def test_no_photo_is_asked_for_in_vain(web, data):
    listing(data, good(web, *range(50)))
    del web.answers["/1"], web.answers["/7"]
    web.answers["/0"] = waits(0.2, web.answers["/0"])
    first = take(data, limit=8)
    assert numbers(first) == [0, 2, 3, 4, 5, 6, 8, 9]
    assert web.requests == {f"/{number}": 1 for number in range(10)}
    more = take(data, limit=20)
    assert more[:8] == first
    assert web.requests == {f"/{number}": 1 for number in range(22)}
    assert take(data, limit=8) == first
    assert web.requests.total() == 22


def test_a_photo_that_is_listed_twice(web, data):
    first, second = good(web, 0, 1)
    listing(data, [first, second, first])
    photos = take(data)
    assert [photo.captions for photo in photos] == [("caption 0", "caption 2"), ("caption 1",)]
    assert web.requests.total() == 2


def test_both_splits_by_url_into_a_workspace(web, tmp_path):
    files = {"train": good(web, 0, 1), "dev": good(web, 2)}
    for split, urls in files.items():
        text = "".join(f"caption {url[-1]}\t{url}\n" for url in urls)
        web.answers[f"/gcc/{SPLIT_FILES[split]}"] = sends(text.encode())
    for _ in range(2):
        taken = {split: take(web.url("/gcc/"), split=split, workspace=tmp_path) for split in files}
        assert {split: numbers(photos) for split, photos in taken.items()} == {"train": [0, 1], "dev": [2]}
    assert set(web.requests.values()) == {1}
    with pytest.raises(DataError, match=r"GCC-1\.1\.0-Validation\.tsv cannot be fetched: HTTP 404"):
        take(web.url("/nothing"), split="dev", workspace=tmp_path / "other")


def test_no_photo_at_all(web, data):
    listing(data, [web.url(f"/{number}") for number in range(40)])
    with pytest.raises(DataError, match=r"train.*: not one of 40 photos can be had \(HTTP 404: 40\)"):
        take(data)
    listing(data, [])
    with pytest.raises(DataError, match="no photos for the split"):
        take(data)


@pytest.mark.parametrize("line", ["a dog", "a dog\t", "\thttp://example.org/a", "a dog\thttp://example.org/a\tx"])
def test_a_malformed_line(data, line):
    listing(data, [])
    with (data / SPLIT_FILES["train"]).open("a") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(DataError, match=r"training\.tsv, line 2: expected "):
        take(data)


LINE = st.lists(st.sampled_from(["a dog", "http://a/b", "", " ", "\r", "\0"]) | st.text(), max_size=4).map("\t".join)


@given((st.text() | st.lists(LINE).map("\n".join)).map(lambda text: text.encode(errors="replace")) | st.binary())
def test_any_listing(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "listing.tsv"
    path.write_bytes(text)
    try:
        records = list(read_listing(path))
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert all(caption.strip() and url for caption, url in records)
