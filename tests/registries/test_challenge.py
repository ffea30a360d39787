"""`WWW-Authenticate` headers of the world's registries, and broken ones."""

import pytest

from launch_async.adapters.registries.challenge import Challenge, choose_challenge

HUB = Challenge(
    scheme="bearer",
    realm="https://auth.docker.io/token",
    service="registry.docker.io",
    scope="repository:library/python:pull",
)
PARTS = 'realm="https://auth.docker.io/token",service="registry.docker.io"'
SCOPE = 'scope="repository:library/python:pull"'


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([f"Bearer {PARTS},{SCOPE}"], HUB),
        ([f"bearer {SCOPE} , {PARTS}"], HUB),
        ([f'Bearer {PARTS},{SCOPE},error="invalid_token"'], HUB),
        (['Basic realm="Registry, of realm=things"'], Challenge(scheme="basic")),
        (["Basic"], Challenge(scheme="basic")),
        (["BASIC realm=x"], Challenge(scheme="basic")),
        (["Negotiate", 'Basic realm="x"', f"Bearer {PARTS},{SCOPE}"], HUB),
        ([f'Basic realm="x", Bearer {PARTS}, {SCOPE}'], HUB),
        (['Bearer realm="a\\"b\\\\c"'], Challenge(scheme="bearer", realm='a"b\\c')),
        (["Bearer realm=https://a.b/c"], Challenge(scheme="bearer", realm="https://a.b/c")),
        (['Bearer service="x"', "Basic"], Challenge(scheme="basic")),
        (['Bearer realm=""'], None),
        (["Negotiate"], None),
        ([""], None),
        ([], None),
        (['realm="x"'], None),
        (['Bearer realm="unclosed'], None),
    ],
)
def test_the_best_way_to_log_in_is_chosen(headers, expected):
    assert choose_challenge(headers) == expected
