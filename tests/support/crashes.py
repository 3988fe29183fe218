"""Containers that crash, as kube-state-metrics shows them to Prometheus."""

from __future__ import annotations

import json
import urllib.request

from tests.support.monitoring import Exporter

_METRIC = "kube_pod_container_status_restarts_total"


class ContainerRestarts(Exporter):
    """Serves how often containers were restarted, read anew from the cluster for each request.

    The metric and its labels are those of kube-state-metrics.

    Args:
        api: the address of `kubectl proxy`.
        namespace: that of the Pods.
    """

    def __init__(self, api: str, namespace: str) -> None:
        super().__init__(self.metrics)
        self._pods = f"{api}/api/v1/namespaces/{namespace}/pods"

    def metrics(self) -> str:
        """Return a counter for each container of the namespace, in Prometheus' text format."""
        with urllib.request.urlopen(self._pods, timeout=30) as answer:
            pods = json.load(answer)["items"]
        return "".join(
            f'{_METRIC}{{namespace="{pod["metadata"]["namespace"]}",'
            f'pod="{pod["metadata"]["name"]}",container="{status["name"]}"}}'
            f" {status['restartCount']}\n"
            for pod in pods
            for status in pod["status"].get("containerStatuses", ())
        )
