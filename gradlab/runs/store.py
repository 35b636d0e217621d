"""What a run leaves on disk: <stem>.npz, .json, .pdf and .png, which are reproducible, and <stem>.run.json, which is not."""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab._files import dump_json, npz_bytes, read_npz, sweep, write_bytes
from gradlab.errors import FormatError, ResourceRefused
from gradlab.record import versions
from gradlab.runs.threads import pools
from gradlab.runs.verdict import Analysis, Scale, Verdict

Array = npt.NDArray[Any]
SCHEMA = 1


def require_writable(folder: Path) -> None:
    """Make `folder`, and raise ResourceRefused before any work if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceRefused(
            f"{folder}: cannot be made ({error.strerror or error}); choose another folder with --out"
        ) from error
    sweep(folder)
    probe = folder / ".gradlab-probe"
    write_bytes(probe, b"")
    probe.unlink(missing_ok=True)


def figure_bytes(figure: Any, kind: str) -> bytes:
    """A figure as PDF or PNG, the same bytes for the same picture: no dates."""
    buffer = io.BytesIO()
    metadata = {"CreationDate": None, "ModDate": None} if kind == "pdf" else {"Software": None}
    figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def draw_figures(analysis: Analysis, result: Mapping[str, Array], scale: Scale) -> dict[str, bytes]:
    """The pictures of a result by file ending."""
    from gradlab import plotting

    with plotting.style():
        figure = analysis.draw(result)
        if scale == "quick":
            plotting.stamp(figure, "quick: a small run, not for citation")
        return {kind: figure_bytes(figure, kind) for kind in ("pdf", "png")}


def store(
    folder: Path,
    stem: str,
    analysis: Analysis,
    result: Mapping[str, Array],
    verdict: Verdict,
    seed: int,
    scale: Scale,
    seconds: float,
) -> None:
    """Write everything of one analysis. All bytes are made first: nothing is written if one of them cannot be."""
    pictures = draw_figures(analysis, result, scale)
    summary = {
        "schema": SCHEMA,
        "analysis": stem,
        "claim": analysis.CLAIM,
        "source": analysis.SOURCE,
        "contradicted_if": analysis.CONTRADICTED_IF,
        **_stated(verdict),
        "parameters": dict(analysis.PARAMETERS[scale]),
        "scale": scale,
        "seed": seed,
    }
    header = {"schema": SCHEMA, "kind": "gradlab.analysis", "analysis": stem, "scale": scale}
    contents = {"npz": npz_bytes(header, result), **pictures, "run.json": dump_json(_circumstances(seconds))}
    told = dump_json(summary)
    # The summary goes first and comes back last: where there is one, it describes the arrays beside it.
    (folder / f"{stem}.json").unlink(missing_ok=True)
    for ending, data in contents.items():
        write_bytes(folder / f"{stem}.{ending}", data)
    write_bytes(folder / f"{stem}.json", told)


def redraw(folder: Path, stem: str, analysis: Analysis) -> Verdict:
    """New pictures, and what is concluded, from the stored arrays. Error: FormatError if there are none."""
    result, scale = load_result(folder, stem)
    verdict = analysis.check(result)
    for kind, data in draw_figures(analysis, result, scale).items():
        write_bytes(folder / f"{stem}.{kind}", data)
    summary = load_summary(folder, stem)
    if summary is not None:
        summary.pop("non_finite", None)
        write_bytes(folder / f"{stem}.json", dump_json({**summary, **_stated(verdict)}))
    return verdict


def _stated(verdict: Verdict) -> dict[str, Any]:
    """The part of a summary that `check` decides. Non-finite numbers are null, and named: JSON has none."""
    truths = [
        {
            "name": truth.name,
            "measured": _number(truth.measured),
            "expected": _number(truth.expected),
            "relative_tolerance": truth.tolerance,
            "source": truth.source,
            "holds": truth.holds,
        }
        for truth in verdict.ground_truths
    ]
    stated = {
        "verdict": {"word": verdict.word, "sentence": verdict.sentence},
        "numbers": {key: _number(value) for key, value in verdict.numbers.items()},
        "ground_truths": truths,
    }
    non_finite = {
        key: str(float(value))
        for key, value in verdict.numbers.items()
        if isinstance(value, (float, np.floating)) and not np.isfinite(value)
    }
    return stated | ({"non_finite": non_finite} if non_finite else {})


def _number(value: Any) -> Any:
    """Six digits: more would only repeat the rounding of one machine."""
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value


def _circumstances(seconds: float) -> dict[str, Any]:
    import matplotlib
    import scipy

    return {
        "seconds": round(seconds, 2),
        "versions": {**versions(), "scipy": scipy.__version__, "matplotlib": matplotlib.__version__},
        "system": platform.system(),
        "blas": pools(),
    }


def load_result(folder: Path, stem: str) -> tuple[dict[str, Array], Scale]:
    """The stored arrays of an analysis. Error: FormatError if there are none."""
    path = folder / f"{stem}.npz"
    header, arrays = read_npz(path)
    if header.get("kind") != "gradlab.analysis" or header.get("schema") != SCHEMA or header.get("analysis") != stem:
        raise FormatError(f"{path}: not a result of {stem!r} in schema {SCHEMA}; run it once without --redraw")
    return arrays, "quick" if header.get("scale") == "quick" else "full"


def load_summary(folder: Path, stem: str) -> dict[str, Any] | None:
    """The stored <stem>.json, or None if there is none that can be read."""
    try:
        value = json.loads((folder / f"{stem}.json").read_text(encoding="utf-8"))
        complete = value["schema"] == SCHEMA and value["analysis"] == stem
        complete = complete and isinstance(value["verdict"]["word"] + value["verdict"]["sentence"], str)
        complete = complete and all(isinstance(truth["holds"], bool) for truth in value["ground_truths"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return value if complete else None
