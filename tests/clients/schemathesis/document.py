"""Puts the OpenAPI documents of all group-versions into one, and the credentials of a
kubeconfig into files: `document.py KUBECONFIG FOLDER`."""

import base64
import json
import pathlib
import sys

import requests
import yaml


def main(kubeconfig: str, folder: str) -> None:
    into = pathlib.Path(folder)
    config = yaml.safe_load(pathlib.Path(kubeconfig).read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    decoded = lambda of, name: base64.b64decode(of[name]).decode()
    (into / "server").write_text(cluster["server"])
    (into / "ca.pem").write_text(decoded(cluster, "certificate-authority-data"))
    pair = decoded(user, "client-certificate-data") + decoded(user, "client-key-data")
    (into / "client.pem").write_text(pair)

    session = requests.Session()
    session.verify, session.cert = str(into / "ca.pem"), str(into / "client.pem")

    def get(path: str) -> dict:
        answer = session.get(cluster["server"] + path, headers={"accept": "application/json"})
        answer.raise_for_status()
        return answer.json()

    whole = {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1"}}
    paths, schemas = {}, {}
    for entry in get("/openapi/v3")["paths"].values():
        document = get(entry["serverRelativeURL"])
        paths |= document["paths"]
        schemas |= document["components"]["schemas"]
    # What a proxy or a stream leads to is somebody else's, or that there is nobody.
    paths = {path: item for path, item in paths.items() if not leads_away(item)}
    for operations in paths.values():
        for operation in operations.values():
            sent = operation.get("requestBody", {}) if isinstance(operation, dict) else {}
            content = sent.get("content", {})
            if "*/*" in content:
                content["application/json"] = content.pop("*/*")
    whole |= {"paths": paths, "components": {"schemas": schemas}}
    (into / "openapi.json").write_text(json.dumps(whole))
    print(f"{len(paths)} paths, {len(schemas)} schemas")


def leads_away(item: dict) -> bool:
    operations = (of for of in item.values() if isinstance(of, dict))
    return any(of.get("x-kubernetes-action") == "connect" for of in operations)


main(*sys.argv[1:])
