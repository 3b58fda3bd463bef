"""flash-kmeans (Triton), https://pypi.org/project/flash-kmeans."""
from common import DevicePoints, cuda_torch, serve, versions


class Peer:
    def __init__(self):
        self.torch = cuda_torch()
        import flash_kmeans
        from flash_kmeans import kmeans_triton_impl

        self.package, self.loop = flash_kmeans, kmeans_triton_impl
        self.points = DevicePoints()
        self.versions = versions("flash-kmeans", "torch", "triton")

    def fit(self, x, c, iterations):
        return self.package.batch_kmeans_Euclid(x, c.shape[1], max_iters=iterations, tol=-1.0, init_centroids=c)

    def run(self, job):
        job.only("assign", "update", "iteration", "latency", "streaming")
        torch = self.torch
        if job.suite == "streaming":
            return job.streaming(self.package.kmeans_largeN)
        x, c = self.points.of(job)
        if job.suite == "latency":
            call = lambda: self.fit(x, c, job.iterations)
            times, (_, centroids, _) = job.host_times(call, torch.cuda.synchronize)
            job.leave_centroids(centroids)
            return {"ms": times}
        # As its own loop computes it, once for all iterations.
        x_sq = torch.empty(job.batch, job.n, device=x.device, dtype=x.dtype)
        for at in range(0, job.n, 1 << 20):
            x_sq[:, at : at + (1 << 20)] = (x[:, at : at + (1 << 20)] ** 2).sum(dim=-1)
        if job.suite == "assign":
            labels = self.loop.euclid_assign_triton(x, c, x_sq)
            job.leave_labels(labels)
            return {"ms": job.device_times(lambda: self.loop.euclid_assign_triton(x, c, x_sq))}
        if job.suite == "update":
            labels = self.loop.euclid_assign_triton(x, c, x_sq)
            update = lambda: self.loop.triton_centroid_update_sorted_euclid(x, labels, c)
            job.leave_centroids(update())
            return {"ms": job.device_times(update)}

        # Its loop's body: it waits for the shift of every iteration.
        def body():
            new, shift, _ = self.loop._euclid_iter(x, x_sq, c)
            if not shift < -1.0:
                new.clone()

        job.leave_centroids(self.fit(x, c, job.iterations)[1])
        return {"ms": job.device_times(body)}


serve(Peer)
