"""Finished tasks: used again where nothing has changed, never where something has, and never where a byte is wrong."""

import errno
import fcntl
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
from runs.calls import call, data, entries, ran, tasks
from runs.toys import split, toy

from gradlab import cli
from gradlab._files import read_npz, write_npz
from gradlab.runs.cache import SCHEMA, Cache, Key, entry_bytes, read_entry
from gradlab.runs.lock import held


@pytest.fixture
def alpha(tmp_path):
    """A folder in which an analysis of three tasks was run; its log; the analysis again."""
    log = tmp_path / "log"
    analyses = {"alpha": split(3, log=log)}
    folder = tmp_path / "out"
    assert call(analyses, folder) == 0
    assert (len(ran(log)), tasks(folder), len(entries(folder))) == (3, (3, 0), 3)
    return folder, log, analyses


# ---- what is computed again ---------------------------------------------------------------------------------


def test_a_rerun_with_nothing_new_computes_nothing_and_gives_the_same_bytes(alpha, capsys):
    folder, log, analyses = alpha
    before = data(folder)
    capsys.readouterr()
    assert call(analyses, folder) == 0
    assert (len(ran(log)), tasks(folder), data(folder)) == (3, (0, 3), before)
    assert "tasks: 0 computed, 3 from the cache" in capsys.readouterr().out


def test_force_computes_everything_again_and_gives_the_same_bytes(alpha):
    folder, log, analyses = alpha
    before = data(folder)
    assert call(analyses, folder, "--force") == 0
    assert (len(ran(log)), tasks(folder), data(folder)) == (6, (3, 0), before)


def test_redraw_runs_no_task(alpha):
    folder, log, analyses = alpha
    before = data(folder)
    for path in entries(folder):
        path.unlink()
    assert call(analyses, folder, "--redraw") == 0
    assert (len(ran(log)), data(folder)) == (3, before)


def test_only_what_is_new_in_a_list_of_tasks_is_computed(alpha):
    folder, log, _ = alpha
    assert call({"alpha": split({"k": 2}, {"k": 7}, {"k": 0}, log=log)}, folder) == 0
    assert tasks(folder) == (1, 2)
    assert ran(log)[3:] == [{"k": 7}]


def test_another_seed_scale_or_name_computes_everything(alpha):
    folder, log, analyses = alpha
    assert call(analyses, folder, "--seed", "5") == 0
    assert tasks(folder) == (3, 0)
    assert call(analyses, folder, "--quick") == 0
    assert tasks(folder) == (3, 0)
    assert call({"beta": split(3, log=log)}, folder) == 0
    assert tasks(folder, "beta") == (3, 0)
    assert call(analyses, folder) == 0  # and the first ones are still there
    assert tasks(folder) == (0, 3)


def test_changed_code_computes_everything(alpha, monkeypatch):
    folder, _, analyses = alpha
    monkeypatch.setattr("gradlab.runs.course.code_version", lambda analysis: "other")
    monkeypatch.setattr("gradlab.runs.work.code_version", lambda analysis: "other")
    assert call(analyses, folder) == 0
    assert tasks(folder) == (3, 0)


def test_an_analysis_in_one_piece_is_kept_too_until_its_settings_change(tmp_path):
    settings = {"full": {"size": 5}, "quick": {"size": 5}}
    assert call({"alpha": toy(PARAMETERS=settings)}, tmp_path) == 0
    assert call({"alpha": toy(PARAMETERS=settings)}, tmp_path) == 0
    assert tasks(tmp_path) == (0, 1)
    assert call({"alpha": toy(PARAMETERS={**settings, "full": {"size": 6}})}, tmp_path) == 0
    assert tasks(tmp_path) == (1, 0)


def test_times_of_files_do_not_matter(alpha):
    folder, _, analyses = alpha
    for when, path in zip((0, 4_070_908_800, 1), entries(folder), strict=True):  # 1970, 2099
        os.utime(path, (when, when))
    assert call(analyses, folder) == 0
    assert tasks(folder) == (0, 3)


# ---- what is damaged ----------------------------------------------------------------------------------------


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def rewritten(header=(), arrays=()):
    """A function that changes what a file says of itself, or its arrays, and leaves it well formed."""

    def change(path):
        told, held_ = read_npz(path)
        write_npz(path, {**told, **dict(header)}, {**held_, **dict(arrays)})

    return change


DAMAGES = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-30]),
    "empty": lambda path: path.write_bytes(b""),
    "one bit": flipped,
    "another number": rewritten(arrays={"x": np.array([1.0, 2.0])}),
    "an older schema": rewritten({"schema": SCHEMA - 1}),
    "another kind": rewritten({"kind": "gradlab.analysis"}),
    "no hash": rewritten({"sha256": None}),
    "text": lambda path: path.write_text("import os"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_file_is_set_aside_told_and_computed_again(alpha, capsys, what):
    folder, log, analyses = alpha
    before, (path, *_) = data(folder), entries(folder)
    DAMAGES[what](path)
    content = path.read_bytes()
    capsys.readouterr()
    assert call(analyses, folder) == 0
    assert (len(ran(log)), tasks(folder), data(folder)) == (4, (1, 2), before)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("python -m analyses: note: ")
    assert str(path) in line
    assert line.endswith("computed again")
    assert path.with_name(f"{path.name}.bad-1").read_bytes() == content  # set aside, not deleted
    assert call(analyses, folder) == 0
    assert tasks(folder) == (0, 3)


def test_a_file_under_the_name_of_another_task_is_not_used(alpha):
    folder, _, analyses = alpha
    first, second, _ = entries(folder)
    before = data(folder)
    first.write_bytes(second.read_bytes())
    assert call(analyses, folder) == 0
    assert (tasks(folder), data(folder)) == ((1, 2), before)


def test_what_a_newer_version_wrote_is_left_alone_and_told(alpha, capsys):
    folder, _, analyses = alpha
    before, (path, *_) = data(folder), entries(folder)
    rewritten({"schema": SCHEMA + 1})(path)
    content = path.read_bytes()
    capsys.readouterr()
    for computed in (1, 0):  # what is computed instead has a place of its own
        assert call(analyses, folder) == 0
        assert (tasks(folder), data(folder)) == ((computed, 3 - computed), before)
        assert "it is left alone" in capsys.readouterr().err
    assert path.read_bytes() == content


def test_nothing_is_ever_unpickled_and_foreign_files_stay(alpha, tmp_path):
    folder, _, analyses = alpha
    marker = tmp_path / "marker"
    evil = f"cposix\nsystem\n(S'touch {marker}'\ntR.".encode()
    planted = folder / ".cache" / "alpha" / "planted.pkl"
    planted.write_bytes(evil)
    for path in entries(folder):
        path.write_bytes(evil)
    assert call(analyses, folder) == 0
    assert tasks(folder) == (3, 0)
    assert cli.main(["cache", "clear", str(folder)]) == 0
    assert not marker.exists()
    assert planted.read_bytes() == evil


def test_temporary_files_of_the_dead_go_and_those_of_the_living_stay(alpha):
    folder, _, analyses = alpha
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    below = folder / ".cache" / "alpha"
    dead, living = (below / f".x.npz.{pid}-0123456789ab.part" for pid in (ended.pid, os.getppid()))
    for path in (dead, living):
        path.write_bytes(b"half")
    assert call(analyses, folder) == 0
    assert (dead.exists(), living.exists()) == (False, True)


def test_a_folder_that_others_can_write_or_that_is_a_link_is_told(alpha, tmp_path, capsys):
    folder, _, analyses = alpha
    (folder / ".cache").rename(tmp_path / "elsewhere")
    (folder / ".cache").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").chmod(0o777)
    capsys.readouterr()
    assert call(analyses, folder) == 0
    err = capsys.readouterr().err
    assert "is a link to" in err
    assert "can be written by every user" in err
    assert tasks(folder) == (0, 3)


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_files_have_the_permissions_of_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        assert call({"alpha": split(1)}, tmp_path) == 0
    finally:
        os.umask(before)
    for path in [*entries(tmp_path), tmp_path / "alpha.npz", tmp_path / ".cache" / "alpha" / "lock"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask, path


# ---- a full disk --------------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_ends_with_5_keeps_what_was_finished_and_goes_on_when_there_is_room(tmp_path, capsys, monkeypatch):
    log = tmp_path / "log"
    analyses, folder = {"alpha": split(3, log=log)}, tmp_path / "out"
    sync, seen = os.fsync, []

    def full(descriptor):
        if ".npz." in os.readlink(f"/proc/self/fd/{descriptor}"):
            seen.append(descriptor)
            if len(seen) == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert call(analyses, folder) == 5
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "cannot be written (No space left on device)" in line
    assert str(folder) in line
    assert len(entries(folder)) == 1
    assert call(analyses, folder) == 0
    assert tasks(folder) == (2, 1)


# ---- locks --------------------------------------------------------------------------------------------------


def test_a_second_run_in_the_same_place_is_refused_before_it_computes_and_another_place_is_free(alpha, capsys):
    folder, log, analyses = alpha
    with held(folder / ".cache" / "alpha" / "lock", "alpha", print):
        for argv in ([], ["--redraw"], ["--force"]):
            assert call(analyses, folder, *argv) == 5
            assert f"alpha is being worked on by another run (process {os.getpid()})" in capsys.readouterr().err
        assert call({**analyses, "beta": split(1)}, folder, "beta") == 0
        assert cli.main(["cache", "clear", str(folder)]) == 5
    assert len(ran(log)) == 3
    assert call(analyses, folder, "--force") == 0


def test_the_lock_of_a_killed_run_is_free(alpha):
    folder, _, analyses = alpha
    lock = folder / ".cache" / "alpha" / "lock"
    code = f"import fcntl, os; d = os.open({str(lock)!r}, os.O_RDWR); fcntl.flock(d, 2); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert call(analyses, folder) == 0


def test_where_locks_do_not_work_the_run_goes_on_and_says_so(alpha, capsys, monkeypatch):
    folder, _, analyses = alpha

    def none(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    capsys.readouterr()
    assert call(analyses, folder) == 0
    assert "locks do not work here (No locks available)" in capsys.readouterr().err


# ---- gradlab cache ------------------------------------------------------------------------------------------


def test_verify_finds_every_damage_changes_nothing_and_says_so_by_its_status(alpha, capsys):
    folder, _, _ = alpha
    assert cli.main(["cache", "verify", str(folder)]) == 0
    assert "3 good;" in capsys.readouterr().out
    first, second, third = entries(folder)
    flipped(first)
    rewritten({"schema": SCHEMA + 1})(second)
    third.rename(third.with_name("0" * 32 + ".npz"))
    before = {path.name: path.read_bytes() for path in entries(folder)}
    assert cli.main(["cache", "verify", str(folder / ".cache")]) == 1
    out = capsys.readouterr().out
    assert f"damaged: alpha/{first.name}" in out
    assert f"newer: alpha/{second.name}" in out
    assert "holds another task than its name says" in out
    assert "0 good, 2 damaged, 1 of a newer gradlab" in out
    assert {path.name: path.read_bytes() for path in entries(folder)} == before


def test_clear_removes_the_finished_tasks_and_no_result(alpha, capsys):
    folder, _, analyses = alpha
    before = data(folder)
    flipped(entries(folder)[0])
    assert call(analyses, folder) == 0
    capsys.readouterr()
    assert cli.main(["cache", "clear", str(folder)]) == 0
    assert "4 files removed" in capsys.readouterr().out  # one of them set aside
    assert (entries(folder), data(folder)) == ([], before)
    assert call(analyses, folder) == 0
    assert tasks(folder) == (3, 0)


@pytest.mark.parametrize("action", ["verify", "clear"])
def test_a_folder_that_gradlab_did_not_make_is_refused(tmp_path, capsys, action):
    (tmp_path / ".cache" / "alpha").mkdir(parents=True)
    mine = tmp_path / ".cache" / "alpha" / ("0" * 32 + ".npz")
    mine.write_text("mine")
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert cli.main(["cache", action, str(folder)]) == 3
        assert "holds no finished tasks" in capsys.readouterr().err
    assert mine.read_text() == "mine"


def test_the_help_of_the_command_says_what_it_does_and_its_statuses(capsys):
    assert cli.main(["cache", "--help"]) == 0
    out = capsys.readouterr().out
    assert "gradlab cache verify figures" in out
    assert "1 a file is damaged" in out


# ---- keys ---------------------------------------------------------------------------------------------------


def test_equal_keys_have_one_name_whatever_the_order_and_every_part_changes_it():
    key = Key("alpha", "full", 1, {"a": 0.1, "b": 2}, "c")
    assert Key("alpha", "full", 1, {"b": 2, "a": 0.1}, "c").name() == key.name()
    others = [
        Key("beta", "full", 1, key.parameters, "c"),
        Key("alpha", "quick", 1, key.parameters, "c"),
        Key("alpha", "full", 2, key.parameters, "c"),
        Key("alpha", "full", 1, {"a": 0.1}, "c"),
        Key("alpha", "full", 1, key.parameters, "d"),
    ]
    assert len({other.name() for other in [key, *others]}) == 6


def test_an_entry_comes_back_as_it_went_in_with_its_order_and_its_bits(tmp_path):
    cache = Cache(tmp_path, print)
    cache.open("alpha")
    key = Key("alpha", "full", 1, {}, "c")
    arrays = {"z": np.array([np.nan, -0.0, 5e-324]), "a": np.array(3, np.int8), "c": np.zeros((0, 2), np.complex64)}
    cache.store(key, entry_bytes(key, arrays, 1.5))
    entry = cache.load(key)
    assert (entry.seconds, list(entry.arrays)) == (1.5, ["z", "a", "c"])
    for name, array in arrays.items():
        assert entry.arrays[name].tobytes() == array.tobytes()
        assert (entry.arrays[name].dtype, entry.arrays[name].shape) == (array.dtype, array.shape)
    assert read_entry(entries(tmp_path)[0])[0]["analysis"] == "alpha"
