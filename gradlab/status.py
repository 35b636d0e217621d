"""How a result came about: `ok`, or what went wrong and where."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Status:
    """What a result may be trusted for.

    `code` is one of `ok`, `overflow`, `rank-deficient`, `too-short`, `beyond-range`, `no-gradient`, `many-origins`,
    `nonconverged`, `coarse`, `underflow` (exactly zero from somewhere on);
    `detail` says where and why in one sentence.
    """

    code: str = "ok"
    detail: str = ""

    @property
    def ok(self) -> bool:
        """True if nothing needs saying."""
        return self.code == "ok"

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}" if self.detail else self.code


OK = Status()
