"""Tasks: one file each, with `sample(rng, batch, length) -> Batch` and the chance baseline of its loss."""

from __future__ import annotations

from gradlab.tasks import adding, characters

__all__ = ["adding", "characters"]
