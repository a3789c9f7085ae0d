"""Tasks: values that carry their loss, prediction and metrics (`base.Task`).

Each is made from its class names.  A task of one's own is a function in any module, named in the
configuration as `task='my_package.my_module:my_task'`.
"""

from fedgen_jax.tasks.base import Task
from fedgen_jax.tasks.classification import classification
from fedgen_jax.tasks.detection import detection
from fedgen_jax.tasks.multilabel import multilabel
from fedgen_jax.tasks.segmentation import segmentation

TASKS = {
    'classification': classification,
    'multilabel': multilabel,
    'segmentation': segmentation,
    'detection': detection,
}

__all__ = ['TASKS', 'Task', 'classification', 'detection', 'multilabel', 'segmentation']
