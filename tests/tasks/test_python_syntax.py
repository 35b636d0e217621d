"""Classes of the characters of Python source: by hand on short texts, by tokens on long ones, and what chance achieves."""

import hashlib
import io
import keyword
import math
import sys
import sysconfig
import tokenize
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gradlab.errors import FormatError, ValueRangeError
from gradlab.tasks import characters, python_syntax
from gradlab.tasks.python_syntax import CLASSES, label

LETTERS = dict(zip(CLASSES, ".KnNsco", strict=True))  # whitespace, keyword, name, number, string, comment, operator


@pytest.fixture(scope="module")
def corpus():
    return python_syntax.load()


def text_of(names):
    library = Path(sysconfig.get_path("stdlib"))
    return "".join((library / name).read_text("utf-8") for name in names)


@pytest.mark.parametrize(
    ("source", "classes"),
    [
        ("x = 1\n", "n.o.N."),
        ("if x in index:  # in\n    pass\n", "KK.n.KK.nnnnno..cccc.....KKKK."),
        ('s = "if # 1"\n', "n.o.ssssssss."),
        ("'''a\nb'''\ny\n", "ssss" + "s" * 5 + ".n."),
        ("a = b + \\\n  0x1F\n", "n.o.n.o.....NNNN."),
        ("é = 'λ'; z\n", "n.o.ssso.n."),
        ("match = case\n", "nnnnn.o.nnnn."),  # soft keywords are names
        ("@f\nasync def g(): await h\n", "on.KKKKK.KKK.nooo.KKKKK.n."),
        ("x = 1", "n.o.N"),  # no newline at the end
        ("", ""),
        ("\n\n", ".."),
        ("\f\nx\n", "..n."),  # a form feed is no line end
    ],
)
def test_short_sources_are_labelled_as_a_reader_would(source, classes):
    assert "".join(LETTERS[CLASSES[c]] for c in label(source)) == classes


@pytest.mark.parametrize("literal", ['f"{x}"', "f'a{b!r:>{w}}c'", 'rf"""{\nx}\n"""', "f'{{}}'", "f'{f\"{y}\"}'", 'b"1"', 'f""'])
def test_a_formatted_string_is_a_string_as_a_whole_in_every_version(literal):
    source = f"v = {literal} + 2\n"
    classes = "".join(LETTERS[CLASSES[c]] for c in label(source))
    assert classes == "n.o." + "s" * len(literal) + ".o.N."


def test_what_is_no_python_is_refused():
    with pytest.raises(FormatError, match=r"the text is no Python source: .*; expected what tokenize reads"):
        label("x = (\n")


def test_the_corpus_is_the_listed_source_and_its_sha256_names_it(corpus):
    parts = [text_of(names) for names in (python_syntax.TRAINING_FILES, python_syntax.VALIDATION_FILES)]
    assert corpus.sha256 == hashlib.sha256("".join(parts).encode()).hexdigest()
    for text, symbols, classes in zip(
        parts, (corpus.training, corpus.validation), (corpus.training_classes, corpus.validation_classes), strict=True
    ):
        np.testing.assert_array_equal(symbols, characters.encode(text))
        assert symbols.shape == classes.shape
        for part in (symbols, classes):
            with pytest.raises(ValueError, match="read-only"):
                part[0] = 1
    assert not set(python_syntax.TRAINING_FILES) & set(python_syntax.VALIDATION_FILES)
    assert len(corpus.validation) > 50_000


def test_the_characters_of_each_class_are_what_their_class_may_hold(corpus):
    text = np.array(list(text_of(python_syntax.VALIDATION_FILES)))
    classes = corpus.validation_classes
    held = {name: "".join(text[classes == k]) for k, name in enumerate(CLASSES)}
    assert set(held["whitespace"]) <= set(" \n\t\f\\")
    assert not set(held["operator"]) & set(" \n\t\"'#")
    assert not any(c.isalnum() for c in held["operator"])
    assert set(held["number"]) <= set("0123456789.xXabcdefABCDEF_ejo")
    assert all(c.isalnum() or c == "_" for c in held["name"] + held["keyword"])
    assert held["comment"].startswith("#")
    assert set(held["string"]) & set("\"'")
    # Runs of keyword characters are keywords, and runs of names are not.
    source = "".join(text)
    edges = np.flatnonzero(np.diff(classes)) + 1
    for start, end in zip([0, *edges], [*edges, len(source)], strict=True):
        if CLASSES[classes[start]] in ("keyword", "name"):
            assert keyword.iskeyword(source[start:end]) == (CLASSES[classes[start]] == "keyword")


def test_every_token_of_a_real_file_has_one_class_throughout():
    source = text_of(["heapq.py"])
    classes, lines = label(source), source.split("\n")
    for found in tokenize.generate_tokens(io.StringIO(source).readline):
        if found.type in (tokenize.NAME, tokenize.NUMBER, tokenize.STRING, tokenize.COMMENT, tokenize.OP):
            offset = sum(len(line) + 1 for line in lines[: found.start[0] - 1]) + found.start[1]
            assert source[offset : offset + len(found.string)] == found.string
            assert len(set(classes[offset : offset + len(found.string)])) == 1


def test_the_baselines_are_counts_of_classes_and_of_classes_by_character(corpus):
    count = Counter(corpus.training_classes.tolist())
    n = len(corpus.training)
    nats = [-math.log((count[c] + 1) / (n + 7)) for c in corpus.validation_classes.tolist()]
    assert abs(corpus.baseline - math.fsum(nats) / len(nats)) <= 1e-12 * corpus.baseline  # rounding of the sum
    commonest = count.most_common(1)[0][0]
    assert corpus.majority == (corpus.validation_classes == commonest).mean()
    pairs = Counter(zip(corpus.training.tolist(), corpus.training_classes.tolist(), strict=True))
    each = Counter(corpus.training.tolist())
    seen = list(zip(corpus.validation.tolist(), corpus.validation_classes.tolist(), strict=True))
    nats = [-math.log((pairs[a, c] + 1) / (each[a] + 7)) for a, c in seen]
    assert abs(corpus.memoryless_baseline - math.fsum(nats) / len(nats)) <= 1e-12 * corpus.baseline
    best = [max(range(7), key=lambda c, a=a: (pairs[a, c], -c)) for a in range(97)]
    assert abs(corpus.memoryless_majority - np.mean([best[a] == c for a, c in seen])) <= 1e-15
    # What a character is tells something of its class, and far from all.
    assert corpus.memoryless_baseline < corpus.baseline < math.log(7.0)
    assert corpus.majority < corpus.memoryless_majority < 0.8
    assert python_syntax.TASK.baseline(5) == corpus.baseline


def test_windows_carry_the_class_of_the_same_character():
    corpus = python_syntax.SyntaxCorpus(np.arange(9), np.arange(9) % 7, np.arange(50, 56), np.zeros(6, int), "")
    batch = corpus.sample(np.random.default_rng(0), 6000, 4)
    read = batch.inputs.argmax(axis=-1)
    assert batch.inputs.shape == (4, 6000, 97)
    np.testing.assert_array_equal(batch.targets, read % 7)
    np.testing.assert_array_equal(np.diff(read, axis=0), 1)
    counts = np.bincount(read[0])
    assert len(counts) == 6  # starts 0..5: the last window ends at the last character
    assert ((counts - 1000.0) ** 2 / 1000.0).sum() <= 20.5  # 99.9 % of chi squared with 5 degrees of freedom
    held = corpus.sample(np.random.default_rng(1), 50, 6, "validation")
    assert held.inputs.argmax(axis=-1).min() == 50
    with pytest.raises(ValueRangeError, match="length is 7; expected at most the 6 characters of the validation text"):
        corpus.sample(np.random.default_rng(1), 1, 7, "validation")
    with pytest.raises(ValueRangeError, match="split is 'test'; expected one of training, validation"):
        corpus.sample(np.random.default_rng(1), 1, 2, "test")


def test_the_files_are_read_and_never_imported(monkeypatch, tmp_path):
    poison = "raise SystemExit('executed')\n"
    for name in (*python_syntax.TRAINING_FILES, *python_syntax.VALIDATION_FILES):
        (tmp_path / name).write_text(poison)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    before = set(sys.modules)
    corpus = python_syntax.load.__wrapped__()
    assert len(corpus.validation) == 3 * len(poison)
    assert set(sys.modules) == before


def test_a_library_without_sources_is_told_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(FormatError, match=r"argparse\.py cannot be read .* install it in full"):
        python_syntax.load.__wrapped__()
