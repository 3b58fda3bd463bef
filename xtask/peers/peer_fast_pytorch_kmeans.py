"""fast-pytorch-kmeans, https://pypi.org/project/fast-pytorch-kmeans."""
from common import DevicePoints, Skip, cuda_torch, serve, versions


class Peer:
    def __init__(self):
        self.torch = cuda_torch()
        import fast_pytorch_kmeans

        self.package = fast_pytorch_kmeans
        self.points = DevicePoints()
        self.versions = versions("fast-pytorch-kmeans", "torch")

    def run(self, job):
        job.only("assign", "iteration", "latency")
        if job.dtype == "bf16":
            raise Skip("no bf16")
        torch = self.torch
        # Its update multiplies a matrix of n by k.
        if job.suite != "assign" and job.batch * job.n * job.k * (4 if job.dtype == "f32" else 2) > 40e9:
            raise Skip("its matrix of points and clusters takes over 40 GB")
        x, c = self.points.of(job)
        kind = self.package.KMeans if job.batch == 1 else self.package.MultiKMeans
        if job.batch == 1:
            x, c = x[0], c[0]

        def fit(iterations):
            model = kind(job.k, max_iter=iterations, tol=-1.0)
            model.centroids = c
            model.fit_predict(x, c)
            return model.centroids

        if job.suite == "assign":
            model = kind(job.k)
            job.leave_labels(model.max_sim(x, c)[1])
            return {"ms": job.device_times(lambda: model.max_sim(x, c))}
        if job.suite == "iteration":
            job.leave_centroids(fit(job.iterations))
            return {"ms": job.device_times(lambda: fit(1))}
        times, centroids = job.host_times(lambda: fit(job.iterations), torch.cuda.synchronize)
        job.leave_centroids(centroids)
        return {"ms": times}


serve(Peer)
