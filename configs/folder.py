"""A folder of your own centers: classification, segmentation or detection.

Command:   python -m launch.train --config=configs/folder.py --config.data.root=FOLDER \\
               --config.data.held_out=CENTER --workdir=RUN
           or --config=configs/folder.py:segmentation, configs/folder.py:detection
Sizes:     of small images, for minutes on a CPU; set `data.image_size`, `model.widths`, `rounds`.
"""

from configs import common


def get_config(task='classification'):
    c = common.tuned()
    c.task = task
    # `brightfield` for stained cells, `gray` for radiographs, `fundus`: what centers differ in by
    # their scanner is taken out first.
    c.input.canonical = 'none'
    c.shifts.acquisition = 0.75
    c.shifts.zoom = 1.6
    c.client.lr = 0.1
    if task == 'classification':
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
