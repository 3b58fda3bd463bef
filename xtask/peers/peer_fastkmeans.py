"""fastkmeans, https://pypi.org/project/fastkmeans: points in host memory, f32, one problem."""
from common import cuda_torch, serve, versions


class Peer:
    def __init__(self):
        self.torch = cuda_torch()
        import fastkmeans

        self.package = fastkmeans
        self.versions = versions("fastkmeans", "torch", "triton")

    def run(self, job):
        job.only("latency", "streaming")
        torch, points = self.torch, job.as_f32()

        def call():
            model = self.package.FastKMeans(
                job.d, job.k, niter=job.iterations, tol=-1.0, max_points_per_centroid=None)
            # It draws its first centroids; those that all start from are the first rows.
            drawn, torch.randperm = torch.randperm, torch.arange
            try:
                model.train(points)
            finally:
                torch.randperm = drawn
            return model.centroids

        times, centroids = job.host_times(call, torch.cuda.synchronize)
        job.leave_centroids(centroids)
        return {"ms": times, "note": "from pageable host memory, f32, computed in f16"}


serve(Peer)
