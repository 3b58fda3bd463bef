"""Times flash-kmeans (Triton) and the 8192^3 product on this GPU: `time_flash_kmeans.py B N K D DTYPE , ...`.

Medians of device events, as `host/examples/stages.rs` reports them, so that both can be read side by side.
"""
import sys

import torch


def median_ms(work, count=20):
    for _ in range(3):
        work()
    times = []
    for _ in range(count):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return sorted(times)[len(times) // 2]


def gemm(dtype):
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * 8192**3 / median_ms(lambda: torch.mm(a, b, out=out)) / 1e9


def main():
    types = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
    print(f"gemm 8192^3: f16 {gemm(torch.float16):.0f}, bf16 {gemm(torch.bfloat16):.0f} TFLOP/s")
    from flash_kmeans import batch_kmeans_Euclid
    from flash_kmeans.assign_euclid_triton import euclid_assign_triton

    cases = " ".join(sys.argv[1:]).split(",")
    for case in cases:
        words = case.split()
        batch, n, k, d = map(int, words[:4])
        dtype = types[words[4]]
        x = torch.randn(batch, n, d, device="cuda", dtype=dtype)
        c = x[:, :k].contiguous()
        x_sq = (x.float() ** 2).sum(-1).to(dtype) if x.numel() < 1 << 30 else torch.zeros(batch, n, device="cuda", dtype=dtype)
        assign = median_ms(lambda: euclid_assign_triton(x, c, x_sq))
        call = lambda iters: median_ms(
            lambda: batch_kmeans_Euclid(x, k, max_iters=iters, tol=-1.0, init_centroids=c), 5
        )
        few, many = call(2), call(7)
        tflops = 2.0 * batch * n * k * d / assign / 1e9
        print(f"{batch:>4} {n:>9} {k:>6} {d:>5} {words[4]:>5} assign {assign:8.4f} ms {tflops:6.0f} TFLOP/s, iteration {(many - few) / 5:8.4f} ms")


main()
