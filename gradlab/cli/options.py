"""Options of the commands that diagnose something."""

from __future__ import annotations

import argparse
import math
import re
from typing import Any

SEVERITIES = ("info", "warning", "error")
LOSSES = {"mse": "mean_squared_error", "cross_entropy": "softmax_cross_entropy"}
CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("LSTM", {}),
    "lstm-peepholes": ("LSTM", {"peepholes": True}),
    "lstm-coupled": ("LSTM", {"coupled": True}),
    "lstm-coupled-peepholes": ("LSTM", {"coupled": True, "peepholes": True}),
    "lstm-no-forget": ("LSTM", {"forget_gate": False}),
    "gru": ("GRU", {"reset": "after"}),
    "gru-before": ("GRU", {"reset": "before"}),
    "elman": ("Elman", {}),
    "irnn": ("irnn", {}),
    "scrn": ("SCRN", {}),
    "clockwork": ("Clockwork", {}),
}
UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options about what is read, and about the training."""
    data = parser.add_argument_group("what it reads")
    data.add_argument("--data", metavar="FILE", help=".npy or .npz (T, B, D), or .csv: one sequence, rows are its steps")
    data.add_argument(
        "--layout", choices=("TBD", "BTD", "graph"), help="axes of the data; graph: as an ONNX graph's input has them"
    )
    data.add_argument("--lengths", metavar="FILE", help="steps of each sequence (B,), where they differ")
    data.add_argument("--target", metavar="FILE", help="what the loss compares with; labels for cross_entropy")
    data.add_argument("--loss", choices=tuple(LOSSES), help="on --target; without it a unit gradient enters at the last step")
    told = parser.add_argument_group("what you know of the training")
    told.add_argument("--history", metavar="FILE", help="the .npz of a gradlab.training.Monitor")
    told.add_argument("--learning-rate", metavar="R", type=_positive, help="to look for cliffs ahead")
    told.add_argument("--clip-norm", metavar="R", type=_positive, help="the norm that gradients are clipped to")
    told.add_argument("--clip-value", metavar="R", type=_positive, help="the value that entries are clipped to")
    told.add_argument("--dependency", metavar="N", type=_count, help="steps between an input and the output that needs it")
    told.add_argument("--truncation", metavar="N", type=_count, help="steps that truncated BPTT goes back")
    how = parser.add_argument_group("what a file does not say")
    how.add_argument("--layer", metavar="NAME", help="one layer of a Keras file, or one node of an ONNX file")
    how.add_argument("--prefix", metavar="TEXT", help="of the names of one network among several: encoder.lstm")
    how.add_argument("--naming", choices=("torch", "keras", "gradlab"), help="of the weights (default: recognised)")
    how.add_argument("--nonlinearity", metavar="NAME", help="of a simple recurrent network: tanh, relu, ...")
    how.add_argument("--reset", choices=("after", "before"), help="of a GRU: reset gate after or before the recurrent product")
    how.add_argument("--cell", metavar="CELL", help=f"of gradlab's own names: {', '.join(CELLS)}, or package.module:Cell")
    how.add_argument("--readout", choices=("every", "last"), help="where the loss reads the outputs: at every step, or the last")
    how.add_argument("--reverse", action="store_const", const=True, help="it reads each sequence from its end")
    how.add_argument("--config", metavar="FILE", help="model.to_json() beside a .weights.h5")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-memory", metavar="SIZE", type=_size, help="such as 500M or 4G")
    limits.add_argument("--seed", metavar="N", type=_seed, default=0, help="of noise and random directions (default: 0)")


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0.0 < value < math.inf) or "_" in text:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number above 0")
    return value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not an integer above 0")
    return int(text)


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not an integer from 0 to 2^63 - 1")
    return int(text)


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?) ?([bkmgt]?)(?:ib|b)?", text.lower(), flags=re.ASCII)
    if not found or float(found[1]) * UNITS[found[2]] < 1:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no size; expected bytes, or a number with K, M, G or T: 4G")
    return int(float(found[1]) * UNITS[found[2]])
