"""Starts vLLM's own OpenAI server in processes of its own, directly or by `cosd serve`."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.vllm.conftest import CONTEXT

SIZES = ("--dtype=float32", f"--max-model-len={CONTEXT}", "--max-num-seqs=4")


def served(model: str, *arguments: str, log: Path) -> AbstractContextManager[str]:
    """The address of a server of this model."""
    command = ["-m", "vllm.entrypoints.openai.api_server", "--model", model, "--enforce-eager", *SIZES]
    return _started([*command, *arguments], log)


def served_by_cosd(*arguments: str, log: Path) -> AbstractContextManager[str]:
    """The address of a server that `cosd serve` starts with these arguments."""
    sizes = [f"--vllm-arg={each}" for each in SIZES]
    return _started(["-m", "cosd_core", "serve", "--engine", "vllm", *sizes, *arguments], log)


@contextmanager
def _started(arguments: Sequence[str], log: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, *arguments, "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    with log.open("w") as output:
        server = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{url}/health", server, log)
        yield url
    finally:
        stop(server)


def stop(server: "subprocess.Popen[bytes]") -> None:
    """End the server and its engine, which is a process of the server's group."""
    server.terminate()
    try:
        server.wait(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(600):  # on a busy machine the imports alone may take minutes
        assert server.poll() is None, log.read_text(errors="replace")[-3000:]
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise AssertionError(log.read_text(errors="replace")[-3000:])
