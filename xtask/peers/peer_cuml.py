"""cuML: one problem, f32; 16-bit points are converted before."""
import numpy as np

from common import serve, versions


class Peer:
    def __init__(self):
        import cupy
        from cuml.cluster import KMeans

        self.cupy, self.kmeans = cupy, KMeans
        packages = ["cuml-cu12", "cuml-cu13", "cuml"]
        self.versions = versions(*packages)

    def run(self, job):
        job.only("iteration", "latency")
        points = job.as_f32()
        x = self.cupy.asarray(points)

        def fit(iterations):
            model = self.kmeans(
                n_clusters=job.k, init=points[: job.k], n_init=1, max_iter=iterations, tol=0.0, output_type="numpy")
            return model.fit(x)

        finish = self.cupy.cuda.Device().synchronize
        if job.suite == "iteration":
            times, _ = job.iteration_times(fit, 1, 6, finish)
            model = fit(job.iterations)
        else:
            times, model = job.host_times(lambda: fit(job.iterations), finish)
        job.leave_centroids(np.asarray(model.cluster_centers_))
        return {"ms": times, "note": "points as f32"}


serve(Peer)
