"""The command line keeps its word: exit status, one-line errors, what is written and what is not, and the same bytes twice."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from runs.toys import broken, crash, toy, verdict

from analyses import ALL
from gradlab._files import read_npz
from gradlab.errors import ResourceRefused
from gradlab.runs import WORDS, GroundTruth, Options, main
from gradlab.runs.runner import generator
from gradlab.runs.table import BEGIN, END, markdown

ROOT = Path(__file__).resolve().parent.parent.parent
TOYS = ROOT / "tests" / "runs" / "toys.py"
ENDINGS = ("json", "npz", "pdf", "png", "run.json")
SAME = ("json", "npz", "pdf", "png")  # the reproducible ones
DOCUMENT = f"# Title\n\ntext | text\n{BEGIN}\nold table\n{END}\nlast line, no newline"


def call(analyses, folder, *argv, readme=None):
    """The exit status, whether returned or raised by argparse. With a seed of its own, into `folder` all the same."""
    if "--seed" in argv and "--out" not in argv:
        argv = (*argv, "--out", str(folder))
    try:
        return main(analyses, argv, folder=folder, readme=readme)
    except SystemExit as ended:
        return ended.code


def files(folder):
    """Names of all files below a folder, but for the finished tasks that are kept there."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in found if ".cache" not in path.parts}


def files_of(*stems):
    return {f"{stem}.{ending}" for stem in stems for ending in ENDINGS}


def contents(folder, stem, endings=SAME):
    return {ending: (folder / f"{stem}.{ending}").read_bytes() for ending in endings}


def lines(text):
    """The lines that say something."""
    return [line for line in text.splitlines() if line.strip()]


def column(table, number):
    """The text of one column of a printed table, its wrapped lines joined."""
    parts = [row.split("│")[number] for row in table.splitlines() if row.count("│") == 5]
    return " ".join(" ".join(parts).split())


def summary(folder, stem):
    def refuse(token):
        raise AssertionError(f"{token} is not JSON")

    return json.loads((folder / f"{stem}.json").read_text(encoding="utf-8"), parse_constant=refuse)


def counted(calls):
    """A toy whose `compute` notes that it was called."""
    plain = toy().compute

    def compute(rng, scale, progress=None):
        calls.append(scale)
        return plain(rng, scale, progress)

    return toy(compute=compute)


# ---- usage ------------------------------------------------------------------------------------------------


def test_an_unknown_analysis_is_refused_in_one_line_with_the_nearest_name(tmp_path, capsys):
    calls = []
    analyses = {"error_surface": counted(calls), "simple": counted(calls)}
    assert call(analyses, tmp_path / "f", "simple", "eror_surface") == 2
    out, err = capsys.readouterr()
    assert lines(err) == ["python -m analyses: error: unknown analysis 'eror_surface'; did you mean error_surface?"]
    assert (out, calls) == ("", [])
    assert files(tmp_path) == set()
    assert not (tmp_path / "f").exists()


def test_where_no_name_is_near_all_names_are_listed(tmp_path, capsys):
    assert call({"alpha": toy(), "beta": toy()}, tmp_path / "f", "zzzzz") == 2
    assert lines(capsys.readouterr().err) == ["python -m analyses: error: unknown analysis 'zzzzz'; expected one of alpha, beta"]


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "x" * 5000], ids=["newline", "escape", "long"])
def test_a_strange_name_still_gives_one_short_clean_line(tmp_path, capsys, name):
    assert call({"alpha": toy()}, tmp_path / "f", name) == 2
    (line,) = lines(capsys.readouterr().err)
    assert line.isprintable()
    assert len(line) <= 500  # the contract for every error line


@pytest.mark.parametrize(
    "seed", ["nan", "-1", "1e3", "2**64", str(2**64), str(2**63), "1.5", "", " 7", "+7", "٣", "abc", "9" * 5000]
)
def test_a_bad_seed_is_a_usage_error_and_makes_no_file(tmp_path, capsys, seed):
    assert call({"alpha": toy()}, tmp_path / "f", "--seed", seed) == 2
    out, err = capsys.readouterr()
    assert "argument --seed" in lines(err)[-1]
    assert "Traceback" not in err
    assert out == ""
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize(
    "argv", [["--workers", "2"], ["--qui"], ["--redr"], ["--li"], ["--se", "1"], ["-q"], ["--seed"], ["--out"]], ids=" ".join
)
def test_unknown_flags_abbreviations_and_missing_values_are_usage_errors(tmp_path, capsys, argv):
    calls = []
    assert call({"alpha": counted(calls)}, tmp_path / "f", *argv) == 2
    out, err = capsys.readouterr()
    assert argv[0] in lines(err)[-1]
    assert "Traceback" not in err
    assert (out, calls) == ("", [])
    assert not (tmp_path / "f").exists()


def test_another_seed_than_the_published_one_writes_beside_the_published_results(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(DOCUMENT, encoding="utf-8")
    assert main({"alpha": toy()}, ["--seed", "7"], folder=tmp_path / "figures", readme=readme) == 0
    assert files(tmp_path / "figures") == {f"seed-7/{name}" for name in files_of("alpha")}
    assert readme.read_text(encoding="utf-8") == DOCUMENT


def test_a_seed_beside_redraw_is_a_usage_error(tmp_path, capsys):
    assert call({"alpha": toy()}, tmp_path, "--redraw", "--seed", "7") == 2
    assert "--seed has no meaning beside --redraw" in capsys.readouterr().err


@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1])
def test_every_seed_from_0_to_the_limit_is_accepted_and_noted(tmp_path, seed):
    assert call({"alpha": toy()}, tmp_path, "--seed", str(seed)) == 0
    assert summary(tmp_path, "alpha")["seed"] == seed


def test_list_names_every_analysis_with_its_claim_and_its_need_and_runs_none(tmp_path, capsys):
    calls = []
    analyses = {"alpha": counted(calls), "beta": toy(CLAIM="another claim", NEEDS=("no_such_library",))}
    assert call(analyses, tmp_path / "f", "--list") == 0
    out, err = capsys.readouterr()
    first, second = lines(out)
    assert first.split(maxsplit=1) == ["alpha", "a claim about toys"]
    assert second.split(maxsplit=1) == ["beta", "another claim  [needs no_such_library]"]
    assert (err, calls) == ("", [])
    assert not (tmp_path / "f").exists()


def test_the_help_names_every_verdict_and_exit_status(tmp_path, capsys):
    assert call({"alpha": toy()}, tmp_path / "f", "--help") == 0
    out = capsys.readouterr().out
    assert all(word in out for word in WORDS)
    assert re.search(r"0 done, 2 usage, 3 .*, 5 .*,\s*6 .*, 130 ", out, flags=re.DOTALL)


# ---- a run that goes well ---------------------------------------------------------------------------------


def test_a_run_writes_five_files_for_each_analysis_and_nothing_else(tmp_path, capsys):
    assert call({"alpha": toy(), "beta": toy()}, tmp_path) == 0
    assert files(tmp_path) == files_of("alpha", "beta")
    out, err = capsys.readouterr()
    assert err.strip() == ""
    assert column(out, 1) == "alpha beta"
    assert column(out, 3).count("confirmed: the mean is") == 2


def test_the_stored_summary_says_what_was_claimed_done_and_found(tmp_path):
    assert call({"alpha": toy()}, tmp_path, "--seed", "5") == 0
    header, arrays = read_npz(tmp_path / "alpha.npz")
    assert (header["analysis"], header["scale"]) == ("alpha", "full")
    np.testing.assert_array_equal(arrays["x"], generator(5, "alpha").normal(size=5), strict=True)
    mean = arrays["x"].mean()
    found = summary(tmp_path, "alpha")
    assert found.pop("verdict") == {"word": "confirmed", "sentence": f"the mean is {mean:.3f}"}
    assert found.pop("numbers") == {"mean": float(f"{mean:.6g}"), "count": 5}  # six digits are stored
    (truth,) = found.pop("ground_truths")
    assert (truth["name"], truth["measured"], truth["expected"], truth["holds"]) == ("two", 2.0, 2.0, True)
    assert (truth["relative_tolerance"], truth["source"]) == (1e-12, "arithmetic")
    assert found == {
        "schema": 1,
        "analysis": "alpha",
        "claim": "a claim about toys",
        "source": "nobody (2013)",
        "contradicted_if": "the mean is not a number",
        "parameters": {"size": 5},
        "scale": "full",
        "seed": 5,
    }


def test_only_the_named_analyses_run_and_each_once(tmp_path):
    calls = []
    analyses = {"alpha": counted(calls), "beta": counted(calls), "gamma": counted(calls)}
    assert call(analyses, tmp_path, "gamma", "alpha", "gamma") == 0
    assert len(calls) == 2
    assert files(tmp_path) == files_of("alpha", "gamma")


def test_analyses_that_measure_time_run_after_the_others(tmp_path):
    order = []

    def noting(stem):
        plain = toy().compute

        def compute(rng, scale, progress=None):
            order.append(stem)
            return plain(rng, scale, progress)

        return compute

    analyses = {stem: toy(compute=noting(stem), ALONE=stem in "ab") for stem in "abcd"}
    assert call(analyses, tmp_path) == 0
    assert order == ["c", "d", "a", "b"]


def test_quick_runs_go_to_their_own_folder_and_say_so(tmp_path):
    calls = []
    assert call({"alpha": counted(calls)}, tmp_path, "--quick") == 0
    assert calls == ["quick"]
    assert files(tmp_path) == {f"quick/{name}" for name in files_of("alpha")}
    assert summary(tmp_path / "quick", "alpha")["scale"] == "quick"


@pytest.mark.parametrize("word", sorted(WORDS))
def test_every_verdict_is_a_result_and_none_a_failure(tmp_path, capsys, word):
    assert call({"alpha": toy(check=verdict(word))}, tmp_path) == 0
    out, err = capsys.readouterr()
    assert column(out, 3) == f"{word}: the number is 1"
    assert err.strip() == ""
    assert summary(tmp_path, "alpha")["verdict"]["word"] == word


# ---- failures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["file", "file/deeper"], ids=["the folder is a file", "a parent is a file"])
def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_computed(tmp_path, capsys, below):
    (tmp_path / "file").write_text("mine")
    calls = []
    assert call({"alpha": counted(calls)}, tmp_path / "default", "--out", str(tmp_path / below)) == 5
    out, err = capsys.readouterr()
    (line,) = lines(err)
    assert line.startswith(f"python -m analyses: error: {tmp_path / below}: cannot be ")
    assert "--out" in line
    assert (out, calls) == ("", [])
    assert files(tmp_path) == {"file"}
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("part", ["compute", "check", "draw"])
def test_an_analysis_that_crashes_leaves_no_file_and_takes_no_other_with_it(tmp_path, capsys, part):
    analyses = {"alpha": toy(), "beta": toy(**{part: crash(ValueError("seven is not eight"))}), "gamma": toy()}
    assert call(analyses, tmp_path) == 6
    assert files(tmp_path) == files_of("alpha", "gamma")
    out, err = capsys.readouterr()
    assert lines(err) == ["python -m analyses: error: beta crashed: ValueError: seven is not eight"]
    assert "crashed: ValueError: seven is not eight" in column(out, 3)


UNSTORABLE = {
    "an array of objects": {
        "compute": lambda rng, scale, progress=None: {"x": np.zeros(5), "two": np.array(2.0), "odd": np.array([{}, None])}
    },
    "a figure that is none": {"draw": lambda result: None},
    "a flag of NumPy among the numbers": {"check": verdict(numbers={"flag": np.bool_(True)})},
    "an array among the numbers": {"check": verdict(numbers={"array": np.zeros(2)})},
    "an infinite parameter": {"PARAMETERS": {"full": {"clip_norm": float("inf")}, "quick": {}}},
    "a parameter of NumPy": {"PARAMETERS": {"full": {"steps": np.int64(5)}, "quick": {}}},
}


@pytest.mark.parametrize("what", UNSTORABLE)
def test_a_result_is_stored_whole_or_not_at_all(tmp_path, what):
    status = call({"alpha": toy(**UNSTORABLE[what])}, tmp_path)
    assert (status, files(tmp_path)) in [(0, files_of("alpha")), (6, set())]
    if status == 0:
        summary(tmp_path, "alpha")  # JSON, and strict


def test_a_crash_keeps_the_result_of_an_earlier_run(tmp_path):
    assert call({"alpha": toy()}, tmp_path) == 0
    before = contents(tmp_path, "alpha", ENDINGS)
    for part in ("compute", "check", "draw"):
        assert call({"alpha": toy(**{part: crash(ValueError("no"))})}, tmp_path, "--seed", "3") == 6
        assert contents(tmp_path, "alpha", ENDINGS) == before


def test_an_analysis_that_exits_is_a_crash_like_any_other(tmp_path, capsys):
    status = call({"alpha": toy(compute=crash(SystemExit(0))), "beta": toy()}, tmp_path)
    assert (status, files(tmp_path)) == (6, files_of("beta"))
    assert "alpha" in capsys.readouterr().err


def test_only_debug_prints_a_traceback(tmp_path, capsys):
    analyses = {"alpha": toy(compute=crash(ValueError("seven")))}
    assert call(analyses, tmp_path) == 6
    assert "Traceback" not in "".join(capsys.readouterr())
    assert call(analyses, tmp_path, "--debug") == 6
    assert "ValueError: seven" in capsys.readouterr().err.partition("Traceback (most recent call last)")[2]


@pytest.mark.parametrize("message", ["two\nlines", "\x1b[31mred\x07", "x" * 5000], ids=["newline", "escape", "long"])
def test_the_error_line_of_a_crash_is_one_short_clean_line(tmp_path, capsys, message):
    assert call({"alpha": toy(compute=crash(ValueError(message)))}, tmp_path) == 6
    out, err = capsys.readouterr()
    assert "\x1b" not in out
    (line,) = lines(err)
    assert line.isprintable()
    assert len(line) <= 500  # the contract for every error line


def test_brackets_in_texts_are_printed_as_they_are(tmp_path, capsys):
    analyses = {"alpha": toy(CLAIM="[bold]x[/bold] [0, 1]", check=verdict(sentence="[red]y[/] in [2, 3]"))}
    assert call(analyses, tmp_path) == 0
    out = capsys.readouterr().out
    assert column(out, 2) == "[bold]x[/bold] [0, 1]"
    assert column(out, 3) == "confirmed: [red]y[/] in [2, 3]"


def test_a_failing_ground_truth_is_named_with_its_numbers_and_the_others_are_kept(tmp_path, capsys):
    assert call({"alpha": toy(), "beta": toy(check=broken()), "gamma": toy()}, tmp_path) == 6
    out, err = capsys.readouterr()
    text = "broken: ground truth fails: two is 2, expected 3 (arithmetic)"
    assert lines(err) == [f"python -m analyses: error: beta {text}"]
    assert text in column(out, 3)
    assert files(tmp_path) >= files_of("alpha", "gamma")
    assert summary(tmp_path, "beta")["ground_truths"][0]["holds"] is False


def test_a_ground_truth_that_is_not_a_number_fails(tmp_path, capsys):
    truth = GroundTruth("slope", float("nan"), 1.0, 0.1, "theory")
    assert call({"alpha": toy(check=verdict(truths=(truth,)))}, tmp_path) == 6
    assert "slope is nan, expected 1 (theory)" in capsys.readouterr().err
    summary(tmp_path, "alpha")


def test_the_readme_does_not_call_a_broken_result_confirmed(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(DOCUMENT, encoding="utf-8")
    assert call({"alpha": toy(check=broken(word="confirmed"))}, tmp_path / "figures", readme=readme) == 6
    assert "confirmed" not in readme.read_text(encoding="utf-8")


def test_a_missing_library_is_a_skip_with_its_install_line_and_not_a_failure(tmp_path, capsys):
    calls = []
    needy = counted(calls)
    needy.NEEDS = ("no_such_library_1", "numpy", "no_such_library_2")
    assert call({"alpha": needy, "beta": toy()}, tmp_path) == 0
    out, err = capsys.readouterr()
    text = "skipped: needs no_such_library_1, no_such_library_2: pip install no_such_library_1 no_such_library_2"
    assert text in column(out, 3)
    assert err.strip() == ""
    assert calls == []
    assert files(tmp_path) == files_of("beta")


def test_work_that_is_refused_for_its_memory_ends_with_5_and_keeps_what_was_finished(tmp_path, capsys):
    refused = crash(ResourceRefused("the Jacobians need 156 GiB, the limit is 8 GiB; use the stream"))
    assert call({"alpha": toy(), "beta": toy(compute=refused)}, tmp_path) == 5
    (line,) = lines(capsys.readouterr().err)
    assert "156 GiB" in line
    assert "8 GiB" in line
    assert files(tmp_path) == files_of("alpha")


def test_a_full_disk_ends_with_5_names_the_file_and_leaves_nothing_partial(tmp_path, capsys, monkeypatch):
    def full(descriptor):
        if list(tmp_path.glob(".beta.pdf*.part")):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert call({"alpha": toy(), "beta": toy()}, tmp_path) == 5
    (line,) = lines(capsys.readouterr().err)
    assert f"{tmp_path / 'beta.pdf'}: cannot be written (No space left on device)" in line
    assert files(tmp_path) >= files_of("alpha")
    assert [name for name in files(tmp_path) if name.endswith((".part", "beta.pdf", "beta.json"))] == []


# ---- redraw -----------------------------------------------------------------------------------------------


def other_draw(result):
    return toy().draw({"x": -result["x"]})


def test_redraw_computes_nothing_and_changes_pictures_and_conclusion_only(tmp_path):
    assert call({"alpha": toy()}, tmp_path, "--seed", "5") == 0
    before, told = contents(tmp_path, "alpha", ENDINGS), summary(tmp_path, "alpha")
    again = toy(compute=crash(RuntimeError("computed")), draw=other_draw, check=verdict("depends", "on taste", {"number": 2.0}))
    assert call({"alpha": again}, tmp_path, "--redraw") == 0
    after = contents(tmp_path, "alpha", ENDINGS)
    assert {ending for ending in ENDINGS if after[ending] != before[ending]} == {"json", "pdf", "png"}
    decided = {"verdict": {"word": "depends", "sentence": "on taste"}, "numbers": {"number": 2.0}, "ground_truths": []}
    assert summary(tmp_path, "alpha") == told | decided  # the seed stays that of the numbers
    assert files(tmp_path) == files_of("alpha")


def test_redraw_with_nothing_changed_changes_no_byte(tmp_path):
    assert call({"alpha": toy()}, tmp_path) == 0
    before = contents(tmp_path, "alpha", ENDINGS)
    assert call({"alpha": toy()}, tmp_path, "--redraw") == 0
    assert contents(tmp_path, "alpha", ENDINGS) == before


def test_a_quick_result_is_redrawn_as_a_quick_one(tmp_path):
    assert call({"alpha": toy()}, tmp_path, "--quick") == 0
    before = contents(tmp_path / "quick", "alpha")
    assert call({"alpha": toy()}, tmp_path, "--redraw", "--quick") == 0
    assert contents(tmp_path / "quick", "alpha") == before  # with the stamp


def test_redraw_needs_no_optional_library(tmp_path):
    assert call({"alpha": toy()}, tmp_path) == 0
    (tmp_path / "alpha.png").unlink()
    assert call({"alpha": toy(NEEDS=("no_such_library",))}, tmp_path, "--redraw") == 0
    assert files(tmp_path) == files_of("alpha")


def damaged(path):
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    "damage", [Path.unlink, damaged, lambda path: path.write_bytes(b"")], ids=["missing", "cut short", "empty"]
)
def test_redraw_without_a_readable_result_ends_with_3_and_names_the_file(tmp_path, capsys, damage):
    assert call({"alpha": toy()}, tmp_path) == 0
    damage(tmp_path / "alpha.npz")
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    capsys.readouterr()
    status = call({"alpha": toy()}, tmp_path, "--redraw")
    err = capsys.readouterr().err
    (line,) = lines(err)
    assert "alpha.npz" in line
    assert "Traceback" not in err
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before
    assert status == 3  # "a stored result cannot be read", says --help


def test_redraw_refuses_the_result_of_another_analysis(tmp_path, capsys):
    assert call({"alpha": toy()}, tmp_path) == 0
    (tmp_path / "alpha.npz").rename(tmp_path / "beta.npz")
    assert call({"beta": toy()}, tmp_path, "--redraw") != 0
    assert "not a result of 'beta'" in capsys.readouterr().err


def test_redraw_of_the_others_goes_on_where_one_has_no_result(tmp_path, capsys):
    assert call({"beta": toy()}, tmp_path) == 0
    (tmp_path / "beta.png").unlink()
    assert call({"alpha": toy(), "beta": toy()}, tmp_path, "--redraw") != 0
    assert files(tmp_path) == files_of("beta")
    assert "alpha.npz" in capsys.readouterr().err


def test_redraw_finds_a_ground_truth_that_fails(tmp_path, capsys):
    assert call({"alpha": toy()}, tmp_path) == 0
    assert call({"alpha": toy(check=broken())}, tmp_path, "--redraw") == 6
    assert "two is 2, expected 3" in capsys.readouterr().err


# ---- the table of the README ------------------------------------------------------------------------------


def test_a_full_run_in_the_default_folder_writes_the_table_between_the_marks_and_nothing_else(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(DOCUMENT, encoding="utf-8")
    analyses = {"alpha": toy(CLAIM="a | b"), "beta": toy(NEEDS=("no_such_library",))}
    assert call(analyses, tmp_path / "figures", readme=readme) == 0
    table = markdown(analyses, tmp_path / "figures", "figures")
    assert readme.read_text(encoding="utf-8") == DOCUMENT.replace("old table", table)
    alpha, beta = table.splitlines()[2:]
    assert re.fullmatch(
        r"\| \[`alpha`\]\(figures/alpha\.png\) .* \| a \\\| b \| the mean is -?\d\.\d{3} \| \*\*confirmed\*\* \|", alpha
    )
    assert beta == "| `beta` | a claim about toys | not run yet | |"


def test_the_table_takes_over_what_redraw_concludes(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(DOCUMENT, encoding="utf-8")
    assert call({"alpha": toy()}, tmp_path / "figures", readme=readme) == 0
    assert call({"alpha": toy(check=verdict("depends"))}, tmp_path / "figures", "--redraw", readme=readme) == 0
    assert "| the number is 1 | **depends** |" in readme.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "argv", [["--quick"], ["--out", "elsewhere"], ["--quick", "--out", "figures"], ["--list"], ["nothing"]], ids=" ".join
)
def test_no_other_run_touches_the_readme(tmp_path, argv):
    readme = tmp_path / "README.md"
    readme.write_text(DOCUMENT, encoding="utf-8")
    before = readme.stat()
    call(
        {"alpha": toy()},
        tmp_path / "figures",
        *(str(tmp_path / a) if a in ("elsewhere", "figures") else a for a in argv),
        readme=readme,
    )
    assert readme.read_text(encoding="utf-8") == DOCUMENT
    assert (readme.stat().st_ino, readme.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("text", ["", "no marks", BEGIN, f"{BEGIN}\n", END, f"{END} before {BEGIN}"])
def test_a_readme_without_both_marks_in_order_is_left_as_it_is(tmp_path, text):
    readme = tmp_path / "README.md"
    readme.write_text(text, encoding="utf-8")
    before = readme.stat()
    assert call({"alpha": toy()}, tmp_path / "figures", readme=readme) == 0
    assert readme.read_text(encoding="utf-8") == text
    assert readme.stat().st_ino == before.st_ino


def test_a_readme_that_is_missing_is_not_made(tmp_path):
    assert call({"alpha": toy()}, tmp_path / "figures", readme=tmp_path / "README.md") == 0
    assert files(tmp_path) == {f"figures/{name}" for name in files_of("alpha")}


def test_lines_outside_the_marks_keep_their_bytes_whatever_their_ending(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_bytes(DOCUMENT.replace("\n", "\r\n").encode())
    assert call({"alpha": toy()}, tmp_path / "figures", readme=readme) == 0
    before, after = readme.read_bytes().split(BEGIN.encode())[0], readme.read_bytes().split(END.encode())[1]
    assert before == b"# Title\r\n\r\ntext | text\r\n"
    assert after == b"\r\nlast line, no newline"


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"\xff\xfe", b'{"schema": 2}', b'{"schema": 1}'], ids=repr)
def test_a_damaged_summary_of_another_analysis_is_read_as_not_run(tmp_path, text):
    readme, figures = tmp_path / "README.md", tmp_path / "figures"
    readme.write_text(DOCUMENT, encoding="utf-8")
    figures.mkdir()
    (figures / "beta.json").write_bytes(text)
    assert call({"alpha": toy(), "beta": toy()}, figures, "alpha", readme=readme) == 0
    assert "| `beta` | a claim about toys | not run yet | |" in readme.read_text(encoding="utf-8")
    assert (figures / "beta.json").read_bytes() == text


# ---- the same again ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The bytes of simplest_example at the quick scale."""
    folder = tmp_path_factory.mktemp("reference")
    assert main({"simplest_example": ALL["simplest_example"]}, ["--quick", "--out", str(folder)], folder=folder) == 0
    return contents(folder, "simplest_example")


def test_the_same_seed_gives_the_same_bytes_a_second_later(tmp_path, reference):
    analyses = {"alpha": toy(), "simplest_example": ALL["simplest_example"]}
    assert call(analyses, tmp_path / "1", "alpha") == 0
    time.sleep(1.1)  # PDF dates count seconds
    assert call(analyses, tmp_path / "2", "alpha") == 0
    assert contents(tmp_path / "2", "alpha") == contents(tmp_path / "1", "alpha")
    assert call(analyses, tmp_path, "simplest_example", "--quick") == 0
    assert contents(tmp_path / "quick", "simplest_example") == reference


def test_another_seed_gives_other_numbers_and_pictures(tmp_path):
    for seed in ("1", "2"):
        assert call({"alpha": toy()}, tmp_path / seed, "--seed", seed) == 0
    one, two = (contents(tmp_path / seed, "alpha") for seed in ("1", "2"))
    assert [ending for ending in SAME if one[ending] == two[ending]] == []


def test_a_result_does_not_depend_on_which_others_run_or_in_which_order(tmp_path):
    draws = {"alpha": toy(), "beta": toy(), "gamma": toy(compute=crash(ValueError("no")))}
    assert call(draws, tmp_path / "all") == 6
    assert call({stem: draws[stem] for stem in reversed(draws)}, tmp_path / "reversed") == 6
    assert call(draws, tmp_path / "one", "beta") == 0
    one = contents(tmp_path / "one", "beta")
    assert contents(tmp_path / "all", "beta") == one
    assert contents(tmp_path / "reversed", "beta") == one
    assert contents(tmp_path / "all", "alpha")["npz"] != one["npz"]  # nor do two analyses share a stream


def test_the_seed_of_a_run_without_one_is_the_documented_one(tmp_path):
    assert call({"alpha": toy()}, tmp_path / "1") == 0
    assert call({"alpha": toy()}, tmp_path / "2", "--seed", str(Options.seed)) == 0
    assert contents(tmp_path / "1", "alpha") == contents(tmp_path / "2", "alpha")


def test_numbers_that_are_not_finite_are_stored_as_strict_json_and_as_no_number(tmp_path):
    numbers = {
        "nan": float("nan"),
        "up": float("inf"),
        "down": -np.inf,
        "single": np.float32("nan"),
        "whole": np.int64(7),
        "third": np.float32(1 / 3),
        "tiny": 5e-324,
        "word": "NaN",
    }
    assert call({"alpha": toy(check=verdict(numbers=numbers))}, tmp_path) == 0
    stored = summary(tmp_path, "alpha")["numbers"]
    assert [key for key, value in stored.items() if isinstance(value, (int, float))] == ["third", "tiny", "whole"]
    assert (stored["whole"], stored["tiny"], stored["word"]) == (7, 5e-324, "NaN")
    assert stored["third"] == 0.333333  # six digits
    assert [stored[key] for key in ("nan", "up", "down", "single")] == [None] * 4
    assert summary(tmp_path, "alpha")["non_finite"] == {"nan": "nan", "up": "inf", "down": "-inf", "single": "nan"}


@pytest.mark.parametrize("stem", ALL)
def test_the_committed_summaries_are_strict_json(stem):
    assert summary(ROOT / "figures", stem)["analysis"] == stem


def test_no_global_state_is_changed_by_a_run_or_a_crash(tmp_path):
    handlers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)

    def state():
        with warnings.catch_warnings():  # reading rcParams may not warn
            settings = str(dict.items(matplotlib.rcParams.copy()))
        return (
            np.geterr(),
            str(np.random.get_state()),  # noqa: NPY002 the state that must not move
            list(warnings.filters),
            dict(os.environ),
            settings,
            [signal.getsignal(number) for number in handlers],
            Path.cwd(),
        )

    before = state()
    analyses = {"alpha": toy(), "simplest_example": ALL["simplest_example"], "beta": toy(draw=crash(ValueError("no")))}
    assert call(analyses, tmp_path, "--quick") == 6
    assert state() == before


# ---- interruptions ----------------------------------------------------------------------------------------


def started(*argv, **environment):
    """The command line over a set of toys in a real process, in a group of its own."""
    return subprocess.Popen(
        [sys.executable, TOYS, *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(**environment),
        start_new_session=True,
    )


def clean_environment(**changes):
    """The environment without what could decide a test from outside."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "LC_", "LANG", "MPLBACKEND", "DISPLAY"))
    }
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **changes}


def interrupt(folder, send):
    """(status, seconds until the end, stdout, stderr) of a run whose second analysis is interrupted."""
    begun = folder.with_name("begun")
    process = started("slow", folder, TOY_BEGUN=str(begun))
    try:
        give_up = time.monotonic() + 60
        while not begun.exists() and process.poll() is None and time.monotonic() < give_up:
            time.sleep(0.02)
        start = time.monotonic()
        send(process)
        out, err = process.communicate(timeout=30)
        return process.returncode, time.monotonic() - start, out.decode(), err.decode()
    finally:
        process.kill()
        process.wait()


SIGNALS = {
    "Ctrl-C": (130, lambda process: process.send_signal(signal.SIGINT)),
    "Ctrl-C to the group": (130, lambda process: os.killpg(process.pid, signal.SIGINT)),
    "Ctrl-C twice": (130, lambda process: [process.send_signal(signal.SIGINT) for _ in range(2)]),
    "SIGTERM": (143, lambda process: process.send_signal(signal.SIGTERM)),
}


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_ends_the_run_at_once_and_keeps_what_was_finished(tmp_path, name):
    expected, send = SIGNALS[name]
    folder = tmp_path / "out"
    status, seconds, out, err = interrupt(folder, send)
    assert status == expected
    assert seconds < 3.0  # the toy would sleep for a minute
    assert files(folder) == files_of("first")
    assert summary(folder, "first")["verdict"]["word"] == "confirmed"
    assert read_npz(folder / "first.npz")[1]["two"] == 2.0
    assert "Traceback" not in out + err
    assert column(out, 1) == "first"
    assert column(out, 3).startswith("confirmed: the mean is")
    (line,) = lines(err)
    assert line.endswith("not done: second, third")


def test_a_second_interruption_while_the_table_is_printed_is_no_traceback(tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("gradlab.runs.command.print_outcomes", interrupted)
    try:
        status = call({"alpha": toy(compute=crash(KeyboardInterrupt()))}, tmp_path)
    except KeyboardInterrupt:
        pytest.fail("the second KeyboardInterrupt left main()")
    assert status == 130


def test_an_interrupted_run_leaves_the_readme_and_the_handlers_as_they_were(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(DOCUMENT, encoding="utf-8")
    before = signal.getsignal(signal.SIGTERM)
    assert call({"alpha": toy(), "beta": toy(compute=crash(KeyboardInterrupt()))}, tmp_path / "f", readme=readme) == 130
    assert readme.read_text(encoding="utf-8") == DOCUMENT
    assert signal.getsignal(signal.SIGTERM) is before


def interrupted_at_rename(monkeypatch, number):
    """Raise KeyboardInterrupt instead of the `number`-th rename."""
    rename, seen = os.replace, []

    def replace(*args):
        seen.append(args)
        if len(seen) == number:
            raise KeyboardInterrupt
        return rename(*args)

    monkeypatch.setattr(os, "replace", replace)


def test_an_interruption_at_any_write_leaves_no_partial_file_and_a_rerun_repairs_it(tmp_path, monkeypatch):
    assert call({"alpha": toy()}, tmp_path / "whole") == 0
    whole = contents(tmp_path / "whole", "alpha")
    for number in range(1, 10):  # the probe of the folder, two files that mark the cache, the task, five files
        folder = tmp_path / str(number)
        with monkeypatch.context() as patch:
            interrupted_at_rename(patch, number)
            assert call({"alpha": toy()}, folder) == 130, f"rename {number}"
        for name in files(folder):
            ending = name.partition(".")[2]
            assert ending in ENDINGS, f"{name} is left after rename {number}"
            assert ending == "run.json" or (folder / name).read_bytes() == whole[ending]
        assert "alpha.json" not in files(folder)  # it says that the rest is there
        assert call({"alpha": toy()}, folder) == 0
        assert contents(folder, "alpha") == whole


def test_a_stored_summary_never_describes_other_arrays_than_the_stored_ones(tmp_path, monkeypatch):
    wrong = {}
    for number in range(1, 8):  # the probe, the task, five files
        folder = tmp_path / str(number)
        assert call({"alpha": toy()}, folder, "--seed", "1") == 0
        with monkeypatch.context() as patch:
            interrupted_at_rename(patch, number)
            assert call({"alpha": toy()}, folder, "--seed", "2") == 130
        if (folder / "alpha.json").exists():
            told, true = summary(folder, "alpha")["numbers"]["mean"], read_npz(folder / "alpha.npz")[1]["x"].mean()
            if told != float(f"{true:.6g}"):
                wrong[f"rename {number}"] = (told, true)
    assert wrong == {}


KILLED = """
import json, os, signal, sys
from pathlib import Path
from runs.toys import toy
from gradlab.runs import main
from gradlab.runs.store import draw_figures
import numpy as np

def run(folder, number, after):
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    sys.stdout = sys.stderr = open(os.devnull, "w")
    rename, seen = os.replace, []
    def replace(*args):
        seen.append(args)
        if len(seen) == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(*args)
        if len(seen) == number:
            os.kill(os.getpid(), signal.SIGKILL)
    os.replace = replace
    status = main({"alpha": toy()}, [], folder=folder)
    if status == 0 and number == 0:
        (folder / "seen.run.json").write_text(str(len(seen)))
    os._exit(status)

def state(folder):
    plain = (p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.endswith("run.json"))
    return {p.name: p.read_bytes().hex() for p in plain}

def tasks(folder):
    return json.loads((folder / "alpha.run.json").read_text())["tasks"]["computed"]

root, found = Path(sys.argv[1]), []
draw_figures(toy(), {"x": np.zeros(5)}, "full")  # loads what draws, once for all
assert run(root / "whole", 0, False) == 0
renames = int((root / "whole" / "seen.run.json").read_text())
for number in range(1, renames + 1):
    for after in (False, True):
        folder = root / f"{number}-{after}"
        killed = run(folder, number, after)
        left = state(folder)
        stored = len(list(folder.glob(".cache/alpha/*.npz")))
        again = run(folder, 0, False)
        found.append([number, after, killed, left, again, state(folder) if again == 0 else {}, stored, tasks(folder)])
print(json.dumps([state(root / "whole"), found]))
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The state after a SIGKILL before and after every rename, and after a second run; and that of an undisturbed run."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = clean_environment(PYTHONPATH=path, OPENBLAS_NUM_THREADS="1")  # a fork needs a process without threads
    argv = [sys.executable, "-c", KILLED, str(tmp_path_factory.mktemp("killed"))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_run_killed_at_any_write_leaves_whole_files_only_and_a_rerun_gives_the_same_bytes(killed):
    whole, runs = killed
    assert len(runs) == 2 * 9  # the probe, two files that mark the cache, the task, five files
    for number, after, status, left, again, repaired, stored, computed in runs:
        where = f"killed {'after' if after else 'before'} rename {number}"
        assert status == -signal.SIGKILL, where
        final = {name: data for name, data in left.items() if not name.startswith(".")}
        assert final == {name: whole[name] for name in final}, where
        assert again == 0, where
        assert (stored, computed) in ((0, 1), (1, 0)), where  # a finished task is not computed again
        assert {name: data for name, data in repaired.items() if not name.startswith(".")} == whole, where


def test_a_rerun_after_a_kill_leaves_no_temporary_file(killed):
    _, runs = killed
    left = {
        f"rename {n}{' done' if after else ''}": [k for k in state if k.startswith(".")] for n, after, *_, state, _, _ in runs
    }
    assert {where: names for where, names in left.items() if names} == {}


# ---- surroundings -----------------------------------------------------------------------------------------


def command(*argv, cwd, options=(), **environment):
    """`python -m analyses` in a real process: (status, stdout, stderr)."""
    done = subprocess.run(
        [sys.executable, *options, "-m", "analyses", *map(str, argv)],
        capture_output=True,
        cwd=cwd,
        timeout=60,
        env=clean_environment(**environment),
        check=False,
    )
    return done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8")


ASCII = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
SURROUNDINGS = {
    "ASCII, no folder for temporary files, hash seed 1": {**ASCII, "TMPDIR": "/nonexistent", "PYTHONHASHSEED": "1"},
    "a backend with windows and no display, Turkish, Tokyo": {"MPLBACKEND": "TkAgg", "LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Tokyo"},
    "a backend that does not exist, German, hash seed 0": {"MPLBACKEND": "nonsense", "LANG": "de_DE", "PYTHONHASHSEED": "0"},
}


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_the_bytes_are_the_same_in_any_surroundings_and_folder(tmp_path, reference, name):
    status, out, err = command("simplest_example", "--quick", "--out", "here", cwd=tmp_path, **SURROUNDINGS[name])
    assert (status, err.strip()) == (0, "")
    assert "confirmed" in out
    assert files(tmp_path) == {f"here/{name}" for name in files_of("simplest_example")}
    assert contents(tmp_path / "here", "simplest_example") == reference


def test_python_in_its_strictest_mode_finds_nothing(tmp_path):
    argv = ("simplest_example", "--quick", "--out", "here")
    status, _, err = command(*argv, cwd=tmp_path, options=("-W", "error", "-X", "dev"))
    assert (status, err.strip()) == (0, "")


@pytest.mark.parametrize(("toys", "argv", "expected"), [("greek", ["--list"], 0), ("greek", [], 0), ("crash", [], 6)], ids=str)
def test_greek_letters_are_no_error_where_the_terminal_has_ascii_alone(tmp_path, toys, argv, expected):
    process = started(toys, tmp_path, *argv, **ASCII)
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err.decode("ascii")
    assert process.returncode == expected
    assert b"first" in (out if expected == 0 else err)
    if not argv and expected == 0:
        assert "λ" in (tmp_path / "first.json").read_text(encoding="utf-8")


def test_a_folder_that_was_deleted_under_the_run_is_an_error_or_nothing(tmp_path):
    for out, status in ((tmp_path / "out", 0), ("out", 5)):
        gone = tmp_path / "gone"
        gone.mkdir()
        inside = subprocess.run(
            ["/bin/sh", "-c", f'rmdir "$PWD" && exec "$0" -m analyses simplest_example --quick --out {out}', sys.executable],
            cwd=gone,
            capture_output=True,
            text=True,
            timeout=60,
            env=clean_environment(),
            check=False,
        )
        assert inside.returncode == status, inside.stderr
        assert "Traceback" not in inside.stderr
        assert len(lines(inside.stderr)) == (1 if status else 0)


def without_reader(*argv):
    """(status, stderr) of a process whose standard output nobody reads."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, *map(str, argv)],
            stdout=write,
            stderr=subprocess.PIPE,
            timeout=60,
            env=clean_environment(),
            check=False,
        )
    finally:
        os.close(write)
    return done.returncode, done.stderr.decode()


def test_a_list_that_nobody_reads_ends_with_141_and_no_traceback():
    assert without_reader("-m", "analyses", "--list") == (141, "")


def test_a_table_that_nobody_reads_ends_with_141_and_the_results_are_kept(tmp_path):
    status, err = without_reader(TOYS, "greek", tmp_path)
    assert files(tmp_path) == files_of("first")
    assert (status, err.strip()) == (141, "")


def test_a_list_piped_to_head_gives_its_first_line_and_no_traceback(tmp_path):
    script = '"$0" -m analyses --list | head -1; exit "${PIPESTATUS[0]}"'
    done = subprocess.run(
        ["bash", "-c", script, sys.executable], capture_output=True, text=True, cwd=tmp_path, env=clean_environment(), check=False
    )
    assert done.returncode in (0, 141)  # head may have read all before it closes the pipe
    assert done.stderr == ""
    assert done.stdout.startswith("simplest_example")
    assert len(done.stdout.splitlines()) == 1


AUDIT = """
import json, os, runpy, sys
seen = []
names = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.utime")
def hook(event, args):
    if event == "open":
        writes = isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        if writes and not isinstance(args[0], int):  # a descriptor was opened by an event of its own
            seen.append([event, os.path.abspath(os.fsdecode(args[0]))])
    elif event in names:
        paths = [path for path in args[:2] if isinstance(path, (str, bytes, os.PathLike))]
        seen.extend([event, os.path.abspath(os.fsdecode(path))] for path in paths)
    elif event.startswith(("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "urllib.", "ftplib.")):
        seen.append([event, repr(args)])
report, sys.argv[1:] = sys.argv[1], sys.argv[2:]
sys.addaudithook(hook)
try:
    runpy.run_module("analyses", run_name="__main__")
except SystemExit as ended:
    status = ended.code
found = list(seen)
with open(report, "w") as stream:
    json.dump([status, found], stream)
"""


def test_a_run_writes_below_its_folder_only_and_uses_no_network_and_no_other_program(tmp_path, reference):
    # `reference` has made matplotlib build its list of fonts, which it keeps in its own folder.
    out, report, inside = tmp_path / "out", tmp_path / "report.json", tmp_path / "cwd"
    inside.mkdir()
    argv = [sys.executable, "-c", AUDIT, str(report), "gradient_flow", "--quick", "--out", str(out)]
    done = subprocess.run(argv, cwd=inside, capture_output=True, text=True, timeout=60, env=clean_environment(), check=False)
    status, seen = json.loads(report.read_text())
    assert status == 0, done.stderr
    written = [path for event, path in seen if event == "open" and path.startswith(str(out))]
    assert {path.rpartition(".")[2].rpartition("/")[2] for path in written} == {"part", "lock"}  # no other file grows in place
    assert len({path for path in written if "/.cache/" not in path}) == 6  # five files and the probe
    allowed = (str(out), str(matplotlib.get_cachedir()), str(matplotlib.get_configdir()), os.devnull)
    assert [entry for entry in seen if not entry[1].startswith(allowed)] == []
    assert files(out) == files_of("gradient_flow")
    assert files(inside) == set()
