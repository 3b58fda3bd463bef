"""Plain PyTorch: a product, a minimum, a sum by index; and what products and copies reach by themselves."""
from common import DevicePoints, cuda_torch, event_time, serve, versions

# Values of a block of the matrix of distances.
BLOCK = 1 << 28


class Peer:
    def __init__(self):
        self.torch = cuda_torch()
        self.points, self.wide = DevicePoints(), True
        self.versions = versions("torch")

    def ceilings(self):
        torch = self.torch

        def median(work, count=20):
            for _ in range(3):
                work()
            return sorted(event_time(work) for _ in range(count))[count // 2]

        found = []
        for name, dtype, tf32 in [
            ("f16", torch.float16, False), ("bf16", torch.bfloat16, False), ("tf32", torch.float32, True)
        ]:
            torch.backends.cuda.matmul.allow_tf32 = tf32
            a, b = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in range(2))
            out = torch.empty_like(a)
            rate = 2 * 8192**3 / median(lambda: torch.mm(a, b, out=out)) / 1e9
            found.append({"name": f"gemm_{name}", "value": rate, "unit": "TFLOP/s"})
        torch.backends.cuda.matmul.allow_tf32 = False
        from_, to = (torch.empty(1 << 31, device="cuda", dtype=torch.uint8) for _ in range(2))
        rate = 2 * (1 << 31) / median(lambda: to.copy_(from_)) / 1e6
        found.append({"name": "device_copy", "value": rate, "unit": "GB/s read and written"})
        host = torch.empty(1 << 28, dtype=torch.uint8).pin_memory()
        part = to[: 1 << 28]
        rate = (1 << 28) / median(lambda: part.copy_(host, non_blocking=True)) / 1e6
        found.append({"name": "host_to_device_copy", "value": rate, "unit": "GB/s"})
        del a, b, out, from_, to, part
        torch.cuda.empty_cache()
        return found

    def product(self, a, b):
        """Kept in f32 for 16-bit values, where this version can."""
        torch = self.torch
        if a.dtype != torch.float32 and self.wide:
            try:
                return torch.bmm(a, b, out_dtype=torch.float32)
            except (TypeError, RuntimeError, NotImplementedError) as error:
                print(f"no products of 16-bit values in f32: {error}")
                self.wide = False
        return torch.bmm(a, b).float()

    def assign(self, x, c):
        torch = self.torch
        batch, n, _ = x.shape
        c_t, c_sq = c.transpose(1, 2), (c.float() ** 2).sum(-1)[:, None]
        labels = torch.empty(batch, n, device=x.device, dtype=torch.int64)
        rows = max(1, BLOCK // (batch * c.shape[1]))
        for at in range(0, n, rows):
            part = x[:, at : at + rows]
            labels[:, at : at + rows] = torch.add(c_sq, self.product(part, c_t), alpha=-2).argmin(-1)
        return labels

    def update(self, x, labels, c):
        torch = self.torch
        batch, n, d = x.shape
        k = c.shape[1]
        flat = (labels + torch.arange(batch, device=x.device)[:, None] * k).reshape(-1)
        sums = torch.zeros(batch * k, d, device=x.device)
        rows, points = max(1, BLOCK // d), x.reshape(-1, d)
        for at in range(0, batch * n, rows):
            sums.index_add_(0, flat[at : at + rows], points[at : at + rows].float())
        counts = torch.bincount(flat, minlength=batch * k)[:, None]
        means = sums / counts.clamp(min=1)
        return torch.where(counts > 0, means, c.reshape(-1, d).float()).to(c.dtype).view_as(c)

    def fit(self, x, c, iterations):
        for _ in range(iterations):
            c = self.update(x, self.assign(x, c), c)
        return c

    def run(self, job):
        job.only("assign", "update", "iteration", "latency")
        x, c = self.points.of(job)
        if job.suite == "assign":
            job.leave_labels(self.assign(x, c))
            return {"ms": job.device_times(lambda: self.assign(x, c))}
        if job.suite == "update":
            labels = self.assign(x, c)
            job.leave_centroids(self.update(x, labels, c))
            return {"ms": job.device_times(lambda: self.update(x, labels, c))}
        if job.suite == "iteration":
            job.leave_centroids(self.fit(x, c, job.iterations))
            return {"ms": job.device_times(lambda: self.fit(x, c, 1))}
        times, centroids = job.host_times(lambda: self.fit(x, c, job.iterations), self.torch.cuda.synchronize)
        job.leave_centroids(centroids)
        return {"ms": times}


serve(Peer)
