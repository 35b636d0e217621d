"""Training under instruments: a loop over ensembles, optimisers, clipping, the norm-preserving regulariser, checkpoints."""

from __future__ import annotations

from gradlab.training import schedules
from gradlab.training.clipping import ByLayer, ByNorm, ByValue, clip_by_norm, global_norm
from gradlab.training.jumps import jumps
from gradlab.training.monitor import Monitor
from gradlab.training.optimisers import SGD, Adam, RMSProp
from gradlab.training.regulariser import NormPreserving
from gradlab.training.sgd import History, sgd
from gradlab.training.state import Event
from gradlab.training.trainer import Training, train

__all__ = [
    "SGD",
    "Adam",
    "ByLayer",
    "ByNorm",
    "ByValue",
    "Event",
    "History",
    "Monitor",
    "NormPreserving",
    "RMSProp",
    "Training",
    "clip_by_norm",
    "global_norm",
    "jumps",
    "schedules",
    "sgd",
    "train",
]
