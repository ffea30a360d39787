"""Keys are taken out of whatever leaves the agent as text."""

from launch_async.domain.item import Item
from launch_async.domain.secret import Secret

MASK = "***"


def masked(text: str, item: Item, agent_key: Secret[str]) -> str:
    """`text` without the item's own key and the agent's."""
    for secret in (item.spec.api_key, agent_key):
        if secret is not None and secret.reveal():
            text = text.replace(secret.reveal(), MASK)
    return text
