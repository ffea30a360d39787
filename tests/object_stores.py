"""The object store that scripts/object-store starts; it speaks S3 with a folder behind it."""

import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import msgspec

PORT_VARIABLE = "LAUNCH_ASYNC_OBJECT_STORE_PORT"
DEFAULT_PORT = 5495
STATE_VARIABLE = "LAUNCH_ASYNC_OBJECT_STORE_STATE"
REMEDY = "start it with `make object-store-up`"
LOGIN = "launch_async"
"""Access key and secret key."""
REGION = "us-east-1"
ROOT_HOME = "/var/lib/launch-async-ci"


class ObjectStore(msgspec.Struct, frozen=True):
    """A store on this machine; a bucket is a folder in `folder`."""

    url: str
    folder: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """By which programs find it in the place of AWS, with its login."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": LOGIN,
            "AWS_SECRET_ACCESS_KEY": LOGIN,
            "AWS_REGION": REGION,
        }

    def make_bucket(self, name: str) -> Path:
        """Its folder."""
        bucket = self.folder / name
        bucket.mkdir()
        return bucket


def find_object_store() -> ObjectStore | None:
    """Return the store that tests may use, if it answers."""
    url = f"http://127.0.0.1:{os.environ.get(PORT_VARIABLE) or DEFAULT_PORT}"
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError as error:
        with error:
            return ObjectStore(url, _state() / "buckets") if error.code == 403 else None
    except OSError:
        pass
    return None


def _state() -> Path:
    given = os.environ.get(STATE_VARIABLE)
    if given:
        return Path(given)
    home = ROOT_HOME if os.geteuid() == 0 else _user_home()
    return Path(home) / "object-store"


def _user_home() -> str:
    cache = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return f"{cache}/launch-async-ci"
