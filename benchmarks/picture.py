"""One picture: how many times the CPU or memory of bare aiohttp each library takes."""

from __future__ import annotations

import html
import io
from pathlib import Path

import matplotlib as mpl
from report import ROWS, Results, about, tables

mpl.use("Agg")
from matplotlib import pyplot as plt

# Floors are grey, ours is red, the others have a colour and a mark each.
STYLES = {
    "minillmlib": ("#d62728", "o", 110), "sockets": ("#999999", "|", 90),
    "httpx2": ("#777777", "x", 40), "openai": ("#1f77b4", "s", 36),
    "anthropic": ("#ff7f0e", "s", 36), "pydantic-ai-slim": ("#9467bd", "^", 40),
    "any-llm-sdk": ("#2ca02c", "D", 32), "aisuite": ("#17becf", "v", 40),
    "llm": ("#8c564b", "P", 44), "litellm": ("#e377c2", "X", 44),
}  # fmt: skip
PAGE = """<!doctype html><meta charset="utf-8"><title>Side by side</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em}}
svg{{width:100%;height:auto}} .wide{{overflow-x:auto}} table{{border-collapse:collapse}}
td,th{{padding:.2em .6em;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}}
td:first-child{{text-align:left}}</style>
<h1>Side by side</h1><p>{about}</p>{picture}{tables}
"""


def draw(results: Results, path: Path) -> None:
    """Writes the picture as PNG, and a page with it and the tables."""
    rows = [
        row
        for row, (_, unit) in ROWS.items()
        if unit != "calls/s" and any(results.ratio(peer, row) for peer in results.versions)
    ]
    figure, axes = plt.subplots(figsize=(11, 1.8 + 0.34 * len(rows)))
    for peer, (colour, mark, size) in STYLES.items():
        points = [(results.ratio(peer, row), -place) for place, row in enumerate(rows)]
        points = [point for point in points if point[0]]
        if points:
            axes.scatter(
                *zip(*points, strict=True), c=colour, marker=mark, s=size, label=peer,
                zorder=4 if peer == results.own_name else 3,
            )  # fmt: skip
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.set_yticks([-place for place in range(len(rows))], [ROWS[row][0] for row in rows])
    axes.grid(axis="x", which="major", color="#dddddd")
    axes.grid(axis="y", color="#f0f0f0")
    axes.set_axisbelow(True)
    axes.set_ylim(-len(rows) + 0.4, 0.6)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("times what aiohttp with msgspec takes, by hand (less is better)")
    figure.suptitle("CPU and memory of the client, beside bare aiohttp", fontsize=14)
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=5, frameon=False)
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=130)
    path.with_suffix(".html").write_text(page(results, figure), encoding="utf-8")


def page(results: Results, figure: plt.Figure) -> str:
    """A page that needs nothing but itself."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg")
    parts = []
    for title, rows in tables(results):
        lines = (
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in rows
        )
        parts.append(f"<h2>{title}</h2><div class=wide><table>{''.join(lines)}</table></div>")
    svg = drawn.getvalue()
    return PAGE.format(
        about=html.escape(about(results)), picture=svg[svg.index("<svg") :], tables="".join(parts)
    )
