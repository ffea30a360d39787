"""Reads launch-config.yaml: every error names the file, the line and the remedy."""

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from launch_async.config.kubernetes import KubernetesSection, LeaseSection
from launch_async.config.model import (
    TOLERANT_SECTIONS,
    AgentSection,
    LaunchConfig,
    OrphansConfig,
    QueueConfig,
    RetentionConfig,
    StartTimeouts,
    TargetConfig,
)
from launch_async.config.paths import home_dir
from launch_async.domain.errors import ConfigError

DEFAULT_PATH = Path(".config/wandb/launch-config.yaml")
"""Below the home folder."""
MAX_BYTES = 1 << 20
MAX_NODES = 100_000
"""Values and keys, those behind an alias as often as it is used: a few lines of aliases of aliases
would be billions."""

_AT = re.compile(r"^(?P<text>.*?)(?: - at (?:`key` in )?`\$(?P<path>[^`]*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"unknown field `(?P<name>[^`]*)`")
_STEP = re.compile(r"\.(?P<key>[\w-]+)|\[(?P<index>\d+)\]")
_ELSEWHERE = {
    ".base_url": "the address of the API is WANDB_BASE_URL",
    ".api_key": "the key is no part of the file: it is WANDB_API_KEY, or in the netrc file",
    ".project": "items name the project of their runs; remove it",
    ".runner": "queues' resource configs say how things run; remove it",
    ".queue": "name all queues in `queues`",
}
"""What old files of W&B's agent hold, and where it belongs now."""
_MODELS: dict[str, type[msgspec.Struct]] = {
    "": LaunchConfig,
    ".agent": AgentSection,
    ".agent.kubernetes": KubernetesSection,
    ".agent.kubernetes.lease": LeaseSection,
    ".agent.orphans": OrphansConfig,
    ".agent.start_timeouts": StartTimeouts,
    ".agent.retention": RetentionConfig,
    ".agent.targets[...]": TargetConfig,
}


class Loaded(msgspec.Struct, frozen=True):
    """A valid configuration and what its author may want to know."""

    config: LaunchConfig
    warnings: tuple[str, ...] = ()
    name: str = ""
    """The file, as errors name it; empty when there is none."""
    places: Mapping[str, str] = {}
    """`FILE:LINE:COLUMN` of every key that the file gives, by its dotted path: `agent.poll`,
    `queues[0].max_jobs`."""


def load_default() -> Loaded:
    """The configuration where W&B's agent looks for it; the defaults when there is no file.

    Raises:
        ConfigError: as `load_config`.
    """
    path = home_dir() / DEFAULT_PATH
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return Loaded(LaunchConfig())
    except OSError:
        pass  # it may be there: the reason why it cannot be read is said below
    return load_config(path)


def load_config(path: Path) -> Loaded:
    """The configuration in the file `path`.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or has a wrong or unknown key.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}); give another file with -c"
        raise ConfigError(msg) from error
    if len(content) > MAX_BYTES:
        msg = f"{path}: larger than 1 MiB; is this a launch-config.yaml?"
        raise ConfigError(msg)
    return parse_config(content, name=str(path))


def parse_config(content: bytes, *, name: str) -> Loaded:
    """The configuration in `content`; `name` stands for the file in errors.

    Raises:
        ConfigError: as `load_config`.
    """
    root, data = _read_yaml(content, name)
    if data is None:
        return Loaded(LaunchConfig(), name=name)
    if not isinstance(data, dict):
        msg = f"{name}:1:1: expected keys and values such as `max_jobs: 4`"
        raise ConfigError(msg)
    try:
        config = msgspec.convert(_normalised(data), LaunchConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(_located(str(error), root, name)) from error
    _refuse_two_limits(config, root, name)
    warnings = tuple(_tolerated(data, root, name))
    places = dict(_places(root, "", name))
    if "queue" in places:
        places["queues"] = places["queues[0]"] = places["queue"]
    return Loaded(config, warnings, name, places)


class _Loader(yaml.SafeLoader):
    """Says where a value is that is not of the kind that it looks like, such as 2024-13-45."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError) as error:
            problem = f"not a valid {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


def _read_yaml(content: bytes, name: str) -> tuple[Any, Any]:
    """The file as a tree that knows its places, and its values; None for both if it is empty."""
    try:
        loader = _Loader(content)
        root = loader.get_single_node()
        if root is None:
            return None, None
        _refuse_size(root, name)
        _refuse_duplicates(root, name)
        return root, loader.construct_document(root)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        problem = getattr(error, "problem", None) or "cannot be read"
        msg = f"{where}: not valid YAML: {problem}"
        raise ConfigError(msg) from error
    except RecursionError as error:
        raise ConfigError(_too_much(name)) from error
    except UnicodeDecodeError as error:
        msg = f"{name}: not UTF-8 text; is this a launch-config.yaml?"
        raise ConfigError(msg) from error


def _too_much(name: str) -> str:
    return (
        f"{name}: too much in it, nested too deeply, or a part of itself; "
        "is this a launch-config.yaml?"
    )


def _refuse_size(root: Any, name: str) -> None:
    nodes, count = [root], 0
    while nodes:
        node, count = nodes.pop(), count + 1
        if count + len(nodes) > MAX_NODES:
            raise ConfigError(_too_much(name))
        if isinstance(node, yaml.MappingNode):
            nodes += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value


def _normalised(data: dict[Any, Any]) -> dict[Any, Any]:
    """What W&B's agent reads too: limits given as text, and `queue: name` for one queue."""
    result = dict(data)
    for key in ("max_jobs", "max_schedulers", "verbosity"):
        value = result.get(key)
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,9}", value):
            result[key] = int(value)
    if isinstance(result.get("queue"), str) and "queues" not in result:
        result["queues"] = [result.pop("queue")]
    return result


def _places(node: Any, path: str, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = f"{path}.{key.value}" if path else str(key.value)
            yield below, _mark(name, key)
            yield from _places(value, below, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield f"{path}[{index}]", _mark(name, child)
            yield from _places(child, f"{path}[{index}]", name)


def _refuse_two_limits(config: LaunchConfig, root: Any, name: str) -> None:
    seen: dict[str, QueueConfig] = {}
    for index, queue in enumerate(config.queues):
        made = QueueConfig(name=queue) if isinstance(queue, str) else queue
        if seen.setdefault(made.name, made) != made:
            where = _mark(name, _node_at(root, f".queues[{index}]"))
            raise ConfigError(
                f"{where}: the queue `{made.name}` is listed twice with other settings"
            )


def _refuse_duplicates(node: Any, name: str) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    msg = f"{_mark(name, key)}: `{key.value}` is given twice; remove one"
                    raise ConfigError(msg)
                seen.add(key.value)
            _refuse_duplicates(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _refuse_duplicates(child, name)


def _located(message: str, root: Any, name: str) -> str:
    """msgspec's message with file, line and column before it, and a suggestion behind it."""
    found = _AT.match(message)
    text, path = (found["text"], found["path"] or "") if found else (message, "")
    node = _node_at(root, path)
    unknown = _UNKNOWN.search(text)
    if unknown is None:
        text = text if " - at `key`" not in message else "each key must be a text; quote it"
        return f"{_mark(name, node)}: {path.lstrip('.') or 'the file'}: {text}"
    key = unknown["name"]
    model = _MODELS.get(path, QueueConfig)
    close = difflib.get_close_matches(key, model.__struct_encode_fields__, n=1)
    hint = f"did you mean `{close[0]}`?" if close else "see docs/configuration.md"
    hint = _ELSEWHERE.get(f"{path}.{key}", hint)
    where = f" in `{path.lstrip('.')}`" if path else ""
    return f"{_mark(name, _key_node(node, key))}: unknown key `{key}`{where}; {hint}"


def _tolerated(data: Mapping[str, Any], root: Any, name: str) -> Iterator[str]:
    for section, known in TOLERANT_SECTIONS.items():
        content = data.get(section)
        if not isinstance(content, dict):
            continue
        for key in content:
            if key not in known:
                close = difflib.get_close_matches(str(key), known, n=1)
                hint = f"; did you mean `{close[0]}`?" if close else ""
                node = _key_node(_node_at(root, f".{section}"), str(key))
                yield f"{_mark(name, node)}: `{section}.{key}` is not known and ignored{hint}"


def _node_at(root: Any, path: str) -> Any:
    node = root
    for step in _STEP.finditer(path):
        if isinstance(node, yaml.SequenceNode) and (step["index"] or "").isdigit():
            children: list[Any] = node.value
            node = children[int(step["index"])]
        elif isinstance(node, yaml.MappingNode):
            node = next((value for key, value in node.value if key.value == step["key"]), node)
    return node


def _key_node(node: Any, name: str) -> Any:
    if isinstance(node, yaml.MappingNode):
        return next((key for key, _ in node.value if key.value == name), node)
    return node


def _mark(name: str, node: Any) -> str:
    mark = node.start_mark
    return f"{name}:{mark.line + 1}:{mark.column + 1}"
