"""What a launch adds to the pods of a manifest: marks, image, command, variables, code, logins.

| what | goes to |
|---|---|
| image | each container without one; in a Job or a Pod where none has it, the first container |
| the run's own containers | those with the run's image, else all |
| arguments, entry point | the run's own containers; a command gives way to an item's entry point |
| variables, secrets | every container of every pod, but not those that only prepare the pod |
| code of a job that is not built | the run's own containers |

W&B's agent gives command and arguments to sidecars too (launch-features.md K1), and the run id to
the first container of a custom resource only (K4). Values that come from an item are literal:
Kubernetes would read `$(NAME)` in them, and so put a secret into a config, hence the doubled `$`.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from launch_async.adapters.runners.kubernetes.fields import (
    Document,
    Path,
    as_text,
    as_texts,
    invalid,
    make_object,
    read_object,
    read_objects,
    read_text,
)
from launch_async.adapters.runners.kubernetes.names import OUR_PREFIX
from launch_async.adapters.runners.kubernetes.pods import Container, PodTemplate, containers_of
from launch_async.domain.environment import BASE_URL
from launch_async.domain.secret import Secret
from launch_async.ports.runner import CODE_DIRECTORY

FETCH_CONTAINER = "launch-fetch"
CODE_VOLUME = "launch-code"
FETCH_KEY_PREFIX = "fetch."
"""Before a variable's name: its key in the run's Secret if only the fetching container gets it."""


class CodeFetch(msgspec.Struct, frozen=True, kw_only=True):
    """A container that puts a job's code into an empty folder before the run begins."""

    image: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}
    secrets: Mapping[str, Secret[str]] = {}
    """Variables of its own, such as logins of git; it gets the run's secrets beside them."""
    working_directory: str = CODE_DIRECTORY
    """Where the run starts: `CODE_DIRECTORY` or a folder below it."""


def mark(
    fields: Document, path: Path, labels: Mapping[str, str], annotations: Mapping[str, str]
) -> None:
    """Put labels and annotations into the metadata of an object or of a pod template.

    Raises:
        ItemError: its own have such names, or are no texts.
    """
    metadata = make_object(fields, "metadata", path)
    for key, ours in (("labels", labels), ("annotations", annotations)):
        where = (*path, "metadata", key)
        given = as_texts(read_object(metadata, key, where[:-1]), where)
        for name in given:
            if name.startswith(OUR_PREFIX) and given[name] != ours.get(name):
                raise invalid(
                    (*where, name), f"is the agent's own, as all of {OUR_PREFIX}: remove it."
                )
        if given or ours:
            metadata[key] = {**given, **ours}


def give_names(pod: PodTemplate) -> None:
    """Name containers that have no name as W&B's agent does."""
    for index, container in enumerate(pod.containers):
        if read_text(container.fields, "name", container.path) is None:
            container.fields["name"] = f"launch{index}"


def give_image(pods: Sequence[PodTemplate], image: str, *, insist: bool) -> tuple[Container, ...]:
    """Set the run's image where one is missing, and return the run's own containers.

    `insist`: put it into the first container if all have others.
    """
    containers = containers_of(pods)
    for container in containers:
        if read_text(container.fields, "image", container.path) is None:
            container.fields["image"] = image
    own = tuple(container for container in containers if container.fields["image"] == image)
    if not own and insist and containers:
        containers[0].fields["image"] = image
        own = containers[:1]
    return own


def give_command(
    containers: Iterable[Container],
    *,
    entrypoint: Sequence[str],
    replace: bool,
    args: Sequence[str],
) -> None:
    """Set the program and its arguments; `replace`: also where there is a command."""
    for container in containers:
        for key in ("command", "args"):
            _make_texts(container, key)
        if entrypoint and (replace or not container.fields.get("command")):
            container.fields["command"] = [literal(word) for word in entrypoint]
        if args:
            container.fields["args"] = [literal(word) for word in args]


def give_variables(
    container: Container, environment: Mapping[str, str], secret_keys: Mapping[str, Document]
) -> None:
    """Append the launch's variables to the container's own; `secret_keys`: what each secret is.

    What the launch says of its run wins, but for the service's address (as in `with_asked`).
    A name is there once: of two entries Kubernetes takes the later one and warns at each change.
    """
    given = read_objects(container.fields, "env", container.path)
    fixed = {*environment, *secret_keys} - {BASE_URL}
    kept: list[Document] = []
    for index, entry in enumerate(given):
        path = (*container.path, "env", index)
        name = read_text(entry, "name", path)
        if name is None:
            raise invalid(path, "has no `name`: write {name: NAME, value: VALUE}.")
        if entry.get("value") is not None:
            entry["value"] = as_text(entry["value"], (*path, "value"))
        if name not in fixed:
            kept.append(entry)
    asked = {entry["name"] for entry in kept}
    kept += [
        {"name": name, "value": literal(value)}
        for name, value in environment.items()
        if name not in asked
    ]
    kept += [{"name": name, "valueFrom": source} for name, source in secret_keys.items()]
    container.fields["env"] = kept


def secret_keys_of(
    secret_name: str, names: Iterable[str], *, prefix: str = ""
) -> dict[str, Document]:
    """For each variable where its value is: a key of the run's Secret."""
    return {
        name: {"secretKeyRef": {"name": secret_name, "key": f"{prefix}{name}"}} for name in names
    }


def give_code(
    pods: Sequence[PodTemplate],
    own: Sequence[Container],
    fetch: CodeFetch,
    *,
    secret_keys: Mapping[str, Document],
) -> None:
    """Have the code fetched into each pod of the run before it begins in its folder.

    The fetching container is the last of those that prepare, as earlier ones may make its network.
    The run's own containers have their variables: it finds the service where they do.
    """
    mount = {"name": CODE_VOLUME, "mountPath": CODE_DIRECTORY}
    places = {container.path for container in own}
    for pod in pods:
        running = [container for container in pod.containers if container.path in places]
        if not running:
            continue
        for container in running:
            _append(container.fields, "volumeMounts", dict(mount), container.path)
            container.fields["workingDir"] = fetch.working_directory
        _append(pod.spec, "volumes", {"name": CODE_VOLUME, "emptyDir": {}}, pod.spec_path)
        fetching: Document = {
            "name": FETCH_CONTAINER,
            "image": fetch.image,
            "volumeMounts": [dict(mount)],
            **_size_of(running[0]),
        }
        for key, words in (("command", fetch.command), ("args", fetch.args)):
            if words:
                fetching[key] = [literal(word) for word in words]
        give_variables(Container(pod.spec_path, fetching), fetch.environment, secret_keys)
        fetching["env"] += address_entries(running[0])
        _append(pod.spec, "initContainers", fetching, pod.spec_path)


def address_entries(container: Container) -> list[Document]:
    """The entries of its `env` that say where the service is: at most one."""
    entries = read_objects(container.fields, "env", container.path)
    return [dict(entry) for entry in entries if entry.get("name") == BASE_URL][-1:]


def _size_of(container: Container) -> Document:
    """The processor and memory of the run are free until it begins; quotas want them named."""
    resources = read_object(container.fields, "resources", container.path)
    path = (*container.path, "resources")
    sizes = {
        kind: {
            name: amount
            for name, amount in read_object(resources, kind, path).items()
            if name in ("cpu", "memory")
        }
        for kind in ("requests", "limits")
    }
    return {"resources": sizes} if any(sizes.values()) else {}


def give_pull_secret(pod: PodTemplate, name: str) -> None:
    """Append a login for registries to those that the config has."""
    given = read_objects(pod.spec, "imagePullSecrets", pod.spec_path)
    if all(entry.get("name") != name for entry in given):
        pod.spec["imagePullSecrets"] = [*given, {"name": name}]


def literal(text: str) -> str:
    """`text` as Kubernetes must be given it, which reads `$(NAME)` and makes `$$` one."""
    return text.replace("$", "$$")


def _append(parent: Document, key: str, entry: Document, path: Path) -> None:
    parent[key] = [*read_objects(parent, key, path), entry]


def _make_texts(container: Container, key: str) -> None:
    value = container.fields.get(key)
    if value is None:
        return
    path = (*container.path, key)
    if not isinstance(value, list):
        raise invalid(path, 'must be a list of texts, such as ["python", "train.py"].')
    container.fields[key] = [as_text(word, (*path, index)) for index, word in enumerate(value)]
