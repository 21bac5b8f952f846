#!/usr/bin/env python3
"""Trains the demo model from nothing on scenes that it draws, and exports it in the official layout.

    scripts/train-demo.py --work target/demo                     trains until stopped; goes on where it was
    scripts/train-demo.py --work target/demo --minutes 60 --cool  the last hour: the rates fall to nothing
    scripts/train-demo.py --work target/demo --export models/demo  writes the checkpoint, and holds it against Transformers
    scripts/train-demo.py --work target/demo --from models/demo    begins with a checkpoint's weights

Needs what scripts/demo/requirements.txt names. The state is written every few minutes, so the process may be killed at
any time. Two cores of a desktop processor do some fifteen scenes a second.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import torch.multiprocessing as multiprocessing

sys.path.insert(0, str(Path(__file__).resolve().parent))
from demo import losses
from demo import tokens as tokenizer_files
from demo.batches import DENSE, Maker
from demo.model import HELPERS, Model
from demo.muon import Optimizer
from demo.narrow import narrowed

ROOT = Path(__file__).resolve().parent.parent
# Scenes drawn until pictures have all sizes; before, they are small, which is faster to learn the beginnings on.
GROWING = 200_000
# And until they have more than one or two things on them.
EASY = 40_000


def draw(queue, folder: str, seed: int, seen: int, settings: dict, kinds: dict, easy: float) -> None:
    """The process that makes batches."""
    os.nice(3)
    torch.set_num_threads(1)
    maker = Maker(tokenizer_files.Tokens(Path(folder)), seed, **settings)
    while True:
        maker.high = round(min(560, 150 + 410 * (seen / GROWING) ** 1.5))
        maker.easy = seen < EASY or maker.rng.random() < easy
        if kinds:
            maker.kinds = kinds
        elif seen < EASY:
            # Who sees nothing has nothing to say.
            maker.kinds = {"crowd": 35, "layout": 25, "moving": 10, "shapes": 20, "words": 10}
        else:
            maker.kinds = {"crowd": 6, "layout": 16, "moving": 6, "shapes": 44, "words": 18, "clip": 10}
        batch = maker.batch()
        seen += max(len(batch.ids), len(batch.frames))
        queue.put(batch)


def learn(model, batch, narrow: float):
    """Adds a batch's gradients, with weights of four bits in a share `narrow` of calls. Returns the parts of the loss."""
    with narrowed(model) if random.random() < narrow else contextlib.nullcontext():
        total, parts, _ = losses.total(model, batch)
        total.backward()
    return parts


def assist(queue, names, shared, gradients, state, nice: int, narrow: float) -> None:
    """A process that computes gradients beside the main one, with weights that are at most a few steps old.

    `state` is (0 when `gradients` may be written and 1 when they are ready, conversations, whether the tower has gradients).
    There is no meeting point, so a process that gets little of the processor delays nobody.
    """
    os.nice(nice)
    torch.set_num_threads(1)
    model = Model()
    own = dict(model.named_parameters())
    while True:
        batch = queue.get()
        with torch.no_grad():
            for name in names:
                own[name].copy_(shared[name])
        for p in own.values():
            p.grad = None
        learn(model, batch, narrow)
        while state[0] == 1:
            time.sleep(0.005)
        for name in names:
            if own[name].grad is None:
                gradients[name].zero_()
            else:
                gradients[name].copy_(own[name].grad)
        state[1] = max(len(batch.ids), len(batch.frames))
        state[2] = batch.kind in DENSE
        state[0] = 1


@torch.no_grad()
def score(model, batches) -> str:
    """Rounds whose every token is the likeliest one, given those before, by task; and the mean loss."""
    right, asked, found = {}, {}, []
    for batch in batches:
        _, parts, (at, chosen, wanted) = losses.total(model, batch)
        found.append(float(parts["text"]))
        same = torch.ones(batch.ids.size, dtype=torch.bool)
        same[at] = chosen == wanted
        same = same.view(batch.ids.shape)
        for row, first, end, task in batch.tasks:
            asked[task] = asked.get(task, 0) + 1
            right[task] = right.get(task, 0) + int(same[row, first:end].all())
    said = " ".join(f"{task} {100 * right[task] / asked[task]:.0f}" for task in sorted(asked))
    return f"loss {sum(found) / len(found):.3f} | {said}"


def train(arguments) -> None:
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    folder = work / "tokenizer"
    if not (folder / "tokenizer.json").is_file():
        tokenizer_files.write(folder, ROOT / "models/nano")
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    model = Model()
    optimizer = Optimizer(model, HELPERS)
    seen, state_file = 0, work / "state.pt"
    if state_file.is_file():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"], strict=False)
        # What has become of the model since is new.
        for name in ("momentum", "square", "average"):
            optimizer.state[name].update(state["optimizer"][name])
        optimizer.state["step"] = state["optimizer"]["step"]
        seen = state["seen"]
        print(f"going on after {seen} scenes, {optimizer.state['step']} steps", flush=True)
    elif arguments.start:
        from demo.export import read

        read(model, arguments.start)
        optimizer = Optimizer(model, HELPERS)
        seen = GROWING
    n = sum(p.numel() for name, p in model.named_parameters() if not name.startswith(HELPERS))
    print(f"{n} parameters", flush=True)
    apart = multiprocessing.get_context("spawn")
    queue = apart.Queue(6)
    settings = {"patches": arguments.patches, "text": arguments.patches}
    seed = arguments.seed + 1000 + seen
    kinds = {name: float(share) for name, share in (pair.split("=") for pair in arguments.kinds)}
    apart.Process(target=draw, args=(queue, str(folder), seed, seen, settings, kinds, arguments.easy), daemon=True).start()
    shared, helpers = {}, []
    if arguments.assistants:
        model.share_memory()
        shared = {name: p.detach() for name, p in model.named_parameters()}
    for _ in range(arguments.assistants):
        gradients = {name: torch.zeros_like(p).share_memory_() for name, p in shared.items()}
        state = torch.zeros(3, dtype=torch.int64).share_memory_()
        helpers.append((gradients, state))
        some = (queue, list(shared), shared, gradients, state, arguments.assistants_nice, arguments.narrow)
        apart.Process(target=assist, args=some, daemon=True).start()
    held = Maker(tokenizer_files.Tokens(folder), 4242)
    grids = {"shapes": [(5, 5), (7, 9)], "words": [(6, 7), (5, 5)], "clip": [(5, 5)], "receipt": [(10, 8)]}
    judged = [held.batch(kind, grid) for kind, some in grids.items() for grid in some]
    started, first_seen, saved, told, mean = time.time(), seen, time.time(), time.time(), {}
    end = started + 60 * arguments.minutes if arguments.minutes else None
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    while True:
        batch = queue.get()
        elapsed = time.time() - started
        warm = min(1.0, (optimizer.state["step"] + 1) / 100)
        rate = arguments.rate * warm
        if arguments.cool and end:
            rate *= max(0.0, min(1.0, (end - time.time()) / (end - started)))
        for p in model.parameters():
            p.grad = None
        parts = learn(model, batch, arguments.narrow)
        mine = max(len(batch.ids), len(batch.frames))
        for gradients, state in helpers:
            if state[0] == 1:
                theirs = int(state[1])
                for name, p in optimizer.parameters.items():
                    if p.grad is None:
                        # What neither of the two has learned about must not move at all.
                        if name.startswith(("vision.", "see.", "offset.")) and state[2] == 0:
                            continue
                        p.grad = torch.zeros_like(p)
                    p.grad.mul_(mine / (mine + theirs)).add_(gradients[name], alpha=theirs / (mine + theirs))
                mine += theirs
                state[0] = 0
        torch.nn.utils.clip_grad_norm_([optimizer.parameters[name] for name in optimizer.adam], 1.0)
        # Faster than this, attention grows so sharp within some hundred steps that it learns no more.
        optimizer.step(0.008 * rate, 0.0012 * rate)
        if optimizer.state["step"] % 10 == 0:
            parts["heat"] = model.cool()
        seen += mine
        for key, value in parts.items():
            mean[key] = 0.97 * mean.get(key, float(value)) + 0.03 * float(value)
        step = optimizer.state["step"]
        if step % 50 == 0:
            said = " ".join(f"{key} {value:.3f}" for key, value in mean.items())
            print(f"{elapsed / 60:6.1f} min  step {step}  scenes {seen} ({(seen - first_seen) / elapsed:.1f}/s)  {said}", flush=True)
        done = bool(stopped) or (end is not None and time.time() > end)
        if time.time() - told > 60 * arguments.judge or done:
            own = {name: p.detach().clone() for name, p in model.named_parameters()}
            model.load_state_dict(optimizer.state["average"], strict=False)
            print(f"   average after {seen}: {score(model, judged)}", flush=True)
            model.load_state_dict(own, strict=False)
            told = time.time()
        if time.time() - saved > 150 or done:
            state = {"model": model.state_dict(), "optimizer": optimizer.state, "seen": seen}
            torch.save(state, work / "state.new")
            (work / "state.new").replace(state_file)
            saved = time.time()
        if done:
            break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "target/demo", help="where the state is kept")
    parser.add_argument("--minutes", type=float, help="stop after so long")
    parser.add_argument("--cool", action="store_true", help="let the rates fall to nothing over --minutes")
    parser.add_argument("--rate", type=float, default=0.5, help="of the usual learning rates")
    parser.add_argument("--threads", type=int, default=1, help="of the main process")
    parser.add_argument("--assistants", type=int, default=max(0, len(os.sched_getaffinity(0)) - 1), help="processes beside it")
    parser.add_argument("--assistants-nice", type=int, default=0, help="how much they give way to other programs")
    parser.add_argument("--patches", type=int, default=3000, help="patches, and tokens, of a batch")
    parser.add_argument("--kinds", nargs="+", default=[], metavar="KIND=SHARE", help="only these kinds of scenes")
    parser.add_argument("--easy", type=float, default=0.0, help="share of batches with one or two things on a picture")
    parser.add_argument("--narrow", type=float, default=0.0, help="share of steps with weights as int4 packs them")
    parser.add_argument("--judge", type=float, default=6, help="minutes between scores")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--from", dest="start", type=Path, metavar="DIR", help="a checkpoint to begin with")
    parser.add_argument("--export", type=Path, metavar="DIR", help="write the averaged weights, and do not train")
    arguments = parser.parse_args()
    if arguments.export:
        from demo.export import export

        export(arguments.work, arguments.export)
    else:
        train(arguments)


if __name__ == "__main__":
    main()
