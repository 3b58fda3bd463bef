"""FAISS: on the CPU, and on the GPU where its wheel can; f32."""
from common import serve, versions


class Peer:
    def __init__(self):
        import faiss

        self.faiss = faiss
        self.gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
        found = versions("faiss-cpu", "faiss-gpu-cu12", "faiss-gpu-cu13", "faiss-gpu")
        self.versions = found or {"faiss": faiss.__version__}

    def run(self, job):
        job.only("cpu", *(["iteration", "latency"] if self.gpus else []))
        faiss, points = self.faiss, job.as_f32()
        first = points[: job.k].ravel().copy()

        def fit(iterations):
            index = faiss.IndexFlatL2(job.d)
            if job.suite != "cpu":
                index = faiss.index_cpu_to_gpu(self.resources(), 0, index)
            clustering = faiss.Clustering(job.d, job.k)
            clustering.niter, clustering.max_points_per_centroid = iterations, job.n
            faiss.copy_array_to_vector(first, clustering.centroids)
            clustering.train(points, index)
            return faiss.vector_to_array(clustering.centroids)

        if job.suite == "cpu":
            # One sample a job: jobs come in turns.
            job.samples = 1
        if job.suite == "latency":
            times, centroids = job.host_times(lambda: fit(job.iterations))
        elif job.suite == "iteration":
            times, _ = job.iteration_times(fit, 1, 6)
            centroids = fit(job.iterations)
        else:
            times, centroids = job.iteration_times(fit, 1, job.iterations)
        job.leave_centroids(centroids)
        return {"ms": times, **({} if job.suite == "cpu" else {"note": "points as f32, from host memory"})}

    def resources(self):
        if not hasattr(self, "kept"):
            self.kept = self.faiss.StandardGpuResources()
        return self.kept


serve(Peer)
