"""Recurrent cells: one file each, and the list of them that every contract test runs over."""

from __future__ import annotations

from gradlab.cells.base import Cell
from gradlab.cells.completed import as_cell
from gradlab.cells.elman import Elman
from gradlab.cells.lstm import LSTM

ALL: tuple[Cell, ...] = (Elman("tanh"), Elman("sigmoid"), Elman("relu"), Elman("linear"), LSTM())
"""Every built-in cell with every option."""

__all__ = ["ALL", "LSTM", "Cell", "Elman", "as_cell"]
