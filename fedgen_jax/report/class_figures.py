"""Figures of what a classifier answers: its confusions, and how sure it is when it is right."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from fedgen_jax.report.figures import STYLE, svg

WRITTEN = 14  # classes up to which counts are written into a confusion matrix
COLORS = ('#0072b2', '#d55e00', '#009e73')


def confusions(matrices: Mapping[str, np.ndarray], classes: Sequence[str]) -> str:
    """Confusion matrices beside one another.

    matrices: {title: counts [K, K] of true (rows) and predicted class}.  Colors are shares of a
    row, numbers are counts.
    """
    with matplotlib.rc_context(STYLE):
        side = max(2.6, 0.42 * len(classes) + 1.2)
        size = min(1.15 * side * len(matrices), 14), min(side + 0.5, 9)
        figure = Figure(figsize=size, layout='constrained')
        for axes, (title, count_KxK) in zip(
            figure.subplots(1, len(matrices), squeeze=False)[0], matrices.items()
        ):
            _matrix(axes, np.asarray(count_KxK), classes)
            axes.set_title(title, fontsize=11)
        return svg(figure)


def _matrix(axes, count_KxK, classes):
    share_KxK = count_KxK / np.maximum(count_KxK.sum(1, keepdims=True), 1)
    axes.pcolormesh(share_KxK, cmap='Blues', vmin=0, vmax=1, edgecolors='white', linewidth=1)
    if len(classes) <= WRITTEN:
        for (row, column), count in np.ndenumerate(count_KxK):
            color = 'white' if share_KxK[row, column] > 0.55 else '#222222'
            axes.text(
                column + 0.5, row + 0.5, f'{count}', ha='center', va='center', fontsize=8.5,
                color=color if count else '#bbbbbb',
            )
    at_K = np.arange(len(classes)) + 0.5
    axes.set_xticks(at_K, classes, rotation=45, ha='right', rotation_mode='anchor')
    axes.set_yticks(at_K, classes)
    axes.invert_yaxis()
    axes.set_aspect('equal')
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel('predicted')
    axes.set_ylabel('true')


def reliability(curves: Mapping[str, Sequence[dict]]) -> str:
    """How often a model is right when it is so sure.

    curves: {title: bins, as `class_metrics.reliability` returns them}.  The area of a mark goes
    with the count of its bin.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 4.0), layout='constrained')
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], ':', color='#888888')
        for (title, bins), color in zip(curves.items(), COLORS):
            x, y, count = (
                np.array([b[k] for b in bins]) for k in ('confidence', 'accuracy', 'count')
            )
            axes.plot(x, y, '-', color=color, label=title)
            axes.scatter(x, y, s=10 + 150 * count / count.sum(), color=color, zorder=3)
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.set_xlabel('how sure')
        axes.set_ylabel('how often right')
        axes.grid(color='#e6e6e6')
        axes.set_axisbelow(True)
        axes.legend(frameon=False, loc='upper left')
        return svg(figure)
