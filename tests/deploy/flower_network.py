"""A real network of Flower on the loopback: a SuperLink, SuperNodes, and the processes beside."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

from keys import certificates, node_key

ROOT = pathlib.Path(__file__).parent.parent.parent


class Network:
    """flower: the Python of an environment with Flower; folder: of logs and of Flower's home.

    secure: as between hospitals, over TLS, and for nodes whose keys the server was given.
    """

    def __init__(self, flower, folder, secure=False):
        self.bin, self.folder, self.started = pathlib.Path(flower).parent, folder, []
        self.tls = certificates(folder) if secure else {}
        self.port, self.process = free_port(), {}
        home = folder / 'flwr'
        home.mkdir()
        (home / 'config.toml').write_text(
            '[superlink]\ndefault = "here"\n\n[superlink.here]\n'
            f'address = "127.0.0.1:{self.port}"\n'
            + (f'root-certificates = "{self.tls["ca"]}"\n' if secure else 'insecure = true\n')
        )
        path = f'{self.bin}{os.pathsep}{os.environ["PATH"]}'
        self.env = {
            **os.environ, 'FLWR_HOME': str(home), 'FLWR_TELEMETRY_ENABLED': '0', 'PATH': path,
            'FEDGEN_CACHE': str(folder / 'cache'), 'PYTHONUNBUFFERED': '1',
        }

    def superlink(self):
        how = ['--insecure'] if not self.tls else [
            '--ssl-ca-certfile', self.tls['ca'], '--ssl-certfile', self.tls['cert'],
            '--ssl-keyfile', self.tls['key'], '--enable-supernode-auth',
        ]
        return self._start(
            'superlink', self.bin / 'flower-superlink', *how, '--host', '127.0.0.1',
            '--port', self.port, '--disable-runtime-dependency-installation',
        )

    def admit(self, public):
        """The server takes a node's public key."""
        self.wait_for_text('superlink', 'Application startup complete')
        subprocess.run(
            [self.bin / 'flwr', 'supernode', 'register', public, 'here'], env=self.env, check=True,
            capture_output=True, text=True, timeout=120,
        )

    def center(self, name, settings, data, site, *more):
        """A hospital: the process that has its images, and its node, which has none."""
        self.center_process(name, settings, data, site, *more)
        how = ['--insecure']
        if self.tls:
            private, public = node_key(self.folder, name)
            self.admit(public)
            how = ['--root-certificates', self.tls['ca'], '--auth-supernode-private-key', private]
        return self.node(name, site, *how)

    def node(self, name, site, *how):
        """A hospital's node of Flower, alone."""
        return self._start(
            f'{name}-node', self.bin / 'flower-supernode', *how, '--superlink',
            f'127.0.0.1:{self.port}', '--port', free_port(), '--node-config', f'site="{site}"',
        )

    def center_process(self, name, settings, data, site, *more):
        """The process that has its images, alone."""
        self.launch(
            name, 'center', f'--settings={settings}', f'--data={data}', f'--site={site}', *more
        )
        self._wait_for(site / 'net' / 'socket', name)

    def serve(self, workdir, *args, seconds=300):
        """`launch.serve` with a run of Flower; (its exit code, its output)."""
        code = self.begin_serving(workdir, *args).wait(seconds)
        return code, (self.folder / 'server.log').read_text()

    def begin_serving(self, workdir, *args):
        """The process of `serve`."""
        server = self.launch('server', 'serve', f'--workdir={workdir}', *args)
        self._wait_for(workdir / 'net' / 'socket', 'server')
        self._start(
            'flwr', self.bin / 'flwr', 'run', ROOT / 'launch' / 'flower', 'here', '--run-config',
            f'server="{workdir}"',
        )
        return server

    def wait_for_text(self, name, text, seconds=300):
        """Until a process has told something."""
        until = time.monotonic() + seconds
        while text not in self.logs_of(name):
            if time.monotonic() > until:
                raise RuntimeError(f'{name} did not tell {text!r}:\n{self.logs()}')
            time.sleep(0.2)

    def launch(self, name, command, *args):
        return self._start(name, sys.executable, '-m', f'launch.{command}', *args)

    def stop(self, process):
        """Ends a process and those that it started."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)

    def close(self):
        for process in reversed(self.started):
            self.stop(process)

    def logs(self):
        """The end of each, to be shown where something went wrong."""
        files = sorted(self.folder.glob('*.log'))
        return '\n'.join(f'== {f.name}\n{f.read_text()[-3000:]}' for f in files)

    def logs_of(self, *names):
        """All that these processes told."""
        return '\n'.join((self.folder / f'{name}.log').read_text() for name in names)

    def _start(self, name, *command):
        with open(self.folder / f'{name}.log', 'w') as log:
            process = subprocess.Popen(
                [str(x) for x in command], env=self.env, cwd=ROOT, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )
        self.started.append(process)
        self.process[name] = process
        return process

    def _wait_for(self, file, name, seconds=120):
        until = time.monotonic() + seconds
        while not file.exists():
            ended = self.started[-1].poll() is not None
            if ended or time.monotonic() > until:
                raise RuntimeError(f'{name} did not start:\n{self.logs()}')
            time.sleep(0.2)


def free_port():
    with contextlib.closing(socket.socket()) as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]
