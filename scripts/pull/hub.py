"""A model hub for tests, as far as reading goes: descriptions, listings, files by commit, large ones behind a redirect to
a store of their own, ranges, and every way of refusing. Needs nothing but the standard library.

`Hub` runs in threads of this process, counts the bytes of files that leave it, and can be told to be slow, to lie, to
fail, or to ask for a token.
"""

import hashlib
import http.server
import json
import re
import socket
import threading
import time
import urllib.parse

PIECE = 16 << 10


class Repository:
    """Files by commit; the last commit is `main`."""

    def __init__(self):
        self.commits = {}
        self.branches = {}

    def commit(self, files, branch="main"):
        listing = {}
        for path, content in files.items():
            large = path.endswith((".safetensors", ".bin"))
            sha1 = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            listing[path] = {
                "content": content,
                "large": large,
                "sha1": sha1,
                "etag": hashlib.sha256(content).hexdigest() if large else sha1,
            }
        names = json.dumps([[path, entry["etag"]] for path, entry in sorted(listing.items())])
        commit = hashlib.sha1(names.encode()).hexdigest()
        self.commits[commit] = listing
        self.branches[branch] = commit
        return commit

    def find(self, revision):
        revision = self.branches.get(revision, revision)
        return (revision, self.commits[revision]) if revision in self.commits else (None, None)


class Hub:
    def __init__(self):
        self.repositories = {}
        self.lock = threading.Lock()
        # Every line of every request, tokens included, by the server that got it.
        self.requests = []
        self.sent = 0
        self.offsets = []
        self.tokens = {"hub": set(), "store": set()}
        # What it may be told. `rate` is in bytes per second, of all connections together.
        self.rate = None
        self.token = None
        self.gated = set()
        # (part of the path, status, headers, how often)
        self.refusals = []
        self.flip = None
        self._next = 0.0
        self.endpoint = self._serve("hub", Answer)
        self.store = self._serve("store", Store)

    def _serve(self, name, handler):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type(name, (handler,), {"hub": self, "kind": name}))
        server.daemon_threads = True
        server.handle_error = lambda *_: None
        # Little lies in the system's buffers when a reader is killed.
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 << 10)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    def refuse(self, part, status, headers=None, times=10**9):
        self.refusals.append([part, status, headers or {}, times])

    def calm(self):
        """Back to a hub without whims."""
        self.rate, self.token, self.refusals, self.flip = None, None, [], None
        self.gated = set()

    def take(self):
        """Bytes of files, requests and offsets since the last call."""
        with self.lock:
            found = self.sent, self.requests, self.offsets
            self.sent, self.requests, self.offsets = 0, [], []
        return found

    def pace(self, length):
        """Waits until `length` more bytes may leave."""
        if not self.rate:
            return
        with self.lock:
            now = time.monotonic()
            self._next = max(self._next, now - 0.01) + length / self.rate
            wait = self._next - now
        if wait > 0:
            time.sleep(wait)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, headers=None, body=b""):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and body:
            self.wfile.write(body)

    def heard(self):
        hub = self.hub
        with hub.lock:
            hub.requests.append(f"{self.kind} {self.command} {self.path}")
            token = self.headers.get("Authorization")
            if token:
                hub.tokens[self.kind].add(token)
            for refusal in hub.refusals:
                part, status, headers, times = refusal
                if part in f"{self.kind} {self.path}" and times > 0:
                    refusal[3] -= 1
                    return status, headers
        return None

    def content(self, entry, headers):
        """The bytes of a file, or those that were asked for."""
        hub, content, start = self.hub, entry["content"], 0
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted:
            start = int(wanted[1])
            if start >= len(content):
                return self.answer(416, {"Content-Range": f"bytes */{len(content)}"})
            headers = {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            with hub.lock:
                hub.offsets.append(start)
        if hub.flip and start <= hub.flip < len(content):
            content = bytearray(content)
            content[hub.flip] ^= 0x40
        headers["Content-Length"] = str(len(content) - start)
        self.answer(206 if wanted else 200, headers)
        if self.command == "HEAD":
            return
        view = memoryview(content)
        while start < len(view):
            piece = view[start : start + PIECE]
            hub.pace(len(piece))
            self.wfile.write(piece)
            start += len(piece)
            with hub.lock:
                hub.sent += len(piece)


class Answer(Handler):
    def do_GET(self):
        refused = self.heard()
        if refused:
            return self.answer(*refused)
        hub = self.hub
        url = urllib.parse.urlsplit(self.path)
        steps = [urllib.parse.unquote(step) for step in url.path.split("/")[1:]]
        if steps[:2] == ["api", "models"] and len(steps) == 6 and steps[4] in ("revision", "tree"):
            return self.api(steps[4], "/".join(steps[2:4]), steps[5])
        if len(steps) >= 5 and steps[2] == "resolve":
            return self.resolve("/".join(steps[:2]), steps[3], "/".join(steps[4:]))
        return self.answer(404)

    do_HEAD = do_GET

    def allowed(self, name):
        """Whether this repository may be seen; else the answer has been given."""
        hub = self.hub
        right = hub.token and self.headers.get("Authorization") == f"Bearer {hub.token}"
        if hub.token and not right:
            self.answer(401, {"X-Error-Message": "Invalid username or password."})
            return None
        if name not in hub.repositories:
            self.answer(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
            return None
        return hub.repositories[name]

    def api(self, what, name, revision):
        repository = self.allowed(name)
        if repository is None:
            return
        commit, listing = repository.find(revision)
        if commit is None:
            return self.answer(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"Invalid rev id: {revision}"})
        if what == "revision":
            body = {"id": name, "modelId": name, "sha": commit, "private": False, "tags": [], "downloads": 0, "likes": 0}
            body["siblings"] = [{"rfilename": path} for path in listing]
            return self.answer(200, {"Content-Type": "application/json"}, json.dumps(body).encode())
        # Two pages, as the listing of a large repository has.
        files = [self.entry(path, entry) for path, entry in sorted(listing.items())]
        page = int(urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query).get("page", ["0"])[0])
        half = (len(files) + 1) // 2
        headers = {"Content-Type": "application/json"}
        if page == 0:
            headers["Link"] = f'<{hub_page(self.hub.endpoint, self.path)}>; rel="next"'
        body = files[:half] if page == 0 else files[half:]
        self.answer(200, headers, json.dumps(body).encode())

    def entry(self, path, entry):
        size = len(entry["content"])
        found = {"type": "file", "path": path, "size": size, "oid": entry["sha1"]}
        if entry["large"]:
            found["lfs"] = {"oid": entry["etag"], "size": size, "pointerSize": 134}
        return found

    def resolve(self, name, revision, path):
        repository = self.allowed(name)
        if repository is None:
            return
        if name in self.hub.gated:
            return self.answer(403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this model is restricted."})
        commit, listing = repository.find(revision)
        if commit is None:
            return self.answer(404, {"X-Error-Code": "RevisionNotFound"})
        if path not in listing:
            return self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        entry = listing[path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{entry["etag"]}"', "Accept-Ranges": "bytes"}
        if not entry["large"]:
            return self.content(entry, headers)
        location = f"{self.hub.store}/{name}/{commit}/{urllib.parse.quote(path)}?signature=secret"
        linked = {"X-Linked-Etag": f'"{entry["etag"]}"', "X-Linked-Size": str(len(entry["content"]))}
        self.answer(302, {"X-Repo-Commit": commit, **linked, "Location": location})


class Store(Handler):
    def do_GET(self):
        refused = self.heard()
        if refused:
            return self.answer(*refused)
        steps = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)[1:].split("/", 3)
        repository = self.hub.repositories.get("/".join(steps[:2]))
        entry = repository and len(steps) == 4 and repository.commits.get(steps[2], {}).get(steps[3])
        if not entry:
            # As any web server that is no hub.
            return self.answer(200, {"Content-Type": "text/html"}, b"<!DOCTYPE html><title>Welcome</title>")
        self.content(entry, {"ETag": f'"{entry["etag"]}"', "Accept-Ranges": "bytes"})

    do_HEAD = do_GET


def hub_page(endpoint, path):
    return endpoint + path + ("&" if "?" in path else "?") + "page=1"
