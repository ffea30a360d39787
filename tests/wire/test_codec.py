"""Run specs and job files as W&B's clients really write them."""

import json
from pathlib import Path

import pytest

from launch_async.domain.job import ArtifactSource, GitSource, ImageSource
from launch_async.domain.secret import Secret
from launch_async.wire.codec import (
    MalformedError,
    decode_job,
    decode_run_spec,
    encode_code_job,
)

SAMPLES = Path(__file__).parent / "samples"
SPEC = {"entity": "e", "project": "Target", "job": "e/p/j:latest", "docker": {}, "git": {}}


def test_a_spec_as_the_service_hands_it_out():
    spec = decode_run_spec(
        SPEC
        | {
            "overrides": {"run_config": {"lr": 0.5}, "args": ["--x", 1], "entry_point": ["python"]},
            "resource": "local-process",
            "resource_args": {"local-process": {"env": ["A=1"]}, "kubernetes": {}},
            "author": "ann",
            "_wandb_api_key": "k" * 40,
            "_resume_count": 1,
            "template_variables": {"unknown": "keys are for others"},
        }
    )
    assert (spec.entity, spec.project, spec.job) == ("e", "Target", "e/p/j:latest")
    assert spec.overrides.args == ("--x", "1")
    assert spec.resource_args == {"env": ["A=1"]}
    assert spec.api_key == Secret("k" * 40)
    assert "k" * 40 not in repr(spec)
    assert spec.resume_count == 1


def test_without_a_resource_it_is_a_container():
    spec = decode_run_spec({"entity": "e", "project": "p", "docker": {"docker_image": "img:1"}})
    assert (spec.image, spec.resource, spec.job) == ("img:1", "local-container", None)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("text", "Expected `object`, got `str`"),
        ({"entity": "e"}, "missing required field `project`"),
        ({"entity": "e", "project": "p"}, "neither a job nor an image"),
        (SPEC | {"image_uri": "img"}, "both a job and an image"),
        (
            SPEC | {"overrides": {"args": "x"}},
            r"Expected `array | null`, got `str` - at `$.overrides",
        ),
        (
            {"entity": "e", "project": "p", "uri": "placeholder-uri-scheduler"},
            "the uri 'placeholder-uri-scheduler', which this agent cannot run",
        ),
    ],
)
def test_what_cannot_be_understood_is_named(spec: object, said: str):
    with pytest.raises(MalformedError) as caught:
        decode_run_spec(spec)
    assert said in str(caught.value)


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_every_job_file_of_the_real_client_is_read(path: Path):
    job = decode_job(path.read_bytes(), ref="e/p/j:latest", artifact_id="QQ==")
    source_type = json.loads(path.read_text())["source_type"]
    kinds = {"artifact": ArtifactSource, "repo": GitSource, "image": ImageSource}
    assert isinstance(job.source, kinds[source_type])
    assert job.runtime in {None, "3.11"}


def test_our_own_job_file_is_one_too():
    content = encode_code_job(artifact_id="QQ==", entrypoint=["python", "t.py"], runtime="3.11")
    job = decode_job(content, ref="r", artifact_id="Qg==")
    assert job.source == ArtifactSource(artifact_id="QQ==", job_artifact_id="Qg==")
    assert (job.entrypoint, job.runtime) == (("python", "t.py"), "3.11")


def git_job(**source: object) -> bytes:
    git = {"remote": "https://h/r.git", "commit": "c" * 40}
    return json.dumps({"source_type": "repo", "source": {"git": git} | source}).encode()


def test_a_git_job_names_its_remote_without_the_login():
    content = git_job(git={"remote": "https://me:planted@h/r.git", "commit": None})
    source = decode_job(content, ref="r", artifact_id="Qg==").source
    assert isinstance(source, GitSource)
    assert (source.remote, source.commit, source.job_artifact_id) == (
        "https://h/r.git",
        "HEAD",
        "Qg==",
    )
    assert source.login == Secret("me:planted")
    assert "planted" not in repr(source)


def test_how_a_job_is_built_is_read():
    content = git_job(
        entrypoint=["python", "t.py"],
        build_context="./sub",
        dockerfile="../docker/Dockerfile",
        base_image="python:3.11-slim",
    )
    job = decode_job(content, ref="r", artifact_id="Qg==")
    assert (job.build_context, job.dockerfile) == ("sub", "../docker/Dockerfile")
    assert job.base_image == "python:3.11-slim"


@pytest.mark.parametrize(
    ("notebook", "entrypoint", "run", "converted"),
    [
        (True, ["python", "a/b.ipynb"], ("python", "a/b.py"), "a/b.ipynb"),
        (True, ["python", "./b.ipynb", "-x"], ("python", "./b.py", "-x"), "b.ipynb"),
        (True, ["python", "t.py"], ("python", "t.py"), None),
        (False, ["papermill", "b.ipynb"], ("papermill", "b.ipynb"), None),
        (None, ["python", "b.ipynb"], ("python", "b.ipynb"), None),
        (False, ["pythonCPython 3.11", "t.py"], ("python", "t.py"), None),
    ],
)
def test_the_script_of_a_notebook_is_run(
    notebook: bool | None, entrypoint: list[str], run: tuple[str, ...], converted: str | None
):
    content = git_job(entrypoint=entrypoint, notebook=notebook)
    job = decode_job(content, ref="r", artifact_id="Qg==")
    assert isinstance(job.source, GitSource)
    assert (job.entrypoint, job.source.notebook) == (run, converted)


@pytest.mark.parametrize(
    "source",
    [
        {"dockerfile": "../Dockerfile"},
        {"dockerfile": "/etc/passwd"},
        {"dockerfile": "../../x", "build_context": "sub"},
        {"dockerfile": "a\0b"},
        {"build_context": ".."},
        {"build_context": "a/../../b"},
        {"build_context": "/"},
        {"notebook": True, "entrypoint": ["python", "../x.ipynb"]},
    ],
)
def test_a_path_that_leads_out_of_the_code_is_refused(source: dict[str, object]):
    with pytest.raises(MalformedError, match=r"of the job e/p/j leads out of its code"):
        decode_job(git_job(**source), ref="e/p/j", artifact_id="QQ==")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"source_type":"artifact","source":{"artifact":"x"}}']
)
def test_a_broken_job_file_is_named(content: bytes):
    with pytest.raises(MalformedError, match=r"(wandb-job.json of|the job) e/p/j"):
        decode_job(content, ref="e/p/j", artifact_id="QQ==")
