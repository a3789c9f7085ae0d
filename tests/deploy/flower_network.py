"""A real network of Flower on the loopback: a SuperLink, SuperNodes, and runs."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess

ROOT = pathlib.Path(__file__).parent.parent.parent


def free_port():
    with contextlib.closing(socket.socket()) as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


class Network:
    """python: of an environment with Flower; folder: of its logs and of Flower's home."""

    def __init__(self, python, folder):
        self.bin, self.folder = pathlib.Path(python).parent, folder
        self.port, self.processes = free_port(), []
        home = folder / 'flwr'
        home.mkdir()
        (home / 'config.toml').write_text(
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\n'
            f'address = "127.0.0.1:{self.port}"\ninsecure = true\n'
        )
        self.env = {
            **os.environ, 'FLWR_HOME': str(home), 'FLWR_TELEMETRY_ENABLED': '0',
            'PYTHONPATH': str(ROOT), 'PATH': f'{self.bin}{os.pathsep}{os.environ["PATH"]}',
            'PYTHONUNBUFFERED': '1',
        }

    def start(self, name, command, *args):
        """A process that runs until the end."""
        log = open(self.folder / f'{name}.log', 'w')  # noqa: SIM115
        process = subprocess.Popen(
            [self.bin / command, '--insecure', *args], env=self.env, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )
        self.processes.append(process)
        return process

    def superlink(self):
        self.start(
            'superlink', 'flower-superlink', '--host', '127.0.0.1', '--port', str(self.port),
            '--disable-runtime-dependency-installation',
        )

    def supernode(self, name, **config):
        """A hospital's node; config: of its --node-config."""
        told = ' '.join(f'{k}="{v}"' for k, v in config.items())
        return self.start(
            name, 'flower-supernode', '--superlink', f'127.0.0.1:{self.port}', '--port',
            str(free_port()), '--node-config', told,
        )

    def run(self, seconds, **config):
        """`flwr run`, until its end; the log of the ServerApp."""
        told = ' '.join(f'{k}="{v}"' for k, v in config.items())
        done = subprocess.run(
            [self.bin / 'flwr', 'run', str(ROOT / 'launch' / 'flower'), 'here', '--stream',
             '--run-config', told],
            env=self.env, capture_output=True, text=True, timeout=seconds,
        )
        return done.stdout + done.stderr

    def logs(self):
        return '\n'.join(
            f'== {f.name}\n{f.read_text()[-4000:]}' for f in sorted(self.folder.glob('*.log'))
        )

    def stop(self, process):
        """Ends a node and the processes that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def close(self):
        for process in reversed(self.processes):
            self.stop(process)
