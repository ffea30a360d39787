"""The folder with logins as Docker's own client uses it, and as our reader does."""

import subprocess
from pathlib import Path

import anyio
import pytest

from launch_async.adapters.registries.client import OciRegistry
from launch_async.adapters.registries.docker_config import DockerConfigLogins
from launch_async.adapters.registries.static import StaticLogin, StaticLogins
from launch_async.wire.docker_config import docker_config_folder
from registry_servers import Registries

pytestmark = [pytest.mark.anyio, pytest.mark.docker]


async def docker(*words: str, config: Path) -> subprocess.CompletedProcess[bytes]:
    with anyio.fail_after(60):
        return await anyio.run_process(["docker", "--config", str(config), *words], check=False)


async def test_docker_pushes_with_the_lent_login_and_not_without_it(
    session, registries: Registries, tiny_image: str, tmp_path: Path
):
    place = registries.login
    image = place.image("folder/tiny", f"v{tmp_path.name[-1]}")
    one = StaticLogin(host=place.host, username=str(place.username), password_env="WORD")
    logins = StaticLogins([one], {"WORD": str(place.password)})
    (tmp_path / "empty").mkdir()
    tagged = await docker("tag", tiny_image, str(image), config=tmp_path / "empty")
    assert tagged.returncode == 0, tagged.stderr
    try:
        refused = await docker("push", str(image), config=tmp_path / "empty")
        assert refused.returncode != 0
        async with docker_config_folder(tmp_path, logins, [image]) as folder:
            pushed = await docker("push", str(image), config=folder)
            assert pushed.returncode == 0, pushed.stderr
            read = DockerConfigLogins({"DOCKER_CONFIG": str(folder)})
            assert await OciRegistry(session, read).find(image) is not None
    finally:
        await docker("image", "rm", str(image), config=tmp_path / "empty")
