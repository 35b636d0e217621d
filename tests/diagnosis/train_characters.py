"""A training script as a user has it: a character model learns to which of three kinds a line of Python belongs.

Embedding, dropout, two bidirectional LSTM layers, packed sequences. The two lines for gradlab are marked.
"""

from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import gradlab


class Characters(nn.Module):
    """Embedding, two bidirectional LSTM layers on packed sequences, a linear read-out of the final states."""

    def __init__(self, letters, classes, size=24):
        super().__init__()
        self.embedding = nn.Embedding(letters, 12, padding_idx=0)
        self.lstm = nn.LSTM(12, size, num_layers=2, bidirectional=True, dropout=0.2, batch_first=True)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(2 * size, classes)

    def forward(self, characters, lengths):
        packed = pack_padded_sequence(self.embedding(characters), lengths, batch_first=True, enforce_sorted=False)
        _, (h, _) = self.lstm(packed)
        return self.head(self.drop(torch.cat([h[-2], h[-1]], dim=-1)))


def lines_of(path, most=512):
    """Lines of a source file as numbers, padded with 0, with their kind: 0 has a call, 1 has an assignment, 2 neither."""
    text = [line.strip()[:60] for line in Path(path).read_text("utf-8").splitlines() if len(line.strip()) > 3][:most]
    rows = [torch.tensor([min(ord(c), 126) - 31 for c in line]) for line in text]
    kinds = [0 if "(" in line else 1 if "=" in line else 2 for line in text]
    lengths = torch.tensor([len(row) for row in rows])
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths, torch.tensor(kinds)


def train(model, updates=20):
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    characters, lengths, kinds = lines_of(torch.nn.functional.__file__)
    for _ in range(updates):
        rows = torch.randint(len(kinds), (32,))
        longest = int(lengths[rows].max())
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(characters[rows, :longest], lengths[rows]), kinds[rows])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return float(loss.detach())


def main():
    torch.manual_seed(0)
    model = Characters(96, 3)
    with gradlab.adapters.watch(model, every=5) as seen:  # the first line for gradlab
        train(model)
    print(gradlab.diagnose(seen))  # the second


if __name__ == "__main__":
    main()
