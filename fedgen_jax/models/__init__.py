"""Flax linen models.  A model is a module called as `module(x_BxHxWx3, train)`; the names of its
layers say what the generator may change: `input`, `norm_*`, `conv_*` and `head`.

A model of one's own is a module class anywhere, named in the configuration as
`model.name='my_package.my_module:MyModel'`; it takes the fields of `config.model`.
"""

from fedgen_jax.models.cnn import CNN
from fedgen_jax.models.resnet import ResNet
from fedgen_jax.models.unet import Detector, UNet

MODELS = {'cnn': CNN, 'resnet': ResNet, 'unet': UNet, 'detector': Detector}

# Which of them give what a task reads.
FITTING = {
    'classification': ('cnn', 'resnet'),
    'segmentation': ('unet',),
    'detection': ('detector',),
}
