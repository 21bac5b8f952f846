"""The logic of check-gpu.py on a machine without a GPU: a stand-in for the program, and one for the peer's Python."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

SCRIPTS = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(SCRIPTS))

from gpu import report, steps, targets  # noqa: E402
from gpu.measurements import Measurements  # noqa: E402

PEER = """#!/bin/sh
echo '{"torch": "2.0", "transformers": "5.0"}'
echo '{"what": "decode-eager", "time_ms": 25.0}'
echo '{"what": "decode-compiled", "time_ms": 7.0}'
echo '{"what": "vision:1120x896", "time_ms": 45.0}'
echo '{"what": "prefill:1276", "error": "OutOfMemoryError"}'
"""


class WholeRun(unittest.TestCase):
    def run_it(self, *words):
        """The report, the status and what was said, of a run on the stand-ins."""
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            binary, peer = folder / "ocellus", folder / "python"
            binary.write_text(f"#!/bin/sh\nexec {sys.executable} {SCRIPTS / 'gpu/stand_in.py'} \"$@\"\n")
            peer.write_text(PEER)
            for program in (binary, peer):
                program.chmod(0o755)
            (folder / "ocellus.json").write_text('{"commit": "0123456789ab"}')
            command = [SCRIPTS / "gpu-check", "--binary", binary, "--out", folder / "out", "--python", peer]
            done = subprocess.run(
                [str(word) for word in [*command, "--cache", folder / "cache", *words]],
                capture_output=True, text=True, check=False, timeout=120,
            )  # fmt: skip
            found = json.loads((folder / "out/gpu-check.json").read_text())
            text = (folder / "out/gpu-check.md").read_text()
        return found, text, done

    def test_a_step_that_hangs_and_one_that_fails_stop_no_other(self):
        # The hanging one could take 30 seconds, so it is the budget that ends it.
        started = time.monotonic()
        found, text, done = self.run_it("--seconds", "18", "--models", "7b", "--scale", "0.5")
        self.assertLess(time.monotonic() - started, 20, "the budget is kept")
        by_name = {step["name"]: step for step in found["steps"]}
        hanging = next(step for name, step in by_name.items() if "3584x3584" in name)
        self.assertEqual(hanging["status"], "timed out", done.stderr)
        self.assertEqual(by_name["self-test"]["status"], "ok")
        self.assertEqual(by_name["7b torch"]["status"], "skipped")
        self.assertIn("it needs 12", by_name["7b torch"]["detail"])
        self.assertEqual(found["commit"], "0123456789ab")
        self.assertIn("0123456789ab", text)
        held = {target["what"]: target["holds"] for target in found["targets"]}
        self.assertIs(held["prefill of 8192 tokens, 7b bf16"], False)
        self.assertIsNone(held["a picture of 16384 tokens"])
        self.assertEqual(done.returncode, 1)

    def test_both_engines_stand_side_by_side(self):
        found, text, _ = self.run_it("--seconds", "60", "--scale", "0.05")
        by_name = {step["name"]: step for step in found["steps"]}
        failed = next(step for name, step in by_name.items() if "int4 decode" in name)
        self.assertEqual(failed["status"], "failed")
        self.assertIn("no such weight", failed["detail"])
        held = {target["what"]: target["measured"] for target in found["targets"]}
        self.assertAlmostEqual(held["decode, one sequence, 3b bf16"], 80.0)
        self.assertGreater(held["first token, 720p picture and 30 words, 7b"], 0.0)
        self.assertAlmostEqual(held["decode, one sequence, 7b bf16, to compiled torch"], 1.4)
        self.assertIn("| 7b decode x1 | 5.00 ms | 25.0 ms | 7.00 ms |", text)
        self.assertIn("OutOfMemoryError", by_name["7b torch"]["detail"])
        self.assertEqual(found["peer"], {"torch": "2.0", "transformers": "5.0"})
        statuses = [step["status"] for step in found["steps"]]
        self.assertEqual({status: statuses.count(status) for status in set(statuses) - {"ok"}}, {"timed out": 1, "failed": 1})


class Parts(unittest.TestCase):
    def test_a_budget_ends_what_its_programs_have_started(self):
        budget = steps.Budget(100, reserve=0, say=lambda _: None)
        started = time.monotonic()
        step = budget.run("sleeps", ["sh", "-c", "sleep 300 & echo $!; wait"], limit=1, need=0.1)
        self.assertEqual(step.status, "timed out")
        self.assertLess(time.monotonic() - started, 10)
        child = int(step.output.split()[0])
        for _ in range(50):
            if not alive(child):
                return
            time.sleep(0.1)
        self.fail("the child still runs")

    def test_what_can_t_be_started_is_a_step_too(self):
        budget = steps.Budget(100, reserve=0, say=lambda _: None)
        step = budget.run("none", ["/no/such/program"], limit=1)
        self.assertEqual(step.status, "failed")
        self.assertIn("No such file", step.detail)
        late = steps.Budget(1, reserve=0, say=lambda _: None).run("late", ["true"], limit=60, need=30)
        self.assertEqual((late.status, late.seconds), ("skipped", 0.0))

    def test_targets_are_those_of_the_table(self):
        figures = Measurements()
        figures.limits({"devices": [{"measured": {"copy_bytes_per_s": 4e12, "bf16_flop_per_s": 8e14}}]})
        rows = [
            {"sequences": 1, "time_ms": 5.0, "gb_per_s": 3000.0},
            {"sequences": 16, "time_ms": 6.0, "gb_per_s": 3000.0},
        ]
        figures.bench("7b", "bf16", {"bench": "decode", "tables": [{"rows": rows}]})
        lines = [{"what": "decode-eager", "time_ms": 19.0}, {"what": "vision:1120x896", "time_ms": 1.0}]
        figures.peer("7b", lines, lambda _: 1280)
        found = {target.what: target for target in targets.targets(figures, {"self-test": True, "goldens": False})}
        holds = {what: target.holds for what, target in found.items()}
        self.assertIs(holds["self-test"], True)
        self.assertIs(holds["goldens"], False)
        self.assertIs(holds["decode, one sequence, 7b bf16"], True)
        self.assertIs(holds["decode, one sequence, 7b bf16, to eager torch"], False)
        self.assertIs(holds["16 sequences, 7b bf16, to one"], True)
        self.assertIsNone(holds["decode, one sequence, 3b bf16"])
        self.assertEqual(len(found), 19)

    def test_limits_of_torch_stand_in_for_ours(self):
        figures = Measurements({"torch copy GB/s": 4000.0, "7b int4 decode x1 GB/s": 2400.0})
        found = {target.what: target.measured for target in targets.targets(figures, {})}
        self.assertAlmostEqual(found["decode, one sequence, 7b int4"], 60.0)

    def test_rows_of_both_engines(self):
        figures = {"7b bf16 decode x1 ms": 5.0, "7b torch decode-eager x1 ms": 20.0, "7b bf16 prefill 8192 ms": 123.4}
        expected = [["7b decode x1", "5.00 ms", "20.0 ms", "-"], ["7b prefill 8192", "123 ms", "-", "-"]]
        self.assertEqual(report.side_by_side(figures), expected)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie whose parent has not looked yet counts as ended.
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


if __name__ == "__main__":
    unittest.main()
