"""A run that is killed or interrupted at any moment leaves no process and no half file, and goes on where it was."""

import os
import random
import signal
import threading
import time

import pytest
from runs.calls import call, data, entries, environment, started, tasks, until
from runs.toys import SETS, split

from gradlab.runs.signals import Terminated, one_interruption

FIRST_AND_SECOND = {name: SETS["waits"][name] for name in ("first", "second")}


def running(group):
    """The processes of a session that have not ended."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as stream:
                fields = stream.read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == group and fields[0] != "Z":  # session
            found.append(int(entry))
    return found


# ---- killed -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert call(FIRST_AND_SECOND, folder) == 0
    return data(folder)


def test_killed_at_arbitrary_moments_one_rerun_gives_the_same_data_and_computes_only_what_was_not_finished(
    tmp_path, undisturbed, capsys
):
    chance = random.Random(2013)
    found = []
    for number in range(2):
        folder = tmp_path / str(number)
        process = started("waits", folder, "--jobs", 2, OPENBLAS_NUM_THREADS="1")
        try:
            wanted = chance.randrange(1, 7)  # so many tasks are finished, and a moment later
            assert until(lambda folder=folder, wanted=wanted: len(entries(folder, "second")) >= wanted, 60)
            time.sleep(chance.uniform(0.0, 0.1))
        finally:
            process.kill()
            process.communicate()
        assert until(lambda process=process: running(process.pid) == [], 5.0), "workers outlive a killed parent"
        kept = len(entries(folder, "second"))
        assert call(FIRST_AND_SECOND, folder) == 0
        assert tasks(folder, "second") == (8 - kept, kept)
        assert data(folder) == undisturbed
        left = [path.name for path in folder.rglob("*.part")]
        found.append((kept, left))
    assert all(kept >= 1 and left == [] for kept, left in found), found


# ---- interrupted --------------------------------------------------------------------------------------------


def interrupted(folder, send, *argv):
    """(status, seconds until the end, stderr, processes left) of a run that is interrupted while two tasks hang."""
    begun = folder.with_name("begun")
    process = started("hangs", folder, *argv, TOY_BEGUN=str(begun), OPENBLAS_NUM_THREADS="1")
    try:
        assert process.stdout.readline().startswith(b"first: done")
        assert until(lambda: begun.exists() and begun.with_name("begun1").exists(), 60)
        start = time.monotonic()
        send(process)
        process.wait(timeout=30)
        seconds = time.monotonic() - start
        _, err = process.communicate(timeout=30)
        until(lambda: running(process.pid) == [], 2.0)
        return process.returncode, seconds, err.decode(), running(process.pid)
    finally:
        process.kill()
        process.communicate()


def twice(process, to_all):
    for pause in (0.0, 0.05, 0.2):  # at once, while it tidies up, and while it ends
        time.sleep(pause)
        try:
            os.killpg(process.pid, signal.SIGINT) if to_all else process.send_signal(signal.SIGINT)
        except ProcessLookupError:
            return


SIGNALS = {
    "Ctrl-C": (130, lambda process: process.send_signal(signal.SIGINT)),
    "Ctrl-C to all": (130, lambda process: os.killpg(process.pid, signal.SIGINT)),
    "Ctrl-C again and again": (130, lambda process: twice(process, False)),
    "Ctrl-C to all again and again": (130, lambda process: twice(process, True)),
    "SIGTERM": (143, lambda process: process.terminate()),
    "SIGHUP": (143, lambda process: process.send_signal(signal.SIGHUP)),
}


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_ends_a_run_and_its_workers_in_two_seconds_with_one_line_and_keeps_what_was_finished(tmp_path, name):
    expected, send = SIGNALS[name]
    folder = tmp_path / "out"
    status, seconds, err, left = interrupted(folder, send, "--jobs", "2")
    assert (status, left) == (expected, [])
    assert seconds < 2.0
    assert len(err.strip().splitlines()) == 1, err
    assert err.strip().endswith("not done: second")
    assert len(entries(folder, "first")) == 2
    assert "first.json" in data(folder)


def test_only_the_first_of_many_signals_interrupts_and_the_handlers_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    for first, kind in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)):
        raised = []
        with one_interruption():
            for number in (first, signal.SIGINT, signal.SIGTERM, signal.SIGINT):
                try:
                    signal.raise_signal(number)
                except (KeyboardInterrupt, Terminated) as error:
                    raised.append(type(error))
        assert raised == [kind]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_signal_that_was_ignored_before_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with one_interruption():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_whose_output_nobody_reads_computes_all_the_same(tmp_path):
    process = started("waits", tmp_path / "out", "--jobs", 2)
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 141
    assert len(entries(tmp_path / "out", "second")) == 8
    assert "second.json" in data(tmp_path / "out")


# ---- a cluster ----------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(monkeypatch):
    """Two workers of Dask in processes of their own."""
    distributed = pytest.importorskip("distributed", reason="needs distributed: pip install 'gradlab[dask]'")
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])  # the workers import the toys
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as made:
        yield made


def test_a_cluster_that_loses_a_worker_gives_the_same_bytes_and_names_what_fails_or_hangs(tmp_path, capsys, cluster):
    plain = {"alpha": split(*({"k": k, "does": "wait", "seconds": 0.3} for k in range(6))), "beta": split(2)}
    killed = []

    def kill():
        if until(lambda: len(entries(tmp_path / "dask")) >= 1, 30):
            killed.append(next(iter(cluster.workers.values())).pid)
            os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    assert call(plain, tmp_path / "dask", "--dask", cluster.scheduler_address) == 0
    thread.join()
    assert len(killed) == 1
    assert tasks(tmp_path / "dask") == (6, 0)
    assert call(plain, tmp_path / "local", "--jobs", 2) == 0
    assert call(plain, tmp_path / "here") == 0
    assert data(tmp_path / "dask") == data(tmp_path / "local") == data(tmp_path / "here")

    bad = {"gamma": split({"does": "hang"}, {"k": 1}), "delta": split({"does": "raise"}, {"k": 1})}
    capsys.readouterr()
    argv = ("--dask", cluster.scheduler_address, "--task-timeout", 2, "--keep-going")
    assert call(bad, tmp_path / "bad", *argv) == 6
    err = capsys.readouterr().err
    assert 'gamma crashed: does="hang": has not ended after 2 s' in err
    assert 'delta crashed: does="raise": ValueError: seven is not eight' in err
    assert [len(entries(tmp_path / "bad", stem)) for stem in bad] == [1, 1]
