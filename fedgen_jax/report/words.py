"""How metrics, scores and sizes are written, on the page and in the tables alike."""

import collections
from collections.abc import Sequence
from typing import NamedTuple

from fedgen_jax.schema import Summary

ABBREVIATIONS = {
    'map': 'mAP', 'ap50': 'AP50', 'ap75': 'AP75', 'froc': 'FROC', 'iou': 'IoU', 'hd95': 'HD95',
    'hd95_mm': 'HD95 in mm', 'assd': 'ASSD', 'dice': 'Dice', 'dice_volume': 'Dice of volumes',
    'auroc': 'AUROC', 'f1': 'F1', 'ece': 'ECE',
}
OF_POSITIVE = ('sensitivity', 'specificity')  # of two classes, of the second
CHOSEN = {  # of `run.CHOICES`
    'refined': 'kept the refined model',
    'finetuned': 'took the refined model after steps on their labels',
    'local_only': 'took one that they learned alone',
}
NONE = '–'
NO_SCORE = (
    'no seen center has a score: the test images of each show nothing, or fewer than 10 boxes of '
    'every class: give them more test images'
)


def readable(metric: str) -> str:
    """A metric's name in words."""
    return ABBREVIATIONS.get(metric, metric.replace('_', ' '))


def titled(metric: str) -> str:
    """The same at the beginning of a line."""
    name = readable(metric)
    return name if metric in ABBREVIATIONS else name[0].upper() + name[1:]


def of_class(summary: Summary, metric: str) -> str:
    """' of NAME' behind a metric that is of one of two classes; else ''."""
    if metric not in OF_POSITIVE:
        return ''
    named = (of.get('positive') for of in summary['seen']['centers'].values())
    return next((f' of {name}' for name in named if name), '')


def own_choice(summary: Summary) -> str:
    """Which models the seen centers of a run chose, a sentence; '' where there was no choice."""
    if not summary.get('own'):
        return ''
    kinds = collections.Counter(summary['own']['chosen'].values())
    told = ', '.join(f'{n} {CHOSEN[kind]}' for kind, n in kinds.items())
    return f'Own choice: of the seen centers {told}, by their validation images.'


def headline(summary: Summary) -> str:
    """The metric that stands for the summary's task: the one that it names, else its first."""
    if not summary['seen']['mean']:
        raise ValueError(NO_SCORE)
    return summary['headline'] or next(iter(summary['seen']['mean']))


class Measure(NamedTuple):
    """A metric as tables write it.

    lower: whether less is better.  unit: what it is measured in; '': a share, in points of 100.
    """

    name: str
    lower: bool = False
    unit: str = ''

    @property
    def scale(self) -> int:
        """What a score is multiplied with."""
        return 1 if self.unit else 100


def measure(summaries: Sequence[Summary], metric: str) -> Measure:
    """How a metric of some runs is written; older ones may not say all of it."""
    lower = any(metric in s['lower_is_better'] for s in summaries)
    unit = next(filter(None, (s['units'].get(metric) for s in summaries)), '')
    return Measure(metric, lower, unit)


def at_size(summary: Summary) -> str:
    """At which size the masks of a summary were scored, a sentence; '' where it has none."""
    resolution = summary['resolution']
    if not resolution:
        return ''
    if resolution['size'] == 'own':
        return "Masks are scored at the images' own size."
    pixels = resolution['pixels']
    return f"Masks are scored at the model's size, {pixels} x {pixels} pixels."


def of_strangers(summary: Summary) -> str:
    """How much of its own descriptor an unseen center has, a sentence; '' where all of it."""
    share = summary['config'].get('fedgen', {}).get('stranger', 1.0)
    if summary['algorithm'] != 'fedgen' or share == 1:
        return ''
    return (
        f'At unseen centers FedGen takes {100 * share:.0f} % of the descriptor, and the rest of '
        "training's mean one (`fedgen.stranger`): `shuffled` exchanges no more than that share."
    )


def kilobytes(size: float, decimals: int = 0) -> str:
    """A number of bytes in kB, which are 1000."""
    return f'{size / 1000:,.{decimals}f}'
