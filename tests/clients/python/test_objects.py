"""Lists in pages, patches, apply, and the dynamic client."""

import json
import os
import unittest

from kubernetes import client, dynamic

from life import Life, disturb

METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


def deployment(replicas, note):
    labels = {"app": "app"}
    container = {"name": "c", "image": "hello-http:v1", "env": [{"name": "A", "value": "a"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "app", "labels": labels, "annotations": {"note": note}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


class Objects(Life):
    def test_lists_come_in_pages(self):
        names = [f"page-{number}" for number in range(7)]
        for name in names:
            self.core.create_namespaced_secret(self.namespace, self.secret(name))
        got, token = [], None
        while token != "":
            page = self.core.list_namespaced_secret(self.namespace, limit=3, _continue=token)
            got += [item.metadata.name for item in page.items]
            self.assertEqual(page.metadata.remaining_item_count or 0, len(names) - len(got))
            token = page.metadata._continue or ""
            if token:
                # The rest of a list is there after a restart.
                disturb("restart")
        self.assertEqual(got, names)

    def test_metadata_is_listed_alone(self):
        self.core.create_namespaced_secret(self.namespace, self.secret("one"))
        api = self.core.api_client
        answer = api.call_api(
            "GET",
            f"{api.configuration.host}/api/v1/namespaces/{self.namespace}/secrets",
            header_params={"Accept": METADATA},
        )
        listed = json.loads(answer.read())
        self.assertEqual(listed["kind"], "PartialObjectMetadataList")
        self.assertEqual(listed["items"][0]["metadata"]["name"], "one")
        self.assertNotIn("type", listed["items"][0])

    def test_each_patch_does_what_it_says(self):
        self.apps.create_namespaced_deployment(self.namespace, deployment(0, ""))
        where = ("app", self.namespace)
        patch = self.apps.patch_namespaced_deployment
        patch(
            *where,
            [
                {"op": "test", "path": "/spec/replicas", "value": 0},
                {"op": "add", "path": "/metadata/labels/json", "value": "yes"},
            ],
            _content_type="application/json-patch+json",
        )
        failing = [{"op": "test", "path": "/spec/replicas", "value": 7}]
        self.refused(422, patch, *where, failing, _content_type="application/json-patch+json")
        patch(
            *where,
            {"metadata": {"labels": {"json": None, "merge": "yes"}}},
            _content_type="application/merge-patch+json",
        )
        variable = {"name": "c", "env": [{"name": "B", "value": "b"}]}
        got = patch(
            *where,
            {"spec": {"template": {"spec": {"containers": [variable]}}}},
            _content_type="application/strategic-merge-patch+json",
        )
        self.assertEqual(got.metadata.labels, {"app": "app", "merge": "yes"})
        container = got.spec.template.spec.containers[0]
        self.assertEqual(container.image, "hello-http:v1")
        self.assertEqual({variable.name for variable in container.env}, {"A", "B"})

    def test_appliers_conflict(self):
        where = ("app", self.namespace)

        def apply(manager, body, **more):
            return self.apps.patch_namespaced_deployment(
                *where,
                body,
                field_manager=manager,
                _content_type="application/apply-patch+yaml",
                **more,
            )

        apply("one", deployment(0, "mine"))
        theirs = deployment(1, "theirs")
        error = self.refused(409, apply, "two", theirs)
        causes = json.loads(error.body)["details"]["causes"]
        self.assertEqual(
            [cause["field"] for cause in causes],
            [".metadata.annotations.note", ".spec.replicas"],
        )
        for cause in causes:
            self.assertEqual(cause["reason"], "FieldManagerConflict")
            self.assertIn('conflict with "one"', cause["message"])
        got = apply("two", theirs, force=True)
        self.assertEqual(got.metadata.annotations["note"], "theirs")
        managers = {(entry.manager, entry.operation) for entry in got.metadata.managed_fields}
        self.assertTrue({("one", "Apply"), ("two", "Apply")} <= managers, managers)

    def test_the_dynamic_client_finds_kinds_by_itself(self):
        cache = os.path.join(os.environ["HOME"], "python-discovery.json")
        found = dynamic.DynamicClient(client.ApiClient(), cache_file=cache)
        deployments = found.resources.get(api_version="apps/v1", kind="Deployment")
        body = deployment(0, "")
        made = deployments.create(body=body, namespace=self.namespace)
        self.assertEqual(made.spec.strategy.type, "RollingUpdate")
        forced = deployments.server_side_apply(
            body=deployment(1, "applied"),
            name="app",
            namespace=self.namespace,
            field_manager="dynamic",
            force_conflicts=True,
        )
        self.assertEqual(forced.metadata.annotations.note, "applied")
        scale = deployments.scale.get(name="app", namespace=self.namespace)
        self.assertEqual((scale.kind, scale.spec.replicas), ("Scale", 1))
        listed = deployments.get(namespace=self.namespace, limit=1)
        self.assertEqual([item.metadata.name for item in listed.items], ["app"])
        deployments.delete(name="app", namespace=self.namespace)
        with self.assertRaises(dynamic.exceptions.NotFoundError):
            deployments.get(name="app", namespace=self.namespace)


if __name__ == "__main__":
    unittest.main()
