"""The page of the demo: what `launch.demo` gathers, as a report's sections."""

from fedgen_jax.loaded import model_as_scored
from fedgen_jax.report.canonical import canonical_section, has_canonical
from fedgen_jax.report.classes import class_sections
from fedgen_jax.report.gather import cloud_of, read_lines, strip_of
from fedgen_jax.report.page import Section, Table, write_report
from fedgen_jax.report.words import readable, titled

OURS, BASE, PUBLISHED, ALONE = 'FedGen', 'FedAvg, every add-on', 'FedAvg', 'Local only'

def ladder(summaries: dict, metric: str) -> list[tuple[str, float, float]]:
    """(what is added, seen, unseen), from FedAvg as published to FedGen with all its parts."""
    ours, base, published = (summaries[name] for name in (OURS, BASE, PUBLISHED))
    had = {'canonical input': has_canonical(ours['config']), 'shifts': has_shifts(ours['config'])}
    add_ons = ', '.join(name for name, on in had.items() if on)
    above = [(f'+ {add_ons}', base['own']['generated'], base['unseen'])] if add_ons else []
    steps = [
        ('FedAvg, as published', published['seen'], published['unseen']),
        *above,
        ('+ generator', ours['own']['generated'], ours['unseen']),
        ('+ own model of a seen center', ours['seen'], ours['unseen']),
    ]
    if 'adapted' in ours:
        count = ours['config']['adapt']['steps']
        steps.append((
            f'+ {count} steps at an unseen center, without a label', ours['seen'], ours['adapted']
        ))
    return [(name, *(block['mean'][metric] for block in blocks)) for name, *blocks in steps]


def has_shifts(config) -> bool:
    """Whether a run trained on virtual centers too."""
    return config['shifts']['acquisition'] > 0 or config['shifts']['zoom'] != 1


LEDE = (
    'FedGen trains one model across centers without moving their images, and generates a refined '
    'model for each from the distribution of its unlabelled images. Here {seen} synthetic '
    'hospitals train, each with its own stain, microscope, camera and mix of classes; {unseen} '
    'join afterwards, with unlabelled images only, and {changed} gets a new scanner. All methods '
    'had the same images, network and number of rounds; the own models of seen centers that FedGen '
    'and its base end with took up to {steps} more labelled steps.'
)


# Where `fedgen.stranger_change` is 0.
BASE_ALONE = (
    ' Centers that did not train with the images they have now, the unseen ones and the one with a '
    'new scanner, get the base here, without a generated change.'
)


def report(path, summaries, workdir, run, fedgen, fedavg, center, change, metric) -> None:
    """Gathers what the page shows, and writes it."""
    clouds = [cloud_of(fedgen, c, 'seen') for c in run.seen]
    clouds += [cloud_of(fedgen, c, 'unseen') for c in run.unseen]
    clouds.append(cloud_of(fedgen, center, 'updated'))

    def strip(c, kind, client=None):
        models = {
            name: (done, model_as_scored(workdir / LINES[name], done, c, client))
            for name, done in ((OURS, fedgen), (PUBLISHED, fedavg))
        }
        return strip_of(models, c, kind, 'test')

    strips = [strip(c, 'seen', i) for i, c in enumerate(run.seen)]
    strips.insert(1, strip(center, 'updated'))
    strips += [strip(c, 'unseen') for c in run.unseen]
    write_report(
        path,
        title=f'FedGen on synthetic centers: {run.config.task}',
        lede=LEDE.format(
            seen=len(run.seen), unseen=' and '.join(c.name for c in run.unseen),
            changed=change['center'], steps=run.config.finetune.steps,
        ) + ('' if run.config.fedgen.stranger_change else BASE_ALONE),
        summaries=summaries,
        lines={name: read_lines(workdir / a) for name, a in LINES.items()},
        clouds=clouds,
        strips=strips,
        sections=[
            ladder_section(summaries, metric),
            *([canonical_section(run.config, fedgen, 'test')] if has_canonical(run.config) else []),
            update_section(change, metric),
            *class_sections(OURS, summaries[OURS]),
        ],
        tiles=tiles(summaries, change, metric),
    )


LINES = {OURS: 'fedgen', PUBLISHED: 'fedavg', ALONE: 'local_only'}


def tiles(summaries: dict, change: dict, metric: str) -> list[tuple[str, str]]:
    """The three numbers of the story, each beside FedAvg's."""
    name = readable(metric)

    def means(group):
        ours, base, published = (
            f'{summaries[k][group]["mean"][metric]:.3f}' for k in (OURS, BASE, PUBLISHED)
        )
        return ours, f'; FedAvg {published}, with every add-on {base}'

    seen, other_seen = means('seen')
    unseen, other_unseen = means('unseen')
    anew, before = (change[k][OURS][metric] for k in ('made_anew', 'made_before'))
    return [
        (seen, f'{name} at the seen centers{other_seen}'),
        (unseen, f'at unseen centers, zero-shot{other_unseen}{after_steps(summaries, metric)}'),
        (
            f'{anew:.3f}',
            f'at {change["center"]} after its new scanner, with 0 steps; {before:.3f} with the '
            f'model made before, FedAvg {change["made_anew"][PUBLISHED][metric]:.3f}',
        ),
    ]


def after_steps(summaries: dict, metric: str) -> str:
    """The same after steps without labels, where they were made."""
    if 'adapted' not in summaries[OURS]:
        return ''
    steps = summaries[OURS]['config']['adapt']['steps']
    ours, base = (f'{summaries[k]["adapted"]["mean"][metric]:.3f}' for k in (OURS, BASE))
    return f'; {ours} after {steps} steps without labels, with every add-on {base}'


KINDS = {
    'refined': 'the generated model',
    'finetuned': 'that model fine-tuned on its labels',
    'local_only': 'one that it learned alone',
}


def ladder_section(summaries: dict, metric: str) -> Section:
    """The table of what each part adds."""
    rows = [[name, f'{a:.3f}', f'{b:.3f}'] for name, a, b in ladder(summaries, metric)]
    own = summaries[OURS]['own']
    *kinds, last = (KINDS[k] for k in KINDS if k in own['candidates'])
    if kinds:
        told = f'the best on its validation images of {", ".join(kinds)} and {last}'
        by_center = (f'{c} {kind.replace("_", "-")}' for c, kind in own['chosen'].items())
        note = f'Chosen by FedGen\'s seen centers: {", ".join(by_center)}.'
    else:
        told, note = last.replace('that model', 'the generated model'), ''
    return Section(
        'What each part adds',
        'Each row adds one thing to the row above. The generator leaves the base that it refines '
        f'as it is, to the bit. The own model of a seen center is {told}.',
        Table(
            titled(metric), ['', 'seen centers', 'unseen centers'], rows,
            note + adapted_note(summaries, metric),
        ),
    )


def adapted_note(summaries: dict, metric: str) -> str:
    """What the same steps without labels do for the base, where they were made."""
    base = summaries[BASE]
    if 'adapted' not in base:
        return ''
    before, after = (base[k]['mean'][metric] for k in ('unseen', 'adapted'))
    return (
        f' The same steps without labels change {BASE}, at unseen centers from {before:.3f} to '
        f'{after:.3f}: there they move scale and bias of normalizations, here the code that the '
        'model is generated from. The images that are scored are others.'
    )


def update_section(change: dict, metric: str) -> Section:
    """The table of the changed center."""
    kinds, cost = ('old_data', 'made_before', 'made_anew'), change['cost']
    rows = [
        [name, *(f'{change[kind][name][metric]:.3f}' for kind in kinds)]
        for name in change['made_anew']
    ]
    return Section(
        'A center changes its scanner',
        f'{change["center"]} photographs the same cells with another stain, microscope and camera. '
        f'It sends the difference of its sums ({cost["bytes_up"]:,} bytes), and its model and the '
        f'center model are re-calculated in {1e3 * cost["seconds"]:.0f} ms, without labels: '
        f'{cost["steps"]} training steps there, {cost["steps_at_others"]} steps and '
        f'{cost["bytes_at_others"]} bytes at every other center.',
        Table(
            titled(metric),
            ['', 'old scanner', 'new scanner, model made before', 'new scanner, made anew'],
            rows,
            'Test images, the same cells in all columns; generated models, without a center\'s '
            'labels. FedAvg with every add-on takes anew what it takes from unlabelled images.',
        ),
    )
