"""A folder of your own centers: what a plan from the data begins with.

Command:   python -m launch.train --data=FOLDER --task=TASK --held_out=CENTER --workdir=RUN
As a file: --config=configs/folder.py --config.data.root=FOLDER takes the settings below as they
           are, without a plan: those of small images of cells, for minutes on a CPU.
"""

from ml_collections import config_dict

from configs import common
from fedgen_jax.models import MODELS, options_of


def get_config(task='classification'):
    c = common.tuned()
    c.task = task
    c.input.canonical = 'none'
    c.shifts.acquisition = 0.75
    c.shifts.zoom = 1.6
    c.client.lr = 0.1
    for model in MODELS.values():  # what a network alone has can be set too
        for field, default in options_of(model).items():
            if field not in c.model:
                c.model[field] = config_dict.placeholder(type(default))
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
