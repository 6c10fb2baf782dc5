"""Watches through disconnects, Pods, scale, eviction, events."""

import datetime
import logging
import queue
import threading
import unittest
from collections import Counter

import urllib3
from kubernetes import client, watch
from kubernetes.client.rest import ApiException
from kubernetes.informer import ADDED, DELETED, SharedInformer

from life import PATIENCE, Life, disturb, eventually
from test_objects import deployment


class Watcher(threading.Thread):
    """Goes on with a watch from where it ended, whatever ended it."""

    def __init__(self, namespace, version):
        super().__init__(daemon=True)
        self.api = client.CoreV1Api(client.ApiClient())
        self.namespace, self.version = namespace, version
        self.events, self.stopped = queue.Queue(), False

    def run(self):
        while not self.stopped:
            try:
                for event in watch.Watch().stream(
                    self.api.list_namespaced_secret,
                    self.namespace,
                    resource_version=self.version,
                    timeout_seconds=PATIENCE,
                ):
                    found = event["object"].metadata
                    self.version = found.resource_version
                    self.events.put((event["type"], found.name))
            except urllib3.exceptions.HTTPError:
                # The connection was cut, or the server is not back yet.
                continue


class Running(Life):
    def test_a_resumed_watch_misses_nothing(self):
        before = self.core.list_namespaced_secret(self.namespace)
        watcher = Watcher(self.namespace, before.metadata.resource_version)
        watcher.start()
        wanted = []
        for number, how in enumerate(["cut", "restart", "cut"]):
            for half in range(2):
                name = f"event-{number}-{half}"
                self.core.create_namespaced_secret(self.namespace, self.secret(name))
                wanted.append(("ADDED", name))
                if half == 0:
                    self.assertEqual(watcher.events.get(timeout=PATIENCE), wanted.pop(0))
                    disturb(how)
            self.core.delete_namespaced_secret(name, self.namespace)
            wanted.append(("DELETED", name))
            while wanted:
                self.assertEqual(watcher.events.get(timeout=PATIENCE), wanted.pop(0))
        watcher.stopped = True
        self.assertTrue(watcher.events.empty())

    def test_an_informer_comes_through_disconnects(self):
        # It tells of each lost connection, which is what is wanted here.
        logging.getLogger("kubernetes.informer").setLevel(logging.CRITICAL)
        informer = SharedInformer(self.core.list_namespaced_secret, namespace=self.namespace)
        counts = {ADDED: Counter(), DELETED: Counter()}
        for verb, count in counts.items():
            informer.add_event_handler(verb, lambda found, c=count: c.update([found.metadata.name]))
        # Its thread ends with the program: to stop it would wait for one more event.
        informer.start()

        def versions(items):
            return {item.metadata.name: item.metadata.resource_version for item in items}

        for number, how in enumerate([None, "cut", "restart", "cut"]):
            for name in ["kept", "lost", "late"]:
                self.core.create_namespaced_secret(self.namespace, self.secret(f"{name}-{number}"))
                if name == "lost" and how:
                    disturb(how)
            self.core.delete_namespaced_secret(f"lost-{number}", self.namespace)
            truth = versions(self.core.list_namespaced_secret(self.namespace).items)
            eventually(f"the informer after {how}", lambda: versions(informer.cache.list()) == truth)
        self.assertEqual(set(counts[ADDED].values()), {1})
        lost = Counter(name for name in counts[ADDED] if name.startswith("lost"))
        eventually("the handler's deletions", lambda: counts[DELETED] == lost)

    def test_a_deployment_is_scaled(self):
        self.apps.create_namespaced_deployment(self.namespace, deployment(0, ""))
        where = ("app", self.namespace)
        scale = eventually("a scale that nobody changes meanwhile", lambda: self.scaled(*where))
        self.refused(409, self.apps.replace_namespaced_deployment_scale, *where, scale)

        def ready(replicas):
            status = self.apps.read_namespaced_deployment_status(*where).status
            return status.ready_replicas == replicas

        eventually("one replica", lambda: ready(1))
        self.apps.patch_namespaced_deployment_scale(*where, {"spec": {"replicas": 2}})
        eventually("two replicas", lambda: ready(2))

    def scaled(self, name, namespace):
        """The scale with which a Deployment got its one replica, if its controller let it."""
        scale = self.apps.read_namespaced_deployment_scale(name, namespace)
        scale.spec.replicas = 1
        try:
            self.apps.replace_namespaced_deployment_scale(name, namespace, scale)
        except ApiException as error:
            if error.status != 409:
                raise
            return None
        return scale

    def pod(self, name, image, *args):
        container = client.V1Container(name="c", image=image, args=list(args))
        return self.core.create_namespaced_pod(
            self.namespace,
            client.V1Pod(
                metadata=client.V1ObjectMeta(name=name, labels={"app": name}),
                spec=client.V1PodSpec(containers=[container], restart_policy="Never"),
            ),
        )

    def phase(self, name):
        return self.core.read_namespaced_pod(name, self.namespace).status.phase

    def test_an_eviction_heeds_a_budget(self):
        self.pod("guarded", "hello-http:v1")
        eventually("a Pod that runs", lambda: self.phase("guarded") == "Running")
        policy = client.PolicyV1Api()
        selector = client.V1LabelSelector(match_labels={"app": "guarded"})
        policy.create_namespaced_pod_disruption_budget(
            self.namespace,
            client.V1PodDisruptionBudget(
                metadata=client.V1ObjectMeta(name="guard"),
                spec=client.V1PodDisruptionBudgetSpec(min_available=1, selector=selector),
            ),
        )
        eviction = client.V1Eviction(
            metadata=client.V1ObjectMeta(name="guarded"),
            delete_options=client.V1DeleteOptions(grace_period_seconds=0),
        )
        evict = self.core.create_namespaced_pod_eviction
        self.refused(429, evict, "guarded", self.namespace, eviction)
        policy.delete_namespaced_pod_disruption_budget("guard", self.namespace)
        evict("guarded", self.namespace, eviction)

        def gone():
            try:
                return not self.phase("guarded")
            except ApiException as error:
                return error.status == 404

        eventually("the end of the Pod", gone)

    def test_logs_and_events(self):
        made = self.pod("batch", "batch-hello:v1", "Ada")
        eventually("the end of the guest", lambda: self.phase("batch") == "Succeeded")
        self.assertEqual(self.core.read_namespaced_pod_log("batch", self.namespace), "Hello, Ada\n")
        told = client.EventsV1Event(
            metadata=client.V1ObjectMeta(generate_name="told-"),
            event_time=datetime.datetime.now(datetime.timezone.utc),
            reporting_controller="coracle.dev/python",
            reporting_instance="python",
            action="Telling",
            reason="Told",
            note="a story",
            type="Normal",
            regarding=client.V1ObjectReference(
                api_version="v1",
                kind="Pod",
                name="batch",
                namespace=self.namespace,
                uid=made.metadata.uid,
            ),
        )
        client.EventsV1Api().create_namespaced_event(self.namespace, told)
        regarding = f"involvedObject.uid={made.metadata.uid}"
        events = self.core.list_namespaced_event(self.namespace, field_selector=regarding)
        reasons = {event.reason for event in events.items}
        self.assertTrue({"Scheduled", "Started", "Told"} <= reasons, reasons)


if __name__ == "__main__":
    unittest.main()
