"""The figures of a report, as SVG text to be placed in a page.

Colors are those of Okabe and Ito 2008, which readers of every color vision can tell apart.
"""

import io
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from fedgen_jax.report.differences import Difference

CENTER_COLORS = (
    '#0072b2', '#009e73', '#cc79a7', '#b8860b', '#56b4e9', '#7a7a7a', '#6a3d9a', '#a65628',
)
UNSEEN_COLOR = '#d55e00'
MARKERS = {'seen': 'o', 'unseen': '*', 'updated': 'D', 'joined': 's', 'left': 'X'}

_SHAPES = ('o', 's', '^', 'v', 'P', 'X', 'p', 'h')  # of centers in a forest plot

STYLE: Any = {
    'svg.fonttype': 'none',  # text stays text: sharp, searchable, in the page's own font
    'svg.hashsalt': 'fedgen_jax',
    'text.parse_math': False,  # a dollar sign in a center's name is a dollar sign
    'font.family': 'sans-serif',
    'font.size': 10.0,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.edgecolor': '#888888',
    'axes.labelcolor': '#333333',
    'text.color': '#222222',
    'xtick.color': '#444444',
    'ytick.color': '#444444',
}


class Panel(NamedTuple):
    """One set of runs in a forest plot.  gaps: {method: how far the reference is above it}."""

    title: str
    label: str
    gaps: Mapping[str, Difference]


class Cloud(NamedTuple):
    """Where a center lies among descriptors.

    kind:       seen | unseen | joined, left (since the training) | updated (a seen center after its
                data changed, under its own name).
    mean_E:     its descriptor.
    subset_SxE: descriptors of S small random subsets of its images; none where they are elsewhere.
    """

    name: str
    kind: str
    mean_E: np.ndarray
    subset_SxE: np.ndarray


def curves(
    lines: Mapping[str, Sequence[dict]], colors: Mapping[str, str], metric: str, label: str
) -> str:
    """Over rounds the loss of training, and validation scores: mean of the seen centers and worst.

    The worst is dotted.  A method has only what is known of it.

    lines: of each method, the lines of its `metrics.jsonl`.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.6), layout='constrained')
        left, right = figure.subplots(1, 2)
        for method, entries in lines.items():
            style = {'markersize': 3.5, 'color': colors[method], 'label': method}
            losses = [(x['round'], x['loss']) for x in entries if x.get('loss') is not None]
            if losses:
                left.plot(*zip(*losses), '-o', **style)
            scored = scored_in(entries, metric)
            if scored:
                rounds = [x['round'] for x in scored]
                mean, worst = (
                    [x['seen'][k][metric] for x in scored] for k in ('mean', 'worst')
                )
                right.plot(rounds, mean, '-o', **style)
                right.plot(rounds, worst, ':', linewidth=1.3, color=colors[method])
        for axes, name in ((left, 'loss'), (right, label)):
            axes.set_xlabel('round')
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set_ylabel(name)
            axes.grid(axis='y', color='#e6e6e6')
            if axes.lines:
                axes.legend(frameon=False, loc='best', fontsize=9)
            else:
                axes.text(0.5, 0.5, 'not known', ha='center', transform=axes.transAxes)
        return svg(figure)


def scored_in(lines: Sequence[dict], metric: str) -> list[dict]:
    """The lines of `metrics.jsonl` in which validation images of a seen center have the metric."""
    return [x for x in lines if x['seen'] and metric in x['seen']['mean']]


def bars(
    scores: Mapping[str, Mapping[str, float]],
    colors: Mapping[str, str],
    unseen: Sequence[str],
    label: str,
) -> str:
    """A bar for each center and method, the unseen centers last and set apart.

    scores: {method: {center: score}}; a method may lack a center.
    """
    centers = list(dict.fromkeys(name for of in scores.values() for name in of))
    unseen = [c for c in centers if c in unseen]
    centers = [c for c in centers if c not in unseen] + unseen
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(min(max(9, 1.25 * len(centers)), 30), 3.6)
        x_C = np.arange(len(centers)) + 0.35 * np.isin(centers, unseen)
        width = 0.82 / len(scores)
        for i, (method, of) in enumerate(scores.items()):
            height_C = np.array([of.get(c, np.nan) for c in centers])
            at_C = x_C + (i - (len(scores) - 1) / 2) * width
            axes.bar(at_C, height_C, 0.92 * width, color=colors[method], label=method)
        if 0 < len(unseen) < len(centers):
            axes.axvline(len(centers) - len(unseen) - 0.33, color='#999999', linewidth=1, ls='--')
        names = [f'{c}\n(unseen)' if c in unseen else c for c in centers]
        axes.set_xticks(x_C, names, rotation=90 if len(centers) > 24 else 0)
        axes.set_ylabel(label)
        top = np.nanmax([v for of in scores.values() for v in of.values()], initial=0)
        axes.set_ylim(0, 1 if top <= 1 else None)
        axes.grid(axis='y', color='#e6e6e6')
        axes.set_axisbelow(True)
        axes.legend(frameon=False, ncols=4, loc='lower left', bbox_to_anchor=(0, 1.0))
        return svg(figure)


def roc(curves: Sequence[Any]) -> str:
    """True over false positive rates, on logarithmic axes.

    curves: `audit.base.Curve`; x are false positive rates.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(6, 4)
        least = min(min(v for v in c.x if v > 0) for c in curves) / 2
        for c, color in zip(curves, itertools.cycle(CENTER_COLORS)):
            x, y = (np.maximum(v, least) for v in (c.x, c.y))
            axes.step(x, y, where='post', color=color, label=c.name)
        axes.plot([least, 1], [least, 1], ':', color='#888888')
        axes.set(xscale='log', yscale='log', xlim=(least, 1), ylim=(least, 1.05))
        axes.set_xlabel('others accused')
        axes.set_ylabel('trained on, and found')
        axes.legend(frameon=False, loc='lower right')
        return svg(figure)


def descriptor_map(clouds: Sequence[Cloud]) -> str:
    """The descriptors on the two directions in which they vary most.

    Small dots are random subsets of a center's images; some of the clouds must have them.  An arrow
    leads from a center's old descriptor to the one of its new data.
    """
    pca = PCA(2).fit(np.concatenate([c.subset_SxE for c in clouds]))
    place = {(c.name, c.kind): pca.transform(c.mean_E[None])[0] for c in clouds}
    color = _center_colors(clouds)
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(9, 5.4)
        for c in clouds:
            if not len(c.subset_SxE):
                continue
            x, y = pca.transform(c.subset_SxE).T
            hollow = {'facecolors': 'none', 'edgecolors': color[c.name], 'linewidths': 0.8}
            solid = {'color': color[c.name], 'linewidths': 0}
            style = hollow if c.kind == 'updated' else solid
            axes.scatter(x, y, s=12, alpha=0.45, zorder=1, **style)
        for c in clouds:
            at = place[c.name, c.kind]
            size = 260 if c.kind == 'unseen' else 90
            axes.scatter(
                *at, s=size, marker=MARKERS[c.kind], color=color[c.name], edgecolors='white',
                linewidths=1.2, zorder=4,
            )
            text = c.name if c.kind == 'seen' else f'{c.name} ({c.kind})'
            _label(axes, at, text, below=_crowded(at, list(place.values())))
            if c.kind == 'updated' and (c.name, 'seen') in place:
                axes.annotate(
                    '', at, place[c.name, 'seen'], zorder=3,
                    arrowprops={'arrowstyle': '->', 'color': '#222222', 'shrinkA': 7, 'shrinkB': 7},
                )
        share = 100 * pca.explained_variance_ratio_
        axes.set_xlabel(f'first principal direction ({share[0]:.0f}% of the variance)')
        axes.set_ylabel(f'second ({share[1]:.0f}%)')
        axes.set_xticks([])
        axes.set_yticks([])
        axes.margins(0.12)
        return svg(figure)


def forest(panels: Sequence[Panel]) -> str:
    """Paired differences of each method by held-out center, beside one another for each set.

    Small marks are centers, the diamond their mean, the bar its 95 % interval.
    """
    methods = list(dict.fromkeys(m for panel in panels for m in panel.gaps))
    with matplotlib.rc_context(STYLE):
        size = 4.2 * len(panels), 1.9 + 0.34 * len(methods)
        figure = Figure(figsize=size, layout='constrained')
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
            _forest_panel(axes, panel, methods)
        figure.axes[0].set_yticks(range(len(methods)), methods)
        return svg(figure, background='white')


def _forest_panel(axes, panel, methods):
    centers = list(dict.fromkeys(c for gap in panel.gaps.values() for c in gap.of))
    axes.axvline(0, color='#888888', linewidth=1)
    for y, method in enumerate(methods):
        gap = panel.gaps.get(method)
        if gap is None:
            continue
        axes.plot([gap.low, gap.high], [y, y], color='#222222', zorder=2)
        axes.scatter([gap.mean], [y], s=40, marker='D', color='#222222', zorder=3)
    for i, center in enumerate(centers):
        at = [
            (gap.of[center], methods.index(m))
            for m, gap in panel.gaps.items() if center in gap.of
        ]
        color = CENTER_COLORS[i % len(CENTER_COLORS)]
        axes.scatter(
            *zip(*at), s=26, alpha=0.9, linewidths=0, zorder=4, color=color,
            marker=_SHAPES[i % len(_SHAPES)], label=center,
        )
    axes.set_yticks(range(len(methods)), [])
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.set_title(panel.title, fontsize=11)
    axes.set_xlabel(panel.label)
    axes.grid(axis='x', color='#e6e6e6')
    axes.set_axisbelow(True)
    axes.legend(frameon=False, ncols=2, fontsize=8, loc='upper center', bbox_to_anchor=(0.5, -0.16))


def _crowded(at, places):
    """Whether another mark lies close above, where the label would go."""
    span = np.ptp(places, axis=0) + 1e-9
    across, up = ((np.array(places) - at) / span).T
    return bool(np.any((np.abs(across) < 0.2) & (up > 0) & (up < 0.1)))


def _label(axes, at, text, below):
    axes.annotate(
        text, at, xytext=(9, -14 if below else 7), textcoords='offset points', fontsize=9.5,
        zorder=5,
        bbox={'facecolor': 'white', 'alpha': 0.75, 'edgecolor': 'none', 'pad': 0.8},
    )


def _center_colors(clouds):
    names = dict.fromkeys(c.name for c in clouds if c.kind != 'unseen')
    colors = dict(zip(names, itertools.cycle(CENTER_COLORS)))
    return colors | {c.name: UNSEEN_COLOR for c in clouds if c.kind == 'unseen'}


def _figure(width, height):
    figure = Figure(figsize=(width, height), layout='constrained')
    return figure, figure.subplots()


def svg(figure: Figure, background: str = 'none') -> str:
    """The <svg> element alone: no document type, no metadata, a size that follows the page."""
    out = io.StringIO()
    nothing = dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
    figure.savefig(out, format='svg', metadata=nothing, facecolor=background)
    svg = out.getvalue()
    svg = svg[svg.index('<svg') :]
    return re.sub(r' (width|height)="[\d.]+pt"', '', svg, count=2)
