"""A service with a command injection: GET /echo?text=... runs `echo text` in a shell.

Eight threads, one request each at a time, one request a connection. GET /stream?text=... sends a
first part before the shell is started.
"""
import socket
import subprocess
import threading
from urllib.parse import parse_qs, urlsplit


def serve(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return
        data += more
    target = urlsplit(data.split(b" ")[1].decode("latin-1"))
    text = parse_qs(target.query).get("text", [""])[0]
    stream = target.path == "/stream"
    if stream:
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbefore the shell\n")
    body = b"after the shell\n"
    if text:
        done = subprocess.run("echo " + text, shell=True, capture_output=True)
        body += done.stdout
    if stream:
        connection.sendall(body)
    else:
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection.sendall(head + body)


def work(listener):
    while True:
        connection, _ = listener.accept()
        with connection:
            try:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                serve(connection)
            except OSError:
                pass


listener = socket.create_server(("127.0.0.1", 0), backlog=256)
print(listener.getsockname()[1], flush=True)
for _ in range(7):
    threading.Thread(target=work, args=(listener,), daemon=True).start()
work(listener)
