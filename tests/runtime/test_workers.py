"""Threads that share a few workers."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import capexport
from capexport.runtime.workers import Workers


def who(_=None):
    time.sleep(0.002)
    return threading.get_ident()


def by_threads(workers, work, number=12, times=5):
    """What so many threads get, each of them several times."""
    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(lambda _: workers.do(work), range(number * times)))


def test_the_first_thread_works_itself_and_the_others_share_workers():
    workers, me = Workers(3), threading.get_ident()
    assert workers.do(who) == me
    others = set(by_threads(workers, who))
    assert me not in others
    assert len(others) == 3
    assert workers.do(who) == me


@pytest.mark.parametrize(("threads", "expected"), [(1, 1), (2, 2), (3, 3), (9, 3)])
def test_a_list_is_done_by_so_many(threads, expected):
    workers = Workers(3)
    workers.do(who)
    assert len(set(workers.map(who, range(30), threads))) == expected
    assert workers.map(lambda item: item * item, range(30), threads) == [item * item for item in range(30)]
    assert workers.map(who, [], threads) == []
    assert by_threads(workers, lambda: sum(workers.map(lambda item: item, range(10), threads))) == [45] * 60


def test_what_is_raised_is_raised_where_it_was_asked_for():
    workers = Workers(2)
    workers.do(who)
    done = []

    def work(item):
        done.append(item)
        if item == 3:
            raise IndexError("no such thing")
        time.sleep(0.01)

    def ask():
        return workers.map(work, range(1000), 2)

    with pytest.raises(IndexError, match="no such thing"):
        ask()
    assert len(done) < 10
    done.clear()
    with ThreadPoolExecutor(1) as another:
        with pytest.raises(IndexError, match="no such thing"):
            another.submit(ask).result()
        assert len(done) < 10
        with pytest.raises(ZeroDivisionError):
            another.submit(workers.do, lambda: 1 // 0).result()
    assert len(workers.map(who, range(4), 2)) == 4


def test_workers_that_ask_for_workers_do_not_wait_for_each_other():
    workers = Workers(2)
    workers.do(who)

    def nested():
        return sum(workers.map(lambda item: workers.do(lambda: item), range(6), 2))

    assert by_threads(workers, nested) == [15] * 60


def test_its_threads_end_with_it():
    before = {*threading.enumerate()}
    for _ in range(5):
        workers = Workers(3)
        assert len(workers.map(who, range(9), 3)) == 9
        by_threads(workers, who)
        assert {*threading.enumerate()} - before
        del workers
        deadline = time.monotonic() + 20
        while {*threading.enumerate()} - before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert {*threading.enumerate()} <= before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_fork_has_workers_of_its_own():
    workers = Workers(2)
    assert len(workers.map(who, range(8), 2)) == 8
    child = os.fork()
    if not child:
        os._exit(0 if workers.map(lambda item: item, range(8), 2) == list(range(8)) else 1)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            assert status == 0
            return
        time.sleep(0.02)
    os.kill(child, 9)
    os.waitpid(child, 0)
    pytest.fail("the fork waits for threads that it does not have")


def test_a_stream_that_gives_nothing_does_not_keep_others_waiting(tiny_bundle, photos):
    captioner = capexport.load(tiny_bundle, threads=1)
    expected = captioner.caption(photos[0]).text
    go_on = threading.Event()

    class Slow:
        def read(self):
            assert go_on.wait(30)
            return photos[0].read_bytes()

    with ThreadPoolExecutor(12) as pool:
        waiting = [pool.submit(captioner.caption, Slow()) for _ in range(10)]
        quick = [pool.submit(captioner.caption, photos[0]) for _ in range(10)]
        try:
            assert {one.result(20).text for one in quick} == {expected}
            assert not any(one.done() for one in waiting)
        finally:
            go_on.set()
        assert {one.result(20).text for one in waiting} == {expected}


def test_a_stream_that_breaks(tiny_bundle):
    class Broken:
        name = "the feed"

        def read(self):
            raise OSError("it is gone")

    captioner = capexport.load(tiny_bundle)
    with pytest.raises(capexport.ImageError, match="the feed cannot be read: it is gone"):
        captioner.caption(Broken())
    [error] = captioner.caption([Broken()], on_error="skip")
    assert isinstance(error, capexport.ImageError)
