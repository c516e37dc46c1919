"""The vulnerable Flask application behind gunicorn-sync and gunicorn-gthread."""
import time

from flask import Flask, Response, request

import vulnerable

app = Flask(__name__)


def text(body, status=200):
    return Response(body, status, content_type="text/plain")


@app.get("/orders")
def orders():
    time.sleep(0.004)
    return text(f"orders {request.args.get('n', '')}\n")


@app.get("/ping")
def ping():
    return text(vulnerable.ping(vulnerable.parameter(request.args, "host")))


@app.get("/render")
def render():
    return text(vulnerable.render(vulnerable.parameter(request.args, "tpl")))


@app.get("/fetch")
def fetch():
    return text(*vulnerable.fetch(request.args.get("url", "")))


@app.get("/file")
def file():
    return text(*vulnerable.read_file(request.args.get("path", "")))


@app.post("/upload")
def upload():
    return text(vulnerable.upload(request.args["name"], request.get_data()))


@app.get("/uploads/<name>")
def plugin(name):
    return text(vulnerable.plugin(name, request.args.get("cmd", "")))


@app.get("/convert")
def convert():
    return text(vulnerable.convert(request.args.get("text", "")))


@app.get("/later")
def later():
    return text(vulnerable.later(request.args.get("cmd", "")))
