"""Training under instruments: gradient descent and clipping."""

from __future__ import annotations

from gradlab.training.clipping import clip_by_norm, global_norm
from gradlab.training.sgd import History, sgd

__all__ = ["History", "clip_by_norm", "global_norm", "sgd"]
