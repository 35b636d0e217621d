"""The memory limit is the least of what machine, control group, process and caller allow; a refusal says both numbers."""

import os
import resource
import subprocess
import sys

import pytest

from gradlab import _memory
from gradlab._memory import SHARE, gib, memory_limit, refuse_above
from gradlab.errors import DTypeError, ResourceRefused, ValueRangeError

GIB = 2**30
V2, V2_USED = "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"
V1, V1_USED = "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"
MEMINFO = "/proc/meminfo"


def meminfo(size):
    return f"MemTotal:  99999999 kB\nMemFree:  1 kB\nMemAvailable:   {size // 1024} kB\nBuffers:  2 kB\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine made of files: machine({path: text}, process limit)."""
    monkeypatch.setattr(_memory, "Path", lambda path: tmp_path / str(path).lstrip("/"))

    def made(files, process=resource.RLIM_INFINITY):
        for path, text in files.items():
            place = tmp_path / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        monkeypatch.setattr(_memory.resource, "getrlimit", lambda which: (process, resource.RLIM_INFINITY))

    return made


CASES = {
    "the machine alone": ({MEMINFO: meminfo(10 * GIB)}, 10 * GIB),
    "a smaller control group, version 2": ({MEMINFO: meminfo(10 * GIB), V2: f"{4 * GIB}\n", V2_USED: f"{GIB}\n"}, 3 * GIB),
    "a smaller control group, version 1": ({MEMINFO: meminfo(10 * GIB), V1: f"{4 * GIB}\n", V1_USED: f"{GIB}\n"}, 3 * GIB),
    "a larger control group": ({MEMINFO: meminfo(2 * GIB), V2: f"{64 * GIB}\n", V2_USED: "0\n"}, 2 * GIB),
    "version 2 without a limit": ({MEMINFO: meminfo(10 * GIB), V2: "max\n", V2_USED: f"{9 * GIB}\n"}, 10 * GIB),
    "version 2 without a limit, version 1 with one": (
        {MEMINFO: meminfo(10 * GIB), V2: "max\n", V1: f"{GIB}\n", V1_USED: "0\n"},
        GIB,
    ),
    "version 1 without a limit, near 2^63": (
        {MEMINFO: meminfo(10 * GIB), V1: "9223372036854771712\n", V1_USED: f"{GIB}\n"},
        10 * GIB,
    ),
    "version 2 near 2^63": ({MEMINFO: meminfo(10 * GIB), V2: f"{2**63 - 1}\n", V2_USED: f"{GIB}\n"}, 10 * GIB),
    "no file of the memory in use": ({MEMINFO: meminfo(10 * GIB), V2: f"{4 * GIB}\n"}, 4 * GIB),
    "files that say nothing": ({MEMINFO: meminfo(10 * GIB), V2: "", V1: "what?\n"}, 10 * GIB),
    "no machine that says what it has": ({V2: f"{4 * GIB}\n", V2_USED: "0\n"}, 4 * GIB),
    "a machine that says it wrongly": ({MEMINFO: "MemAvailable: lots\n", V2: f"{4 * GIB}\n", V2_USED: "0\n"}, 4 * GIB),
}


@pytest.mark.parametrize("name", CASES)
def test_the_limit_is_a_share_of_the_least_that_is_left_free(machine, name):
    files, free = CASES[name]
    machine(files)
    assert memory_limit() == int(SHARE * free)


def test_a_control_group_that_is_used_up_leaves_nothing_and_never_less(machine):
    machine({MEMINFO: meminfo(10 * GIB), V2: f"{GIB}\n", V2_USED: f"{2 * GIB}\n"})
    assert memory_limit() == 0


def test_the_limit_of_the_process_counts_where_it_is_the_least(machine):
    machine({MEMINFO: meminfo(10 * GIB)}, process=4 * GIB)
    assert 0 < memory_limit() <= int(SHARE * 4 * GIB)
    machine({MEMINFO: meminfo(10 * GIB)}, process=400 * GIB)
    assert memory_limit() == int(SHARE * 10 * GIB)


@pytest.mark.parametrize(
    ("asked", "expected"), [(5, 5), (GIB, GIB), (int(SHARE * 10 * GIB), int(SHARE * 10 * GIB)), (99 * GIB, int(SHARE * 10 * GIB))]
)
def test_what_was_asked_for_is_kept_unless_there_is_less(machine, asked, expected):
    machine({MEMINFO: meminfo(10 * GIB)})
    assert memory_limit(asked) == expected


def test_where_nothing_is_known_the_limit_is_eight_gibibytes_or_what_was_asked(machine):
    machine({})
    assert memory_limit() == 8 * GIB
    assert memory_limit(3 * GIB) == 3 * GIB


def test_this_machine_has_some_memory_and_not_more_than_it_has():
    assert 0 < memory_limit() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


LEFT = """
import resource
from pathlib import Path
from gradlab._memory import memory_limit
held = bytearray(512 * 2**20)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
left = 64 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (used + left, resource.RLIM_INFINITY))
print(memory_limit(), left)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_of_the_limit_of_the_process_only_what_it_has_not_yet_used_is_free():
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # stacks of threads count as address space
    done = subprocess.run([sys.executable, "-c", LEFT], capture_output=True, text=True, timeout=60, env=environment, check=True)
    limit, left = map(int, done.stdout.split())
    assert limit <= left


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 MiB"),
        (2**20, "1 MiB"),
        (100 * 2**20, "100 MiB"),
        (2**27, "0.125 GiB"),
        (GIB, "1 GiB"),
        (4194304000, "3.91 GiB"),
        (156 * GIB, "156 GiB"),
    ],
)
def test_sizes_are_told_in_three_digits(size, text):
    assert gib(size) == text


def test_a_refusal_names_the_work_both_numbers_and_the_way_out():
    with pytest.raises(ResourceRefused) as error:
        refuse_above(156 * GIB, 2 * 2**20, "storing all Jacobians", "use analysis.jacobians, which streams them")
    assert str(error.value) == (
        "storing all Jacobians needs 156 GiB, the limit is 2 MiB; use analysis.jacobians, which streams them"
    )


def test_work_that_just_fits_is_not_refused(machine):
    machine({MEMINFO: meminfo(10 * GIB)})
    limit = memory_limit()
    refuse_above(limit, None, "x", "y")
    refuse_above(7, 7, "x", "y")
    with pytest.raises(ResourceRefused, match=r"needs 8 GiB, the limit is 8 GiB"):
        refuse_above(limit + 1, None, "x", "y")
    with pytest.raises(ResourceRefused):
        refuse_above(8, 7, "x", "y")


def test_a_limit_that_is_no_number_of_bytes_is_refused_by_name():
    with pytest.raises(DTypeError, match="max_memory is '1 GB'; expected a finite number > 0"):
        memory_limit("1 GB")
    for limit in (-1, 0):
        with pytest.raises(ValueRangeError, match="max_memory is"):
            memory_limit(limit)
    assert memory_limit(1e3) == 1000
