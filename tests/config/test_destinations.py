"""Where images are pushed to: `builder.destination`, or what W&B's `registry` block says of it."""

from typing import Any

import pytest

from launch_async.config.model import LaunchConfig
from launch_async.domain.errors import ConfigError

GAR = {"type": "gcr", "region": "eu", "project": "p", "repository": "r", "image-name": "i"}
ECR = {"type": "ecr", "account_id": 123456789012, "region": "us-east-1", "repo_name": "a/b"}


def destination(registry: dict[str, Any] | None, builder: dict[str, Any] | None = None):
    return LaunchConfig(registry=registry, builder=builder).building().destination


@pytest.mark.parametrize(
    ("registry", "named"),
    [
        (None, None),
        ({}, None),
        ({"type": "local"}, None),
        ({"type": "local", "uri": "h.io/r"}, None),
        ({"uri": "h.io/r"}, "h.io/r"),
        ({"type": "ecr", "uri": "https://h:5000/r/"}, "h:5000/r"),
        ({"type": "acr", "uri": "n.azurecr.io/r"}, "n.azurecr.io/r"),
        (GAR, "eu-docker.pkg.dev/p/r/i"),
        (GAR | {"uri": "h.io/r"}, "h.io/r"),
        (ECR, "123456789012.dkr.ecr.us-east-1.amazonaws.com/a/b"),
        (ECR | {"account_id": "000000000001"}, "000000000001.dkr.ecr.us-east-1.amazonaws.com/a/b"),
    ],
)
def test_the_registry_block_names_a_repository_as_for_wandbs_agent(
    registry: dict[str, Any] | None, named: str | None
):
    assert destination(registry) == named


def test_the_builders_own_comes_first_whatever_the_registry_lacks():
    assert destination({"type": "gcr"}, {"destination": "h.io/r"}) == "h.io/r"


@pytest.mark.parametrize(
    ("registry", "said"),
    [
        (GAR | {"project": ""}, "registry: the type gcr needs uri, or region, project, repository"),
        ({"type": "ecr", "region": "x"}, "type ecr needs uri, or account_id, region and repo_name"),
        ({"type": "acr"}, "registry: the type acr needs uri"),
        ({"type": "asw", "uri": "h.io/r"}, "registry.type: "),
        (GAR | {"image-name": "I"}, "registry: 'eu-docker.pkg.dev/p/r/I' is no repository"),
        ({"type": "gcr", "uri": "H/r:t"}, "registry.uri: 'H/r:t' is no repository"),
    ],
)
def test_a_registry_that_names_none_is_an_error_about_its_key(registry: dict[str, Any], said: str):
    with pytest.raises(ConfigError) as raised:
        destination(registry)
    assert said in str(raised.value)
    assert "builder.destination" not in str(raised.value)


def test_a_destination_that_is_none_is_an_error_about_that_key():
    with pytest.raises(ConfigError, match=r"^builder\.destination: 'h/r:1' is no repository"):
        destination({"uri": "h.io/r"}, {"destination": "h/r:1"})


@pytest.mark.parametrize("address", ["ada:hunter2@h/r", "https://ada:hunter2@h/r", "//a:hunter2@h"])
def test_a_password_in_an_address_is_not_shown(address: str):
    with pytest.raises(ConfigError) as raised:
        destination({"uri": address})
    assert "hunter2" not in str(raised.value)
