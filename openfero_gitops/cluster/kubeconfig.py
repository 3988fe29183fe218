"""Finds the access to an API server: in a kubeconfig, or in the files that a Pod is given.

The `kubernetes` library reads both. This module decides where to look and in which order, and what
to report when nothing usable is found; and it reads credentials that expire (a Pod's token, a
`tokenFile`, an exec plugin, OIDC) again every minute. Error texts of the library are not passed on
unchanged: they can quote the entry of a user, including its token.

Reading files and running plugins blocks, so each load runs in a thread.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import yaml

from openfero_gitops.cluster.library import (
    SERVICE_HOST_ENV_NAME,
    SERVICE_TOKEN_FILENAME,
    ConfigException,
    Configuration,
    InClusterConfigLoader,
    load_kube_config,
)
from openfero_gitops.domain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

SERVICE_ACCOUNT: Final = Path(SERVICE_TOKEN_FILENAME).parent  # what the kubelet mounts
RENEWAL_SECONDS: Final = 60.0  # the kubelet replaces a token after 80 % of its hour
PLUGIN_SECONDS: Final = 60.0  # for a credential plugin, in which a user may have to log in

# What the library raises for a file that it cannot use.
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
class ClusterAccess:
    """How to connect to an API server, and the default namespace."""

    configuration: Configuration
    namespace: str
    source: str  # of the access, for messages
    renewal: Renewal
    context: str = ""  # of the kubeconfig
    impersonation: tuple[tuple[str, str], ...] = ()  # headers that name the user to act as

    @property
    def description(self) -> str:
        """Where the access was found."""
        return f"context {self.context} of {self.source}" if self.context else self.source


class Renewal:
    """Reads credentials again once they are a minute old; the library calls it before each request.

    Only the request that finds them too old waits for the new ones. If reading fails, the old ones
    stay, and `problem` says why until it succeeds.
    """

    def __init__(
        self, load: Callable[[], Configuration], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.problem = ""
        self._load = load
        self._clock = clock
        self._due = clock() + RENEWAL_SECONDS

    def __call__(self, configuration: Configuration) -> Awaitable[None] | None:
        """Renew the credentials if necessary, as `Configuration.refresh_api_key_hook`."""
        if self._clock() < self._due:
            return None
        self._due = self._clock() + RENEWAL_SECONDS
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
) -> ClusterAccess:
    """Load a kubeconfig, or else `$KUBECONFIG`, the Pod's own access, or `~/.kube/config`.

    Raises:
        UsageError: nothing was found, or it cannot be used.
    """
    return await asyncio.to_thread(_find, kubeconfig, context, environ, service_account)


def _find(
    kubeconfig: Path | None, context: str | None, environ: Mapping[str, str], service_account: Path
) -> ClusterAccess:
    if kubeconfig is not None:
        return _from_files(str(kubeconfig), context)
    if listed := environ.get("KUBECONFIG"):
        return _from_files(listed, context)
    if context is None and environ.get(SERVICE_HOST_ENV_NAME):
        return _from_pod(service_account, environ)
    home = _expand(Path(environ.get("HOME", "~"), ".kube", "config"))
    if home is None:
        raise UsageError(
            "no cluster is configured, and there is no home directory to look for .kube/config"
            f" (HOME is not set, and user {os.getuid()} is in no passwd entry); set --kubeconfig or"
            " $KUBECONFIG"
        )
    if not home.is_file():
        raise UsageError(
            f"no cluster is configured; set --kubeconfig or $KUBECONFIG, or create {home}"
        )
    return _from_files(str(home), context)


def _expand(path: Path) -> Path | None:
    """Replace a leading `~`; None if this user has no home directory."""
    try:
        return path.expanduser()
    except RuntimeError:
        return None


def _from_files(paths: str, context: str | None) -> ClusterAccess:
    """Load one kubeconfig, or several in the format of `$KUBECONFIG`."""
    expanded = (_expand(Path(path)) for path in paths.split(os.pathsep) if path)
    if not any(path is not None and path.is_file() for path in expanded):
        raise UsageError(f"there is no kubeconfig at {paths}; set --kubeconfig")
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
        name = f"context {context} of {paths}" if context else paths
        raise UsageError(
            f"cannot use kubeconfig {name}: {cause(error)}; correct it, or set --kubeconfig"
        ) from error
    # The library only logs that a plugin failed, and would continue anonymously.
    user = loader._user  # noqa: SLF001
    if user is not None and "exec" in user and not _has_credentials(configuration):
        raise UsageError(
            f"the credential plugin in {paths} returned no credentials; "
            f"run `kubectl --kubeconfig {paths} auth whoami` to see why"
        )

    def reload() -> Configuration:
        fresh = Configuration()
        _run(loader.load_and_set(fresh))
        return _cleaned(fresh)

    namespace = loader.current_context["context"].get("namespace") or "default"
    access = _access(configuration, str(namespace), paths, reload)
    return replace(
        access,
        context=str(loader.current_context.get("name") or ""),
        impersonation=_impersonation(user.value if user is not None else {}, paths),
    )


def _impersonation(user: Mapping[str, Any], source: str) -> tuple[tuple[str, str], ...]:
    """Return the headers for `as` and its companions, which the library ignores.

    Without them, a command would act with the rights of the real user, and in that name
    (Kubernetes documentation, "User impersonation").
    """
    headers = [("Impersonate-User", user.get("as"))]
    headers += [("Impersonate-Uid", user.get("as-uid"))]
    headers += [("Impersonate-Group", group) for group in user.get("as-groups") or ()]
    for key, values in (user.get("as-user-extra") or {}).items():
        name = f"Impersonate-Extra-{quote(str(key).lower(), safe='')}"
        headers += [(name, value) for value in values or ()]
    given = tuple((name, value) for name, value in headers if value)
    if not all(isinstance(value, str) and value.isprintable() for _, value in given):
        raise UsageError(
            f"cannot use kubeconfig {source}: as, as-uid, as-groups or as-user-extra is not text"
        )
    if given and not user.get("as"):
        raise UsageError(
            f"cannot use kubeconfig {source}: as-uid, as-groups and as-user-extra need as"
        )
    return given


def _from_pod(folder: Path, environ: Mapping[str, str]) -> ClusterAccess:
    """Load the ServiceAccount that the kubelet mounts, and the variables that it sets."""

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
        file = folder / "namespace"
        namespace = file.read_text().strip() if file.is_file() else ""
    except UNUSABLE as error:
        raise UsageError(
            f"cannot use the Pod's ServiceAccount in {folder}: {cause(error)}; set "
            "automountServiceAccountToken: true, or set --kubeconfig"
        ) from error
    return _access(configuration, namespace or "default", f"the Pod's token in {folder}", load)


def _access(
    configuration: Configuration, namespace: str, source: str, load: Callable[[], Configuration]
) -> ClusterAccess:
    url = urlsplit(configuration.host)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UsageError(f"the server in {source} is not a URL; set it to https://HOST:PORT")
    # Only once: aiohttp would look it up, and read ~/.netrc, in two thread hops per request.
    if configuration.proxy is None and not proxy_bypass(url.netloc):
        configuration.proxy = getproxies().get(url.scheme)
    # Most clusters' certificates are issued by Go, without extensions that Python 3.13's strict
    # mode requires of an authority. The chain, the name and the dates are still verified.
    configuration.disable_strict_ssl_verification = True
    renewal = Renewal(load)
    configuration.refresh_api_key_hook = renewal  # type: ignore[assignment]
    return ClusterAccess(_cleaned(configuration), namespace, source, renewal)


class _PluginLoop(asyncio.SelectorEventLoop):
    """An event loop that ends its child processes; the library does not end one that hangs."""

    def __init__(self) -> None:
        super().__init__()
        self._children: list[asyncio.SubprocessTransport] = []

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> Any:
        """Start a child process and remember it."""
        transport, protocol = await super().subprocess_exec(*args, **kwargs)
        self._children.append(transport)
        return transport, protocol

    async def end_children(self) -> None:
        """Kill the remaining child processes and wait for their end."""
        for child in self._children:
            child.close()
        for _ in range(100):
            if all(child.get_returncode() is not None for child in self._children):
                return
            await asyncio.sleep(0.01)


def _run(loading: Coroutine[Any, Any, Any]) -> Any:
    """Load with the library, and its plugins, in this thread, within a time limit."""
    loop = _PluginLoop()

    async def bounded() -> Any:
        try:
            async with asyncio.timeout(PLUGIN_SECONDS):
                return await loading
        finally:
            await loop.end_children()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(bounded())


def _has_credentials(configuration: Configuration) -> bool:
    return bool(configuration.api_key or configuration.cert_file)


def _cleaned(configuration: Configuration) -> Configuration:
    """Remove the line break after a token, which a header must not contain."""
    configuration.api_key = {key: value.strip() for key, value in configuration.api_key.items()}
    return configuration


def cause(error: Exception) -> str:
    """Describe an error in one line, without values from the file."""
    match error:
        case TimeoutError():
            return f"its credential plugin did not finish within {PLUGIN_SECONDS:.0f} s"
        case yaml.MarkedYAMLError(problem_mark=mark) if mark is not None:
            return f"line {mark.line + 1} is not valid YAML"
        case OSError():
            return f"{error.filename or 'a file'}: {error.strerror or 'cannot be read'}"
        case ConfigException():
            message = re.sub(r"\{.*\}", "…", str(error), flags=re.DOTALL)
            return " ".join(message.removeprefix("Invalid kube-config file. ").split())
        case aiohttp.ClientError():
            return "its OIDC issuer did not respond"
        case _:
            return "it does not have the structure of a kubeconfig"
