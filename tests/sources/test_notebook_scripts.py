"""Notebooks as scripts that Python runs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launch_async.adapters.sources.notebooks import convert, script_from
from launch_async.domain.errors import ItemError, Reason


def notebook(*cells: str, **more: Any) -> bytes:
    made = [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells]
    text = {"cell_type": "markdown", "source": "# A title"}
    return json.dumps({"nbformat": 4, "cells": [text, *made], **more}).encode()


def run(content: bytes, folder: Path) -> str:
    script = folder / "script.py"
    script.write_text(script_from(content))
    done = subprocess.run(
        [sys.executable, script], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_code_cells_run_in_their_order(tmp_path: Path):
    content = notebook("a = 1\nb = 2", "", "print(a + b)")
    assert run(content, tmp_path) == "3\n"


@pytest.mark.parametrize(
    "line",
    [
        "!touch touched",
        "%pip install x",
        "%matplotlib inline",
        "?print",
        "print??",
        "x = !ls",
        "a, b = !ls",
        "x = %env HOME",
        "!pip install \\\n  a \\\n  b",
        "if True:\n    !touch touched",
        "for _ in []:\n\t%time f()",
        "%%time",
        "%%bash\necho '\nfor x in y; do",
        "%%html\n<b>",
    ],
)
def test_what_only_ipython_understands_is_left_out(tmp_path: Path, line: str):
    assert run(notebook("print(1)", line, "print(2)"), tmp_path) == "1\n2\n"
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("cell", "printed"),
    [
        ("print(\n    'a%s'\n    % 'b'\n)", "ab\n"),
        ("print('''\n!a\n%b\n''')", "\n!a\n%b\n\n"),
        ('x = """\n%a"""\n!ls\nprint(x)', "\n%a\n"),
        ("x = 7 \\\n  % 4\nprint(x)", "3\n"),
        ("print('it\\'s (', \"#\")\n!ls", "it's ( #\n"),
        ("x = [  # a comment with (\n  1,\n]\n%who\nprint(x)", "[1]\n"),
        ("print(1 != 2)  # ! \\\n!ls\nprint('%d' % 3)", "True\n3\n"),
        ("%%time\nprint(1)", "1\n"),
        ("%%capture out\nprint(1)", "1\n"),
        ("print('\u2028'.encode())", "b'\\xe2\\x80\\xa8'\n"),
    ],
)
def test_what_is_python_stays(tmp_path: Path, cell: str, printed: str):
    assert run(notebook(cell), tmp_path) == printed


def test_notebooks_of_the_older_format_are_read(tmp_path: Path):
    cells = [
        {"cell_type": "markdown", "source": "text"},
        {"cell_type": "code", "input": ["print(", "1)"]},
    ]
    content = json.dumps({"nbformat": 3, "worksheets": [{"cells": cells}]}).encode()
    assert run(content, tmp_path) == "1\n"


def test_the_script_is_beside_its_notebook(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.ipynb").write_bytes(notebook("x = 1"))
    (tmp_path / "sub" / "a.py").write_text("old")
    convert(tmp_path, "sub/a.ipynb")
    assert (tmp_path / "sub" / "a.py").read_text().endswith("x = 1\n")


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"no json", b"[]", b"{}", b"null", b'"x"', b"[" * 100_000),
        *(b'{"cells": 1}', b'{"cells": [1]}', b'{"cells": [{}]}'),
        b'{"cells": [{"cell_type": "code"}]}',
        b'{"cells": [{"cell_type": "code", "source": [1]}]}',
        b'{"cells": [{"cell_type": "code", "source": 5}]}',
    ],
)
def test_what_is_no_notebook_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "a.ipynb").write_bytes(content)
    with pytest.raises(ItemError, match=r"notebook a\.ipynb cannot be read .no notebook") as caught:
        convert(tmp_path, "a.ipynb")
    assert caught.value.reason is Reason.JOB_INVALID


def test_a_notebook_that_is_missing_is_named(tmp_path: Path):
    with pytest.raises(ItemError, match=r"notebook a\.ipynb is not in the job's code"):
        convert(tmp_path, "a.ipynb")


def test_a_notebook_that_is_a_link_leads_nowhere(tmp_path: Path):
    outside = tmp_path / "outside.ipynb"
    outside.write_bytes(notebook("secret = 1"))
    code = tmp_path / "code"
    code.mkdir()
    (code / "a.ipynb").symlink_to(outside)
    with pytest.raises(ItemError, match="leads out of the job's code"):
        convert(code, "a.ipynb")
    (code / "b.ipynb").write_bytes(notebook("x = 1"))
    (code / "b.py").symlink_to(tmp_path / "victim")
    convert(code, "b.ipynb")
    assert not (tmp_path / "victim").exists()
    assert not (code / "b.py").is_symlink()
