"""The same bytes wherever tasks run; what goes wrong in a worker is named, ends nothing else, and hangs nobody."""

import os
import time

import numpy as np
import pytest
from runs.calls import call, data, entries, ran, tasks, until
from runs.toys import split, toy

from gradlab._files import read_npz
from gradlab.errors import ResourceRefused
from gradlab.runs import memory


def said(capsys):
    """The lines of error of a run."""
    return [line.removeprefix("python -m analyses: error: ") for line in capsys.readouterr().err.strip().splitlines()]


# ---- equality -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The bytes of two analyses of a run in this process."""
    folder = tmp_path_factory.mktemp("here")
    assert call({"alpha": split(4), "beta": toy()}, folder) == 0
    return data(folder)


@pytest.mark.parametrize("argv", [("--jobs", 2), ("--jobs", 1, "--task-timeout", 60)], ids=str)
def test_tasks_in_other_processes_give_the_same_bytes(tmp_path, here, argv):
    log = tmp_path / "log"
    assert call({"beta": toy(), "alpha": split(4, log=log)}, tmp_path / "out", *argv) == 0
    assert data(tmp_path / "out") == here
    assert sorted(one["k"] for one in ran(log)) == [0, 1, 2, 3]


def test_what_one_way_of_running_has_stored_another_one_uses(tmp_path, here):
    assert call({"alpha": split(2)}, tmp_path, "--jobs", 2) == 0
    assert call({"alpha": split(4), "beta": toy()}, tmp_path) == 0
    assert tasks(tmp_path) == (2, 2)
    assert data(tmp_path) == here


def test_a_worker_has_one_thread_of_linear_algebra_and_its_share_of_the_memory(tmp_path):
    assert call({"alpha": split({"does": "threads"}, {"does": "threads", "k": 1})}, tmp_path, "--jobs", 2) == 0
    arrays = read_npz(tmp_path / "alpha.npz")[1]
    assert len(arrays["last"]) > 0
    assert set(arrays["last"].tolist()) == {1}
    assert arrays["x"].tolist() == [0.4, 0.4]  # 0.8 of what is free, for two


def test_what_measures_time_runs_here_when_the_others_are_done(tmp_path):
    log = tmp_path / "log"
    alone = split({"who": "alone"}, log=log, ALONE=True)
    assert call({"alpha": alone, "beta": split(3, log=log)}, tmp_path / "out", "--jobs", 2) == 0
    assert ran(log)[-1] == {"who": "alone"}


def test_the_longest_analyses_start_first(tmp_path):
    log = tmp_path / "log"
    analyses = {name: split({"who": name}, log=log, MINUTES=minutes) for name, minutes in zip("abc", (1, 9, 3), strict=True)}
    assert call(analyses, tmp_path / "out") == 0
    assert [one["who"] for one in ran(log)] == ["b", "c", "a"]


# ---- what goes wrong ----------------------------------------------------------------------------------------


def test_every_way_to_fail_in_a_worker_is_named_and_the_others_are_done(tmp_path, capfd):
    odd = {
        "raises": ("raise", "ValueError: seven is not eight"),
        "raises_oddly": ("raise oddly", "OddError: <function"),
        "gives_a_lambda": ("lambda", "FormatError: gave 'x' of dtype object; expected arrays of numbers"),
        "dies": ("die", "its process died twice"),
        "segfaults": ("crash memory", "its process died twice"),
    }
    analyses = {name: split({"does": does, "k": 1}, {"k": 2}) for name, (does, _) in odd.items()}
    analyses |= {"prints": split({"does": "print"}), "fine": split(3)}
    start = time.monotonic()
    assert call(analyses, tmp_path, "--jobs", 2, "--keep-going") == 6
    assert time.monotonic() - start < 60.0  # no deadlock
    err = said(capfd)
    assert len(err) == len(odd)
    for name, (does, text) in odd.items():
        (line,) = [line for line in err if line.startswith(f"{name} crashed: ")]
        assert text in line
        if does != "raise oddly":
            assert f'does="{does}", k=1: ' in line  # which task it was
        assert len(entries(tmp_path, name)) == 1  # its other task is kept
    assert {"fine.npz", "prints.npz"} <= set(data(tmp_path))


def test_a_task_whose_process_dies_once_is_run_again_and_counts_once(tmp_path, here):
    log, mark = tmp_path / "log", tmp_path / "mark"
    plain = split({"k": 0}, {"does": "die once", "mark": str(mark)}, {"k": 1}, log=log)
    assert call({"alpha": plain}, tmp_path / "out", "--jobs", 2) == 0
    assert len(ran(log)) == 4
    assert tasks(tmp_path / "out") == (3, 0)


def test_a_task_that_hangs_is_killed_and_named_and_what_is_done_is_kept(tmp_path, capsys):
    mark = tmp_path / "pid"
    analyses = {"alpha": split({"k": 0}, {"does": "hang", "mark": str(mark)}, {"k": 1}), "beta": split(2)}
    start = time.monotonic()
    assert call(analyses, tmp_path / "out", "--jobs", 2, "--task-timeout", 1, "--keep-going") == 6
    assert time.monotonic() - start < 30.0  # it would sleep for two minutes
    (line,) = said(capsys)
    assert "hang" in line
    assert "has not ended after 1 s (--task-timeout); its process was killed" in line
    assert len(entries(tmp_path / "out")) == 2
    assert until(lambda: not os.path.exists(f"/proc/{mark.read_text()}"), 5.0)  # killed and buried
    assert "beta.npz" in data(tmp_path / "out")


def test_the_tasks_left_of_an_analysis_that_has_failed_run_only_if_they_are_to_keep_going(tmp_path, capsys):
    for argv, more in (([], 0), (["--keep-going"], 2)):
        log = tmp_path / f"log{more}"
        failing = split({"does": "raise"}, {"k": 1}, {"k": 2}, log=log)
        assert call({"alpha": failing, "beta": split(1)}, tmp_path / str(more), *argv) == 6
        assert len(ran(log)) == 1 + more
        assert "beta.npz" in data(tmp_path / str(more))
    failing = split({"does": "raise"}, {"k": 1}, {"k": 2}, log=log)
    assert call({"alpha": failing}, tmp_path / "2") == 6
    assert len(ran(log)) == 4  # only the one that fails is tried again


def test_a_task_that_is_refused_for_its_memory_ends_the_run_with_5_and_names_itself(tmp_path, capsys):
    def compute(rng, scale, progress=None):
        raise ResourceRefused("the Jacobians need 156 GiB, the limit is 8 GiB; use the stream")

    assert call({"alpha": toy(compute=compute), "beta": split(2)}, tmp_path, "--jobs", 2) == 5
    assert said(capsys) == ["alpha: the Jacobians need 156 GiB, the limit is 8 GiB; use the stream"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_more_memory_than_was_allowed_is_refused_by_the_kernel_and_ends_with_5(tmp_path, capsys, jobs):
    def compute(rng, scale, progress=None):
        return {"x": np.ones(5), "two": np.ones(2**26).sum()}  # half a GiB

    before = memory.resource.getrlimit(memory.resource.RLIMIT_AS)
    argv = ("--jobs", jobs, "--max-memory", "256M")
    assert call({"alpha": toy(compute=compute)}, tmp_path, *argv) == 5
    (line,) = said(capsys)
    assert "alpha: " in line
    assert "--max-memory" in line
    assert memory.resource.getrlimit(memory.resource.RLIMIT_AS) == before


def test_a_worker_that_has_other_sources_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("gradlab.runs.course.code_version", lambda analysis: "0" * 32)
    assert call({"alpha": split(1)}, tmp_path, "--jobs", 1) == 6
    assert "the sources or libraries in the worker differ from those of the run" in said(capsys)[0]


# ---- arguments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [
        *(["--jobs", n] for n in ("0", "-1", "1e3", "1000000", "two", "1.5", "", "٣")),
        *(["--task-timeout", n] for n in ("0", "-1", "nan", "inf", "soon", "1_0")),
        *(["--max-memory", n] for n in ("0", "4", "1X", "-1G", "nan", "99999T", "G")),
        *(["--width", n] for n in ("0", "nan", "1e9", "wide")),
        ["--format", "gif"],
        ["--format", "pdf,"],
        ["--style", "poster"],
        *(["--redraw", *more] for more in (["--force"], ["--jobs", "2"], ["--dask", "tcp://x:1"], ["--keep-going"])),
        ["--dask", "tcp://127.0.0.1:1", "--jobs", "2"],
        ["--dask", "tcp://127.0.0.1:1", "--max-memory", "1G"],
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_a_usage_error_and_makes_no_file(tmp_path, capsys, argv):
    try:
        status = call({"alpha": toy()}, tmp_path / "out", *argv)
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_sizes_of_memory_are_read_as_they_are_written():
    assert [memory.size(text) for text in ("4G", "512MiB", "1.5 GiB", "2097152", "3mb")] == [
        2**32,
        2**29,
        3 * 2**29,
        2**21,
        3 * 2**20,
    ]


def test_a_scheduler_that_does_not_answer_is_refused_before_anything_is_computed(tmp_path, capsys, monkeypatch):
    pytest.importorskip("distributed", reason="needs distributed")
    monkeypatch.setattr("gradlab.runs.places.CONNECT", 1.0)
    log = tmp_path / "log"
    assert call({"alpha": split(1, log=log)}, tmp_path / "out", "--dask", "tcp://127.0.0.1:9") == 5
    (line,) = said(capsys)
    assert "no Dask scheduler answers at 'tcp://127.0.0.1:9'" in line
    assert ran(log) == []
