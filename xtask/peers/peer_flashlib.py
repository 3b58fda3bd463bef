"""FlashLib, https://pypi.org/project/flashlib: its CuTe kernels where they take the problem, else its Triton ones."""
from common import DevicePoints, cuda_torch, event_time, serve, versions


def brief(work):
    return min([event_time(work) for _ in range(4)][1:])


class Peer:
    def __init__(self):
        self.torch = cuda_torch()
        from flashlib.primitives import kmeans
        from flashlib.primitives.kmeans.cutedsl import assign

        self.kmeans, self.cute = kmeans, assign
        self.points, self.tiles = DevicePoints(), {}
        self.versions = versions("flashlib", "nvidia-cutlass-dsl", "torch", "triton")
        if not assign._try_init_cutedsl():
            reason = str(assign._CUTE_IMPORT_ERROR).splitlines()[:1]
            self.versions["CuTe kernels"] = "absent: " + "".join(reason)

    def tile(self, job, x, c):
        """The fastest of a few tiles, found once for each shape: all twelve that its own search compiles take 18 s.
        `None` where its Triton kernel is faster, or the only one."""
        key = (job.batch, job.n, job.k, job.d, job.dtype)
        if key not in self.tiles:
            triton = lambda: self.kmeans.euclid_assign_triton(x, c)
            best, least = None, brief(triton)
            eligible = job.batch == 1 and job.dtype != "f32" and job.d % 16 == 0 and job.d <= 512
            for tile in self.candidates(job) if eligible and self.cute._try_init_cutedsl() else []:
                try:
                    # Compiled apart first: a failure inside of the call would pass for Triton's time.
                    self.compile(x, c, tile)
                    time = brief(lambda: self.cute.cutedsl_assign_euclid(x, c, cute_tile=tile))
                except Exception as error:
                    print(f"{key} {tile}: {error}")
                    continue
                print(f"{key} {tile}: {time:.4f} ms")
                if time < least:
                    best, least = tile, time
            self.tiles[key] = best
            if best:
                # Where its own loops look before they search.
                self.cute._autotune_cache[(job.n, job.d, job.k, x.dtype, c.dtype)] = best
        return self.tiles[key]

    def candidates(self, job):
        if job.d > 256:
            return [(128, 64, False), (64, 64, True)]
        if job.d > 128:
            return [(128, 128, True), (128, 256, False)]
        if job.d > 64:
            return [(128, 256, False), (128, 128, True)] if job.k >= 1024 else [(128, 128, False), (128, 64, True)]
        return [(128, 64, False), (128, 128, True)]

    def compile(self, x, c, tile):
        c_sq = (c.float() ** 2).sum(-1).view(-1).contiguous()
        out = self.torch.empty(x.shape[1], device=x.device, dtype=self.torch.int32)
        self.cute._get_compiled_assign(x[0], c[0], c_sq, out, tile[0], tile[1], use_ws=tile[2])

    def assign(self, x, c, tile, out=None):
        if tile is None:
            return self.kmeans.euclid_assign_triton(x, c, out=out)
        return self.cute.cutedsl_assign_euclid(x, c, out=out, cute_tile=tile)

    def fit(self, x, c, tile, iterations):
        # Its loops write into the centroids that they are given.
        options = {"max_iters": iterations, "tol": 0.0, "init_centroids": c.clone()}
        if tile is None:
            return self.kmeans.batch_kmeans_Euclid(x, c.shape[1], **options)
        return self.kmeans.cutedsl_kmeans_Euclid(x, c.shape[1], **options)

    def run(self, job):
        job.only("assign", "update", "iteration", "latency", "streaming")
        torch = self.torch
        if job.suite == "streaming":
            return job.streaming(self.kmeans.kmeans_largeN)
        # It would keep all tensors that its kernels ever saw.
        self.cute._dlpack_cache.clear()
        x, c = self.points.of(job)
        # A process that is timed from its start takes what `flash_kmeans` would choose, which is Triton for d < 256.
        tile = None if job.samples == 1 else self.tile(job, x, c)
        note = "Triton" if tile is None else f"CuTe, tile {tile[0]}×{tile[1]}{', specialised warps' if tile[2] else ''}"
        if job.suite == "latency":
            call = lambda: self.fit(x, c, tile, job.iterations)
            times, (_, centroids, _) = job.host_times(call, torch.cuda.synchronize)
            job.leave_centroids(centroids)
            return {"ms": times, "note": note}
        labels = self.assign(x, c, tile)
        if job.suite == "assign":
            job.leave_labels(labels)
            out = torch.empty_like(labels)
            return {"ms": job.device_times(lambda: self.assign(x, c, tile, out)), "note": note}
        buffers = {
            "sums_buf": torch.zeros(job.batch, job.k, job.d, device=x.device),
            "cnts_buf": torch.zeros(job.batch, job.k, device=x.device, dtype=torch.int32),
            "shift_buf": torch.empty(job.batch, job.k, device=x.device),
            "new_buf": torch.empty_like(c),
        }
        step = lambda labels: self.kmeans.triton_lloyd_centroid_step_euclid(x, labels, c, **buffers)
        if job.suite == "update":
            job.leave_centroids(step(labels)[0])
            return {"ms": job.device_times(lambda: step(labels))}
        job.leave_centroids(self.fit(x, c, tile, job.iterations)[1])
        return {"ms": job.device_times(lambda: step(self.assign(x, c, tile, labels))), "note": note}


serve(Peer)
