"""Passes a Unix socket on and prints each HTTP request that goes through: `GET /containers/json`.

python count_calls.py LISTEN TARGET
"""

import asyncio
import re
import sys

REQUEST = re.compile(rb"(GET|POST|DELETE|HEAD) (/[^ ?]*)[^ ]* HTTP/1\.1\r\n")
HEX = re.compile(r"/[0-9a-f]{12,}|/launch-[\w.-]+")


async def main(listen: str, target: str) -> None:
    async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(target)
        await asyncio.gather(
            copied(reader, far_writer, seen=True), copied(far_reader, writer, seen=False)
        )

    server = await asyncio.start_unix_server(passed, listen)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


async def copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, seen: bool) -> None:
    try:
        while piece := await reader.read(65536):
            if seen:
                for method, path in REQUEST.findall(piece):
                    print(method.decode(), HEX.sub("/ID", path.decode()), flush=True)
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
