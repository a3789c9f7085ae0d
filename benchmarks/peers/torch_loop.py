"""A hand-written PyTorch loop over clients, channels last: the peer without a framework.

Called by `benchmarks/speed.py`; prints {"seconds": [...], "first": ...}.
"""

import copy
import json
import sys
import time

import numpy as np
import torch
from torch import nn


def network(model: str) -> nn.Module:
    if model.endswith('LeNet'):
        return nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        )  # fmt: skip
    layers, channels = [], 3
    for width in (32, 64, 64):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 10, bias=False))


def main():
    work = json.loads(sys.argv[1])
    with np.load(work['arrays']) as file:
        image, label = file['image'], file['label']
    x = torch.from_numpy(image).permute(0, 1, 4, 2, 3).float() / 255
    y = torch.from_numpy(label).long()
    model = network(work['model']).to(memory_format=torch.channels_last)
    local = copy.deepcopy(model)
    loss_of, batch = nn.CrossEntropyLoss(), work['batch']
    seconds = []
    for _ in range(1 + work['rounds']):
        started = time.perf_counter()
        mean = {k: torch.zeros_like(v) for k, v in model.state_dict().items()}
        for x_NxIxHxW, y_N in zip(x, y):
            local.load_state_dict(model.state_dict())
            optimizer = torch.optim.SGD(local.parameters(), lr=work['rate'])
            order = torch.cat([
                torch.randperm(len(y_N))
                for _ in range(-(-work['steps'] * batch // len(y_N)))
            ])
            for t in range(work['steps']):
                index = order[t * batch : (t + 1) * batch]
                optimizer.zero_grad(set_to_none=True)
                images = x_NxIxHxW[index].contiguous(memory_format=torch.channels_last)
                loss_of(local(images), y_N[index]).backward()
                optimizer.step()
            for k, v in local.state_dict().items():
                mean[k] += v / len(y)
        model.load_state_dict(mean)
        seconds.append(time.perf_counter() - started)
    print(json.dumps({'seconds': seconds[1:], 'first': seconds[0]}))


if __name__ == '__main__':
    main()
