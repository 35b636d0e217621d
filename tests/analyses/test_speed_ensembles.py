"""The timed pairs do the same work, or refuse to be timed."""

import numpy as np
import pytest

from analyses import _speed_ensembles as pairs
from gradlab.errors import NumericalError

SMALL = {"members": 3, "T": 6, "B": 2, "D": 2, "H": 4, "threads": 2}


@pytest.mark.peer
def test_the_ensemble_and_its_peers_have_the_same_gradients():
    pytest.importorskip("torch", reason="torch is not installed: pip install torch==2.13.0")
    jax = pytest.importorskip("jax", reason="jax is not installed: pip install jax==0.10.2")
    before = jax.config.jax_enable_x64
    ours, theirs = pairs.ensembles(np.random.default_rng(0), SMALL)  # compares them itself, at 1e-12
    assert list(theirs) == ["torch", "jax"]
    for work in (ours, *theirs.values()):
        assert np.asarray(work()["0.U"]).shape == (3, 4, 4)
    assert jax.config.jax_enable_x64 == before


def test_a_peer_whose_gradient_differs_is_not_timed(monkeypatch):
    monkeypatch.setattr(pairs.importlib.util, "find_spec", lambda name: object() if name == "torch" else None)

    def wrong(params, batch):
        return lambda: {key: np.zeros_like(value) for key, value in params.items()}

    monkeypatch.setattr(pairs, "in_torch", wrong)
    with pytest.raises(
        NumericalError, match=r"the two gradients of 0\.W differ by .*torch.*; a ratio of times would mean nothing"
    ):
        pairs.ensembles(np.random.default_rng(0), SMALL)


@pytest.mark.parametrize("kind", ["LSTM", "Elman"])
def test_training_with_and_without_a_monitor_gives_the_same_parameters(kind):
    ours, theirs = pairs.monitored(np.random.default_rng(0), kind, SMALL, updates=3)
    assert list(theirs) == ["without"]
    np.testing.assert_array_equal(ours().params["0.U"], theirs["without"]().params["0.U"])
