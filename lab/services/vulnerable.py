"""What the vulnerable Python services do, whichever framework and server is in front.

Uploads are plugins: Python sources with a function `run(cmd)`.
"""
import os
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path

from jinja2 import Environment

DIRECTORY = Path(os.environ["DIR"])
TEMPLATES = Environment()
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def parameter(query, name):
    value = query.get(name, "")
    return value[::-1] if query.get("r") == "1" else value


def ping(host):
    return subprocess.run("echo ping " + host, shell=True, stdout=subprocess.PIPE).stdout


def render(template):
    return TEMPLATES.from_string(template).render()


def convert(number):
    if not (number.isascii() and number.isdigit()):
        return "not a number\n"
    return subprocess.run(["/usr/bin/factor", number], stdout=subprocess.PIPE).stdout


def fetch(url):
    """Body and status."""
    try:
        with DIRECT.open(url, timeout=10) as response:
            return response.read(), 200
    except (OSError, ValueError):
        return "no answer\n", 502


def read_file(path):
    """Body and status."""
    try:
        with open(f"{DIRECTORY}/public/{path}", "rb") as file:
            return file.read(), 200
    except OSError:
        return "not found\n", 404


def upload(name, content):
    (DIRECTORY / "uploads" / Path(name).name).write_bytes(content)
    return "stored\n"


def plugin(name, command):
    source = (DIRECTORY / "uploads" / Path(name).name).read_text()
    names = {}
    exec(compile(source, name, "exec"), names)
    return names["run"](command)


def later(command):
    timer = threading.Timer(2, subprocess.run, [["sh", "-c", command]])
    timer.daemon = True
    timer.start()
    return "later\n"
