"""The vulnerable Starlette application behind uvicorn.

/ping and /render hold up the event loop, as careless `async def` endpoints do. /ping?pool=1 goes
where Starlette runs plain `def` endpoints: to the thread pool.
"""
import asyncio

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import vulnerable


async def orders(request):
    await asyncio.sleep(0.004)
    return PlainTextResponse(f"orders {request.query_params.get('n', '')}\n")


async def ping(request):
    host = vulnerable.parameter(request.query_params, "host")
    if request.query_params.get("pool") == "1":
        return PlainTextResponse(await run_in_threadpool(vulnerable.ping, host))
    return PlainTextResponse(vulnerable.ping(host))


async def render(request):
    return PlainTextResponse(vulnerable.render(vulnerable.parameter(request.query_params, "tpl")))


def fetch(request):
    return PlainTextResponse(*vulnerable.fetch(request.query_params.get("url", "")))


def file(request):
    return PlainTextResponse(*vulnerable.read_file(request.query_params.get("path", "")))


async def upload(request):
    return PlainTextResponse(vulnerable.upload(request.query_params["name"], await request.body()))


def plugin(request):
    command = request.query_params.get("cmd", "")
    return PlainTextResponse(vulnerable.plugin(request.path_params["name"], command))


def convert(request):
    return PlainTextResponse(vulnerable.convert(request.query_params.get("text", "")))


def later(request):
    return PlainTextResponse(vulnerable.later(request.query_params.get("cmd", "")))


app = Starlette(
    routes=[
        Route("/orders", orders),
        Route("/ping", ping),
        Route("/render", render),
        Route("/fetch", fetch),
        Route("/file", file),
        Route("/upload", upload, methods=["POST"]),
        Route("/uploads/{name}", plugin),
        Route("/convert", convert),
        Route("/later", later),
    ]
)
