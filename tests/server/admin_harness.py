"""The admin API over HTTP, as its holder of the admin key asks it."""

from typing import Any

from server_harness import Http, Reply

from client_documents import client_document

ADMIN_KEY = "admin-key-" + "a" * 40
VIEWER = client_document("Viewer.core")
UPSERT = client_document("UpsertBucket.core")


class Admin:
    """Requests to the admin API."""

    def __init__(self, http: Http) -> None:
        self.http = http

    async def ask(
        self, method: str, path: str, body: Any = None, *, key: str | None = ADMIN_KEY
    ) -> Reply:
        options: dict[str, Any] = {} if body is None else {"json": body}
        if key is not None:
            options["headers"] = {"Authorization": f"Bearer {key}"}
        return await self.http.send(method, f"/admin/v1{path}", **options)

    async def done(self, method: str, path: str, body: Any = None) -> Any:
        """Ask for what must work; return its JSON."""
        reply = await self.ask(method, path, body)
        assert reply.status in {200, 201, 204}, reply.json()
        return reply.json() if reply.body else None

    async def user(self, name: str, **more: Any) -> str:
        """Make a user; return the key."""
        return (await self.done("POST", "/users", {"username": name, **more}))["api_key"]

    async def upsert(self, key: str, entity: str, name: str = "r") -> Reply:
        return await self.http.ask(UPSERT, key, entity=entity, project="p", name=name)
