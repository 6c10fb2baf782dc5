"""What Schemathesis must know of Kubernetes to get behind its front door."""

import json
import zlib

import schemathesis

# The media types of patches are JSON, or YAML of which JSON is a part.
schemathesis.serializer.alias(
    [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ],
    "application/json",
)

NAMES = ["a", "b", "c"]


def met(name):
    """One of a few names for most names, so that requests are about the same objects."""
    number = zlib.crc32(str(name).encode("utf-8", "surrogatepass"))
    return name if number % 8 == 0 else NAMES[number % len(NAMES)]


@schemathesis.hook
def before_call(context, case, kwargs):
    parts = case.path_parameters or {}
    if "namespace" in parts:
        parts["namespace"] = "default"
    if "name" in parts:
        parts["name"] = met(parts["name"])
    if isinstance(case.body, dict):
        meta = case.body.get("metadata")
        if isinstance(meta, dict):
            name = parts.get("name") or met(json.dumps(case.body, default=str))
            meta.update(name=name)
            # What only a server knows would be refused at once.
            for field in ("namespace", "resourceVersion", "uid", "generateName"):
                meta.pop(field, None)
        elif meta is None:
            case.body["metadata"] = {"name": parts.get("name") or NAMES[0]}
    if case.media_type == "application/json-patch+json" and isinstance(case.body, dict):
        # The schema of all patches is an object; this one is a list of operations.
        case.body = [
            {"op": "add" if value else "remove", "path": f"/{field}", "value": value}
            for field, value in case.body.items()
        ]
    if case.method == "GET" and case.query:
        # A watch ends, and nobody waits for a version that is still to come.
        case.query["timeoutSeconds"] = "1"
    if case.method == "PATCH" and case.media_type == "application/apply-patch+yaml":
        case.query = {**(case.query or {}), "fieldManager": "schemathesis"}


@schemathesis.check
def server_is_sound(context, response, case):
    if response.status_code < 500:
        return
    # A version that the cluster has not reached is waited for, and then is told of so.
    if response.status_code == 504 and "Too large resource version" in response.text:
        return
    raise AssertionError(f"{response.status_code}: {response.text[:2000]}")
