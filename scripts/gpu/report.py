"""The report of one run, for programs (JSON) and for people (Markdown)."""

import json


def write(folder, report):
    """Both files, replaced whole, so that an interrupted run leaves the last complete ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in [("gpu-check.json", json.dumps(report, indent=2) + "\n"), ("gpu-check.md", markdown(report))]:
        partial = folder / f"{name}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / name)


def markdown(report):
    machine = report["machine"]
    lines = [
        f"# {machine.get('gpu') or 'No GPU'}, {report['date']}, commit {report['commit']}",
        "",
        f"Driver {machine.get('driver') or 'unknown'}, {machine.get('memory') or 'unknown memory'}, processor "
        f"{machine.get('processor') or 'unknown'}. {verdict(report)}",
        "",
        "| | target | measured | holds |",
        "| --- | --- | --- | --- |",
    ]
    words = {True: "yes", False: "NO", None: "not measured"}
    for target in report["targets"]:
        measured = "-" if target["measured"] is None else number(target["measured"], target["unit"])
        if target["unit"] == "" and target["measured"] is not None:
            measured = "pass" if target["measured"] else "fail"
        lines.append(f"| {target['what']} | {target['wanted']} | {measured} | {words[target['holds']]} |")

    lines += ["", "## What was measured", "", "Medians.", "", "| | ocellus | torch, eager | torch, compiled |"]
    lines += ["| --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(row)} |" for row in side_by_side(report["figures"])]
    lines += ["", "| figure | |", "| --- | --- |"]
    lines += [f"| {name} | {number(value)} |" for name, value in sorted(report["figures"].items())]

    lines += ["", "## Steps", "", "| step | | s | |", "| --- | --- | --- | --- |"]
    for step in report["steps"]:
        detail = step["detail"].replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {step['name']} | {step['status']} | {step['seconds']:.1f} | {detail} |")
    for name, text in report["texts"].items():
        lines += ["", f"## {name}", "", "```", text.rstrip(), "```"]
    return "\n".join(lines) + "\n"


def verdict(report):
    found = [target["holds"] for target in report["targets"]]
    return f"{found.count(True)} targets hold, {found.count(False)} do not, {found.count(None)} were not measured."


def side_by_side(figures):
    """The same work of both engines in one row, in milliseconds."""
    rows = []
    for name in sorted(figures):
        model, _, rest = name.partition(" bf16 ")
        if not rest.endswith(" ms"):
            continue
        work = rest.removesuffix(" ms")
        peers = [f"{model} torch {work} ms", None]
        if work.startswith("decode "):
            count = work.removeprefix("decode ")
            peers = [f"{model} torch decode-{way} {count} ms" for way in ("eager", "compiled")]
        cells = [number(figures[peer], "ms") if peer in figures else "-" for peer in peers]
        rows.append([f"{model} {work}", number(figures[name], "ms"), *cells])
    return rows


def number(value, unit=""):
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{digits}f} {unit}".rstrip()
