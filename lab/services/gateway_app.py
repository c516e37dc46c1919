"""A gateway: asks the service at $BEHIND for what it is asked itself, and passes no header on.

Each thread keeps a connection of its own.
"""
import http.client
import os
import threading

own = threading.local()


def ask(method, target, body):
    for is_last in (False, True):
        try:
            if not hasattr(own, "connection"):
                own.connection = http.client.HTTPConnection("127.0.0.1", int(os.environ["BEHIND"]))
            own.connection.request(method, target, body)
            answer = own.connection.getresponse()
            return answer, answer.read()
        except (http.client.HTTPException, OSError):
            # The connection had been closed meanwhile.
            del own.connection
            if is_last:
                raise


def app(environ, start_response):
    body = environ["wsgi.input"].read()
    answer, content = ask(environ["REQUEST_METHOD"], environ["RAW_URI"], body or None)
    kind = answer.getheader("Content-Type", "text/plain")
    start_response(f"{answer.status} {answer.reason}",
                   [("Content-Type", kind), ("Content-Length", str(len(content)))])
    return [content]
