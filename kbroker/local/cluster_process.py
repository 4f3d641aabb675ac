"""The local cluster as a child process."""

from __future__ import annotations

import base64
import http.client
import os
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import orjson

from kbroker.errors import ClusterError

_START_WITHIN = 20.0
_STOP_WITHIN = 10.0


class AdminClient:
    """Requests to the cluster with the admin's token; for `/_local/` and plain API paths.

    Args:
        kubeconfig: the cluster's kubeconfig.
    """

    def __init__(self, kubeconfig: Path) -> None:
        content = orjson.loads(kubeconfig.read_bytes())
        cluster = content["clusters"][0]["cluster"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._context = ssl.create_default_context(cadata=authority)
        self._address = urlsplit(cluster["server"])
        self.url: str = cluster["server"]
        self.token: str = content["users"][0]["user"]["token"]

    def get(self, path: str) -> Any:
        """GET; the decoded answer."""
        return self.request("GET", path)

    def post(self, path: str, body: Any) -> Any:
        """POST; the decoded answer."""
        return self.request("POST", path, body)

    def delete(self, path: str) -> Any:
        """DELETE; the decoded answer."""
        return self.request("DELETE", path)

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Any request; the decoded answer.

        Raises:
            ClusterError: the answer is not a success.
        """
        connection = http.client.HTTPSConnection(
            str(self._address.hostname), self._address.port, context=self._context, timeout=30
        )
        try:
            headers = {
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
            }
            data = None if body is None else orjson.dumps(body)
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        answer = orjson.loads(content) if content.startswith((b"{", b"[")) else content
        if response.status >= 400:
            said = answer.get("message") if isinstance(answer, dict) else answer
            raise ClusterError(f"{method} {path}: {response.status}: {said!s}")
        return answer


class LocalCluster:
    """A local cluster that ends with this process.

    Args:
        folder: kubeconfig, logs and work folders; a temporary one by default.
        options: of `python -m kbroker.local.cluster`: `max_pods=20` for `--max-pods 20`.
    """

    def __init__(self, folder: Path | None = None, **options: Any) -> None:
        self._temporary = None
        if folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="kbroker-cluster-")
            folder = Path(self._temporary.name)
        self.folder = folder.resolve()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._admin: AdminClient | None = None

    @property
    def kubeconfig(self) -> Path:
        """Path of the kubeconfig, once started."""
        return self.folder / "kubeconfig"

    @property
    def log(self) -> Path:
        """What the cluster's process prints."""
        return self.folder / "cluster.log"

    @property
    def logs(self) -> Path:
        """Folder of the containers' logs: namespace/pod/uid/container.log."""
        return self.folder / "pods"

    @property
    def pid(self) -> int | None:
        """Its process id; None while it does not run."""
        return None if self._process is None else self._process.pid

    @property
    def admin(self) -> AdminClient:
        """Requests with the admin's token.

        Raises:
            ClusterError: the cluster was never started.
        """
        if self._admin is None:
            raise ClusterError("the local cluster is not running")
        return self._admin

    @property
    def url(self) -> str:
        """The API server's URL."""
        return self.admin.url

    @property
    def token(self) -> str:
        """The admin's token."""
        return self.admin.token

    def start(self) -> LocalCluster:
        """Start it, and wait until it serves.

        Raises:
            ClusterError: it does not start; says what it said last.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.kubeconfig.unlink(missing_ok=True)
        command = [sys.executable, "-m", "kbroker.local.cluster", "--dir", str(self.folder)]
        command += [f"--exit-with-parent={os.getpid()}"]
        for name, value in self._options.items():
            flag = "--" + name.replace("_", "-")
            if value is True:
                command.append(flag)
            elif value is not False and value is not None:
                command.append(f"{flag}={value}")
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_WITHIN
        while not self.kubeconfig.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._end()
                said = self.log.read_text(errors="replace").strip().splitlines()
                self.stop()
                raise ClusterError(
                    f"the local cluster does not start: {said[-1] if said else 'it said nothing'}"
                )
            time.sleep(0.01)
        self._admin = AdminClient(self.kubeconfig)
        return self

    def stop(self) -> None:
        """End it and every container; without effect when it does not run."""
        self._end()
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> LocalCluster:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
