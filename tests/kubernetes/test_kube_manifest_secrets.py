"""Secrets of a run: owned by its object, and with values that nothing else has."""

import base64
import json
from typing import Any

from kube_orders import an_order, manifest_of

from launch_async.adapters.runners.kubernetes.injection import CodeFetch
from launch_async.adapters.runners.kubernetes.secret_bodies import pull_secret_body, secret_body
from launch_async.domain.secret import Secret
from launch_async.ports.images import RegistryLogin
from launch_async.testing import SECRET

ARGS = {"metadata": {"name": "train", "namespace": "team"}}
ORDER = an_order(ARGS)


def plain(body: dict[str, Any]) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in body["data"].items()}


def test_a_runs_secret_has_its_variables_and_goes_with_its_object():
    manifest = manifest_of(ARGS)
    body = secret_body(manifest, ORDER, "uid-1")
    assert plain(body) == {"WANDB_API_KEY": SECRET}
    assert (body["apiVersion"], body["kind"], body["type"]) == ("v1", "Secret", "Opaque")
    metadata = body["metadata"]
    assert (metadata["name"], metadata["namespace"]) == (manifest.secret_name, "team")
    assert metadata["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": manifest.name, "uid": "uid-1"}
    ]
    ours = manifest.body["spec"]["template"]["metadata"]["labels"]
    assert metadata["labels"].items() >= ours.items()


def test_what_only_the_fetching_of_code_needs_is_in_it_under_a_name_of_its_own():
    fetch = CodeFetch(image="agent:1", secrets={"WANDB_API_KEY": Secret("git")})
    body = secret_body(manifest_of(ARGS, fetch=fetch), ORDER, "uid-1", fetch=fetch)
    assert plain(body) == {"WANDB_API_KEY": SECRET, "fetch.WANDB_API_KEY": "git"}


def test_logins_of_registries_are_a_docker_config():
    manifest = manifest_of(ARGS, pull_secret=True)
    logins = {
        "registry.example:5000": RegistryLogin(username="me", password=Secret("pä:ss")),
        "docker.io": RegistryLogin(username="hub", password=Secret("p")),
    }
    body = pull_secret_body(manifest, ORDER, "uid-1", logins)
    assert body["type"] == "kubernetes.io/dockerconfigjson"
    assert body["metadata"]["name"] == manifest.pull_secret_name
    assert body["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    auths = json.loads(plain(body)[".dockerconfigjson"])["auths"]
    assert auths.keys() == {"registry.example:5000", "https://index.docker.io/v1/"}
    own = auths["registry.example:5000"]
    assert (own["username"], own["password"]) == ("me", "pä:ss")
    assert base64.b64decode(own["auth"]).decode() == "me:pä:ss"
