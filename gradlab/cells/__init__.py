"""Recurrent cells: one file each, and the list of them that every contract test runs over."""

from __future__ import annotations

from itertools import product

from gradlab.cells import activations
from gradlab.cells.base import Cell
from gradlab.cells.clockwork import Clockwork
from gradlab.cells.completed import as_cell
from gradlab.cells.count import parameter_count
from gradlab.cells.elman import Elman, irnn
from gradlab.cells.gru import GRU
from gradlab.cells.jordan import Jordan
from gradlab.cells.lstm import LSTM
from gradlab.cells.scrn import SCRN

ALL: tuple[Cell, ...] = (
    *(Elman(name) for name in activations.ALL),
    Jordan(2),
    Jordan(2, mu=0.5, output_activation="tanh"),
    *(
        LSTM(peepholes=peepholes, coupled=coupled, forget_gate=forget_gate)
        for peepholes, (coupled, forget_gate) in product((False, True), ((False, True), (True, True), (False, False)))
    ),
    GRU(reset="after"),
    GRU(reset="before"),
    Clockwork((1, 2, 4)),
    Clockwork((2, 3), "relu"),
    *(SCRN(2, learned=learned) for learned in (False, True)),
    *(SCRN(2, learned=learned, context="previous") for learned in (False, True)),
)
"""Every built-in cell with every option."""

__all__ = ["ALL", "GRU", "LSTM", "SCRN", "Cell", "Clockwork", "Elman", "Jordan", "as_cell", "irnn", "parameter_count"]
