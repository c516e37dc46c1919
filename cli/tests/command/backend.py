"""An HTTP/1.1 backend with a thread for each connection, which works on one request at a time; keep-alive.

Prints its port, then serves until killed. The files are those of the folder that it is started in.
  GET /run/COMMAND   runs COMMAND with sh -c, answers with its exit status
  GET /code          the same with what the file "code" says: the request does not
  GET /save/HEX      writes what is spelt so to the file "code"
  GET /tell/COMMAND  sends half of the answer, and when there is a file "free" runs COMMAND and sends the rest
  GET /hold          writes the file "held", and answers when there is a file "free"
  GET /together      answers when there are eight of them
  GET anything       answers "ok"
"""
import pathlib
import socket
import subprocess
import threading
import time
from urllib.parse import unquote

eight = threading.Barrier(8)

def run(command):
    try:
        return f"status {subprocess.run(['/bin/sh', '-c', command]).returncode}"
    except PermissionError:
        return "refused"

def code(_):
    return run(pathlib.Path("code").read_text())

def save(spelt):
    pathlib.Path("code").write_bytes(bytes.fromhex(spelt))
    return "ok"

def wait_to_be_free():
    while not pathlib.Path("free").exists():
        time.sleep(0.01)

def hold(_):
    pathlib.Path("held").touch()
    wait_to_be_free()
    return "ok"

def together(_):
    eight.wait()
    return "ok"

def chunk(text):
    return b"%x\r\n%s\r\n" % (len(text), text.encode())

def tell(connection, command):
    # An answer with a length would be kept back by the proxy until it is whole.
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk("before"))
    wait_to_be_free()
    connection.sendall(chunk(run(command)) + chunk(""))

def answer(connection, target):
    verb, _, argument = unquote(target).lstrip("/").partition("/")
    if verb == "tell":
        return tell(connection, argument)
    verbs = {"run": run, "code": code, "save": save, "hold": hold, "together": together}
    body = verbs.get(verb, lambda _: "ok")(argument).encode()
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

def serve(connection):
    data = b""
    with connection:
        while True:
            while b"\r\n\r\n" not in data:
                more = connection.recv(65536)
                if not more:
                    return
                data += more
            head, _, data = data.partition(b"\r\n\r\n")
            answer(connection, head.split(b" ")[1].decode())

def attend(connection):
    try:
        serve(connection)
    except OSError:
        pass  # cut by a verdict

listener = socket.create_server(("127.0.0.1", 0), backlog=64)
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=attend, args=(connection,), daemon=True).start()
