"""What the notes of a table say of runs that are not as the others."""

import itertools

from fedgen_jax.schema import GROUPS


def incomplete(rows) -> list[str]:
    """Which methods lack runs that others have, so that their means cannot be compared."""
    made = {row: {(r['held_out'], r['seed']) for r in runs} for row, runs in rows.items()}
    all_ = set().union(*made.values())
    folds, seeds = {fold for fold, _ in all_}, {seed for _, seed in all_}
    if len(folds) < len(all_):  # else each seed may hold out centers of its own
        all_ = set(itertools.product(folds, seeds))
    short = [f'{row} has {len(own)}' for row, own in made.items() if own != all_]
    if not short:
        return []
    return [
        f'**Not all runs are finished.** Of {len(all_)} pairs of held-out centers and seed, '
        f'{"; ".join(short)}: means of different pairs cannot be compared, and no best one is set '
        'in bold. A mean is over the seeds that have all held-out centers of a method, if there '
        'are any; of fewer than two such seeds there is no deviation.'
    ]


def lacking(rows, metric: str) -> list[str]:
    """Which methods have a metric of a part of their runs alone."""
    having = {row: [metric in r['seen']['mean'] for r in runs] for row, runs in rows.items()}
    short = [f'{row}: {sum(x)} of {len(x)}' for row, x in having.items() if 0 < sum(x) < len(x)]
    return [f'**Of a part of the runs** ({"; ".join(short)}).'] if short else []


def other_images(rows) -> list[str]:
    """Centers of which methods were scored on other numbers of images, with the same seed."""
    found: dict[tuple, dict[int, str]] = {}
    for row, runs in rows.items():
        for r in runs:
            for group in GROUPS:
                for name, s in (r[group] or {'centers': {}})['centers'].items():
                    key = name, r['seed'], r['held_out'], group
                    found.setdefault(key, {}).setdefault(s.get('n', 0), row)
    other = {key[0]: of for key, of in found.items() if len(of) > 1}
    if not other:
        return []
    told = '; '.join(
        f'{name}: ' + ', '.join(f'{n} ({row})' for n, row in of.items())
        for name, of in list(other.items())[:5]
    )
    return [f'**Other images.** With one seed, methods were scored on other numbers of them: {told}'
            f'{" and more" if len(other) > 5 else ""}. These scores are not of the same data.']


def left_out(summaries) -> list[str]:
    """Which classes had too few boxes to count, and where."""
    found = {
        f'{name} at {center} ({s["boxes"][name]} boxes)'
        for summary in summaries
        for group in GROUPS
        for center, s in (summary[group] or {'centers': {}})['centers'].items()
        for name in s.get('left_out', ())
    }
    if not found:
        return []
    return [f"Left out of a center's mean, for too few boxes: {'; '.join(sorted(found))}."]
