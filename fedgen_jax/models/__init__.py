"""Flax linen models.  A model is a module called as `module(x_BxHxWx3, train)`, made from
`num_outputs` and the fields of `config.model`.

The names of its layers (`input`, `norm_*`, `head`; kernels) tell the generator what each weight is.
A model whose layers have other names declares a method `roles(path)` (`roles`).

A model of one's own is a module class anywhere, named in the configuration as
`model.name='my_package.my_module:MyModel'`.
"""

import dataclasses
from typing import Any

from fedgen_jax.models.cnn import CNN
from fedgen_jax.models.efficientnet import (
    EfficientNetLite0,
    EfficientNetLite0Detector,
    EfficientNetLite0UNet,
)
from fedgen_jax.models.resnet import ResNet
from fedgen_jax.models.unet import Detector, UNet

MODELS = {
    'cnn': CNN,
    'resnet': ResNet,
    'unet': UNet,
    'detector': Detector,
    'efficientnet_lite0': EfficientNetLite0,
    'efficientnet_lite0_unet': EfficientNetLite0UNet,
    'efficientnet_lite0_detector': EfficientNetLite0Detector,
}

NOT_OPTIONS = ('parent', 'name', 'num_outputs')  # of a module's fields


def options_of(model: type) -> dict[str, Any]:
    """{field of `config.model` that a network takes: its default}."""
    fields = (f for f in dataclasses.fields(model) if f.name not in NOT_OPTIONS)
    return {f.name: f.default for f in fields}


# Which of them give what a task reads.
FITTING = {
    'classification': ('cnn', 'resnet', 'efficientnet_lite0'),
    'multilabel': ('cnn', 'resnet', 'efficientnet_lite0'),
    'segmentation': ('unet', 'efficientnet_lite0_unet'),
    'detection': ('detector', 'efficientnet_lite0_detector'),
}
