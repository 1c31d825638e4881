"""Draws what `bench/run --scale` measured as an SVG: a panel a family, both axes logarithmic."""

import math
from html import escape

WIDTH, HEIGHT, COLUMNS = 300, 210, 3
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 34, 30
TIME, MEMORY, GRID, TEXT = "#1f6feb", "#bf3989", "#d0d7de", "#57606a"


def decades(low, high):
    return range(math.floor(math.log10(low)), max(math.ceil(math.log10(high)), math.floor(math.log10(low)) + 1) + 1)


def label(value):
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def panel(name, family, left, top):
    points = family["points"]
    sizes = [point["size"] for point in points]
    seconds = [point["seconds"] for point in points]
    memory = [point["daemon_kib"] / 1024 for point in points]
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    ys = decades(min(seconds + memory), max(seconds + memory))
    span_x = math.log10(sizes[-1] / sizes[0]) or 1

    def x(size):
        return left + LEFT + wide * math.log10(size / sizes[0]) / span_x

    def y(value):
        return top + TOP + high * (1 - (math.log10(value) - ys[0]) / (ys[-1] - ys[0]))

    out = [f'<text x="{left + LEFT}" y="{top + 18}" class="name">{escape(name)}</text>']
    for power in ys:
        at = y(10.0 ** power)
        out.append(f'<line x1="{left + LEFT}" x2="{left + LEFT + wide}" y1="{at:.1f}" y2="{at:.1f}" stroke="{GRID}"/>')
        out.append(f'<text x="{left + LEFT - 5}" y="{at + 3:.1f}" text-anchor="end">{label(10.0 ** power)}</text>')
    for size in sizes:
        out.append(f'<text x="{x(size):.1f}" y="{top + HEIGHT - BOTTOM + 14}" text-anchor="middle">{label(size)}</text>')
    out.append(f'<text x="{left + LEFT + wide}" y="{top + 18}" text-anchor="end">{escape(family["unit"])}</text>')
    for values, colour in ((seconds, TIME), (memory, MEMORY)):
        path = " ".join(f"{x(size):.1f},{y(value):.1f}" for size, value in zip(sizes, values))
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x(size):.1f}" cy="{y(value):.1f}" r="3" fill="{colour}"/>' for size, value in zip(sizes, values)]
    # Linear growth from the first point, to compare with.
    last = min(seconds[0] * sizes[-1] / sizes[0], 10.0 ** ys[-1])
    end = sizes[0] * last / seconds[0]
    out.append(f'<line x1="{x(sizes[0]):.1f}" y1="{y(seconds[0]):.1f}" x2="{x(end):.1f}" y2="{y(last):.1f}" stroke="{TIME}" '
               'stroke-dasharray="3 4" opacity="0.6"/>')
    return out


def draw(result, path):
    families = [(name, family) for name, family in result["families"].items() if len(family["points"]) > 1]
    rows = math.ceil(len(families) / COLUMNS)
    wide, high = COLUMNS * WIDTH, rows * HEIGHT + 26
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" viewBox="0 0 {wide} {high}">',
           f'<style>text{{font:11px sans-serif;fill:{TEXT}}}.name{{font-weight:bold;font-size:13px}}</style>',
           f'<rect width="{wide}" height="{high}" fill="#ffffff"/>']
    for number, (name, family) in enumerate(families):
        out += panel(name, family, number % COLUMNS * WIDTH, number // COLUMNS * HEIGHT)
    out.append(f'<text x="{LEFT}" y="{high - 9}"><tspan fill="{TIME}">seconds</tspan> · <tspan fill="{MEMORY}">highest resident size of the daemon, MiB'
               f'</tspan> · dashed: linear growth · {escape(result["date"])}, {result["cpus"]} cores</text></svg>')
    path.write_text("\n".join(out) + "\n")
