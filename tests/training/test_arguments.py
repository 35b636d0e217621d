"""Bad arguments: one clear error that names the argument, its value and what was expected, before anything is drawn."""

import numpy as np
import pytest
from training.problems import setting

from gradlab import LSTM, Batch, Elman, Network, mean_squared_error
from gradlab.errors import DTypeError, GradlabError, ShapeError, ValueRangeError
from gradlab.training import SGD, Adam, ByLayer, ByNorm, ByValue, Monitor, NormPreserving, RMSProp, schedules, train


def never(rng):
    raise AssertionError("drawn")


def call(E=None, cell=None, **changes):
    net, params, _ = setting(cell or Elman("tanh"), E=E)
    given = {"net": net, "params": params, "sample": never, "loss": mean_squared_error, "updates": 3}
    given |= {"rng": np.random.default_rng(0), **changes}
    return train(**given)


TABLE = [
    ("net", LSTM(), DTypeError),
    ("params", None, DTypeError),
    ("params", {}, ValueRangeError),
    ("sample", Batch(np.zeros((2, 1, 2)), np.zeros((1, 1))), DTypeError),
    ("loss", "mse", DTypeError),
    ("updates", -1, ValueRangeError),
    ("updates", 2.0, DTypeError),
    ("updates", True, DTypeError),
    ("rng", 0, DTypeError),
    ("rng", None, DTypeError),
    ("rng", "seed", DTypeError),
    ("rng", [np.random.default_rng(0)], ShapeError),
    ("optimiser", "adam", DTypeError),
    ("optimiser", Adam, DTypeError),
    ("learning_rate", 0.0, ValueRangeError),
    ("learning_rate", np.ones(2), ShapeError),
    ("learning_rate", "0.1", DTypeError),
    ("schedule", 0.5, DTypeError),
    ("clip", 1.0, DTypeError),
    ("clip", ByNorm, DTypeError),
    ("regulariser", 4.0, DTypeError),
    ("truncate", 5, DTypeError),
    ("truncate", (5,), DTypeError),
    ("truncate", (5, 2), ValueRangeError),
    ("truncate", (0, 2), ValueRangeError),
    ("truncate", (1.0, 2), DTypeError),
    ("nonfinite", "ignore", ValueRangeError),
    ("nonfinite", None, ValueRangeError),
    ("validate", 3, DTypeError),
    ("validate_every", 0, ValueRangeError),
    ("patience", 3, ValueRangeError),
    ("target", 0.1, ValueRangeError),
    ("monitor", {}, DTypeError),
    ("monitor", Monitor, DTypeError),
    ("checkpoint", 3, DTypeError),
    ("checkpoint_every", 0, ValueRangeError),
    ("keep_path", 1, DTypeError),
    ("progress", 1, DTypeError),
]


@pytest.mark.parametrize(("name", "value", "error"), TABLE, ids=[f"{name}-{k}" for k, (name, _, _) in enumerate(TABLE)])
def test_a_wrong_argument_is_refused_by_name_before_anything_is_drawn(name, value, error):
    with pytest.raises(GradlabError, match=rf"^{name}\b.*; (expected|give)|^{name} lacks") as caught:
        call(**{name: value})
    assert type(caught.value) is error
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(momentum=1.0), "momentum is 1.0"),
        (lambda: SGD(momentum=-0.1), "momentum is -0.1"),
        (lambda: SGD(nesterov=True), "nesterov is True with momentum 0"),
        (lambda: SGD(0.9, 1), "nesterov is 1"),
        (lambda: RMSProp(decay=1.0), "decay is 1.0"),
        (lambda: RMSProp(epsilon=0.0), "epsilon is 0.0"),
        (lambda: Adam(beta1=np.nan), "beta1 is nan"),
        (lambda: Adam(beta2="0.9"), "beta2 is '0.9'"),
        (lambda: Adam(epsilon=-1.0), "epsilon is -1.0"),
        (lambda: ByNorm(0.0), "threshold is 0.0"),
        (lambda: ByLayer(-1.0), "threshold is -1.0"),
        (lambda: ByValue(np.array([1.0, np.nan])), "threshold is nan"),
        (lambda: ByValue([1.0]), r"threshold is \[1.0\]"),
        (lambda: NormPreserving(-1.0), "weight is -1.0"),
        (lambda: NormPreserving(1.0, "C"), "form is 'C'"),
        (lambda: schedules.inverse_time(0), "half is 0"),
        (lambda: schedules.exponential(np.inf), "half is inf"),
        (lambda: schedules.steps(0, 0.5), "every is 0"),
        (lambda: schedules.steps(5, 1.5), "factor is 1.5"),
        (lambda: schedules.cosine(0), "updates is 0"),
        (lambda: schedules.warm_up(2.5), "updates is 2.5"),
    ],
)
def test_constants_are_checked_where_they_are_given(make, message):
    with pytest.raises(GradlabError, match=f"^{message}.*; expected"):
        make()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"truncate": (2, 4), "regulariser": NormPreserving(1.0)}, "truncate is given with a regulariser"),
        ({"patience": 3}, "patience is 3 without validate"),
        (
            {"clip": ByNorm(np.ones(2)), "sample": setting(Elman("tanh"))[2]},
            r"threshold has shape \(2,\); expected the ensemble axes \(\)",
        ),
        (
            {"schedule": lambda update: -1.0, "sample": setting(Elman("tanh"))[2]},
            r"schedule\(0\) is -1.0; expected a finite factor >= 0",
        ),
        (
            {"schedule": lambda update: np.nan, "sample": setting(Elman("tanh"))[2]},
            r"schedule\(0\) is nan; expected a finite factor",
        ),
        (
            {"schedule": lambda update: "x", "sample": setting(Elman("tanh"))[2]},
            r"schedule\(0\) is 'x'; expected a finite factor",
        ),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(GradlabError, match=message):
        call(**changes)


def test_a_bidirectional_net_is_not_truncated():
    net = Network(Elman("tanh"), 2, 3, output_size=1, bidirectional=True)
    with pytest.raises(ValueRangeError, match=r"truncate is \(2, 4\) for a bidirectional net"):
        call(net=net, params=net.init(np.random.default_rng(0)), truncate=(2, 4))


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (lambda rng: None, r"sample\(rng\) gave NoneType; expected a gradlab.Batch"),
        (lambda rng: (np.zeros((2, 1, 2)), np.zeros((1, 1))), r"sample\(rng\) gave tuple"),
        (
            lambda rng: Batch(np.zeros((5, 4, 3, 2)), np.zeros((4, 3, 1))),
            r"inputs have ensemble axes \(4,\), the parameters \(\)",
        ),
        (lambda rng: Batch(np.full((5, 3, 2), np.nan), np.zeros((3, 1))), "x has 30 non-finite values"),
        (lambda rng: Batch(np.zeros((5, 3, 2)), np.zeros((4, 1))), "targets have shape"),
    ],
)
def test_a_bad_batch_is_refused(sample, message):
    with pytest.raises(GradlabError, match=message):
        call(sample=sample)


def test_streams_of_members_are_checked():
    twice = np.random.default_rng(0)
    with pytest.raises(ValueRangeError, match="rng holds the same generator twice"):
        call(E=2, rng=[twice, twice])
    with pytest.raises(DTypeError, match=r"rng\[1\] is 7"):
        call(E=2, rng=[twice, 7])
    own = [np.random.default_rng(e) for e in range(2)]

    def uneven(rng):
        length = int(rng.integers(3, 1000))
        return Batch(rng.normal(size=(length, 3, 2)), rng.normal(size=(3, 1)))

    with pytest.raises(ShapeError, match=r"sample\(rng\) gave members inputs of shapes"):
        call(E=2, rng=own, sample=uneven)
    with pytest.raises(ValueRangeError, match="ragged"):
        call(E=2, rng=own, sample=lambda rng: Batch(np.zeros((5, 3, 2)), np.zeros((3, 1)), lengths=np.array([5, 4, 3])))


@pytest.mark.parametrize(
    ("validate", "error", "message"),
    [
        (lambda params: 1.0, ShapeError, r"validate\(params\) gave shape \(\); expected \(2,\)"),
        (lambda params: "good", DTypeError, r"validate\(params\) gave 'good'"),
        (lambda params: None, DTypeError, r"validate\(params\) gave None"),
    ],
)
def test_a_validation_that_gives_no_number_for_each_member_is_refused(validate, error, message):
    with pytest.raises(error, match=message):
        call(E=2, sample=setting(Elman("tanh"))[2], validate=validate, validate_every=1)


def test_a_path_that_does_not_fit_in_memory_is_refused_before_anything_is_drawn():
    with pytest.raises(GradlabError, match="keep_path=True over 1000000000000 updates needs"):
        call(updates=10**12, keep_path=True)
