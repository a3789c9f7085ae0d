"""pfl-research's simulation of FedAvg, by its own trainer and backend (PyTorch).

Called by `benchmarks/speed.py`; prints {"seconds": [...], "first": ...}.
"""

import json
import sys
import time

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from torch_loop import network


class Net(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.net = network(model)

    def loss(self, x, y):
        self.train()
        return torch.nn.functional.cross_entropy(self.net(x), y)

    def metrics(self, x, y):
        del x, y
        return {}


class Clock(TrainingProcessCallback):
    def __init__(self):
        self.at = [time.perf_counter()]

    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
        del aggregate_metrics, model, central_iteration
        self.at.append(time.perf_counter())
        return False, Metrics()


def main():
    work = json.loads(sys.argv[1])
    with np.load(work['arrays']) as file:
        x = torch.from_numpy(file['image']).permute(0, 1, 4, 2, 3).float() / 255
        y = torch.from_numpy(file['label']).long()
    epochs = -(-work['steps'] * work['batch'] // y.shape[1])
    users = {str(c): [x[c].contiguous(), y[c]] for c in range(len(y))}
    data = FederatedDataset.from_slices(users, get_user_sampler('minimize_reuse', list(users)))
    net = Net(work['model'])
    model = PyTorchModel(net, torch.optim.SGD, torch.optim.SGD(net.parameters(), lr=1.0))
    clock = Clock()
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=1 + work['rounds'], evaluation_frequency=10**6,
            train_cohort_size=len(y), val_cohort_size=0,
        ),
        SimulatedBackend(data, data),
        model,
        NNTrainHyperParams(
            local_num_epochs=epochs, local_learning_rate=work['rate'],
            local_batch_size=work['batch'],
        ),
        NNEvalHyperParams(local_batch_size=None),
        [clock],
    )
    seconds = np.diff(clock.at).tolist()
    print(json.dumps({'pfl-research': {'seconds': seconds[1:], 'first': seconds[0]}}))


if __name__ == '__main__':
    main()
