"""What every test of this folder begins with."""

import os
import time
import unittest
import urllib.request

from kubernetes import client, config
from kubernetes.client.rest import ApiException

# Longer than anything here takes on a machine that works, however loaded.
PATIENCE = 60


def disturb(how):
    """Cuts all connections to the server ("cut"), or kills it and waits until it is back."""
    url = os.environ.get("DISTURB_URL")
    if not url:
        raise unittest.SkipTest("SKIPPED: no DISTURB_URL, nothing can be disturbed")
    urllib.request.urlopen(f"{url}/{how}", data=b"", timeout=PATIENCE).close()


def eventually(what, probe):
    """Asks until the probe gives something, and returns it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {PATIENCE} s")
        time.sleep(0.05)


class Life(unittest.TestCase):
    """A test with a namespace of its own."""

    def setUp(self):
        config.load_kube_config()
        self.core = client.CoreV1Api()
        self.apps = client.AppsV1Api()
        wanted = client.V1Namespace(metadata=client.V1ObjectMeta(generate_name="python-"))
        self.namespace = self.core.create_namespace(wanted).metadata.name
        self.addCleanup(self.core.delete_namespace, self.namespace)
        # Pods are refused until their ServiceAccount is there.
        eventually("the ServiceAccount", self.service_account)

    def service_account(self):
        try:
            return self.core.read_namespaced_service_account("default", self.namespace)
        except ApiException as error:
            if error.status != 404:
                raise
            return None

    def secret(self, name):
        return client.V1Secret(metadata=client.V1ObjectMeta(name=name))

    def refused(self, status, call, *args, **kwargs):
        """The error with which the server refuses a call."""
        with self.assertRaises(ApiException) as caught:
            call(*args, **kwargs)
        self.assertEqual(caught.exception.status, status, caught.exception.body)
        return caught.exception
