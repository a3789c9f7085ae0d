"""A hand-written PyTorch loop over clients, channels last: the peer without a framework.

Called by `benchmarks/speed.py`; prints {row: {"seconds": [...], "first": ...}}, a row for one
process whose operations share the cores, and one for a process on each core; with a 'device' in
its work, the first alone, there.
"""

import copy
import functools
import json
import multiprocessing
import os
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
        )
    if ':' not in model:  # W4
        from torch_networks import network as usual

        return usual(model, 10)
    layers, channels = [], 3
    for width in (32, 64, 64):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 10, bias=False))


def load(work: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [C, N, I, H, W] in [0, 1], and labels [C, N] or masks [C, N, H, W]."""
    with np.load(work['arrays']) as file:
        image, label = (torch.from_numpy(file[k]) for k in ('image', 'label'))
    device = work.get('device', 'cpu')
    return image.to(device).permute(0, 1, 4, 2, 3).float() / 255, label.to(device).long()


def loss_of(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy; of masks, with soft Dice over the classes but the first."""
    entropy = nn.functional.cross_entropy(outputs, target)
    if outputs.ndim == 2:
        return entropy
    truth = nn.functional.one_hot(target, outputs.shape[1]).permute(0, 3, 1, 2)
    guess = outputs.softmax(1)
    both, total = (truth * guess).sum((0, 2, 3)), (truth + guess).sum((0, 2, 3))
    return entropy + 1 - ((2 * both + 1) / (total + 1))[1:].mean()


def learn(local: nn.Module, x_NxIxHxW: torch.Tensor, y_N: torch.Tensor, work: dict) -> None:
    """A client's local steps, in place."""
    batch = work['batch']
    optimizer = torch.optim.SGD(local.parameters(), lr=work['rate'])
    epochs = -(-work['steps'] * batch // len(y_N))
    order = torch.cat([torch.randperm(len(y_N)) for _ in range(epochs)])
    for t in range(work['steps']):
        index = order[t * batch : (t + 1) * batch]
        optimizer.zero_grad(set_to_none=True)
        images = x_NxIxHxW[index].contiguous(memory_format=torch.channels_last)
        loss_of(local(images), y_N[index]).backward()
        optimizer.step()


@functools.cache  # drawing a network's first weights is no part of a round
def channels_last(model: str) -> nn.Module:
    return network(model).to(memory_format=torch.channels_last)


def total(weights: dict, x: torch.Tensor, y: torch.Tensor, work: dict) -> dict:
    """The sum of the weights that these clients end with."""
    local = channels_last(work['model'])
    found = {k: torch.zeros_like(v) for k, v in weights.items()}
    for x_NxIxHxW, y_N in zip(x, y):
        local.load_state_dict(weights)
        learn(local, x_NxIxHxW, y_N, work)
        for k, v in local.state_dict().items():
            found[k] += v
    return found


def serve(pipe, work: dict, part: int, parts: int) -> None:
    """A process for every `parts`-th client: weights in, their total out."""
    torch.set_num_threads(1)
    x, y = (a[part::parts].clone() for a in load(work))
    while (weights := pipe.recv()) is not None:
        pipe.send({k: v.numpy() for k, v in total(weights, x, y, work).items()})


def timed(one_round, work: dict) -> dict:
    """Rounds of a function weights -> total weights of all clients."""
    weights = copy.deepcopy(network(work['model']).state_dict())
    seconds = []
    for _ in range(1 + work['rounds']):
        started = time.perf_counter()
        weights = {k: v / work['clients'] for k, v in one_round(weights).items()}
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return {'seconds': seconds[1:], 'first': seconds[0]}


def main():
    work = json.loads(sys.argv[1])
    torch.set_default_device(work.get('device', 'cpu'))  # of networks, and of drawn orders
    torch.backends.cudnn.benchmark = True  # sizes do not change
    x, y = load(work)
    found = {'PyTorch loop': timed(lambda weights: total(weights, x, y, work), work)}
    if 'device' in work:
        print(json.dumps(found))
        return
    cores = len(os.sched_getaffinity(0))
    context = multiprocessing.get_context('spawn')
    pipes = []
    for part in range(cores):
        here, there = context.Pipe()
        context.Process(target=serve, args=(there, work, part, cores), daemon=True).start()
        pipes.append(here)

    def one_round(weights):
        for pipe in pipes:
            pipe.send(weights)
        parts = [pipe.recv() for pipe in pipes]
        return {k: sum(torch.from_numpy(p[k]) for p in parts) for k in weights}

    found[f'PyTorch loop, {cores} processes'] = timed(one_round, work)
    for pipe in pipes:
        pipe.send(None)
    print(json.dumps(found))


if __name__ == '__main__':
    main()
