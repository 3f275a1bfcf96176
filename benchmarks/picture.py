"""Draws the CPU and memory of each library as multiples of bare aiohttp."""

from __future__ import annotations

import html
import io
from pathlib import Path

import matplotlib as mpl
from report import ROWS, Results, describe_run, tables

mpl.use("Agg")
from matplotlib import pyplot as plt

# Baselines are grey, minillmlib is red, every other library has a colour and a marker.
STYLES = {
    "minillmlib": ("#d62728", "o", 110), "sockets": ("#999999", "|", 90),
    "httpx2": ("#777777", "x", 40), "openai": ("#1f77b4", "s", 36),
    "anthropic": ("#ff7f0e", "s", 36), "pydantic-ai-slim": ("#9467bd", "^", 40),
    "any-llm-sdk": ("#2ca02c", "D", 32), "aisuite": ("#17becf", "v", 40),
    "llm": ("#8c564b", "P", 44), "litellm": ("#e377c2", "X", 44),
    "lm15": ("#bcbd22", "*", 80), "inspect-ai": ("#393b79", "h", 44),
}  # fmt: skip
PAGE = """<!doctype html><meta charset="utf-8"><title>Side by side</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em}}
svg{{width:100%;height:auto}} .wide{{overflow-x:auto}} table{{border-collapse:collapse}}
td,th{{padding:.2em .6em;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}}
td:first-child{{text-align:left}}</style>
<h1>Side by side</h1><p>{about}</p>{picture}{tables}
"""


def draw(results: Results, path: Path) -> None:
    """Write the picture as PNG, and a page with it and the tables."""
    places = place_rows(results)
    height = 2.1 + 0.3 * -min(places.values())
    figure, axes = plt.subplots(figsize=(11, height))
    seen = [0.3, 10.0]
    for peer, (colour, marker, size) in STYLES.items():
        points = [(results.ratio(peer, row), place) for row, place in places.items()]
        points = [point for point in points if point[0]]
        seen += [ratio for ratio, _ in points]
        if points:
            axes.scatter(
                *zip(*points, strict=True), c=colour, marker=marker, s=size, label=peer, alpha=0.85,
                zorder=4 if peer == results.subject else 3,
            )  # fmt: skip
    axes.axvline(1, color="black", linewidth=1, label=results.reference)
    axes.set_xscale("log")
    axes.set_xlim(min(seen) / 1.3, max(seen) * 1.3)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.xaxis.set_minor_formatter(lambda *_: "")
    axes.set_yticks([*places.values()], [ROWS[row][1] for row in places])
    for group in dict.fromkeys(ROWS[row][0] for row in places):
        top = max(place for row, place in places.items() if ROWS[row][0] == group)
        axes.text(-0.01, top + 0.95, group, transform=axes.get_yaxis_transform(),
                  ha="right", va="center", weight="bold")  # fmt: skip
    axes.grid(axis="x", which="major", color="#dddddd")
    axes.grid(axis="y", color="#f0f0f0")
    axes.set_axisbelow(True)
    axes.set_ylim(min(places.values()) - 0.7, 1.3)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("multiple of a hand-written aiohttp + msgspec program")
    axes.set_title("CPU and memory of the client: less is better", pad=58, fontsize=14)
    axes.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=6, frameon=False)
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=130)
    path.with_suffix(".html").write_text(page(results, figure), encoding="utf-8")


def place_rows(results: Results) -> dict[str, float]:
    """Return the height of each row, from the top down, with room for the name of each group."""
    places: dict[str, float] = {}
    place, group = 0.0, ""
    for row, (row_group, _, unit) in ROWS.items():
        if unit != "calls/s" and any(results.ratio(peer, row) for peer in results.versions):
            place -= 0 if not group else 1 if row_group == group else 2.2
            places[row], group = place, row_group
    return places


def page(results: Results, figure: plt.Figure) -> str:
    """Return a self-contained page."""
    drawing = io.StringIO()
    figure.savefig(drawing, format="svg")
    parts = []
    for title, rows in tables(results):
        lines = (
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in rows
        )
        parts.append(f"<h2>{title}</h2><div class=wide><table>{''.join(lines)}</table></div>")
    svg = drawing.getvalue()
    return PAGE.format(
        about=html.escape(describe_run(results)),
        picture=svg[svg.index("<svg") :],
        tables="".join(parts),
    )
