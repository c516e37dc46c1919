"""A blocking HTTP/1.1 backend: one thread, one connection at a time, keep-alive.

argv[1]: address to listen on; argv[2]: bytes per recv; argv[3], if there: "defer", for
TCP_DEFER_ACCEPT. Prints its port, then serves until killed.
  GET /run/COMMAND      runs COMMAND with sh -c, answers with its exit status
  GET /become/COMMAND   becomes sh -c COMMAND, in a thread that was there before any request
  GET /connect/PORT     connects to 127.0.0.1:PORT, answers "connected" or the error
  GET anything          answers "ok"
"""
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote

def run(command):
    done = subprocess.run(["/bin/sh", "-c", command], cwd="/usr", env={"SECRET": "hunter2"})
    return f"status {done.returncode}"

pool = ThreadPoolExecutor(1)
pool.submit(int).result()

def become(command):
    pool.submit(os.execv, "/bin/sh", ["/bin/sh", "-c", command]).result()

def connect(port):
    try:
        socket.create_connection(("127.0.0.1", int(port)), timeout=1).close()
        return "connected"
    except OSError as error:
        return f"error {error.errno}"

def answer(path):
    verb, _, argument = unquote(path).lstrip("/").partition("/")
    return {"run": run, "become": become, "connect": connect}.get(verb, lambda _: "ok")(argument)

def serve(connection, size):
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            more = connection.recv(size)
            if not more:
                return
            data += more
        head, _, data = data.partition(b"\r\n\r\n")
        body = answer(head.split(b" ")[1].decode()).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
listener = socket.create_server((sys.argv[1], 0), family=family, backlog=64)
if "defer" in sys.argv[3:]:
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Others wait while this one is served: an idle connection is given up.
    connection.settimeout(1)
    with connection:
        try:
            serve(connection, int(sys.argv[2]))
        except OSError:
            pass
