"""Makes a virtual environment fast: pip is unpacked once per Python, and copied from then on.

`python -m venv` spends nearly all of its time on unpacking pip. An environment here is made without
pip, and gets the packages and scripts of a base environment that has it.
"""

import re
import shutil
from pathlib import Path

import anyio.to_thread

from launch_async.adapters.builders.pip import run_tool

_FIRST_LINE = re.compile(rb"\A#!.*\n")


async def make_base(folder: Path, *, python: Path, output: Path) -> None:
    """An environment with nothing but pip, in the place where it will stay."""
    await run_tool([str(python), "-m", "venv", str(folder)], cwd=folder.parent, output=output)


async def make_from_base(folder: Path, *, base: Path, python: Path, output: Path) -> None:
    """The same as `make_base` gives, with pip copied from `base`."""
    argv = [str(python), "-m", "venv", "--without-pip", str(folder)]
    await run_tool(argv, cwd=folder.parent, output=output)
    await anyio.to_thread.run_sync(_copy_packages, base, folder)


def _copy_packages(base: Path, folder: Path) -> None:
    for packages in base.glob("lib/python*/site-packages"):
        shutil.copytree(packages, folder / packages.relative_to(base), dirs_exist_ok=True)
    interpreter = f"#!{folder}/bin/python\n".encode()
    for script in base.glob("bin/pip*"):
        copy = folder / "bin" / script.name
        copy.write_bytes(_FIRST_LINE.sub(lambda _: interpreter, script.read_bytes()))
        copy.chmod(0o755)
