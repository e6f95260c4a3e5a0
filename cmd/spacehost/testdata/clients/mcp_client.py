"""Calls one MCP tool with the real client. Arguments: URL NAME ARGUMENTS TOKEN (may be empty). Prints the tools and the result."""
import asyncio
import json
import sys

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client


async def main(url, name, arguments, token):
    async with streamablehttp_client(url, headers={"Authorization": f"Bearer {token}"} if token else {}) as (read, write, _), ClientSession(read, write) as session:
        await session.initialize()
        tools = [tool.name for tool in (await session.list_tools()).tools]
        answer = await session.call_tool(next(tool for tool in tools if tool.endswith(name)), arguments)
        print(json.dumps({"tools": tools, "failed": answer.isError, "text": answer.content[0].text}))


asyncio.run(asyncio.wait_for(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4]), 60))
