"""Characters of the standard library's own text: what they are, where they come from, and what chance achieves."""

import hashlib
import importlib
import itertools
import math
import sys
from collections import Counter

import numpy as np
import pytest

from gradlab.errors import FormatError, ValueRangeError
from gradlab.tasks import characters


@pytest.fixture(scope="module")
def text():
    topics = importlib.import_module("pydoc_data.topics").topics
    return "\n\n".join(topics[key] for key in sorted(topics))


@pytest.fixture(scope="module")
def corpus():
    return characters.load()


def decode(symbols):
    return "".join(characters.ALPHABET[s] if s < len(characters.ALPHABET) else "\0" for s in symbols)


def test_the_alphabet_is_newline_the_printable_ascii_characters_and_one_for_the_rest():
    printable = "".join(map(chr, range(32, 127)))
    assert list(characters.ALPHABET) == ["\n", *printable]
    assert len(set(characters.ALPHABET)) == 96
    assert characters.SYMBOLS == characters.INPUT_SIZE == characters.OUTPUT_SIZE == 97
    np.testing.assert_array_equal(characters.encode("\n ~λ\t"), [0, 1, 95, 96, 96])


def test_the_corpus_is_the_text_of_the_standard_library_and_its_sha256_names_it(corpus, text):
    assert corpus.sha256 == hashlib.sha256(text.encode()).hexdigest()
    whole = decode(np.concatenate([corpus.training, corpus.validation]))
    assert whole == "".join(c if c in characters.ALPHABET else "\0" for c in text)
    assert len(whole) > 300_000


def test_the_last_tenth_is_kept_for_validation_and_overlaps_nothing(corpus, text):
    assert len(corpus.training) + len(corpus.validation) == len(text)
    assert abs(len(corpus.validation) - 0.1 * len(text)) <= 1.0  # rounded to a whole character


def test_the_baseline_is_the_cross_entropy_of_the_frequencies(corpus, text):
    cut = len(corpus.training)
    count = Counter(characters.encode(text[:cut]).tolist())
    # Shares of the training text with one added to each of the 97 counts, measured on the validation text.
    nats = [-math.log((count[s] + 1) / (cut + 97)) for s in characters.encode(text[cut:]).tolist()]
    assert abs(corpus.baseline - math.fsum(nats) / len(nats)) <= 1e-12 * corpus.baseline  # a sum of fifty thousand terms
    assert 2.0 < corpus.baseline < math.log(97.0)  # English by single letters, below uniform chance


def test_the_bigram_baseline_is_the_cross_entropy_of_pairs_with_one_added(corpus, text):
    cut = len(corpus.training)
    training, validation = (characters.encode(part).tolist() for part in (text[:cut], text[cut:]))
    pairs, firsts = Counter(itertools.pairwise(training)), Counter(training[:-1])
    nats = [-math.log((pairs[a, b] + 1) / (firsts[a] + 97)) for a, b in itertools.pairwise(validation)]
    assert abs(corpus.bigram_baseline - math.fsum(nats) / len(nats)) <= 1e-12 * corpus.bigram_baseline  # rounding of the sum
    assert 1.5 < corpus.bigram_baseline < corpus.baseline - 0.5  # one character of context is worth much
    assert characters.TASK.baseline(10) == corpus.baseline


def test_the_bigram_baseline_of_a_text_of_two_letters_is_known_by_hand():
    # Training abab: after a always b (twice), after b once a. Validation ab, ba: (2 + 1)/(2 + 97) and (1 + 1)/(1 + 97).
    corpus = characters.Corpus(np.array([0, 1, 0, 1]), np.array([0, 1, 0]), "", 0.0)
    assert abs(corpus.bigram_baseline - (math.log(99 / 3) + math.log(98 / 2)) / 2) <= 1e-15 * 4


def test_inputs_are_one_hot_and_targets_are_the_symbols_that_follow(corpus):
    batch = characters.sample(np.random.default_rng(0), 16, 40)
    assert batch.inputs.shape == (40, 16, 97)
    assert set(np.unique(batch.inputs)) == {0.0, 1.0}
    np.testing.assert_array_equal(batch.inputs.sum(axis=-1), 1.0)
    read = batch.inputs.argmax(axis=-1)
    np.testing.assert_array_equal(read[1:], batch.targets[:-1])
    training = decode(corpus.training)
    for row in range(16):
        assert decode([*read[:, row], batch.targets[-1, row]]) in training


def test_windows_start_anywhere_and_end_at_the_last_character():
    # A text of 7 known symbols: windows of 3 and their next symbol start at 0..3, each equally often.
    corpus = characters.Corpus(np.arange(7), np.arange(50, 57), "", 0.0)
    batch = corpus.sample(np.random.default_rng(1), 8000, 3)
    start = batch.inputs.argmax(axis=-1)[0]
    np.testing.assert_array_equal(batch.targets[-1], start + 3)
    counts = np.bincount(start, minlength=4)
    assert len(counts) == 4
    chi2 = ((counts - 2000.0) ** 2 / 2000.0).sum()
    assert chi2 <= 16.3  # 99.9 % of the chi-squared distribution with 3 degrees of freedom


def test_training_and_validation_windows_come_from_their_own_part():
    corpus = characters.Corpus(np.arange(40), np.arange(50, 90), "", 0.0)
    rng = np.random.default_rng(2)
    for split, low, high in (("training", 0, 39), ("validation", 50, 89)):
        batch = corpus.sample(rng, 500, 5, split)
        symbols = np.concatenate([batch.inputs.argmax(axis=-1).ravel(), batch.targets.ravel()])
        assert symbols.min() == low
        assert symbols.max() == high


def test_the_same_generator_gives_the_same_batch():
    one, other = (characters.sample(np.random.default_rng(3), 4, 20) for _ in range(2))
    np.testing.assert_array_equal(one.inputs, other.inputs)
    np.testing.assert_array_equal(one.targets, other.targets)
    assert not np.array_equal(characters.sample(np.random.default_rng(4), 4, 20).targets, one.targets)


def test_the_corpus_is_read_once_and_cannot_be_changed(corpus):
    assert characters.load() is corpus
    for part in (corpus.training, corpus.validation):
        with pytest.raises(ValueError, match="read-only"):
            part[0] = 1


def test_a_length_beyond_the_text_and_an_unknown_split_are_refused(corpus):
    rng = np.random.default_rng(5)
    n = len(corpus.validation)
    with pytest.raises(ValueRangeError, match=f"length is {n}; expected less than the {n} characters of the validation text"):
        corpus.sample(rng, 1, n, "validation")
    with pytest.raises(ValueRangeError, match='split is \'test\'; expected "training" or "validation"'):
        corpus.sample(rng, 1, 5, "test")


def test_a_python_without_the_text_is_told_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)  # what the import system then says is ImportError
    with pytest.raises(FormatError, match=r"pydoc_data\.topics is missing .* install the full standard library"):
        characters.load.__wrapped__()
