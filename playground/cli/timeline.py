"""A move's timeline, from the answer of `GET /v1/migrations`: as lines for a terminal, and drawn into a file. Asks
nobody."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from playground.cli.failure import Failure

WIDTH = 48
"""Characters of the longest bar."""

ENDINGS = (".png", ".svg", ".pdf")


class Span(NamedTuple):
    """What lasted from when to when, in seconds since the move was asked for. kind: phase, silence or lost."""

    label: str
    kind: str
    start_s: float
    end_s: float
    said: str


def spans(result: dict[str, Any]) -> list[Span]:
    """The phases of a move that is over, its longest silence, and when packets got lost."""
    phases = result.get("phases", [])
    ends = [phase["at_s"] for phase in phases[1:]]
    found = [
        Span(phase["state"], "phase", phase["at_s"], end, f"{phase['at_s']:.2f} s to {end:.2f} s")
        for phase, end in zip(phases, ends, strict=False)
    ]
    if result.get("gap_ms") is not None and result.get("gap_at_s") is not None:
        at, lasted = result["gap_at_s"], result["gap_ms"] / 1000
        paused = f", of which it stood still {result['pause_ms']:.1f} ms" if result.get("pause_ms") is not None else ""
        found.append(Span("silence", "silence", at, at + lasted, f"{result['gap_ms']:.1f} ms{paused}"))
    losses = result.get("losses", [])
    if losses:
        packets = sum(loss["packets"] for loss in losses)
        first, last = losses[0]["at_s"], losses[-1]["at_s"]
        found.append(Span("lost", "lost", first, last, f"{packets} packets, the first at {first:.2f} s"))
    return found


def text(result: dict[str, Any]) -> str:
    """A bar for each span, all on one scale; "" of a move that went through no phases."""
    found = spans(result)
    longest = max((span.end_s for span in found), default=0.0)
    if not longest:
        return ""
    column = max(len(span.label) for span in found)
    return "\n".join(f"  {span.label:<{column}}  {_bar(span, longest)}  {span.said}" for span in found)


def _bar(span: Span, longest: float) -> str:
    start = min(WIDTH - 1, max(0, int(span.start_s / longest * WIDTH)))
    length = min(WIDTH - start, max(1, round((span.end_s - span.start_s) / longest * WIDTH)))
    mark = {"phase": "=", "silence": "#", "lost": "x"}[span.kind]
    return (" " * start + mark * length).ljust(WIDTH)


def check(path: str) -> None:
    """Raises Failure where `draw` could not: better before a move than after it."""
    if Path(path).suffix not in ENDINGS:
        raise Failure(f"--plot {path}: name a file that ends in {', '.join(ENDINGS)}")
    if not Path(path).absolute().parent.is_dir():
        raise Failure(f"--plot {path}: there is no folder {Path(path).absolute().parent}")
    _pyplot()


def draw(result: dict[str, Any], path: str) -> None:
    """Phases, silence and losses as bars on one axis of seconds. Raises Failure."""
    plt = _pyplot()
    found = spans(result)
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.4 * len(found)), layout="constrained")
    colours = {"phase": "tab:blue", "silence": "tab:red", "lost": "tab:orange"}
    for row, span in enumerate(found):
        width = max(span.end_s - span.start_s, 0.002)
        axes.barh(row, width, left=span.start_s, color=colours[span.kind], height=0.6)
        axes.text(span.start_s + width, row, f" {span.said}", va="center", fontsize=8)
    _mark_losses(axes, result.get("losses", []), len(found) - 1)
    axes.set_yticks(range(len(found)), [span.label for span in found])
    axes.invert_yaxis()
    axes.set_xlabel("seconds since the move was asked for")
    axes.set_title(f"{result['workspace']}: {result['from']} → {result['to']}, {result['state']}")
    axes.margins(x=0.4)
    axes.set_xlim(left=0)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise Failure(f"--plot {path}: {error.strerror or error}") from error
    finally:
        plt.close(figure)


def _mark_losses(axes: Any, losses: Sequence[dict[str, Any]], row: int) -> None:
    if losses:
        axes.plot([loss["at_s"] for loss in losses], [row] * len(losses), "|", color="black", markersize=12)


def _pyplot() -> Any:
    try:
        importlib.import_module("matplotlib").use("Agg")
        return importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        raise Failure(f"--plot needs matplotlib ({error}); pip install 'playground[plot]'") from None
