"""Times scikit-learn and faiss-cpu beside flash-kmeans on the CPU, the same bytes for all:
`time_cpu.py FLASH_KMEANS_COMMAND [ROUNDS]`. Seconds an iteration: the difference of a long and a short fit.
"""
import json
import subprocess
import sys
import tempfile
import time

import faiss
import numpy as np
from sklearn.cluster import KMeans

N, D, K, FEW, MANY = 100_000, 128, 1000, 1, 6
command, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
folder = tempfile.mkdtemp()
rng = np.random.default_rng(0)
points = rng.standard_normal((N, D), dtype=np.float32)
init = points[:K].copy()
np.save(f"{folder}/points.npy", points)
np.save(f"{folder}/init.npy", init)
inertia = {}


def ours(iterations):
    # The command's own time also has loading and checking; the difference of two runs does not.
    out = subprocess.run(
        [command, "fit", f"{folder}/points.npy", "-k", str(K), "--init", f"{folder}/init.npy", "--tol", "0",
         "--max-iter", str(iterations), "--backend", "cpu", "--json", "--quiet"],
        check=True, capture_output=True)
    result = json.loads(out.stdout)
    inertia["flash-kmeans"] = result["inertia"]
    return result["seconds"]


def sklearn(iterations):
    begin = time.perf_counter()
    model = KMeans(K, init=init, n_init=1, max_iter=iterations, tol=0, algorithm="lloyd").fit(points)
    inertia["scikit-learn"] = model.inertia_
    return time.perf_counter() - begin


def faiss_cpu(iterations):
    index = faiss.IndexFlatL2(D)
    clustering = faiss.Clustering(D, K)
    clustering.niter, clustering.max_points_per_centroid = iterations, N
    faiss.copy_array_to_vector(init.ravel(), clustering.centroids)
    begin = time.perf_counter()
    clustering.train(points, index)
    seconds = time.perf_counter() - begin
    inertia["faiss-cpu"] = float(index.search(points, 1)[0].sum())
    return seconds


peers = {"flash-kmeans": ours, "scikit-learn": sklearn, "faiss-cpu": faiss_cpu}
times = {name: [] for name in peers}
for _ in range(rounds):
    # In turn, so that what else the machine does falls on all.
    for name, fit in peers.items():
        times[name].append((fit(MANY) - fit(FEW)) / (MANY - FEW))
best = min(np.median(times[name]) for name in peers if name != "flash-kmeans")
for name, values in times.items():
    print(f"{name:>13}: {np.median(values):.4f} s an iteration (min {min(values):.4f}), inertia {inertia[name]:.6e}")
print(f"ratio to the better peer: {best / np.median(times['flash-kmeans']):.2f}")
