"""The figures of one run: from the JSON of our programs and of the peer's to one dictionary with plain names."""


class Measurements(dict):
    """Names such as `7b bf16 decode x16 ms` with numbers; a name that is not there was not measured."""

    def put(self, name, value):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            self[name] = float(value)

    # Ours

    def limits(self, report):
        """Of `ocellus doctor --json`: the device that was asked for is the first with measured limits."""
        for device in report.get("devices", []):
            measured = device.get("measured") or {}
            if "copy_bytes_per_s" in measured or "bf16_flop_per_s" in measured:
                self.put("copy GB/s", measured.get("copy_bytes_per_s", 0) / 1e9)
                self.put("matrix TFLOP/s", measured.get("bf16_flop_per_s", 0) / 1e12)
                return

    def bench(self, model, weights, report):
        """Of `ocellus bench --json`."""
        head = f"{model} {weights} {report['bench']}"
        for row in rows(report):
            if report["bench"] == "decode":
                head_of_row = f"{head} x{row['sequences']:.0f}"
                self.put(f"{head_of_row} GB/s", row.get("gb_per_s"))
            elif report["bench"] in ("prefill", "vision"):
                head_of_row = f"{head} {row['tokens']:.0f}"
                self.put(f"{head_of_row} TFLOP/s", (row.get("gflop_per_s") or 0) / 1e3)
            elif report["bench"] == "load":
                head_of_row = f"{head} {row['stage']}"
                self.put(f"{head_of_row} GB/s", row.get("gb_per_s"))
            else:
                continue
            self.put(f"{head_of_row} ms", row.get("time_ms"))

    # The peer

    def peer(self, model, lines, tokens_of_picture):
        """Of torch_peer.py: its lines for one model. Pictures are known to us by their tokens."""
        for line in lines:
            what, _, value = line.get("what", "").partition(":")
            if what == "limits":
                self.put("torch copy GB/s", line.get("copy_bytes_per_s", 0) / 1e9)
                self.put("torch matrix TFLOP/s", line.get("bf16_flop_per_s", 0) / 1e12)
            elif what.startswith("decode-"):
                self.put(f"{model} torch {what} x{value or 1} ms", line.get("time_ms"))
            elif what == "prefill":
                self.put(f"{model} torch prefill {value} ms", line.get("time_ms"))
            elif what == "vision":
                self.put(f"{model} torch vision {tokens_of_picture(value)} ms", line.get("time_ms"))


def rows(report):
    return [row for table in report.get("tables", []) for row in table.get("rows", [])]
