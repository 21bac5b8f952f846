"""Attacks a running server and says of each attack how it ended, and how another client fared meanwhile. Needs nothing
but the standard library.

    python3 check-hostile.py OCELLUS [--quick]     the binary; it is started with its built-in model
                                                   --quick leaves out what takes five minutes to reach its bound

Three servers are attacked. `public` fetches from public addresses, as by default: no spelling of an address may bring it
to a listener on this machine, which counts connections. `listed` may fetch from one hostile file server, whose redirects
may bring it nowhere else. `any` may fetch from everywhere, so that bounds and not addresses end what it meets.

Each attack must end within its bound with an answer that blames the client (400 to 499, or what the attack says), or
with a closed connection. Meanwhile a client asks for four tokens again and again: its every request must be answered, within
two seconds (ten while the largest pictures allowed are decoded); the times with and without the attack are printed. Not shown here, for want of a name server that
lies: names that change their address between check and use. The unit tests of the fetcher have them, and redirects from
public hosts.

First of all clients leave in the middle of their answers: the server's own count of tokens may then grow by two at most,
in the middle of several attempts, and their place must be free.

The last line and the exit status say whether everything holds.
"""

import argparse
import base64
import contextlib
import gzip
import http.client
import json
import math
import re
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import zlib

CHAT = "/v1/chat/completions"
NATIVE = "/api/v1/services/aigc/multimodal-generation/generation"
ESTIMATE = "/v1/tokens/estimate"

# What the server promises, in seconds, and what a busy machine may add.
SILENCE, BODY, MEDIA, SLACK = 30, 300, 3, 5
# The longest that the other client may wait. Alone it waits a few milliseconds.
DISTURBED = 2.0


class Server:
    """`ocellus serve` on a free port, and the client that must not be disturbed."""

    def __init__(self, binary, name, *arguments, is_probed=True):
        command = [binary, "serve", "--port", "0", "--media-timeout", str(MEDIA), *arguments]
        self.name = name
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        first = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/v1", first)
        if not found:
            sys.exit(f"the server did not start: {first}")
        self.port = int(found.group(1))
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        # (start, seconds, problem) of each request of the other client.
        self.probes = []
        self.stopping = False
        if not is_probed:
            return
        self.prober = threading.Thread(target=self.probe, daemon=True)
        self.prober.start()
        time.sleep(2)
        self.alone = statistics.median(seconds for _, seconds, _ in self.probes)

    def probe(self):
        body = {"model": "qwen-vl-max", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]}
        while not self.stopping:
            start = time.monotonic()
            status, _ = self.post(CHAT, body, timeout=60)
            problem = None if status == 200 else f"another request got {status}"
            self.probes.append((start, time.monotonic() - start, problem))
            time.sleep(0.02)

    def post(self, path, body, headers=None, timeout=120):
        """Status and body; a status of 0 is a connection that ended without one."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("POST", path, data, {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            return 0, repr(error).encode()
        finally:
            connection.close()

    def peak(self):
        """The most memory it ever had, in MiB; 0 where the system doesn't tell."""
        try:
            with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
                return int(re.search(r"VmHWM:\s+(\d+)", status.read()).group(1)) // 1024
        except OSError:
            return 0

    def others(self, start):
        """Requests of the other client that were under way since `start`; at least one."""
        end = time.monotonic()
        while self.process.poll() is None:
            last = list(self.probes)
            if last and last[-1][0] >= start and last[-1][0] + last[-1][1] >= end:
                return [probe for probe in last if probe[0] + probe[1] >= start]
            if time.monotonic() > end + 90:
                break
            time.sleep(0.02)
        return []

    def stop(self):
        self.stopping = True
        self.process.terminate()
        self.process.wait(timeout=60)


class Report:
    """One line per attack."""

    def __init__(self):
        self.right, self.wrong = 0, 0
        self.lock = threading.Lock()

    def attack(self, server, name, bound, attack, copies=1, patience=DISTURBED):
        """`attack` gives None if it ended as it should, else what happened. `patience` is the other client's."""
        start, before = time.monotonic(), server.peak()
        faults = []
        threads = [threading.Thread(target=lambda: faults.append(guarded(attack))) for _ in range(copies)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - start
        probes = server.others(start)
        problems = [fault for fault in faults if fault]
        if seconds > bound + SLACK:
            problems.append("over its bound")
        if server.process.poll() is not None:
            problems.append("THE SERVER ENDED")
        elif not probes:
            problems.append("the other client was not answered any more")
        problems += [problem for _, _, problem in probes if problem]
        waits = [wait for _, wait, _ in probes] or [0]
        if max(waits) > patience:
            problems.append("another client was disturbed")
        memory = f", memory +{server.peak() - before} MiB" if server.peak() > before + 8 else ""
        times = f" x{copies}" if copies > 1 else ""
        self.line(
            f"{server.name:6} {name}{times}: {seconds:.1f} s of {bound}{memory}; another client waits "
            f"{milliseconds(statistics.median(waits))}, at most {milliseconds(max(waits))}, "
            f"alone {milliseconds(server.alone)}",
            problems,
        )

    def line(self, text, problems):
        problems = sorted(set(problems))
        with self.lock:
            self.right, self.wrong = self.right + (not problems), self.wrong + bool(problems)
            print(f"{text}{f' FAILED: {problems}' if problems else ' ok'}", flush=True)


def milliseconds(seconds):
    return f"{seconds * 1000:.{0 if seconds >= 0.01 else 1}f} ms"


def guarded(attack):
    try:
        return attack()
    except OSError as error:
        return f"the attack itself failed: {error!r}"


def blamed(answer, *more):
    """None if the client got the blame, or one of these statuses."""
    status, body = answer
    return None if 400 <= status < 500 or status in more else f"{status} {body[:200]!r}"


def question(*parts, **more):
    content = [*parts, {"type": "text", "text": "What is this?"}]
    return {"model": "qwen-vl-max", "max_tokens": 2, "messages": [{"role": "user", "content": content}], **more}


def picture(url):
    return {"type": "image_url", "image_url": {"url": url}}


def native(url):
    content = [{"image": url}, {"text": "What is this?"}]
    return {"model": "qwen-vl-max", "input": {"messages": [{"role": "user", "content": content}]}}


# --- addresses ---------------------------------------------------------------------------------------------------


class Trap:
    """A listener on every address of this machine, for both families. Nobody should ever come."""

    def __init__(self):
        try:
            self.socket = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=512)
        except OSError:
            self.socket = socket.create_server(("0.0.0.0", 0), backlog=512)
        self.port = self.socket.getsockname()[1]
        self.visits = 0
        threading.Thread(target=self.count, daemon=True).start()

    def count(self):
        while True:
            connection, _ = self.socket.accept()
            self.visits += 1
            connection.close()


def own_addresses():
    """Addresses and names by which this machine knows itself."""
    names = [socket.gethostname(), "localhost", "ip6-localhost", "ip6-loopback"]
    found = set(names)
    for name in names:
        with contextlib.suppress(OSError):
            for family, *_, address in socket.getaddrinfo(name, None):
                plain = address[0].partition("%")[0]
                found.add(f"[{plain}]" if family == socket.AF_INET6 else plain)
    return sorted(found)


HOSTS = {
    "decimal, octal, hexadecimal": [
        "2130706433", "017700000001", "0x7f000001", "0x7F.0x0.0x0.0x1", "0177.0.0.01", "0x7f.1", "127.1", "127.0.1",
        "0177.1", "00000177.0.0.1", "0", "0.0.0.0", "0x0", "00", "127.0.0.1.", "127.255.255.254", "4294967295",
        "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "6425673729",
    ],
    "other digits and letters": [
        "１２７.0.0.1", "①②⑦.⓪.⓪.①", "127。0。0。1", "127．0．0．1", "127｡0｡0｡1", "𝟭𝟮𝟳.0.0.1", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "ｌocalhost",
        "%31%32%37.0.0.1", "%6c%6f%63%61%6c%68%6f%73%74", "127%2e0%2e0%2e1", "127.0.0.1%00.pictures.invalid", "loc\u00adalhost",
    ],
    "IPv6 around IPv4": [
        "[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[::127.0.0.1]", "[::7f00:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:127.0.0.1]", "[::ffff:0:127.0.0.1]", "[::ffff:0.0.0.0]", "[64:ff9b::127.0.0.1]",
        "[64:ff9b::7f00:1]", "[64:ff9b:1::127.0.0.1]", "[2002:7f00:1::]", "[2002:7f00:1::1]", "[2001:0:7f00:1::]",
        "[2001::80ff:fffe]", "[fe80::5efe:127.0.0.1]", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]",
    ],
    "zones": ["[::1%25lo]", "[fe80::1%25eth0]", "[fe80::1%25lo]", "[::1%lo]", "[fe80::1]", "[::1%250]"],
    "private networks and metadata": [
        "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "169.254.169.254", "169.254.170.2", "100.100.100.200",
        "168.63.129.16", "192.0.0.192", "[fd00:ec2::254]", "[fd00::1]", "[fec0::1]", "[ff02::1]", "224.0.0.1",
        "255.255.255.255", "240.0.0.1", "198.18.0.1",
    ],
    "names": ["LOCALHOST", "LocalHost", "localhost.", "localhost.localdomain", "a.localhost", "metadata.google.internal"],
}


def spellings(port):
    """URLs that are odd beyond their host."""
    here = f"127.0.0.1:{port}"
    yield "credentials", [
        f"http://me:secret@{here}/", f"http://me@{here}/", f"http://:@{here}/", f"http://pictures.invalid@{here}/",
        f"http://pictures.invalid:80@{here}/", f"http://{here}@{here}/", f"http://me:secret@pictures.invalid@{here}/",
        f"http://pictures.invalid%40{here}/", f"http://@{here}/",
    ]
    yield "schemes", [
        "file:///etc/passwd", "file://localhost/etc/passwd", f"file://{here}/etc/passwd", "FILE:///etc/passwd",
        "file:/etc/passwd", "file:etc/passwd", "/etc/passwd", "./x.png", "C:\\x.png", f"gopher://{here}/_GET%20/",
        f"ftp://{here}/a.png", f"dict://{here}/d", f"ldap://{here}/", f"ws://{here}/", f"jar:http://{here}/!/a.png",
        f"view-source:http://{here}/", f"blob:http://{here}/a", f"netdoc:http://{here}/", f"php://filter/{here}",
        f"unix:///{here}", "javascript:alert(1)", "about:blank", "data:", "data:,", "data:text/html,<b>", "data:;base64,",
        "data:image/png;base64,####", f"data:image/png,http://{here}/", "data:image/svg+xml;base64,PHN2Zy8+",
        "oss://", "oss://../../etc/passwd", "oss:///etc/passwd", "",
    ]
    yield "what parsers disagree on", [
        f"HTTP://{here}/", f"http:{here}/", f"http:/{here}/", f"http:\\\\{here}/", f"http:////{here}/", f"//{here}/",
        f"\\\\{here}\\a.png", f" http://{here}/ ", f"\thttp://{here}/\n", f"ht\ntp://{here}/", f"http://127.0.0.\n1:{port}/",
        f"http://{here}#@pictures.invalid/", f"http://{here}?@pictures.invalid/", f"http://{here}\\@pictures.invalid/",
        f"http://pictures.invalid\\@{here}/", f"http://{here};@pictures.invalid/", f"http://{here} pictures.invalid/",
        f"http://127.0.0.1:{port}:80/", "http://127.0.0.1:99999/", f"http://127.0.0.1:0{port}/", f"http://[::1]:{port}]/",
        f"http://[127.0.0.1]:{port}/", f"http://127.0.0.1:{port}/%0d%0aHost:%20a", f"http://127.0.0.1\u0000:{port}/",
        f"https://{here}/", f"https://localhost:{port}/",
    ]


def addresses(report, server, trap):
    groups = dict(HOSTS)
    groups["this machine's own"] = own_addresses()
    urls = {name: [f"http://{host}:{trap.port}/a.png" for host in hosts] for name, hosts in groups.items()}
    urls.update(spellings(trap.port))
    for name, spelled in urls.items():

        def attack(spelled=spelled):
            for url in spelled:
                for path, body in [(CHAT, question(picture(url))), (NATIVE, native(url)), (ESTIMATE, question(picture(url)))]:
                    fault = blamed(server.post(path, body))
                    if fault:
                        return f"{url!r}: {fault}"
            return f"{trap.visits} visits" if trap.visits else None

        report.attack(server, f"{len(spelled)} URLs: {name}", 30, attack)


# --- a hostile file server ---------------------------------------------------------------------------------------


class Hostile:
    """A file server that knows its visitor waits. Each path is a way to misbehave."""

    def __init__(self, trap):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.socket.getsockname()[1]
        self.trap = trap
        threading.Thread(target=self.serve, daemon=True).start()

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def serve(self):
        while True:
            connection, _ = self.socket.accept()
            threading.Thread(target=self.answer, args=[connection], daemon=True).start()

    def answer(self, connection):
        with contextlib.suppress(OSError), connection:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = connection.recv(65536)
                if not piece:
                    return
                head += piece
            path = head.split(b" ")[1].decode()
            if path.startswith("/hop/"):
                self.hop(connection, path)
            else:
                MISBEHAVIOUR[path.split("?")[0]](connection)

    def hop(self, connection, path):
        """/hop/3/TARGET leads to TARGET after three redirects."""
        _, _, left, target = path.split("/", 3)
        left = int(left)
        place = base64.urlsafe_b64decode(target).decode() if left == 1 else f"/hop/{left - 1}/{target}"
        connection.sendall(redirect(place))


def redirect(place):
    return f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode()


def drip(connection, head, drop, seconds=0.2):
    connection.sendall(head)
    while True:
        time.sleep(seconds)
        connection.sendall(drop)


def flood(connection, head, piece):
    connection.sendall(head)
    while True:
        connection.sendall(piece)


def fixed(data):
    return lambda connection: connection.sendall(data)


def ok(body, *headers):
    lines = ["HTTP/1.1 200 OK", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


PLAIN = b"HTTP/1.1 200 OK\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ZEROS = gzip.compress(bytes(64 << 20), 9)

MISBEHAVIOUR = {
    "/silent": lambda connection: time.sleep(3600),
    "/drip-status": lambda connection: drip(connection, b"HTTP/1.1 2", b"0"),
    "/drip-head": lambda connection: drip(connection, b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "/drip-body": lambda connection: drip(connection, PLAIN, b"x"),
    "/drip-length": lambda connection: drip(connection, ok(b"", "Content-Length: 100000"), b"x"),
    "/drip-chunks": lambda connection: drip(connection, CHUNKED, b"1\r\nx\r\n"),
    "/drip-chunk-size": lambda connection: drip(connection, CHUNKED, b"0"),
    "/drip-information": lambda connection: drip(connection, b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "/flood-body": lambda connection: flood(connection, PLAIN, bytes(65536)),
    "/flood-chunks": lambda connection: flood(connection, CHUNKED, b"10000\r\n" + bytes(65536) + b"\r\n"),
    "/flood-head": lambda connection: flood(connection, b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000),
    "/flood-header-line": lambda connection: flood(connection, b"HTTP/1.1 200 OK\r\nX: ", b"y" * 65536),
    "/flood-information": lambda connection: flood(connection, b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "/flood-trailers": lambda connection: flood(connection, CHUNKED + b"0\r\n", b"X: y\r\n" * 1000),
    "/length-huge": fixed(ok(b"", "Content-Length: 9000000000000000000")),
    "/length-beyond-numbers": fixed(ok(b"x", "Content-Length: 99999999999999999999999")),
    "/length-negative": fixed(ok(b"x", "Content-Length: -1")),
    "/length-twice": fixed(ok(b"xx", "Content-Length: 1", "Content-Length: 2")),
    "/length-and-chunks": fixed(ok(b"0\r\n\r\n", "Content-Length: 4", "Transfer-Encoding: chunked")),
    "/length-too-large": fixed(ok(b"x" * 10, "Content-Length: 1000", "Connection: close")),
    "/length-too-small": fixed(ok(b"x" * 1000, "Content-Length: 10")),
    "/chunk-nonsense": fixed(CHUNKED + b"zz\r\nx\r\n"),
    "/chunk-huge": fixed(CHUNKED + b"FFFFFFFFFFFFFFFF\r\nx"),
    "/chunk-cut": fixed(CHUNKED + b"10\r\nx"),
    "/gzip-bomb": fixed(ok(ZEROS, f"Content-Length: {len(ZEROS)}", "Content-Encoding: gzip")),
    "/deflate-bomb": fixed(ok(zlib.compress(bytes(1 << 20)), "Content-Encoding: deflate", "Connection: close")),
    "/brotli-name": fixed(ok(b"x", "Content-Length: 1", "Content-Encoding: br")),
    "/loop": fixed(redirect("/loop")),
    "/ping": fixed(redirect("/pong")),
    "/pong": fixed(redirect("/ping")),
    "/growing": fixed(redirect("/growing?" + "x" * 30000)),
    "/empty-place": fixed(redirect("")),
    "/no-place": fixed(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"),
    "/not-http": fixed(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "/http-0.9": fixed(b"<html>"),
    "/nothing": fixed(b""),
    "/switch": fixed(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
}


def media(report, server, hostile):
    for path in MISBEHAVIOUR:

        def attack(path=path):
            url = hostile.url(path)
            return blamed(server.post(CHAT, question(picture(url)))) or blamed(server.post(NATIVE, native(url)))

        # One after the other in two dialects, each within the bound of a fetch.
        report.attack(server, f"file server: {path[1:]}", 2 * MEDIA, attack)

    def many():
        return blamed(server.post(CHAT, question(*[picture(hostile.url("/drip-body"))] * 64)))

    report.attack(server, "64 pictures that drip, side by side", 4 * MEDIA, many)


def redirects(report, server, hostile, trap):
    targets = [f"http://127.0.0.1:{trap.port}/", f"http://localhost:{hostile.port}/", f"http://[::1]:{trap.port}/"]
    targets += [f"//127.0.0.1:{trap.port}/", f"http://2130706433:{trap.port}/", f"http://me@127.0.0.1:{hostile.port}/"]
    targets += ["http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/latest/meta-data/"]
    targets += ["file:///etc/passwd", f"gopher://127.0.0.1:{trap.port}/", f"ftp://127.0.0.1:{trap.port}/", "data:,x"]

    def attack():
        for hops in range(1, 8):
            for target in targets:
                coded = base64.urlsafe_b64encode(target.encode()).decode()
                url = hostile.url(f"/hop/{hops}/{coded}")
                fault = blamed(server.post(CHAT, question(picture(url))))
                if fault:
                    return f"{target} after {hops} hops: {fault}"
        return f"{trap.visits} visits" if trap.visits else None

    report.attack(server, f"redirects to {len(targets)} forbidden places, after 1 to 7 hops", 60, attack)


# --- bombs -------------------------------------------------------------------------------------------------------


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zeros(count):
    """So many zeros, compressed, without ever having them all."""
    compressor = zlib.compressobj(9)
    piece = bytes(1 << 20)
    pieces = [compressor.compress(piece) for _ in range(count >> 20)]
    return b"".join(pieces) + compressor.compress(bytes(count & 0xFFFFF)) + compressor.flush()


def png(width, height, rows, *more, depth=8, color=0):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def tiff(width, height, data, *, compression=8, rows=None, more=()):
    """One strip of grey, little-endian."""
    tags = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, compression), 262: (3, 1, 1)}
    tags |= {273: (4, 1, 8), 277: (3, 1, 1), 278: (4, 1, rows or height), 279: (4, 1, len(data))}
    tags |= dict(more)
    entries = b"".join(struct.pack("<HHII", tag, *field) for tag, field in sorted(tags.items()))
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 8 + len(data))
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


def bmp(width, height, data, compression=0):
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, compression, len(data), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, 54) + info + data


def jpeg(width, height, frame=0xC2):
    tables = b"\xff\xdb\x00\x43\x00" + b"\x01" * 64
    return b"\xff\xd8" + tables + b"\xff" + bytes([frame]) + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\x00\xff\xd9"


def webp(kind, payload):
    body = b"WEBP" + kind + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) & 1)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def lossless_head(width, height):
    return b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + b"\0" * 64


def pictures():
    """Files that are small and want to be large. Some are pictures within the bounds, which are answered."""
    gigabyte = zeros(1 << 30)
    yield "PNG of 60000x60000, header only", png(60000, 60000, b"")
    yield "PNG of 2147483647x2147483647", png(0x7FFFFFFF, 0x7FFFFFFF, gigabyte)
    yield "PNG of 30000x30000, all there", png(30000, 30000, zeros(30000 * 30001))
    yield "PNG of 14000x14000, within the bound", png(14000, 14000, zeros(14000 * 14001))
    yield "PNG of 64x64 with a gigabyte of pixels", png(64, 64, gigabyte)
    yield "PNG with a gigabyte of text", png(64, 64, zeros(64 * 65), chunk(b"zTXt", b"a\0\0" + gigabyte))
    yield "PNG with a gigabyte of colour profile", png(64, 64, zeros(64 * 65), chunk(b"iCCP", b"a\0\0" + gigabyte))
    yield "PNG with a million text chunks", png(64, 64, zeros(64 * 65), chunk(b"tEXt", b"a\0b") * 500_000)
    yield "PNG of 12000x12000 with 16 bits and four channels, within the bound", png(12000, 12000, zeros(12000 * 96001), depth=16, color=6)
    yield "TIFF of 4294967295x4294967295", tiff(0xFFFFFFFF, 0xFFFFFFFF, gigabyte)
    yield "TIFF of 64x64 with a gigabyte in its strip", tiff(64, 64, gigabyte)
    yield "TIFF of 64x64 with rows of one strip beyond numbers", tiff(64, 64, gigabyte, rows=0xFFFFFFFF)
    yield "TIFF with four billion strips", tiff(64, 64, b"x" * 64, more=[(273, (4, 0xFFFFFFFF, 8)), (279, (4, 0xFFFFFFFF, 8))])
    yield "TIFF of strips, one row each, 1x100000000", tiff(1, 100_000_000, b"x" * 64, rows=1)
    yield "TIFF of LZW nonsense, 14000x14000", tiff(14000, 14000, b"\x80\x0b\x60" * 300_000, compression=5)
    yield "TIFF whose directory is its own successor", b"II*\0\x08\0\0\0\0\0\x08\0\0\0"
    yield "BMP of 2147483647x2147483647", bmp(0x7FFFFFFF, 0x7FFFFFFF, b"")
    yield "BMP of 14000x14000 in one run", bmp(14000, 14000, b"\xff\x00" * 1000, compression=1)
    yield "JPEG of 65535x65535, progressive", jpeg(65535, 65535)
    yield "JPEG of 14000x14000, header only", jpeg(14000, 14000)
    yield "JPEG with 5 MB of empty segments", b"\xff\xd8" + b"\xff\xe1\x00\x02" * 1_250_000 + jpeg(64, 64)[2:]
    yield "WEBP of 16384x16384, lossless", webp(b"VP8L", lossless_head(16384, 16384))
    yield "WEBP with a canvas of 16777216x16777216", webp(b"VP8X", b"\0" * 4 + b"\xff" * 6)
    yield "WEBP of 16383x16383", webp(b"VP8 ", b"\x10\x02\0\x9d\x01\x2a\xff\x3f\xff\x3f" + b"\0" * 100)
    yield "HEIC header only", struct.pack(">I", 24) + b"ftypheic" + b"\0" * 12
    yield "7 MB of nothing", bytes(7 << 20)


def bombs(report, server):
    for name, data in pictures():
        # Four of the largest pictures that are still decoded, two at a time, are honest work: it takes its time, and its
        # share of the processor.
        bound, patience = (60, 10) if "within the bound" in name else (30, DISTURBED)
        url = "data:image/png;base64," + base64.b64encode(data).decode()
        if len(url) > 10 << 20:
            sys.exit(f"{name} is too large to be sent")
        # Seen small, so that decoding is all there is to do: what the model computes is not the attack here.
        body = json.dumps(question({**picture(url), "max_pixels": 3136})).encode()
        report.attack(server, name, bound, lambda body=body: blamed(server.post(CHAT, body), 200), 4, patience)


# --- requests ----------------------------------------------------------------------------------------------------


def schema(value, **more):
    return question(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": value}}, **more)


def nested(depth):
    value = {"type": "string"}
    for _ in range(depth):
        value = {"type": "object", "properties": {"a": value}, "required": ["a"]}
    return value


def requests():
    """Bodies, with headers of their own, and statuses besides blame that are right."""
    text = json.dumps(question())
    inside = lambda value: text.replace('"qwen-vl-max"', value, 1).encode()
    yield "200000 nested brackets", b"[" * 200_000 + b"]" * 200_000, {}, ()
    yield "30 million opening brackets", b"[" * 30_000_000, {}, ()
    yield "nesting inside of a request", inside('"qwen-vl-max","x":' + "[" * 100_000 + "]" * 100_000), {}, ()
    yield "objects nested 100000 times", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, {}, ()
    yield "a million keys", inside('"qwen-vl-max",' + ",".join(f'"k{n}":0' for n in range(1_000_000)) + ',"z":0'), {}, (200,)
    yield "one key a million times", inside('"qwen-vl-max"' + ',"seed":1' * 1_000_000), {}, (200,)
    yield "a number of ten million digits", inside('"qwen-vl-max","seed":' + "9" * 10_000_000), {}, (200,)
    yield "a number beyond all numbers", inside('"qwen-vl-max","temperature":1e999999999'), {}, (200,)
    yield "a name of 60 MB", inside('"' + "x" * 60_000_000 + '"'), {}, ()
    yield "60 MB of escapes", inside('"' + "\\u0041" * 10_000_000 + '"'), {}, ()
    yield "half a character", inside('"\\ud800"'), {}, ()
    yield "bytes that are no text", b"\xff\xfe" * 1_000_000, {}, ()
    yield "a gzip bomb", ZEROS, {"Content-Encoding": "gzip"}, ()
    yield "a deflate bomb", zlib.compress(bytes(64 << 20)), {"Content-Encoding": "deflate"}, ()
    yield "a good request in gzip", gzip.compress(text.encode()), {"Content-Encoding": "gzip"}, ()
    yield "65 MB", b" " * (65 << 20), {}, ()
    long = lambda words: json.dumps({**question(), "messages": [{"role": "user", "content": words}]}).encode()
    yield "20 MB of one letter", long("a" * 20_000_000), {}, ()
    yield "20 MB of spaces", long(" " * 20_000_000), {}, ()
    yield "20 MB of digits", long("7" * 20_000_000), {}, ()
    yield "20 MB of marks on one letter", long("e" + "\u0301" * 3_000_000), {}, ()
    yield "10 MB of special tokens", long("<|image_pad|>" * 800_000), {}, ()
    yield "200000 messages", json.dumps({**question(), "messages": [{"role": "user", "content": "a"}] * 200_000}).encode(), {}, ()
    yield "100000 pictures", json.dumps(question(*[picture("data:,")] * 100_000)).encode(), {}, ()
    yield "a million stops", json.dumps(question(stop=[f"stop{n}" for n in range(1_000_000)])).encode(), {}, (200,)
    yield "a stop of 20 MB", json.dumps(question(stop="a" * 20_000_000)).encode(), {}, (200,)
    yield "a million biases", json.dumps(question(logit_bias={str(n): 1 for n in range(1_000_000)})).encode(), {}, (200,)
    yield "a schema nested 10000 times", b"".join([b'{"model":"qwen-vl-max","messages":[{"role":"user","content":"json"}],"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":', b'{"items":' * 10_000, b"{}", b"}" * 10_000, b"}}}"]), {}, ()
    yield "a schema nested 40 times", json.dumps(schema(nested(40))).encode(), {}, (200,)
    yield "a schema of a billion items", json.dumps(schema({"type": "array", "minItems": 10**9, "items": {}})).encode(), {}, (200,)
    yield "a schema that is its own part", json.dumps(schema({"$ref": "#"})).encode(), {}, (200,)
    yield "a schema of another site", json.dumps(schema({"$ref": "http://127.0.0.1:1/schema"})).encode(), {}, ()
    yield "a pattern that explodes", json.dumps(schema({"type": "string", "pattern": "^(a+)+$"})).encode(), {}, (200,)
    yield "a pattern of many repeats", json.dumps(schema({"type": "string", "pattern": "^((a{1,999}){1,999}){1,999}$"})).encode(), {}, (200,)
    yield "an enumeration of 100000", json.dumps(schema({"enum": [f"v{n}" for n in range(100_000)]})).encode(), {}, (200,)
    yield "all of anything, 2000 times", json.dumps(schema({"allOf": [{"anyOf": [{"type": "string"}, {"type": "null"}]}] * 2000})).encode(), {}, (200,)
    tool = lambda n: {"type": "function", "function": {"name": f"f{n}", "parameters": nested(5)}}
    yield "20000 functions", json.dumps(question(tools=[tool(n) for n in range(20_000)])).encode(), {}, (200,)


def bodies(report, server):
    for name, body, headers, more in requests():
        attack = lambda body=body, headers=headers, more=more: blamed(server.post(CHAT, body, headers), *more)
        report.attack(server, name, 30, attack, copies=4)


# --- connections -------------------------------------------------------------------------------------------------


def talk(server, *pieces, drop=b"", every=1.0):
    """Sends pieces, then drops until the connection is over; gives what came back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=BODY + 60) as connection:
        received = []

        def listen():
            with contextlib.suppress(OSError):
                while piece := connection.recv(65536):
                    received.append(piece)

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        with contextlib.suppress(OSError):
            for piece in pieces:
                connection.sendall(piece)
            while drop and listener.is_alive():
                connection.sendall(drop)
                listener.join(every)
        listener.join(BODY + 60)
        return b"".join(received)


def head(*headers, path=CHAT):
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def answered(received, *statuses):
    """None if the answer has one of these statuses; 0 is a connection that was closed without a word."""
    found = re.match(rb"HTTP/1\.1 (\d+)", received)
    status = int(found.group(1)) if found else 0
    return None if status in statuses else f"{received[:100]!r}, expected one of {statuses}"


def connections(quick):
    good = json.dumps(question()).encode()
    length = f"Content-Length: {len(good)}"
    yield "a length too large", SILENCE, (408,), [head("Content-Length: 1000000") + good], b""
    yield "a length beyond numbers", 5, (400,), [head("Content-Length: 99999999999999999999999")], b""
    yield "a length of 9 exabytes", 10, (413,), [head("Content-Length: 9000000000000000000"), b"x"], b""
    yield "a negative length", 5, (400,), [head("Content-Length: -5") + good], b""
    yield "a length with a sign", 5, (400,), [head("Content-Length: +5") + good], b""
    yield "a length too small", 5, (400,), [head("Content-Length: 5", "Connection: close") + good], b""
    yield "two lengths", 5, (400,), [head(length, "Content-Length: 3") + good], b""
    yield "a length and chunks", 5, (400, 200), [head(length, "Transfer-Encoding: chunked", "Connection: close") + b"0\r\n\r\n"], b""
    yield "chunks of no number", 5, (400,), [head("Transfer-Encoding: chunked", "Connection: close") + b"zz\r\n{}\r\n"], b""
    yield "a chunk beyond numbers", 5, (400,), [head("Transfer-Encoding: chunked", "Connection: close") + b"F" * 40 + b"\r\n"], b""
    yield "a chunk of 16 exabytes", SILENCE, (400, 408), [head("Transfer-Encoding: chunked") + b"FFFFFFFFFFFFFFFF\r\nx"], b""
    yield "a chunk extension without an end", 10, (400, 0), [head("Transfer-Encoding: chunked"), b"1;" + b"x" * 1_000_000], b""
    yield "trailers without an end", 60, (400, 431, 0), [head("Transfer-Encoding: chunked"), b"0\r\n", b"X: y\r\n" * 1_000_000], b""
    yield "an encoding of another name", 5, (400,), [head("Transfer-Encoding: gzip", "Connection: close") + good], b""
    yield "a head of 2 MB", 5, (431, 400, 0), [b"GET /health HTTP/1.1\r\nX: " + b"x" * 2_000_000], b""
    yield "10000 header lines", 5, (431, 400, 0), [b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n"], b""
    yield "a path of 1 MB", 5, (414, 431, 400, 0), [b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\n\r\n"], b""
    yield "no HTTP at all", 5, (400, 0), [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10 + b"\r\n\r\n"], b""
    yield "the preface of HTTP/2", 5, (400, 505, 0), [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], b""
    yield "a promise that is not kept", SILENCE, (408,), [head(length, "Expect: 100-continue")], b""
    yield "a connection without a word", SILENCE, (0,), [], b""
    yield "a head without an end", SILENCE, (0, 408), [b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"], b""
    yield "a head that drips", SILENCE, (0, 408), [b"GET /health HTTP/1.1\r\n"], b"X: y\r\n"
    yield "a body without an end", SILENCE, (408,), [head(length) + good[:-1]], b""
    yield "an idle connection after an answer", SILENCE, (200,), [b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"], b""
    if not quick:
        yield "a body that drips", BODY, (408,), [head("Content-Length: 1000000")], b" "
        yield "chunks that drip", BODY, (408,), [head("Transfer-Encoding: chunked")], b"1\r\n \r\n"


def slow(report, server, quick):
    """All at once: most of them only wait."""
    information = b"HTTP/1.1 100 Continue\r\n\r\n"

    def run(name, bound, statuses, pieces, drop):
        def attack():
            return answered(talk(server, *pieces, drop=drop).removeprefix(information), *statuses)

        report.attack(server, name, bound, attack)

    threads = [threading.Thread(target=run, args=case) for case in connections(quick)]

    def crowd():
        """Many clients at once that say nothing, half of them in the middle of a body."""
        sockets = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(300)]
        for connection in sockets[:40]:
            connection.sendall(head("Content-Length: 1000"))
        for connection in sockets:
            with contextlib.suppress(OSError):
                while connection.recv(65536):
                    pass
            connection.close()
        return None

    threads.append(threading.Thread(target=report.attack, args=[server, "300 connections without a word", SILENCE, crowd]))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- clients that leave ------------------------------------------------------------------------------------------


ATTEMPTS = 9


def leaving(report, binary):
    """How many tokens are generated for a client after it has closed its connection, by the server's own count."""
    server = Server(binary, "alone", is_probed=False)
    operator = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

    def numbers():
        operator.request("GET", "/metrics")
        page = operator.getresponse().read().decode()
        read = lambda name: float(re.search(rf"^ocellus:{name}\{{.*\}} (\S+)$", page, re.MULTILINE).group(1))
        return read("generation_tokens_total"), read("num_requests_running")

    def leave(path, header, body):
        data = json.dumps(body).encode()
        start, _ = numbers()
        client = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        client.sendall(head(f"Content-Length: {len(data)}", header, path=path) + data)
        # An answer of random tokens may end of itself; then the attempt is made anew.
        limit = time.monotonic() + 5
        while numbers()[0] < start + 3:
            if time.monotonic() > limit:
                return leave(path, header, body)
        first, clock = numbers()[0], time.monotonic()
        while numbers()[0] < first + 10:
            if time.monotonic() > limit:
                return leave(path, header, body)
        last = time.monotonic()
        before, _ = numbers()
        pace = (time.monotonic() - clock) / max(before - first, 1)
        client.close()
        closed = time.monotonic()
        while numbers()[1] > 0:
            pass
        # The count is some time older than the close, and the tiny model is fast: that much is not the server's doing.
        meanwhile = math.ceil((closed - last) / pace)
        return max(numbers()[0] - before - meanwhile, 0), meanwhile, time.monotonic() - closed, pace

    sampling = {"max_tokens": 8000, "temperature": 1.9}
    compatible = {"model": "qwen-vl-max", "messages": [{"role": "user", "content": "Hi"}], **sampling}
    other = {"model": "qwen-vl-max", "input": {"messages": [{"role": "user", "content": "Hi"}]}, "parameters": sampling}
    try:
        for name, path, header, body in [
            ("compatible, whole", CHAT, "X: y", compatible),
            ("compatible, streamed", CHAT, "X: y", {**compatible, "stream": True}),
            ("DashScope, whole", NATIVE, "X: y", other),
            ("DashScope, streamed", NATIVE, "X-DashScope-SSE: enable", other),
        ]:
            found = [leave(path, header, body) for _ in range(ATTEMPTS)]
            tokens, unseen, times, paces = (sorted(numbers) for numbers in zip(*found))
            middle = ATTEMPTS // 2
            report.line(
                f"alone  a client leaves ({name}): tokens after it {[int(count) for count in tokens]} "
                f"(and up to {unseen[-1]} between the count and the close), place free after "
                f"{milliseconds(times[middle])}, one token takes {milliseconds(paces[middle])}",
                [f"{int(tokens[middle])} tokens, expected at most 2"] if tokens[middle] > 2 else [],
            )
    finally:
        server.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ocellus", help="the server's binary")
    parser.add_argument("--quick", action="store_true", help="leave out what takes five minutes")
    arguments = parser.parse_args()

    report, trap = Report(), Trap()
    hostile = Hostile(trap)
    leaving(report, arguments.ocellus)
    listed = ["--media-fetch", "allow-list", "--media-allow", f"127.0.0.1:{hostile.port}"]
    for name, settings, attacks in [
        ("public", [], [lambda server: addresses(report, server, trap)]),
        ("listed", listed, [lambda server: redirects(report, server, hostile, trap)]),
        (
            "any",
            ["--media-fetch", "any"],
            [
                lambda server: media(report, server, hostile),
                lambda server: bombs(report, server),
                lambda server: bodies(report, server),
                lambda server: slow(report, server, arguments.quick),
            ],
        ),
    ]:
        server = Server(arguments.ocellus, name, *settings)
        try:
            for attack in attacks:
                attack(server)
            print(f"{name:6} peak memory {server.peak()} MiB", flush=True)
        finally:
            server.stop()
    report.line(f"{trap.visits} visits to the listener that nobody may reach", ["visited"] if trap.visits else [])
    verdict = "holds" if report.wrong == 0 else "DOES NOT HOLD"
    print(f"hostile: {report.right} right, {report.wrong} wrong: {verdict}")
    sys.exit(report.wrong > 0)


if __name__ == "__main__":
    main()
