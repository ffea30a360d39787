"""Bytes that are too large for the database, streamed to a folder or an object store."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import obstore
from obstore.store import LocalStore, ObjectStore, from_url

from launch_async.server.errors import ApiError

PART_BYTES = 5 * 1024 * 1024  # the smallest part that S3 takes
CHUNK_BYTES = 1024 * 1024
PARTS_AT_ONCE = 2


class BlobInfo(msgspec.Struct, frozen=True):
    """What is known of a blob after it was written."""

    size: int
    md5_hex: str


class BlobHead(msgspec.Struct, frozen=True):
    """What a store tells of a blob without its bytes."""

    size: int
    etag: str | None
    """Another one when the bytes are others."""


class Blobs:
    """One store of blobs by key. Keys are plain ASCII made of ids, never users' file names."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @classmethod
    def open(cls, location: str) -> "Blobs":
        """Open a folder (made when missing), `file:///folder`, or an object store's URL."""
        scheme, mark, rest = location.partition("://")
        if not mark or scheme == "file":
            folder = Path(rest if mark else location)
            folder.mkdir(parents=True, exist_ok=True)
            return cls(LocalStore(prefix=folder))
        return cls(from_url(location))

    async def put(
        self, key: str, chunks: AsyncIterator[bytes], *, md5_hex: str | None = None
    ) -> BlobInfo:
        """Store a stream under `key`, replacing what was there only when it is complete.

        A stream with another MD5 than `md5_hex` is refused at its end, and leaves no trace.
        """
        md5 = hashlib.md5(usedforsecurity=False)
        size = 0

        async def measured() -> AsyncIterator[bytes]:
            nonlocal size
            async for chunk in chunks:
                md5.update(chunk)
                size += len(chunk)
                yield chunk
            if md5_hex not in {None, md5.hexdigest()}:
                raise ApiError(
                    f"the upload has the MD5 {md5.hexdigest()}, not {md5_hex}; send it again"
                )

        await obstore.put_async(
            self._store,
            key,
            measured(),
            chunk_size=PART_BYTES,
            max_concurrency=PARTS_AT_ONCE,
        )
        return BlobInfo(size=size, md5_hex=md5.hexdigest())

    async def get(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        """Open `key` (FileNotFoundError when absent) and return its bytes from start to end."""
        if end is not None:
            result = await obstore.get_async(self._store, key, options={"range": (start, end)})
        elif start > 0:
            result = await obstore.get_async(self._store, key, options={"range": {"offset": start}})
        else:  # no range fits a blob without bytes
            result = await obstore.get_async(self._store, key)

        async def chunks() -> AsyncIterator[bytes]:
            async for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

        return chunks()

    async def head(self, key: str) -> BlobHead | None:
        """Return what is known of `key`, or None when there is no such blob."""
        try:
            meta = await obstore.head_async(self._store, key)
        except FileNotFoundError:
            return None
        etag = meta["e_tag"]
        return BlobHead(meta["size"], None if etag is None else etag.strip('"'))

    async def delete(self, key: str) -> None:
        """Delete `key`; absent already is no error."""
        try:
            await obstore.delete_async(self._store, key)
        except FileNotFoundError:
            return
