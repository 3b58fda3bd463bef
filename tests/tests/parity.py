"""Fits of scikit-learn's KMeans (Lloyd) on its bundled sets and on blobs, written for parity.rs to compare with.

Usage: python3 parity.py FOLDER. Writes NAME.points.npy, NAME.init.npy, NAME.labels.npy and, for some, NAME.weights.npy for each case,
and cases.json.
All arithmetic is float64. The inertia is summed here from the returned labels and centres.
"""

import json
import sys
from pathlib import Path

import numpy as np
from sklearn import __version__, datasets
from sklearn.cluster import KMeans, kmeans_plusplus

SETS = {
    "iris": (datasets.load_iris().data, 3),
    "digits": (datasets.load_digits().data, 10),
    "wine": (datasets.load_wine().data, 3),
    "breast_cancer": (datasets.load_breast_cancer().data, 8),
    "blobs": (datasets.make_blobs(5000, 16, centers=40, cluster_std=3.0, random_state=5)[0], 40),
    "offset_blobs": (datasets.make_blobs(3000, 3, centers=12, cluster_std=2.0, random_state=6)[0] + 300.0, 12),
}


def save(folder, case, fit, **arrays):
    arrays["labels"] = fit.labels_.astype(np.float64)[:, None]
    for what, array in arrays.items():
        np.save(folder / f"{case}.{what}.npy", np.ascontiguousarray(array))


def cases(folder):
    for name, (points, k) in SETS.items():
        # Rounded to float32, so that fits in float32 and float64 start from the same points.
        points = points.astype(np.float32).astype(np.float64)
        for start in range(2):
            init, _ = kmeans_plusplus(points, k, random_state=start)
            for tol, max_iter in [(1e-4, 300), (0.0, 300), (0.0, 3)]:
                fit = KMeans(k, init=init, n_init=1, tol=tol, max_iter=max_iter, algorithm="lloyd").fit(points)
                case = f"{name}-{start}-{tol:g}-{max_iter}"
                save(folder, case, fit, points=points, init=init)
                inertia = float(((points - fit.cluster_centers_[fit.labels_]) ** 2).sum())
                yield {"name": case, "k": k, "tol": tol, "max_iter": max_iter, "inertia": inertia, "n_iter": int(fit.n_iter_)}
            # Whole and broken weights, and one of 0 in ten.
            weights = np.random.default_rng(start).choice([0, 0.5, 1, 1, 2, 3, 0.125, 7, 1, 1.0], len(points))
            fit = KMeans(k, init=init, n_init=1, tol=1e-4, algorithm="lloyd").fit(points, sample_weight=weights)
            case = f"{name}-{start}-weighted"
            save(folder, case, fit, points=points, init=init, weights=weights)
            inertia = float((weights * ((points - fit.cluster_centers_[fit.labels_]) ** 2).sum(axis=1)).sum())
            yield {"name": case, "k": k, "tol": 1e-4, "max_iter": 300, "inertia": inertia, "n_iter": int(fit.n_iter_), "weighted": True}
        # Of first centroids that are the same, all but one are nobody's.
        for empty, weighted in [(1, False), (2, False), (1, True)]:
            init, _ = kmeans_plusplus(points, k, random_state=7)
            init[: empty + 1] = init[empty]
            weights = np.random.default_rng(8).choice([0.5, 1, 2, 3.25], len(points)) if weighted else np.ones(len(points))
            fit = KMeans(k, init=init, n_init=1, tol=1e-4, algorithm="lloyd").fit(points, sample_weight=weights)
            assert len(np.unique(fit.labels_)) == k
            case = f"{name}-{empty}-empty{'-weighted' if weighted else ''}"
            save(folder, case, fit, points=points, init=init, weights=weights)
            inertia = float((weights * ((points - fit.cluster_centers_[fit.labels_]) ** 2).sum(axis=1)).sum())
            yield {"name": case, "k": k, "tol": 1e-4, "max_iter": 300, "inertia": inertia, "n_iter": int(fit.n_iter_), "weighted": weighted, "empty": empty}


folder = Path(sys.argv[1])
(folder / "cases.json").write_text(json.dumps({"scikit_learn": __version__, "cases": list(cases(folder))}))
