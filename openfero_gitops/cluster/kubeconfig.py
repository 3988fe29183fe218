"""How to reach an API server: from a kubeconfig, or from what a Pod is given.

The `kubernetes` library reads both. Decided here is what it leaves open: where to look and in
which order, what a person is told when nothing usable is there, and that credentials which
expire (a Pod's token, a `tokenFile`, an exec plugin, OIDC) are read again every minute. Its own
error texts are not passed on unread: they can quote a user's entry, token and all.

Reading files and running plugins blocks, so each load is one hop to a thread.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import yaml
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, load_kube_config
from kubernetes.aio.config.incluster_config import (
    SERVICE_HOST_ENV_NAME,
    SERVICE_TOKEN_FILENAME,
    InClusterConfigLoader,
)

from openfero_gitops.domain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

SERVICE_ACCOUNT: Final = Path(SERVICE_TOKEN_FILENAME).parent  # what the kubelet mounts
RENEW_EVERY: Final = 60.0  # seconds; the kubelet replaces a token when 80 % of its hour are over
PATIENCE: Final = 60.0  # seconds for a credential plugin, in which a person may have to log in

# What the library raises over a file that is not as it expects.
UNUSABLE: Final = (
    ConfigException,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    yaml.YAMLError,
    aiohttp.ClientError,
)


@dataclass(frozen=True, slots=True)
class Access:
    """An API server, how to authenticate to it, and the namespace that goes with it."""

    configuration: Configuration
    namespace: str
    source: str  # for messages: a path, or what stands for it
    renewal: Renewal


class Renewal:
    """Reads credentials again when they are a minute old; the library asks before each request.

    Only the request that finds them old waits; others go on with what there is. A failure
    keeps the old ones, and is told by `problem` until it has passed.
    """

    def __init__(
        self, load: Callable[[], Configuration], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.problem = ""
        self._load = load
        self._clock = clock
        self._due = clock() + RENEW_EVERY

    def __call__(self, configuration: Configuration) -> Awaitable[None] | None:
        """What `Configuration.refresh_api_key_hook` is to be."""
        if self._clock() < self._due:
            return None
        self._due = self._clock() + RENEW_EVERY
        return self._renew(configuration)

    async def _renew(self, configuration: Configuration) -> None:
        try:
            fresh = await asyncio.to_thread(self._load)
        except UNUSABLE as error:
            self.problem = cause(error)
        else:
            self.problem = ""
            configuration.api_key = fresh.api_key


async def find_access(
    kubeconfig: Path | None,
    context: str | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    service_account: Path = SERVICE_ACCOUNT,
) -> Access:
    """Load the kubeconfig; without one: `$KUBECONFIG`, the Pod's own, `~/.kube/config`.

    Raises:
        UsageError: nothing is there, or what is there cannot be used.
    """
    return await asyncio.to_thread(_find, kubeconfig, context, environ, service_account)


def _find(
    kubeconfig: Path | None, context: str | None, environ: Mapping[str, str], service_account: Path
) -> Access:
    if kubeconfig is not None:
        return _from_files(str(kubeconfig), context)
    if listed := environ.get("KUBECONFIG"):
        return _from_files(listed, context)
    if context is None and environ.get(SERVICE_HOST_ENV_NAME):
        return _from_pod(service_account, environ)
    home = Path(environ.get("HOME", "~"), ".kube", "config").expanduser()
    if not home.is_file():
        raise UsageError(
            f"no cluster is configured: give --kubeconfig FILE, set KUBECONFIG, or write {home}"
        )
    return _from_files(str(home), context)


def _from_files(paths: str, context: str | None) -> Access:
    """From one kubeconfig, or several as `$KUBECONFIG` lists them."""
    if not any(Path(path).expanduser().is_file() for path in paths.split(os.pathsep) if path):
        raise UsageError(f"there is no kubeconfig at {paths}: give one with --kubeconfig FILE")
    configuration = Configuration()
    loading = load_kube_config(  # type: ignore[no-untyped-call]
        config_file=paths,
        context=context,
        client_configuration=configuration,
        persist_config=False,
    )
    try:
        loader = _run(loading)
    except UNUSABLE as error:
        what = f"context {context} of {paths}" if context else paths
        raise UsageError(
            f"{what} is no usable kubeconfig: {cause(error)}; give another with --kubeconfig FILE"
        ) from error
    # The library only logs that a plugin failed, and would go on as nobody.
    user = loader._user  # noqa: SLF001
    if user is not None and "exec" in user and not _has_credentials(configuration):
        raise UsageError(
            f"the credential plugin in {paths} gave no credentials: "
            f"run `kubectl --kubeconfig {paths} auth whoami` to see why"
        )

    def load_again() -> Configuration:
        fresh = Configuration()
        _run(loader.load_and_set(fresh))
        return _cleaned(fresh)

    namespace = loader.current_context["context"].get("namespace") or "default"
    return _access(configuration, str(namespace), paths, load_again)


def _from_pod(folder: Path, environ: Mapping[str, str]) -> Access:
    """From the ServiceAccount that the kubelet mounts, and the variables that it sets."""

    def load() -> Configuration:
        configuration = Configuration()
        loader: Any = InClusterConfigLoader(  # type: ignore[no-untyped-call]
            token_filename=str(folder / "token"),
            cert_filename=str(folder / "ca.crt"),
            try_refresh_token=False,
            environ=environ,
        )
        loader.load_and_set(configuration)
        return _cleaned(configuration)

    try:
        configuration = load()
        own = folder / "namespace"
        namespace = own.read_text().strip() if own.is_file() else ""
    except UNUSABLE as error:
        raise UsageError(
            f"this Pod cannot reach its API server: {cause(error)} (looked in {folder}); set "
            "automountServiceAccountToken: true, or give --kubeconfig FILE"
        ) from error
    return _access(configuration, namespace or "default", f"the Pod's token in {folder}", load)


def _access(
    configuration: Configuration, namespace: str, source: str, load: Callable[[], Configuration]
) -> Access:
    url = urlsplit(configuration.host)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UsageError(
            f"the cluster in {source} has no usable server: it must be https://HOST:PORT"
        )
    # Looked up once: aiohttp would do so, and read ~/.netrc, in two thread hops per request.
    if configuration.proxy is None and not proxy_bypass(url.netloc):
        configuration.proxy = getproxies().get(url.scheme)
    # Go, which issues most clusters' certificates, leaves out what Python 3.13's strict mode
    # asks of an authority. The chain, the name and the dates are verified all the same.
    configuration.disable_strict_ssl_verification = True
    renewal = Renewal(load)
    configuration.refresh_api_key_hook = renewal  # type: ignore[assignment]
    return Access(_cleaned(configuration), namespace, source, renewal)


class _PluginLoop(asyncio.SelectorEventLoop):
    """An event loop that knows its children: the library would let one that hangs live on."""

    def __init__(self) -> None:
        super().__init__()
        self._children: list[asyncio.SubprocessTransport] = []

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> Any:
        """Start one."""
        transport, protocol = await super().subprocess_exec(*args, **kwargs)
        self._children.append(transport)
        return transport, protocol

    async def end_children(self) -> None:
        """Kill those that still run, and see them gone."""
        for child in self._children:
            child.close()
        for _ in range(100):
            if all(child.get_returncode() is not None for child in self._children):
                return
            await asyncio.sleep(0.01)


def _run(loading: Coroutine[Any, Any, Any]) -> Any:
    """Run what the library loads, with its plugin, in this thread; give it up when it hangs."""
    loop = _PluginLoop()

    async def bounded() -> Any:
        try:
            async with asyncio.timeout(PATIENCE):
                return await loading
        finally:
            await loop.end_children()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(bounded())


def _has_credentials(configuration: Configuration) -> bool:
    return bool(configuration.api_key or configuration.cert_file)


def _cleaned(configuration: Configuration) -> Configuration:
    """Without the line break that an editor leaves behind a token: no header may hold one."""
    configuration.api_key = {key: value.strip() for key, value in configuration.api_key.items()}
    return configuration


def cause(error: Exception) -> str:
    """Say in one line what was wrong, without any value out of the file."""
    match error:
        case TimeoutError():
            return f"its credential plugin did not end within {PATIENCE:.0f} s"
        case yaml.MarkedYAMLError(problem_mark=mark) if mark is not None:
            return f"line {mark.line + 1} is no YAML"
        case OSError():
            return f"{error.filename or 'a file'}: {error.strerror or 'cannot be read'}"
        case ConfigException():
            said = re.sub(r"\{.*\}", "…", str(error), flags=re.DOTALL)
            return " ".join(said.removeprefix("Invalid kube-config file. ").split())
        case aiohttp.ClientError():
            return "its OIDC issuer did not answer"
        case _:
            return "it is not made as one"
