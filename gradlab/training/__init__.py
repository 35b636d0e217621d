"""Training under instruments: a loop over ensembles, optimisers, clipping, the norm-preserving regulariser, checkpoints."""

from __future__ import annotations

from gradlab.training import probes, schedules
from gradlab.training.clipping import ByLayer, ByNorm, ByValue, clip_by_norm
from gradlab.training.jumps import jumps
from gradlab.training.monitor import Monitor
from gradlab.training.nonfinite import Event
from gradlab.training.norms import global_norm
from gradlab.training.optimisers import SGD, Adam, RMSProp
from gradlab.training.regulariser import NormPreserving
from gradlab.training.result import Training
from gradlab.training.trainer import train

__all__ = [
    "SGD",
    "Adam",
    "ByLayer",
    "ByNorm",
    "ByValue",
    "Event",
    "Monitor",
    "NormPreserving",
    "RMSProp",
    "Training",
    "clip_by_norm",
    "global_norm",
    "jumps",
    "probes",
    "schedules",
    "train",
]
