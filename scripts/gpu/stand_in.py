#!/usr/bin/env python3
"""Stands in for the program ocellus in the test of check-gpu.py: made-up figures, and one step that hangs, one that fails."""

import http.server
import json
import sys
import time

ROWS = {
    "load": [{"stage": "ready", "time_ms": 4000.0, "gb_per_s": 4.1}, {"stage": "first token", "time_ms": 4100.0}],
    "decode": [
        {"depth": 1300, "sequences": 1, "time_ms": 5.0, "gb_per_s": 3200.0},
        {"depth": 1300, "sequences": 4, "time_ms": 5.5, "gb_per_s": 3000.0},
        {"depth": 1300, "sequences": 16, "time_ms": 8.0, "gb_per_s": 2400.0},
    ],
    "prefill": [
        {"tokens": 1276, "time_ms": 40.0, "gflop_per_s": 480000.0},
        {"tokens": 8192, "time_ms": 300.0, "gflop_per_s": 300000.0},
    ],
}


class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        picture = request["messages"][0]["content"][0]["image_url"]["url"]
        Handler.asked += 1
        # The model is loaded a little later than the port answers.
        status = 503 if Handler.asked == 1 else 200 if picture.startswith("data:image/bmp;base64,Qk") else 400
        body = json.dumps({"usage": {"prompt_tokens": 1230}}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve():
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    print(f"listening on http://127.0.0.1:{server.server_port}/v1", flush=True)
    server.serve_forever()


def main():
    words = sys.argv[1:]
    if words[0] == "doctor":
        measured = {"copy_bytes_per_s": 4.0e12, "bf16_flop_per_s": 8.0e14}
        text = json.dumps({"devices": [{"name": "processor"}, {"name": "stand-in", "measured": measured}]})
        print(text if "--json" in words else "a stand-in")
    elif words[0] == "self-test":
        print("every operation: ok")
    elif words[0] == "serve":
        serve()
    elif words[:2] == ["bench", "--json"]:
        what = words[2]
        if what == "vision" and "3584x3584" in words:
            time.sleep(600)
        if what == "decode" and "int4" in words:
            sys.exit("error: there is no such weight here")
        rows = ROWS.get(what, [{"picture": "1120x896", "tokens": 1280, "time_ms": 20.0, "gflop_per_s": 350000.0}])
        print(json.dumps({"bench": what, "tables": [{"title": what, "rows": rows}]}))
    else:
        print("a table")


if __name__ == "__main__":
    main()
