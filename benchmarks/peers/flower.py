"""Flower's simulation on Ray, a core for each client, PyTorch inside.

Called by `benchmarks/speed.py`; prints {"Flower": {"seconds": [...], "first": ...}}.  Ray's workers
find what is here by importing it as `flower`.
"""

import functools
import json
import logging
import os
import pathlib
import sys
import time

HERE = str(pathlib.Path(__file__).parent)
os.environ |= {'PYTHONPATH': HERE, 'FLWR_TELEMETRY_ENABLED': '0', 'RAY_DEDUP_LOGS': '0'}

import numpy as np  # noqa: E402
import torch  # noqa: E402
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict  # noqa: E402
from flwr.clientapp import ClientApp  # noqa: E402
from flwr.serverapp import Grid, ServerApp  # noqa: E402
from flwr.serverapp.strategy import FedAvg  # noqa: E402
from flwr.simulation import run_simulation  # noqa: E402
from torch_loop import learn, load, network  # noqa: E402

WORK = json.loads(sys.argv[1]) if sys.argv[1:] and sys.argv[1].startswith('{') else None


def client(work: dict) -> ClientApp:
    """What every simulated client runs; its images stay in the worker's memory."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        import flower

        torch.set_num_threads(1)
        x, y = flower.loaded(json.dumps(work))
        number = int(context.node_config['partition-id'])
        net = network(work['model']).to(memory_format=torch.channels_last)
        net.load_state_dict(message.content['arrays'].to_torch_state_dict())
        learn(net, x[number], y[number], work)
        content = RecordDict({
            'arrays': ArrayRecord(net.state_dict()),
            'metrics': MetricRecord({'num-examples': len(y[number])}),
        })
        return Message(content=content, reply_to=message)

    return app


@functools.cache
def loaded(work: str):
    return load(json.loads(work))


class Strict(FedAvg):
    """FedAvg that a client's error ends."""

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        if any(r.has_error() for r in replies) or len(replies) < WORK['clients']:
            os._exit(1)  # an exception would be taken for a round that may be tried again
        return super().aggregate_train(server_round, replies)


def main():
    at = []
    server = ServerApp()

    @server.main()
    def rounds(grid: Grid, context: Context) -> None:
        del context
        strategy = Strict(
            fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=WORK['clients'],
            min_available_nodes=WORK['clients'],
        )
        strategy.start(
            grid,
            ArrayRecord(network(WORK['model']).state_dict()),
            num_rounds=1 + WORK['rounds'],
            evaluate_fn=lambda *_: at.append(time.perf_counter()),
        )

    logging.disable(logging.WARNING)
    run_simulation(
        server, client(WORK), WORK['clients'],
        backend_config={'client_resources': {'num_cpus': 1, 'num_gpus': 0.0}},
    )
    seconds = np.diff(at).tolist()
    print(json.dumps({'Flower': {'seconds': seconds[1:], 'first': seconds[0]}}))


if __name__ == '__main__':
    main()
