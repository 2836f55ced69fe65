"""Photos, shards and captions in S3: a server that speaks its protocol, on this machine."""

import json

import pytest

import capexport
from capexport import DataError, DecodingOptions, ImageError, OptionError
from capexport.batch import storage
from capexport.batch.run import Folder, caption_folder
from capexport.batch.shard_run import Shards, caption_shards
from capexport.batch.shards import find_shards
from capexport.batch.sidecars import TEXT
from capexport.batch.storage import is_folder, join, name_of, new_output, open_input, read_text, size
from capexport.batch.walk import photos_under
from tests.batch.conftest import write_tar

NEEDS = "needs pyarrow, moto, flask and flask-cors (pip install 'capexport[dev]')"
pytest.importorskip("pyarrow.fs", reason=NEEDS)
pytest.importorskip("flask_cors", reason=NEEDS)
server = pytest.importorskip("moto.server", reason=NEEDS)

GREEDY = DecodingOptions()


@pytest.fixture(scope="module")
def s3():
    """The environment that leads to it, with a bucket."""
    import boto3

    running = server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        values = {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "DEFAULT_REGION": "us-east-1"}
        for name, value in {**values, "ENDPOINT_URL": f"http://{host}:{port}", "EC2_METADATA_DISABLED": "true"}.items():
            patch.setenv(f"AWS_{name}", value)
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="photos")
        yield "s3://photos"
    running.stop()


@pytest.fixture
def remote(s3, folder, tmp_path):
    """The folder's photos, and two shards of them, in the bucket."""
    photos = sorted(folder.iterdir())
    write_tar(tmp_path / "a.tar", photos[:10])
    write_tar(tmp_path / "b.tar", photos[10:20])
    for place, paths in (("in/one %41?", photos), ("shards", [tmp_path / "a.tar", tmp_path / "b.tar"])):
        for path in paths:
            with new_output(join(join(s3, place), path.name), force=True) as partial:
                partial.write_bytes(path.read_bytes())
    return s3


def rows_of(text):
    return [json.loads(line) for line in text.splitlines()]


def test_a_folder_of_photos(remote, folder, tiny_bundle, tmp_path):
    """The words are those from the disk; a name may have signs that mean something in a URI."""
    captioner = capexport.load(tiny_bundle, threads=2)
    there, here = f"{remote}/in", folder
    assert [str(photo) for photo in photos_under(there)] == []
    caption_folder(captioner, Folder(there, tmp_path / "there.jsonl", recursive=True, batch=4), GREEDY)
    caption_folder(captioner, Folder(here, tmp_path / "here.jsonl", batch=4), GREEDY)
    found, expected = (rows_of((tmp_path / f"{name}.jsonl").read_text()) for name in ("there", "here"))
    assert [row["path"] for row in found] == [f"{there}/one %41?/photo-{k:02d}.jpg" for k in range(30)]
    for row, other in zip(found, expected, strict=True):
        assert row["tokens"] == other["tokens"]
        assert row["log_probabilities"] == other["log_probabilities"]
        assert bool(row["error"]) == bool(other["error"])
    with pytest.raises(OptionError, match="beside photos on disk"):
        Folder(there, tmp_path / "a.jsonl", sidecars=(TEXT,))
    with pytest.raises(ImageError, match="no folder at"):
        photos_under(f"{remote}/none")


def test_a_file_that_is_too_large_for_a_photo(remote, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MOST_BYTES", 150)
    caption_folder(capexport.load(tiny_bundle), Folder(f"{remote}/in", tmp_path / "out.jsonl", recursive=True), GREEDY)
    errors = [row["error"] for row in rows_of((tmp_path / "out.jsonl").read_text())]
    assert len(errors) == 30
    assert all("is too large: more than" in error for error in errors)


def test_shards_and_captions_in_storage(remote, tiny_bundle, tmp_path):
    captioner = capexport.load(tiny_bundle, threads=2)
    shards = tuple(find_shards([f"{remote}/shards"]))
    assert shards == (f"{remote}/shards/a.tar", f"{remote}/shards/b.tar")
    what = Shards(shards, f"{remote}/captions", batch=4)
    for again in (0, 20):
        tally = caption_shards(captioner, what, GREEDY)
        assert (tally.photos, tally.failed, tally.earlier, tally.damaged) == (20, 1, again, ())
    caption_shards(captioner, Shards(shards, str(tmp_path / "here"), batch=4), GREEDY)
    for name in "ab":
        assert read_text(f"{remote}/captions/{name}.jsonl") == (tmp_path / "here" / f"{name}.jsonl").read_text()
    assert json.loads(read_text(f"{remote}/captions/a.stats.json"))["photos"] == 10
    with pytest.raises(DataError, match="cannot be read"):
        list(capexport.batch.shards.photos_of(f"{remote}/shards/none.tar"))


def test_files(remote):
    assert is_folder(f"{remote}/shards")
    assert not is_folder(f"{remote}/shards/a.tar")
    assert size(f"{remote}/none") is None
    assert name_of(f"{remote}/shards/a.tar") == "a.tar"
    with pytest.raises(ZeroDivisionError), new_output(f"{remote}/half.txt", force=False) as partial:
        partial.write_text("half")
        _ = 1 / 0
    assert size(f"{remote}/half.txt") is None
    with pytest.raises(OSError, match=r"(?i)not found|no such|does not exist"), open_input(f"{remote}/half.txt"):
        pass
