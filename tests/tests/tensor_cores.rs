//! What `assign_hopper` takes for granted of Hopper's tensor cores: how much of a sum of products they may lose.
//!
//! Its bound on a score's error (see `kernels-gpu/src/kernels/assign_hopper.rs`) says that a step of 16 products, whatever
//! its accumulator, costs at most 18 times 2⁻²⁵ of its largest term and twice 2⁻²³ of its result. NVIDIA does not say so:
//! this looks, on terms that are near the worst for it and on random ones.
use cust::context::Context;
use cust::device::Device;
use cust::launch;
use cust::memory::{CopyDestination, DeviceBuffer};
use cust::module::Module;
use cust::stream::{Stream, StreamFlags};
use half::f16;

/// One product `m64n8k16` of rows from registers with a matrix of ones in shared memory, whose layout does not matter then.
const PTX: &str = r"
.version 8.0
.target sm_90a
.address_size 64
.visible .entry probe(.param .u64 rows, .param .u64 sums)
{
    .shared .align 1024 .b8 ones[4096];
    .reg .pred %p<2>;
    .reg .b32 %r<20>;
    .reg .f32 %f<4>;
    .reg .b64 %d<12>;

    mov.u32 %r0, %tid.x;
    mov.u32 %r1, ones;
    shl.b32 %r2, %r0, 5;
    add.u32 %r2, %r1, %r2;
    mov.u32 %r3, ONES;
    st.shared.v4.b32 [%r2], {%r3, %r3, %r3, %r3};
    st.shared.v4.b32 [%r2+16], {%r3, %r3, %r3, %r3};
    fence.proxy.async.shared::cta;
    bar.sync 0;

    // Row 16 * warp + lane / 4 of 64, columns 2 * (lane % 4) and 8 further on; and 8 rows below.
    shr.u32 %r4, %r0, 5;
    and.b32 %r5, %r0, 31;
    shl.b32 %r4, %r4, 4;
    shr.u32 %r6, %r5, 2;
    add.u32 %r4, %r4, %r6;
    mov.u32 %r7, %ctaid.x;
    shl.b32 %r7, %r7, 6;
    add.u32 %r4, %r4, %r7;
    and.b32 %r6, %r5, 3;
    ld.param.u64 %d0, [rows];
    cvta.to.global.u64 %d0, %d0;
    mul.wide.u32 %d1, %r4, 32;
    mul.wide.u32 %d2, %r6, 4;
    add.u64 %d0, %d0, %d1;
    add.u64 %d0, %d0, %d2;
    ld.global.b32 %r8, [%d0];
    ld.global.b32 %r9, [%d0+256];
    ld.global.b32 %r10, [%d0+16];
    ld.global.b32 %r11, [%d0+272];
    ld.param.u64 %d3, [sums];
    cvta.to.global.u64 %d3, %d3;
    mul.wide.u32 %d1, %r4, 32;
    mul.wide.u32 %d2, %r6, 8;
    add.u64 %d3, %d3, %d1;
    add.u64 %d3, %d3, %d2;
    ld.global.v2.f32 {%f0, %f1}, [%d3];
    ld.global.v2.f32 {%f2, %f3}, [%d3+256];

    cvt.u64.u32 %d4, %r1;
    shr.u64 %d4, %d4, 4;
    and.b64 %d4, %d4, 16383;
    // 128 bytes from one 8 by 8 matrix to the next, either way.
    or.b64 %d4, %d4, 34360262656;
    setp.eq.u32 %p0, 0, 0;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k16.f32.KIND.KIND {%f0, %f1, %f2, %f3}, {%r8, %r9, %r10, %r11}, %d4, %p0, 1, 1, 0;
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
    st.global.v2.f32 [%d3], {%f0, %f1};
    st.global.v2.f32 [%d3+256], {%f2, %f3};
    ret;
}
";

const ROWS: usize = 64;
const TERMS: usize = 16;
const COLUMNS: usize = 8;

/// A 16-bit type of operands.
struct Kind {
    name: &'static str,
    /// The bits of two ones.
    ones: &'static str,
    from: fn(f64) -> u16,
    to: fn(u16) -> f64,
}

const KINDS: [Kind; 2] = [
    Kind {
        name: "f16",
        ones: "0x3C003C00",
        from: |v| f16::from_f64(v).to_bits(),
        to: |v| f16::from_bits(v).to_f64(),
    },
    Kind {
        name: "bf16",
        ones: "0x3F803F80",
        from: |v| half::bf16::from_f64(v).to_bits(),
        to: |v| half::bf16::from_bits(v).to_f64(),
    },
];

struct Random(u64);
impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
    /// A value of any sign, from 2 down to 2⁻ˢᵖʳᵉᵃᵈ.
    fn value(&mut self, spread: u64) -> f64 {
        let sign = if self.below(2) == 0 { 1.0 } else { -1.0 };
        let exponent = self.below(spread + 1) as i32;
        sign * (1.0 + self.below(2048) as f64 / 2048.0) * 2f64.powi(-exponent)
    }
}

/// Rows of 16 terms, and what is accumulated on, a value a row.
fn problems(kind: &Kind) -> (Vec<u16>, Vec<f32>) {
    let random = &mut Random(7);
    let (mut rows, mut sums) = (Vec::new(), Vec::new());
    let mut add = |terms: [f64; TERMS], sum: f64| {
        rows.extend(terms.map(kind.from));
        sums.push(sum as f32);
    };
    // One large term, as the accumulator or a product, and 15 or 16 that are just too small for its last bits.
    for exponent in 18..32 {
        let small = (2.0 - 1.0 / 128.0) * 2f64.powi(-exponent - 1) * 64.0;
        for sign in [1.0, -1.0] {
            add([sign * small; TERMS], 64.0);
            let mut terms = [sign * small; TERMS];
            terms[exponent as usize % TERMS] = 64.0;
            add(terms, 0.0);
            add(terms, -64.0);
            add(terms, 32.0 + 1.0 / 64.0);
        }
    }
    for _ in 14 * 2 * 4..ROWS * 1024 {
        let spread = random.below(25);
        let terms = [0; TERMS].map(|_| random.value(spread));
        let of_sum = random.below(30);
        let sum = random.value(of_sum) * (1.0 + f64::from(random.below(1 << 20) as u32) / 1e9) * 16.0;
        add(terms, if random.below(4) == 0 { 0.0 } else { sum });
    }
    (rows, sums)
}

#[test]
fn a_step_of_products_loses_no_more_than_the_bound_says() {
    // Without the library: its kernels are not needed.
    libcuda::link();
    if cust::init(cust::CudaFlags::empty()).is_err() {
        assert!(std::env::var("FLASH_KMEANS_REQUIRE_GPU").as_deref() != Ok("1"), "no GPU");
        eprintln!("skipped: no GPU");
        return;
    }
    let device = Device::get_device(0).unwrap();
    if device.get_attribute(cust::device::DeviceAttribute::ComputeCapabilityMajor).unwrap() != 9 {
        eprintln!("skipped: no Hopper");
        return;
    }
    let _context = Context::new(device).unwrap();
    let stream = Stream::new(StreamFlags::NON_BLOCKING, None).unwrap();
    for kind in &KINDS {
        let text = PTX.replace("ONES", kind.ones).replace("KIND", kind.name);
        let module = Module::from_ptx(text, &[]).unwrap();
        let function = module.get_function("probe").unwrap();
        let (rows, sums) = problems(kind);
        let blocks = (sums.len() / ROWS) as u32;
        let before: Vec<f32> = sums.iter().flat_map(|&sum| [sum; COLUMNS]).collect();
        let device_rows = DeviceBuffer::from_slice(&rows).unwrap();
        let device_sums = DeviceBuffer::from_slice(&before).unwrap();
        // SAFETY: a block of 128 threads reads and writes 64 rows, of which there are so many.
        unsafe {
            launch!(function<<<blocks, 128, 0, stream>>>(
                device_rows.as_device_ptr(),
                device_sums.as_device_ptr()
            ))
            .unwrap();
        }
        stream.synchronize().unwrap();
        let mut after = vec![0.0f32; before.len()];
        device_sums.copy_to(&mut after).unwrap();

        let mut worst = 0.0f64;
        for (row, &sum) in sums.iter().enumerate() {
            let terms: Vec<f64> = rows[row * TERMS..][..TERMS].iter().map(|&bits| (kind.to)(bits)).collect();
            let exact = terms.iter().sum::<f64>() + f64::from(sum);
            let largest = terms.iter().fold(f64::from(sum).abs(), |most, term| most.max(term.abs()));
            let found = after[row * COLUMNS];
            assert_eq!(after[row * COLUMNS..][..COLUMNS], [found; COLUMNS]);
            // The results of the step, which may be taken in two halves, are at most the sum of all terms.
            let all: f64 = terms.iter().map(|term| term.abs()).sum::<f64>() + f64::from(sum).abs();
            let bound = 18.0 * 2f64.powi(-25) * largest + 2.0 * 2f64.powi(-23) * all;
            let tight = 18.0 * 2f64.powi(-25) * largest + 2.0 * 2f64.powi(-23) * exact.abs().max(largest);
            let error = (f64::from(found) - exact).abs();
            assert!(error <= bound, "{}: {found} for {exact}, terms {terms:?} and {sum}", kind.name);
            worst = worst.max(error / tight);
        }
        println!("{}: at most {worst:.3} of what the bound allows", kind.name);
        // Were the bits below an f32's last not there, 15 terms just under it would cost 15 times 2⁻²³.
        assert!(worst > 0.05, "the terms are not near the worst");
    }
}
