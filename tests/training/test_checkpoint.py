"""Checkpoints: a run that was interrupted, even killed, ends with the bits of one that was not."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from training.problems import run, setting

from gradlab import LSTM, Elman, mean_squared_error
from gradlab._files import read_npz, write_npz
from gradlab.errors import FormatError, GradlabError, ResourceRefused, ShapeError, UnsafeFileError, ValueRangeError
from gradlab.training import SGD, Adam, ByNorm, Monitor, RMSProp, schedules, train

ROOT = Path(__file__).resolve().parent.parent.parent


def assert_same(one, other):
    for key, value in one.params.items():
        np.testing.assert_array_equal(value, other.params[key], strict=True)
    for name in ("loss", "gradient_norm", "clipped", "skipped"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), strict=True)
    for k in (0, 1):
        np.testing.assert_array_equal(one.validation[k], other.validation[k])
    assert one.events == other.events
    assert one.updates == other.updates


@pytest.mark.parametrize("optimiser", [SGD(), SGD(0.9, True), RMSProp(), Adam()], ids=repr)
@pytest.mark.parametrize("stop", [1, 7, 12])
def test_a_resumed_run_has_the_bits_of_one_that_never_stopped(optimiser, stop, tmp_path):
    net, params, sample = setting(LSTM(), E=3)
    options = {
        "optimiser": optimiser,
        "clip": ByNorm(0.1),
        "schedule": schedules.cosine(12),
        "validate": lambda params: np.abs(params["0.U"]).mean(axis=(1, 2)),
        "validate_every": 2,
        "patience": 4,
    }
    whole = run(net, params, sample, 12, **options)
    file = tmp_path / "run.npz"
    run(net, params, sample, stop, checkpoint=file, **options | {"validate": None, "patience": None})
    file.unlink()

    class Stopped(Exception):
        pass

    def interrupt(done, of):
        if done == stop and stop < 12:
            raise Stopped

    try:
        run(net, params, sample, 12, checkpoint=file, checkpoint_every=1, progress=interrupt, **options)
    except Stopped:
        assert read_npz(file)[0]["update"] == stop
    # another seed: the stream too comes from the file
    assert_same(run(net, params, sample, 12, seed=99, checkpoint=file, **options), whole)


@pytest.mark.parametrize(
    "kind", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64], ids=lambda k: k.__name__
)
def test_every_kind_of_stream_and_a_stream_for_each_member_is_resumed(kind, tmp_path):
    net, params, sample = setting(Elman("tanh"), E=2)

    def go(updates, seed, **options):
        return train(
            net, params, sample, mean_squared_error, updates, [np.random.Generator(kind(seed + e)) for e in (0, 1)], **options
        )

    go(4, 1, checkpoint=tmp_path / "a.npz")
    assert_same(go(9, 50, checkpoint=tmp_path / "a.npz"), go(9, 1))


def test_events_and_stopped_members_are_resumed(tmp_path):
    net, params, sample = setting(Elman("relu"), E=3)
    params["0.U"][1] *= 1e60
    run(net, params, sample, 4, checkpoint=tmp_path / "a.npz")
    found = run(net, params, sample, 8, checkpoint=tmp_path / "a.npz")
    assert_same(found, run(net, params, sample, 8))
    assert found.status.detail == run(net, params, sample, 8).status.detail
    assert len(found.events) == 1


def test_a_finished_run_is_read_and_not_run_again(tmp_path):
    net, params, sample = setting(Elman("tanh"))
    first = run(net, params, sample, 5, checkpoint=tmp_path / "a.npz")
    written = (tmp_path / "a.npz").read_bytes()

    def never(rng):
        raise AssertionError("drawn")

    assert_same(run(net, params, never, 5, checkpoint=tmp_path / "a.npz"), first)
    assert (tmp_path / "a.npz").read_bytes() == written


def test_a_checkpoint_holds_numbers_and_json_alone(tmp_path):
    net, params, sample = setting(LSTM())
    run(net, params, sample, checkpoint=tmp_path / "a.npz", optimiser=Adam())
    assert os.listdir(tmp_path) == ["a.npz"]  # no temporary file stays
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        json.loads(archive.read("header.json"))
        for name in archive.namelist():
            if name.endswith(".npy"):
                with archive.open(name) as stream:
                    assert np.lib.format.read_array(stream, allow_pickle=False).dtype.kind in "fi"


@pytest.fixture
def checkpoint(tmp_path):
    net, params, sample = setting(Elman("tanh"))
    run(net, params, sample, 4, checkpoint=tmp_path / "a.npz", optimiser=Adam())
    return tmp_path / "a.npz"


def resume(file, **changes):
    net, params, sample = setting(Elman("tanh"))
    return run(net, params, sample, 6, **{"checkpoint": file, "optimiser": Adam(), **changes})


def test_a_checkpoint_cut_anywhere_is_refused_by_name(checkpoint):
    whole = checkpoint.read_bytes()
    for end in np.linspace(0, len(whole) - 1, 40).astype(int):
        checkpoint.write_bytes(whole[:end])
        with pytest.raises(FormatError, match=r"a\.npz"):
            resume(checkpoint)
    assert checkpoint.read_bytes() == whole[: len(whole) - 1]  # what is refused is not written over either


def test_a_checkpoint_with_a_flipped_byte_is_refused_or_read_as_it_was(checkpoint):
    whole, expected = checkpoint.read_bytes(), resume(checkpoint)
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 60):
        broken = bytearray(whole)
        broken[place] ^= 1 << int(rng.integers(8))
        checkpoint.write_bytes(bytes(broken))
        try:
            found = resume(checkpoint)
        except GradlabError:
            continue
        assert_same(found, expected)  # a byte that nothing depends on, such as a date


def test_files_of_another_kind_are_refused(checkpoint, tmp_path):
    Monitor(tmp_path / "m").record(0, loss=1.0)
    with pytest.raises(FormatError, match=r"schema 'gradlab-monitor-.*expected 'gradlab-checkpoint"):
        resume(tmp_path / "m.npz")
    np.savez(tmp_path / "plain.npz", x=np.zeros(3))
    with pytest.raises(FormatError, match="written by gradlab"):
        resume(tmp_path / "plain.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(FormatError, match=r"text\.npz"):
        resume(tmp_path / "text.npz")


def test_a_checkpoint_with_an_object_array_is_never_unpickled(checkpoint):
    with zipfile.ZipFile(checkpoint, "a") as archive, archive.open("evil.npy", "w") as stream:
        np.lib.format.write_array(stream, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(UnsafeFileError, match=r"evil\.npy"):
        resume(checkpoint)


CHANGES = {
    "optimiser": {"optimiser": SGD()},
    "learning_rate": {"learning_rate": 0.02},
    "clip": {"clip": ByNorm(1.0)},
    "schedule": {"schedule": schedules.cosine(50)},
    "nonfinite": {"nonfinite": "skip"},
    "truncate": {"truncate": (3, 4)},
    "initial_states": {"initial_states": {"0": np.ones((8, 4))}},
    "loss": {"loss": lambda outputs, targets, mask: mean_squared_error(outputs, targets, mask)},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_checkpoint_of_other_settings_is_refused_with_both_values(name, checkpoint):
    with pytest.raises(ValueRangeError, match=rf"a\.npz was written with {name} .*; expected .*; resume with the same settings"):
        resume(checkpoint, **CHANGES[name])


def test_a_checkpoint_of_another_network_ensemble_or_stream_is_refused(checkpoint):
    net, params, sample = setting(LSTM())
    with pytest.raises(ValueRangeError, match="was written with network"):
        run(net, params, sample, 6, checkpoint=checkpoint, optimiser=Adam())
    net, params, sample = setting(Elman("tanh"), E=2)
    with pytest.raises((ShapeError, ValueRangeError), match=r"a\.npz"):
        run(net, params, sample, 6, checkpoint=checkpoint, optimiser=Adam())
    net, params, sample = setting(Elman("tanh"))
    rng = np.random.Generator(np.random.MT19937(3))
    before = rng.bit_generator.state
    with pytest.raises(FormatError, match=r"a\.npz"):
        train(net, params, sample, mean_squared_error, 6, rng, checkpoint=checkpoint, optimiser=Adam())
    np.testing.assert_equal(rng.bit_generator.state, before)


@pytest.mark.parametrize(
    "alter",
    [
        lambda header, arrays: header.pop("generators"),
        lambda header, arrays: header.update(update=-1),
        lambda header, arrays: header.update(update=1.5),
        lambda header, arrays: header.update(events=[[1, 2]]),
        lambda header, arrays: header.update(generators=[{"bit_generator": "PCG64"}]),
        lambda header, arrays: header.update(generators=["nonsense"]),
        lambda header, arrays: arrays.pop("params/0.U"),
        lambda header, arrays: arrays.pop("slots/mean/0.U"),
        lambda header, arrays: arrays.update({"params/0.U": np.zeros((2, 2))}),
        lambda header, arrays: arrays.update({"params/0.U": arrays["params/0.U"].astype(np.float32)}),
        lambda header, arrays: arrays.update({"history/loss": np.zeros(3)}),
        lambda header, arrays: arrays.update({"counts": np.zeros((), float)}),
    ],
)
def test_a_checkpoint_whose_parts_do_not_fit_is_refused(alter, checkpoint):
    header, arrays = read_npz(checkpoint)
    alter(header, arrays)
    write_npz(checkpoint, header, arrays)
    with pytest.raises((FormatError, ShapeError), match=r"a\.npz"):
        resume(checkpoint)


def test_a_checkpoint_that_could_never_be_written_is_refused_before_anything_is_computed(tmp_path):
    net, params, _ = setting(Elman("tanh"))

    def never(rng):
        raise AssertionError("drawn")

    (tmp_path / "file").write_text("")
    for path in (tmp_path / "nowhere" / "a.npz", tmp_path / "file" / "a.npz"):
        with pytest.raises(ResourceRefused, match="its folder does not exist"):
            run(net, params, never, 5, checkpoint=path)
    with pytest.raises(ValueRangeError, match="a folder"):
        run(net, params, never, 5, checkpoint=tmp_path)


def test_what_a_monitor_wrote_never_falls_behind_the_checkpoint(tmp_path):
    net, params, sample = setting(Elman("tanh"))
    monitor = Monitor(tmp_path / "m", flush_seconds=1e6)  # on its own it would write once

    def interrupt(done, of):
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(net, params, sample, 12, monitor=monitor, checkpoint=tmp_path / "c.npz", checkpoint_every=3, progress=interrupt)
    assert read_npz(tmp_path / "c.npz")[0]["update"] == 6
    np.testing.assert_array_equal(Monitor.load(tmp_path / "m").series("loss")[0], np.arange(6))
    resumed = Monitor(tmp_path / "m")
    found = run(net, params, sample, 12, monitor=resumed, checkpoint=tmp_path / "c.npz")
    np.testing.assert_array_equal(resumed.series("loss")[1], found.loss)


SCRIPT = """
import sys, time
import numpy as np
from gradlab import LSTM, mean_squared_error
from gradlab.training import Adam, ByNorm, Monitor
from training.problems import run, setting

net, params, sample = setting(LSTM(), E=2)
folder, pause, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])

def slowly(done, of):
    print(done, flush=True)
    time.sleep(pause)

monitor = Monitor(folder + "/m", every=3, flush_seconds=0.0)
found = run(net, params, sample, 70, seed, optimiser=Adam(), clip=ByNorm(0.1), monitor=monitor, checkpoint=folder + "/c.npz",
            checkpoint_every=10, progress=slowly)
np.savez(folder + "/final.npz", **found.params)
"""


def start(folder, pause, seed=3):
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), str(pause), str(seed)], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_a_run_killed_in_the_middle_and_resumed_ends_with_the_bits_and_the_history_of_an_undisturbed_one(tmp_path):
    undisturbed, killed = start(tmp_path / "a", 0.0), start(tmp_path / "b", 0.01)
    for line in killed.stdout:
        if int(line) == 37:  # between two checkpoints, while the monitor writes after every update
            killed.send_signal(signal.SIGKILL)
    assert killed.wait(timeout=30) == -signal.SIGKILL
    killed.stdout.close()
    assert undisturbed.communicate(timeout=30)[0].split()[-1] == "70"
    assert undisturbed.returncode == 0
    assert not (tmp_path / "b" / "final.npz").exists()
    left = Monitor.load(tmp_path / "b" / "m")  # whole, and further than the last checkpoint
    updates, _ = left.series("loss")
    np.testing.assert_array_equal(updates, np.arange(len(updates)))
    assert len(updates) >= 36
    assert read_npz(tmp_path / "b" / "c.npz")[0]["update"] == 30
    resumed = start(tmp_path / "b", 0.0, seed=99)
    assert resumed.communicate(timeout=30)[0].split()[0] == "31"
    assert resumed.returncode == 0
    with np.load(tmp_path / "a" / "final.npz") as one, np.load(tmp_path / "b" / "final.npz") as other:
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], strict=True)
    one, other = Monitor.load(tmp_path / "a" / "m"), Monitor.load(tmp_path / "b" / "m")
    assert one.names == other.names
    for name in one.names:
        for a, b in zip(one.series(name), other.series(name), strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
    assert (tmp_path / "a" / "c.npz").read_bytes() == (tmp_path / "b" / "c.npz").read_bytes()
    json.loads((tmp_path / "b" / "m.json").read_text())
