"""A real Ray cluster of several nodes on this machine: its rows are a local run's, whatever becomes of a node."""

import json
import os
import subprocess
import sys
import time

import pytest

import capexport
from capexport import BundleError, DecodingOptions, OptionError
from capexport.batch.run import Folder, caption_folder
from capexport.batch.shard_run import Shards, caption_shards
from tests.batch.conftest import make_photo, write_tar

pytest.importorskip("pyarrow", reason="needs pyarrow (pip install 'capexport[ray]')")
pytest.importorskip("ray", reason="needs ray (pip install 'capexport[ray]')")

from capexport.batch import ray_engine

GREEDY = DecodingOptions()


@pytest.fixture(scope="module")
def cluster():
    """A head without cores, on which this process is, and three nodes of one core each."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ.update(RAY_worker_niceness="0")  # Ray gives them 15, with which they wait for whatever else goes on
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(3):
        running.add_node(num_cpus=1)
    ray.init(address=running.address, log_to_driver=False, logging_level="ERROR")
    yield running
    ray.shutdown()
    running.shutdown()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(ray_engine, "BLOCK", 8)


@pytest.fixture
def many(photos, folder):
    """The folder with 120 photos, two of them broken, one with a name that is no UTF-8."""
    for k in range(30, 119):
        make_photo(folder / f"photo-{k:03d}.jpg", photos[k % len(photos)], k)
    make_photo(folder / os.fsdecode(b"\xff.jpg"), photos[0], 200)
    return folder


@pytest.mark.usefixtures("cluster")
def test_shards(folder, tiny_bundle, tmp_path):
    names = [f"shard-{k}.tar" for k in range(4)]
    for k, name in enumerate(names):
        write_tar(tmp_path / name, sorted(folder.iterdir())[k * 7 : k * 7 + 7])
    whole = (tmp_path / names[2]).read_bytes()
    (tmp_path / names[2]).write_bytes(whole[: len(whole) // 2])
    shards = tuple(str(tmp_path / name) for name in names)
    for engine, out in (("local", "here"), ("ray", "there")):
        what = Shards(shards, str(tmp_path / out), batch=4)
        for again in (False, True):
            if engine == "ray":
                tally = ray_engine.caption_shards(tiny_bundle, what, GREEDY, ray_engine.Workers(2))
            else:
                tally = caption_shards(capexport.load(tiny_bundle, threads=1), what, GREEDY)
            assert (tally.shards, tally.photos, tally.failed, tally.earlier) == (4, 21, 2, 21 * again)
            assert len(tally.damaged) == 1
    assert len(list((tmp_path / "there").iterdir())) == 6
    for captions in (tmp_path / "here").glob("*.jsonl"):
        assert captions.read_bytes() == (tmp_path / "there" / captions.name).read_bytes()


@pytest.mark.usefixtures("cluster")
def test_what_is_refused(folder, refused, tiny_bundle, tmp_path):
    with pytest.raises(OptionError, match="99 workers"):
        ray_engine.Workers(99).fitting()
    what = Folder(folder, tmp_path / "captions.jsonl", batch=4)
    with pytest.raises(BundleError, match="LiteRT cannot load"):  # by the workers, who load it
        ray_engine.caption_folder(refused, what, GREEDY, ray_engine.Workers(1))
    with pytest.raises(OptionError, match="nonsense"):
        ray_engine.caption_folder(tiny_bundle, what, DecodingOptions(forced_words=("nonsense",)), ray_engine.Workers(1))
    assert not what.out.exists()


def test_a_node_killed_in_mid_run_loses_and_doubles_nothing(cluster, many, tiny_bundle, tmp_path):
    """The row of every photo once, and the same bytes as without Ray; then its rows are gone on with without Ray."""
    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    caption_folder(capexport.load(tiny_bundle, threads=2), Folder(many, here, batch=4), GREEDY)
    lost = ray_engine.lost_nodes()

    def kill_one(tally):
        if tally.photos == 8:
            cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)

    what = Folder(many, there, batch=4)
    tally = ray_engine.caption_folder(tiny_bundle, what, GREEDY, ray_engine.Workers(3), kill_one)
    assert (tally.photos, tally.failed) == (120, 2)
    deadline = time.monotonic() + 60  # Ray may notice it after so short a run
    while ray_engine.lost_nodes() == lost and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ray_engine.lost_nodes() == lost + 1
    rows = there.read_bytes().splitlines()
    assert sorted(rows) == sorted(here.read_bytes().splitlines())

    there.write_bytes(b"\n".join(rows[:50]) + b"\n")
    caption_folder(capexport.load(tiny_bundle), Folder(many, there, batch=4, resume=True), GREEDY)
    assert sorted(there.read_bytes().splitlines()) == sorted(here.read_bytes().splitlines())


@pytest.mark.usefixtures("cluster")
def test_a_cluster_that_fails_again_and_again(folder, tiny_bundle, tmp_path, monkeypatch):
    """It is told of, what is done is kept, and a later run needs the rest alone."""
    import ray

    out, once = tmp_path / "captions.jsonl", ray_engine._once
    calls = []

    def failing(left, *arguments):
        calls.append(len(left))
        if len(calls) > 1:
            raise ray.exceptions.RayError("all is lost")
        for number, found in enumerate(once(left, *arguments)):
            if number == 2:
                raise ray.exceptions.ActorDiedError
            yield found

    monkeypatch.setattr(ray_engine, "_once", failing)
    with pytest.raises(capexport.CapexportError, match="gave up 3 times: all is lost"):
        ray_engine.caption_folder(tiny_bundle, Folder(folder, out, batch=4), GREEDY, ray_engine.Workers(2))
    assert calls == [4, 2, 2, 2]
    assert len(out.read_bytes().splitlines()) in (14, 16)  # the last block has 6
    monkeypatch.undo()
    what = Folder(folder, out, batch=4, resume=True)
    assert ray_engine.caption_folder(tiny_bundle, what, GREEDY, ray_engine.Workers(2)).photos == 30
    assert len({json.loads(line)["path"] for line in out.read_bytes().splitlines()}) == 30


def test_the_command_starts_a_cluster_of_its_own(folder, tiny_bundle, tmp_path):
    out = tmp_path / "captions.jsonl"
    arguments = ["caption", str(folder), "--out", str(out), "--bundle", str(tiny_bundle.directory), "--batch", "4"]
    code = "import sys; from capexport.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *arguments, "--engine", "ray", "--workers", "1"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(command, capture_output=True, text=True, env={**environment, "RAY_ADDRESS": "local"})
    assert done.returncode == 1, done.stderr
    assert "30 photos, 2 of them could not be read; 1 workers of 1 threads, 30 photos in" in done.stderr
    rows = out.read_bytes().splitlines()
    out.unlink()
    caption_folder(capexport.load(tiny_bundle), Folder(folder, out, batch=4), GREEDY)
    assert sorted(rows) == sorted(out.read_bytes().splitlines())
