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
    places = placed(results)
    height = 2.1 + 0.3 * -min(places.values())
    figure, axes = plt.subplots(figsize=(11, height))
    seen = [0.3, 10.0]
    for peer, (colour, mark, size) in STYLES.items():
        points = [(results.ratio(peer, row), place) for row, place in places.items()]
        points = [point for point in points if point[0]]
        seen += [ratio for ratio, _ in points]
        if points:
            axes.scatter(
                *zip(*points, strict=True), c=colour, marker=mark, s=size, label=peer, alpha=0.85,
                zorder=4 if peer == results.own_name else 3,
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
    axes.set_xlabel("times what a program takes that uses aiohttp and msgspec by hand")
    axes.set_title("CPU and memory of the client: less is better", pad=58, fontsize=14)
    axes.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=6, frameon=False)
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=130)
    path.with_suffix(".html").write_text(page(results, figure), encoding="utf-8")


def placed(results: Results) -> dict[str, float]:
    """Where each row stands, from the top down, with room for the name of each group."""
    places: dict[str, float] = {}
    place, group = 0.0, ""
    for row, (own_group, _, unit) in ROWS.items():
        if unit != "calls/s" and any(results.ratio(peer, row) for peer in results.versions):
            place -= 0 if not group else 1 if own_group == group else 2.2
            places[row], group = place, own_group
    return places


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
