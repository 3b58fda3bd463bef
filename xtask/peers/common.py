"""What the peers have in common: a job in, an answer out, a line of JSON each.

A peer is a class with `versions`, a dict or the reason why it takes no part, and `run(job)`, which returns an answer.
Results are left in files for the gate: labels of sampled rows as u32, centroids as f32.
"""
import importlib.metadata
import json
import os
import sys
import time
import traceback

import numpy as np


class Skip(Exception):
    """The peer does not do this."""


class Job:
    def __init__(self, message):
        case = message["case"]
        self.suite, self.iterations = message["suite"], message["iterations"]
        self.batch, self.n, self.k, self.d = case["batch"], case["n"], case["k"], case["d"]
        self.dtype, self.points, self.out = case["dtype"], message["points"], message["out"]
        self.milliseconds, self.samples = message["ms"], message["samples"]
        self.rows = np.fromfile(message["rows"], dtype=np.uint64).astype(np.int64)

    def only(self, *suites):
        if self.suite not in suites:
            raise Skip("has no such thing by itself")

    def mapped(self):
        """The points as they are in the file, (batch, n, d); bf16 as their 16 bits."""
        dtype = {"f16": np.float16, "bf16": np.uint16, "f32": np.float32}[self.dtype]
        return np.memmap(self.points, dtype=dtype, mode="c", shape=(self.batch, self.n, self.d))

    def as_f32(self):
        """The points of the only problem, (n, d), in f32, in memory."""
        if self.batch > 1:
            raise Skip("one problem at a time")
        points = self.mapped()[0]
        if self.dtype == "bf16":
            return (points.astype(np.uint32) << 16).view(np.float32)
        return np.array(points, dtype=np.float32)

    def leave_labels(self, labels):
        """Of all points, (batch, n), a tensor or an array."""
        flat = labels.reshape(-1)
        chosen = flat[self.rows] if isinstance(flat, np.ndarray) else flat[_like(self.rows, flat)].cpu().numpy()
        chosen.astype(np.uint32).tofile(self.out + ".labels")

    def leave_centroids(self, centroids):
        if not isinstance(centroids, np.ndarray):
            centroids = centroids.float().cpu().numpy()
        np.ascontiguousarray(centroids, dtype=np.float32).tofile(self.out + ".centroids")

    def enough(self, times, begin):
        """All samples, or five when the time is over, or fewer when five would take far too long."""
        spent = 1e3 * (time.perf_counter() - begin)
        late, too_late = spent > self.milliseconds, spent > 10 * self.milliseconds
        return len(times) >= self.samples or too_late or (late and len(times) >= 5)

    def host_times(self, call, finish=lambda: None):
        """Milliseconds of whole calls, and what the last one returned."""
        if self.samples > 1:
            call()
            finish()
        times, begin = [], time.perf_counter()
        while True:
            start = time.perf_counter()
            result = call()
            finish()
            end = time.perf_counter()
            times.append(1e3 * (end - start))
            if self.enough(times, begin):
                return times, result

    def device_times(self, work):
        """Milliseconds by device events; where points would stay in the L2 cache, it is overwritten in between."""
        import torch

        cache = torch.cuda.get_device_properties(0).L2_cache_size
        fits = self.batch * self.n * self.d * (4 if self.dtype == "f32" else 2) < 2 * cache
        spoiler = torch.empty(2 * cache, device="cuda", dtype=torch.uint8) if fits else None
        for _ in range(2):
            work()
        torch.cuda.synchronize()
        times, start = [], time.perf_counter()
        while True:
            if fits:
                spoiler.zero_()
            times.append(event_time(work))
            if self.enough(times, start):
                return times

    def streaming(self, kmeans_large):
        """The answer for points in pinned host memory, of `kmeans_largeN` as flash-kmeans and FlashLib have it."""
        import torch

        points = pinned(self)
        first = points[: self.k].cuda()
        call = lambda: kmeans_large(
            points, self.k, max_iters=self.iterations, tol=-1.0, init_centroids=first, device="cuda:0")
        times, (_, centroids) = self.host_times(call, torch.cuda.synchronize)
        self.leave_centroids(centroids)
        return {"ms": times, "note": "from pinned host memory"}

    def iteration_times(self, fit, few, many, finish=lambda: None):
        """Milliseconds an iteration: the difference of a long and a short call, by the host's clock."""
        fit(few)
        finish()
        times, begin = [], time.perf_counter()
        while True:
            lengths = []
            for count in (few, many):
                start = time.perf_counter()
                result = fit(count)
                finish()
                lengths.append(time.perf_counter() - start)
            times.append(1e3 * (lengths[1] - lengths[0]) / (many - few))
            if self.enough(times, begin):
                return times, result


def event_time(work):
    """Milliseconds of one call, by device events."""
    import torch

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)


def _like(rows, tensor):
    import torch

    return torch.from_numpy(rows).to(tensor.device)


class DevicePoints:
    """Points and first centroids on the GPU; of the last job's case, for the next suite asks for the same."""

    def __init__(self):
        self.key, self.value = None, None

    def of(self, job):
        import torch

        key = (job.points, job.batch, job.n, job.k, job.d)
        if key != self.key:
            self.key = self.value = None
            torch.cuda.empty_cache()
            points = torch.from_numpy(job.mapped())
            if job.dtype == "bf16":
                points = points.view(torch.bfloat16)
            points = points.cuda()
            self.key, self.value = key, (points, points[:, : job.k].contiguous())
        return self.value


def pinned(job):
    """The only problem's points, (n, d), in pinned host memory."""
    import torch

    if job.batch > 1:
        raise Skip("one problem at a time")
    points = torch.from_numpy(job.mapped()[0])
    if job.dtype == "bf16":
        points = points.view(torch.bfloat16)
    return points.pin_memory()


def versions(*packages):
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def cuda_torch():
    import torch

    if not torch.cuda.is_available():
        raise Skip("PyTorch finds no GPU")
    return torch


def serve(make):
    """Answers jobs until there are no more. `make` returns the peer, and raises where it cannot take part."""
    # What a peer prints must not get among the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        peer, absent = make(), None
    except Exception as error:
        traceback.print_exc()
        peer, absent = None, f"{type(error).__name__}: {error}".splitlines()[0]
    for line in sys.stdin:
        message = json.loads(line)
        if message["op"] == "quit":
            break
        try:
            if message["op"] == "hello":
                answer = {"absent": absent} if absent else {"versions": peer.versions}
            elif message["op"] == "ceilings":
                answer = {"ceilings": peer.ceilings()}
            else:
                answer = peer.run(Job(message))
                # PyTorch keeps what it freed, and the GPU is not its alone.
                if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
                    sys.modules["torch"].cuda.empty_cache()
        except Skip as reason:
            answer = {"skip": str(reason)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
            if "torch" in sys.modules:
                if "out of memory" in str(error):
                    sys.modules["torch"].cuda.empty_cache()
                elif "CUDA" in str(error):
                    # Nothing works any more in a process that had such an error.
                    answer["restart"] = True
        print(json.dumps(answer), file=answers, flush=True)
