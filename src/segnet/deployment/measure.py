"""Measures the model beside this file: python measure.py --threads 2 --batch 1 --seconds 5 --images folder."""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from segnet.deployment.runtimes import onnx as open_model


def timed(x):  # of uint8 RGB images (N, H, W, 3): probabilities (N, H, W, C), seconds, seconds of the CPU
    x = (x / 255 - about["mean"]) / about["std"] if about["preprocessing"] == "outside" else x
    x = np.ascontiguousarray(np.moveaxis(x, -1, about["axis"]), about["input"])
    start, used = time.perf_counter(), time.process_time()
    return np.moveaxis(run(x), about["axis"], -1), time.perf_counter() - start, time.process_time() - used


begun, here = time.perf_counter(), Path(__file__).parent
parser = argparse.ArgumentParser(description=__doc__)
for name, default in {"threads": 1, "batch": 1, "seconds": 5.0, "images": Path(), "precision": "f32"}.items():
    parser.add_argument(f"--{name}", type=type(default), default=default)  # --precision bf16: of OpenVINO
args, about = parser.parse_args(), json.loads((here / "measure.json").read_text(encoding="utf-8"))
batch, size = about["batch"] or args.batch, about["size"][::-1]  # width, height
images = np.random.RandomState(0).randint(0, 256, (4, *about["size"], 3)).astype(np.uint8)
if args.images != Path():  # its first 16 files; without, images are noise
    from PIL import Image

    images = np.stack([Image.open(f).convert("RGB").resize(size) for f in sorted(args.images.iterdir())[:16]])
run = open_model(here / about["file"], args.threads, args.precision)
timed(images[[0] * batch])
row, times = {"threads": args.threads, "batch": batch, "start-up s": time.perf_counter() - begun}, []
while len(times) < 5 or sum(wall for wall, _ in times) < args.seconds:
    times.append(timed(images[np.arange(len(times) * batch, len(times) * batch + batch) % len(images)])[1:])
wall, cpu = np.transpose(times)
row["p50 ms"], row["p95 ms"] = np.percentile(wall, [50, 95]) * 1e3
row["images/s"], row["CPU ms"] = batch / wall.mean(), cpu.mean() * 1e3 / batch
if Path("/proc/self/status").exists():  # of Linux
    row["memory MB"] = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1.024e-3
row["file MB"] = sum(path.stat().st_size for path in here.glob("model.*")) / 1e6
if (here / "samples.npz").exists():  # images, their masks, and what the checkpoint decides
    saved = {k: v if k == "images" else v.astype(int) for k, v in np.load(here / "samples.npz").items()}
    p = np.concatenate([timed(x[None].repeat(about["batch"] or 1, 0))[0][:1] for x in saved["images"]])
    mask, count = (p[..., 0] > 0.5 if p.shape[-1] == 1 else p.argmax(-1)).astype(int), max(p.shape[-1], 2)
    row["decisions"] = (mask == saved["decided"]).mean()
    pairs = np.bincount((saved["masks"] * count + mask)[saved["masks"] < count], minlength=count**2).reshape(count, -1)
    union = pairs.sum(0) + pairs.sum(1) - pairs.diagonal()
    row["IoU"] = np.nanmean((pairs.diagonal() / np.where(union, union, np.nan))[count - p.shape[-1] :])
for line in row, ["---:"] * len(row), (f"{value:.6g}" for value in row.values()):
    print(f"| {' | '.join(line)} |")
