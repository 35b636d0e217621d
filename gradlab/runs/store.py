"""What a run leaves on disk: <stem>.npz, .json, .pdf and .png, which are reproducible, and <stem>.run.json, which is not."""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gradlab._files import dump_json, npz_bytes, read_npz, sweep, write_bytes
from gradlab.errors import FormatError, ResourceRefused
from gradlab.record import versions
from gradlab.runs.look import PAPER, Look
from gradlab.runs.threads import pools
from gradlab.runs.verdict import Analysis, Scale, Verdict

if TYPE_CHECKING:
    from gradlab.runs.runner import Options

Array = npt.NDArray[Any]
SCHEMA = 1
PAPER_LOOK = Look()


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


def figure_bytes(figure: Any, kind: str, **options: Any) -> bytes:
    """A figure as PDF, PNG or SVG, the same bytes for the same picture: no dates."""
    buffer = io.BytesIO()
    metadata = {"pdf": {"CreationDate": None, "ModDate": None}, "png": {"Software": None}, "svg": {"Date": None}}[kind]
    figure.savefig(buffer, format=kind, metadata=metadata, **options)
    return buffer.getvalue()


def draw_figures(
    analysis: Analysis, result: Mapping[str, Array], scale: Scale, look: Look = PAPER_LOOK, kinds: Sequence[str] = PAPER
) -> dict[str, bytes]:
    """The pictures of a result by file ending."""
    from gradlab import plotting

    with look.settings():
        figure = analysis.draw(result)
        if scale == "quick":
            plotting.stamp(figure, "quick: a small run, not for citation")
        look.fit(figure)
        return {kind: figure_bytes(figure, kind, **look.dots(figure)) for kind in kinds}


def store(
    options: Options, stem: str, analysis: Analysis, result: Mapping[str, Array], verdict: Verdict, run: Mapping[str, Any]
) -> None:
    """Write everything of one analysis. All bytes are made first: nothing is written if one of them cannot be.

    `run`: what is told of this run besides, and not reproducible. Beside the arrays there is always a PDF and a PNG of them.
    """
    folder, scale, look = options.folder, options.scale, options.look
    apart = options.pictures is not None
    kinds = [*PAPER, *(kind for kind in look.formats if kind not in PAPER and not apart)]
    pictures = draw_figures(analysis, result, scale, PAPER_LOOK if apart else look, kinds)
    more = draw_figures(analysis, result, scale, look, look.formats) if apart else {}
    summary = {
        "schema": SCHEMA,
        "analysis": stem,
        "claim": analysis.CLAIM,
        "source": analysis.SOURCE,
        "contradicted_if": analysis.CONTRADICTED_IF,
        **_stated(verdict),
        "parameters": dict(analysis.PARAMETERS[scale]),
        "scale": scale,
        "seed": options.seed,
    }
    header = {"schema": SCHEMA, "kind": "gradlab.analysis", "analysis": stem, "scale": scale}
    contents = {"npz": npz_bytes(header, result), **pictures, "run.json": dump_json({**run, **_circumstances()})}
    told = dump_json(summary)
    # The summary goes first and comes back last: where there is one, it describes the arrays beside it.
    (folder / f"{stem}.json").unlink(missing_ok=True)
    for ending, data in contents.items():
        write_bytes(folder / f"{stem}.{ending}", data)
    for ending, data in more.items():
        write_bytes((options.pictures or folder) / f"{stem}.{ending}", data)
    write_bytes(folder / f"{stem}.json", told)


def redraw(folder: Path, stem: str, analysis: Analysis, look: Look = PAPER_LOOK, pictures: Path | None = None) -> Verdict:
    """New pictures, and what is concluded, from the stored arrays. Error: FormatError if there are none.

    `pictures`: another folder for them; then what is in `folder` stays as it is.
    """
    result, scale = load_result(folder, stem)
    verdict = analysis.check(result)
    for kind, data in draw_figures(analysis, result, scale, look, look.formats).items():
        write_bytes((pictures or folder) / f"{stem}.{kind}", data)
    summary = load_summary(folder, stem)
    if summary is not None and pictures is None:
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


def _circumstances() -> dict[str, Any]:
    import matplotlib
    import scipy

    return {
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
