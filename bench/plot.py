"""The record as a picture: bars of CPU time for a request, as SVG that is readable on light and on dark."""

from html import escape

import figures
from figures import NGINX, cost

PARTS = {"proxy": "proxy", "database": "database", "python": "Python"}
# Bars of more than this many times nginx's are cut: beside them nothing else could be read. What is left of them shows
# the shares of the whole.
LONGEST = 12

LEFT, WIDTH, RIGHT, TOP, STEP, BAR = 320, 560, 100, 84, 26, 16

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 16px; font-weight: 600; }
.small { font-size: 12px; fill: #59636e; }
.end { text-anchor: end; }
.middle { text-anchor: middle; }
.grid { stroke: #d1d9e0; }
.spread { stroke: #1f2328; stroke-width: 1.5; fill: none; }
.page { fill: #ffffff; }
.proxy { fill: #2f81f7; }
.database { fill: #d29922; }
.python { fill: #57ab5a; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; }
  .small { fill: #9198a1; }
  .grid { stroke: #3d444d; }
  .spread { stroke: #f0f6fc; }
  .page { fill: #0d1117; }
}
"""


def svg(record, workload):
    """Proxy, database and Python of every contender under one workload, with the spread of their sum."""
    bars = [bar for name in record["contenders"] if (bar := _bar(record, workload, name))]
    end = _end(bars)
    height = TOP + STEP * len(bars) + 46
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + RIGHT} {height}" role="img">',
        f"<title>CPU time for a request, {escape(workload)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{LEFT + WIDTH + RIGHT}" height="{height}"/>',
        f'<text class="title" x="16" y="28">CPU time for a request: {escape(workload)}</text>',
        *_legend(),
        *_axis(end, height - 46),
    ]
    for number, bar in enumerate(bars):
        parts += _draw(bar, TOP + STEP * number, end)
    return "\n".join([*parts, "</svg>", ""])


def _bar(record, workload, name):
    total = figures.spread(figures.of(record, workload, name, cost).values())
    if not total:
        return None
    own = {}
    for part in PARTS:
        of_part = figures.spread(figures.of(record, workload, name, lambda row: cost(row, part)).values())
        own[part] = of_part[0] if of_part else 0
    return {"name": name, "parts": own, "total": total}


def _end(bars):
    """Where the axis ends: behind the longest bar that is not cut, at a number that is easy to read."""
    nginx = next((bar["total"][0] for bar in bars if bar["name"] == NGINX), None)
    lengths = [bar["total"][2] for bar in bars if not nginx or bar["total"][0] <= LONGEST * nginx]
    longest = max(lengths)
    step = _step(longest)
    return step * -(-longest // step)


def _step(longest):
    for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000):
        if longest <= 8 * step:
            return step
    return 10000


def _legend():
    place = LEFT
    for part, words in PARTS.items():
        yield f'<rect class="{part}" x="{place}" y="44" width="12" height="12"/>'
        yield f'<text class="small" x="{place + 18}" y="54">{words}</text>'
        place += 100
    yield f'<path class="spread" d="M{place} 50h28m0-4v8m-28-8v8"/>'
    yield f'<text class="small" x="{place + 34}" y="54">smallest and largest sum of the rounds</text>'


def _axis(end, bottom):
    step = _step(end)
    for number in range(int(end / step) + 1):
        x = LEFT + WIDTH * number * step / end
        yield f'<path class="grid" d="M{x:.1f} {TOP - 8}V{bottom}"/>'
        yield f'<text class="small middle" x="{x:.1f}" y="{bottom + 16}">{number * step:,}</text>'
    yield f'<text class="small middle" x="{LEFT + WIDTH / 2}" y="{bottom + 36}">µs a request</text>'


def _draw(bar, y, end):
    def x(value):
        return LEFT + WIDTH * min(value, end) / end

    yield f'<text class="end" x="{LEFT - 10}" y="{y + 13}">{escape(bar["name"])}</text>'
    median, smallest, largest = bar["total"]
    whole = sum(bar["parts"].values())
    scale = min(1, end / whole)
    place = 0
    for part, value in bar["parts"].items():
        width = x(value * scale) - LEFT
        if width:
            yield f'<rect class="{part}" x="{x(place):.1f}" y="{y}" width="{width:.1f}" height="{BAR}"/>'
        place += value * scale
    if median > end:
        for gap in (40, 30):
            yield f'<path class="page" d="M{LEFT + WIDTH - gap} {y + BAR}l6 -{BAR}h4l-6 {BAR}z"/>'
        yield f'<text x="{LEFT + WIDTH + 10}" y="{y + 13}">{median:,.0f}</text>'
        return
    if largest > smallest:
        left, right, middle = x(smallest), x(largest), y + BAR / 2
        yield f'<path class="spread" d="M{left:.1f} {middle}H{right:.1f}m0-4v8M{left:.1f} {middle - 4}v8"/>'
    yield f'<text x="{max(x(largest), x(median)) + 8:.1f}" y="{y + 13}">{median:,.1f}</text>'
