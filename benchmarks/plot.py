"""Pure. Draws lines against numbers of ports as SVG text, both axes logarithmic. Knows nothing of what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 560, 340
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 40, 50
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")
STYLE = "font-family='sans-serif' font-size='12'"

Points = Sequence[tuple[float, float]]


def _decades(values: Sequence[float]) -> list[int]:
    """Exponents of the powers of ten that enclose all values."""
    return list(range(math.floor(math.log10(min(values))), max(math.ceil(math.log10(max(values))), 1) + 1))


def draw(title: str, across: str, up: str, lines: Mapping[str, Points]) -> str:
    """An SVG document: one line of positive points each, named at its end."""
    xs = _decades([x for points in lines.values() for x, _ in points])
    ys = _decades([y for points in lines.values() for _, y in points])
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            round(LEFT + wide * (math.log10(x) - xs[0]) / max(xs[-1] - xs[0], 1), 1),
            round(TOP + high * (ys[-1] - math.log10(y)) / max(ys[-1] - ys[0], 1), 1),
        )

    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' {STYLE}>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='white'/>",
        f"<text x='{LEFT}' y='22' font-size='14'>{escape(title)}</text>",
        f"<text x='{LEFT + wide / 2}' y='{HEIGHT - 12}' text-anchor='middle'>{escape(across)}</text>",
        f"<text transform='translate(16 {TOP + high / 2}) rotate(-90)' text-anchor='middle'>{escape(up)}</text>",
    ]
    for power in xs:
        x, y = at(10**power, 10 ** ys[0])
        parts.append(f"<line x1='{x}' y1='{TOP}' x2='{x}' y2='{y}' stroke='#ddd'/>")
        parts.append(f"<text x='{x}' y='{y + 18}' text-anchor='middle'>{10**power:,}</text>")
    for power in ys:
        x, y = at(10 ** xs[0], 10**power)
        parts.append(f"<line x1='{x}' y1='{y}' x2='{LEFT + wide}' y2='{y}' stroke='#ddd'/>")
        parts.append(f"<text x='{x - 8}' y='{y + 4}' text-anchor='end'>{10**power:,g}</text>")
    for colour, (name, points) in zip(COLOURS, lines.items(), strict=False):
        places = [at(x, y) for x, y in points]
        path = " ".join(f"{x},{y}" for x, y in places)
        parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>")
        parts += [f"<circle cx='{x}' cy='{y}' r='3' fill='{colour}'/>" for x, y in places]
        parts.append(f"<text x='{places[-1][0] + 8}' y='{places[-1][1] + 4}' fill='{colour}'>{escape(name)}</text>")
    return "\n".join([*parts, "</svg>"]) + "\n"
