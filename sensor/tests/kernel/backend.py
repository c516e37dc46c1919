"""A blocking HTTP/1.1 backend: one thread, one connection at a time, keep-alive.

argv[1]: address to listen on; argv[2]: bytes per recv; argv[3], if there: "defer", for
TCP_DEFER_ACCEPT, "splice", to read by splice, or "peek", to look a while before it
reads, or "hop" or "hop-tcp", to have an application server behind it, to which there is a connection from
the start with "hop-tcp-early". Prints its port, then serves until killed.
  GET /via/PROTOCOL/READING/VERB/ARGUMENT
                        has the application server do the rest, through a unix socket or TCP, and answers with its pid and answer: PROTOCOL
                        is http, kept (http on one connection for all, with a body that looks like the first request), unheard
                        (http, and nobody waits for the answer), bare (http without the token's header), bare-kept (kept
                        without it), split (bare, with the empty line in a segment of its own), forged (bare, with a header
                        that looks like it), fastcgi, nameless (fastcgi without the token's header) or nested (fastcgi
                        whose body looks like a request with the first token); READING is whole, pieces
                        (as PHP-FPM reads), vectors (recvmsg) or body (whole, and 4096 bytes of a body)
  GET /pool/...         as via, from a thread that was there before any request
  GET /where            answers with the application server's port
  GET /run/COMMAND      runs COMMAND with sh -c, answers with its exit status, or "refused" (as below)
  GET /become/COMMAND   becomes sh -c COMMAND, in a thread that was there before any request
  GET /thread/COMMAND   as run, from a thread that was not there before
  GET /spawn/COMMAND    as run, but without a fork of this process's memory (vfork)
  GET /orphan/COMMAND   answers "ok"; a grandchild in a session of its own becomes sh -c COMMAND
  GET /open/KIND/ADDRESS/PORT
                        opens a flow to there: KIND is tcp, mptcp, fastopen or udp (not connected);
                        answers "opened" or the error
  GET /raw/KIND         a child opens a socket: KIND is raw or ping; answers with its status, 0 if it could
  GET /read/PATH        answers with what is in the file, or "refused"
  GET /write/PATH       writes a word to the file, answers "ok" or "refused"
  GET /move/FROM:TO     moves the file, answers "ok" or "refused"
  GET /two              reads a request from another connection before it answers "ok"; that one waits
  GET /echo             answers with the head it has been sent, in a segment of its own
  GET /tokens           answers with the digits of all tokens it has been sent
  GET anything          answers "ok"
"""
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from urllib.parse import unquote

words = sys.argv[3:]
if "hop-tcp-early" in words:
    words.append("hop-tcp")

def run(command):
    done = subprocess.run(["/bin/sh", "-c", command], cwd="/usr", env={"SECRET": "hunter2"})
    return f"status {done.returncode}"

pool = ThreadPoolExecutor(1)
pool.submit(int).result()

def become(command):
    pool.submit(os.execv, "/bin/sh", ["/bin/sh", "-c", command]).result()

def thread(command):
    with ThreadPoolExecutor(1) as fresh:
        return fresh.submit(run, command).result()

def spawn(command):
    pid = os.posix_spawn("/bin/sh", ["/bin/sh", "-c", command], {})
    return f"status {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}"

def orphan(command):
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                os.execv("/bin/sh", ["/bin/sh", "-c", command])
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return "ok"

def open_flow(argument):
    kind, address, port = argument.split("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    stream = kind != "udp"
    protocol = {"mptcp": 262}.get(kind, 0)
    to = (address, int(port))
    try:
        with socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM, protocol) as s:
            s.settimeout(1)
            if kind == "udp":
                s.sendto(b"x", to)
            elif kind == "fastopen":
                s.sendto(b"x", socket.MSG_FASTOPEN, to)
            else:
                s.connect(to)
        return "opened"
    except OSError as error:
        return f"error {error.errno}"

def raw(kind):
    child = os.fork()
    if child == 0:
        kinds = {"raw": (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP),
                 "ping": (socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)}
        try:
            socket.socket(*kinds[kind])
            os._exit(0)
        finally:
            os._exit(1)
    return f"status {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}"

def application_server():
    """A process that is sent requests through a unix socket, one connection each; a function to send one."""
    global listener
    if "hop-tcp" in words:
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("")  # an abstract name of the kernel's choice
        listener.listen(64)
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        while True:
            connection, _ = listener.accept()
            with connection:
                while serve_application(connection):
                    pass
    address = listener.getsockname()
    listener.close()
    return address

def pair(name, value):
    def length(text):
        return bytes([len(text)]) if len(text) < 128 else (len(text) | 1 << 31).to_bytes(4, "big")
    return length(name) + length(value) + name + value

def record(kind, content):
    return bytes([1, kind, 0, 1]) + len(content).to_bytes(2, "big") + b"\0\0" + content

def parameters(fields):
    pairs = pair(b"QUERY_STRING", b"q" * 300)
    for name, value in fields:
        pairs += pair(name.encode(), value.encode())
    return record(1, b"\0\1\0\0\0\0\0\0") + record(4, pairs)

def connect():
    s = socket.socket(socket.AF_INET if "hop-tcp" in words else socket.AF_UNIX)
    s.connect(application)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) if s.family == socket.AF_INET else None
    return s

kept = None

def forward(protocol, head, target):
    line, *fields = head.decode("latin-1").split("\r\n")
    global kept
    if protocol in ("bare", "bare-kept", "split", "forged"):
        fields = [field for field in fields if not field.lower().startswith("x-clew-token")]
    if protocol == "forged":
        fields += ["X-Clew-Token: " + "A" * len(seen_tokens[0])]
    if protocol in ("kept", "bare-kept"):
        kept = kept or connect()
        s = kept
    else:
        s = connect()
    with nullcontext() if s is kept else s:
        if protocol in ("http", "unheard", "kept", "bare", "bare-kept", "split", "forged"):
            rest = "\r\n".join(["Host: app", "X-Long: " + "l" * 900] + fields)
            head = f"GET {target} HTTP/1.1\r\n{rest}\r\n".encode("latin-1")
            if protocol == "split":
                s.sendall(head)
                time.sleep(0.05)
                head = b""
            s.sendall(head + b"\r\n")
            if "kept" in protocol:
                # The body, in a segment of its own, is a request that was sent before.
                time.sleep(0.05)
                s.sendall(first_head.ljust(4096))
        else:
            named = [field.split(": ") for field in fields if protocol != "nameless"]
            named = [("HTTP_" + name.upper().replace("-", "_"), value) for name, value in named]
            body = parameters([("HTTP_X_CLEW_TOKEN", seen_tokens[0])]) if protocol == "nested" else b"body"
            head = parameters([("SCRIPT_NAME", target)] + named)
            s.sendall(head + record(4, b"") + record(5, body))
        if protocol == "unheard":
            s.shutdown(socket.SHUT_WR)
            others.append(s.dup())
            return "0 sent"
        return s.recv(65536).decode()

def exactly(connection, size):
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data

def serve_application(connection):
    start = connection.recv(65536, socket.MSG_PEEK)
    if not start:
        return False
    pieces = b"/pieces/" in start
    if not pieces:
        data = connection.recvmsg(65536)[0] if b"/vectors/" in start else connection.recv(65536)
        while start[0] != 1 and b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        if b"/body/" in start:
            exactly(connection, 4096)
    if start[0] != 1:
        target = data.split(b" ")[1].decode()
    else:
        names = {}
        def take(size):
            nonlocal data
            if pieces:
                return exactly(connection, size)
            taken, data = data[:size], data[size:]
            return taken
        while True:
            kind, length = (lambda head: (head[1], int.from_bytes(head[4:6], "big")))(take(8))
            content = take(length)
            if kind == 5:
                break
            at = 0
            while kind == 4 and at < len(content):
                lengths = []
                for _ in range(2):
                    long = content[at] >= 128
                    lengths.append(int.from_bytes(content[at:at + 4], "big") & 0x7fffffff if long else content[at])
                    at += 4 if long else 1
                names[content[at:at + lengths[0]]] = content[at + lengths[0]:at + sum(lengths)]
                at += sum(lengths)
        target = names[b"SCRIPT_NAME"].decode()
    target = target[target.index("/", 1):]
    connection.sendall(f"{os.getpid()} {answer(target)}".encode())
    return True

def via(argument):
    protocol, _, rest = argument.partition("/")
    return forward(protocol, last_head, "/" + rest)

def via_pool(argument):
    return pool.submit(via, argument).result()

def where(_):
    return str(application[1])

def echo(_):
    return last_head.decode("latin-1")

def two(_):
    other, _ = listener.accept()
    note_token(other.recv(65536))
    others.append(other)
    return "ok"

seen_tokens = []
others = []

def note_token(head):
    for line in head.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(": ")
        if name.lower() == "x-clew-token":
            seen_tokens.append(value)

def tokens(_):
    return " ".join(seen_tokens)

def read_file(path):
    with open("/" + path) as file:
        return file.read()

def write_file(path):
    with open("/" + path, "w") as file:
        file.write("written")
    return "ok"

def move(argument):
    old, new = argument.split(":")
    os.rename("/" + old, new)
    return "ok"

def answer(path):
    verb, _, argument = unquote(path).lstrip("/").partition("/")
    verbs = {"run": run, "become": become, "thread": thread, "spawn": spawn, "orphan": orphan, "open": open_flow, "raw": raw,
             "read": read_file, "write": write_file, "move": move, "two": two, "tokens": tokens, "via": via, "pool": via_pool, "where": where, "echo": echo}
    try:
        return verbs.get(verb, lambda _: "ok")(argument)
    except PermissionError:
        return "refused"

def read(connection, size):
    if "peek" in words and connection.recv(size, socket.MSG_PEEK):
        time.sleep(0.2)
    if "splice" not in words:
        return connection.recv(size)
    connection.setblocking(True)
    out, into = os.pipe()
    count = os.splice(connection.fileno(), into, min(size, 65536))
    data = os.read(out, count)
    os.close(out)
    os.close(into)
    return data

def serve(connection, size):
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            more = read(connection, size)
            if not more:
                return
            data += more
        head, _, data = data.partition(b"\r\n\r\n")
        note_token(head)
        global first_head, last_head
        first_head, last_head = first_head or head + b"\r\n\r\n", head
        body = answer(head.split(b" ")[1].decode()).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        if head.startswith(b"GET /echo "):
            time.sleep(0.05)
        connection.sendall(body)

first_head = b""
if "hop" in words or "hop-tcp" in words:
    application = application_server()
if "hop-tcp-early" in words:
    kept = connect()
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
listener = socket.create_server((sys.argv[1], 0), family=family, backlog=64)
if "defer" in words:
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
