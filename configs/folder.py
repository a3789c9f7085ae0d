"""A folder of your own centers: what a plan from the data begins with.

Command:   python -m launch.train --data=FOLDER --task=TASK --held_out=CENTER --workdir=RUN
As a file: --config=configs/folder.py --config.data.root=FOLDER takes the settings below as they
           are, without a plan: those of small images of cells, for minutes on a CPU.
"""

from configs import common


def get_config(task='classification'):
    c = common.tuned()
    c.task = task
    c.input.canonical = 'none'
    c.shifts.acquisition = 0.75
    c.shifts.zoom = 1.6
    c.client.lr = 0.1
    if task in ('classification', 'multilabel'):
        c.rounds = 150
        c.model.norm = 'batch'
        return c
    c.rounds = 60
    c.batch_size = 16
    c.data.image_size = 96
    c.fedgen.support = 16
    c.model.name = {'segmentation': 'unet', 'detection': 'detector'}[task]
    c.model.widths = {'segmentation': (8, 16, 32, 64), 'detection': (16, 32, 64, 96)}[task]
    return c
