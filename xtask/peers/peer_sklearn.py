"""scikit-learn, on the CPU."""
import warnings

from common import Skip, serve, versions


class Peer:
    def __init__(self):
        from sklearn.cluster import KMeans

        self.kmeans = KMeans
        self.versions = versions("scikit-learn", "numpy")

    def run(self, job):
        job.only("cpu")
        if job.dtype != "f32":
            raise Skip("f32 only")
        points = job.as_f32()
        init = points[: job.k].copy()

        def fit(iterations):
            model = self.kmeans(job.k, init=init, n_init=1, max_iter=iterations, tol=0, algorithm="lloyd")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return model.fit(points)

        # One sample a job: jobs come in turns.
        job.samples = 1
        times, model = job.iteration_times(fit, 1, job.iterations)
        job.leave_centroids(model.cluster_centers_)
        return {"ms": times}


serve(Peer)
