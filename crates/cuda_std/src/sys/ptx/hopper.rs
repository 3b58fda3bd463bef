//! Hopper's own instructions.
use core::arch::asm;

unsafe extern "C" {
    #[link_name = "llvm.nvvm.wgmma.fence.sync.aligned"]
    fn llvm_wgmma_fence();
    #[link_name = "llvm.nvvm.wgmma.commit_group.sync.aligned"]
    fn llvm_wgmma_commit();
    #[link_name = "llvm.nvvm.setmaxnreg.inc.sync.aligned.u32"]
    fn llvm_setmaxnreg_inc(registers: u32);
    #[link_name = "llvm.nvvm.setmaxnreg.dec.sync.aligned.u32"]
    fn llvm_setmaxnreg_dec(registers: u32);
}

#[inline(always)]
pub(crate) unsafe fn wgmma_fence() {
    llvm_wgmma_fence()
}
#[inline(always)]
pub(crate) unsafe fn wgmma_commit() {
    llvm_wgmma_commit()
}
#[inline(always)]
pub(crate) unsafe fn setmaxnreg_inc<const REGISTERS: u32>() {
    llvm_setmaxnreg_inc(REGISTERS)
}
#[inline(always)]
pub(crate) unsafe fn setmaxnreg_dec<const REGISTERS: u32>() {
    llvm_setmaxnreg_dec(REGISTERS)
}

// The 64 scores of a thread, as operands 0 to 63.
#[rustfmt::skip]
macro_rules! operands {
    () => { "{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}, {16}, {17}, {18}, {19}, {20}, {21}, {22}, {23}, {24}, {25}, {26}, {27}, {28}, {29}, {30}, {31}, {32}, {33}, {34}, {35}, {36}, {37}, {38}, {39}, {40}, {41}, {42}, {43}, {44}, {45}, {46}, {47}, {48}, {49}, {50}, {51}, {52}, {53}, {54}, {55}, {56}, {57}, {58}, {59}, {60}, {61}, {62}, {63}" };
}
// The 64 of another tile, as the next ones.
#[rustfmt::skip]
macro_rules! more_operands {
    () => { "{64}, {65}, {66}, {67}, {68}, {69}, {70}, {71}, {72}, {73}, {74}, {75}, {76}, {77}, {78}, {79}, {80}, {81}, {82}, {83}, {84}, {85}, {86}, {87}, {88}, {89}, {90}, {91}, {92}, {93}, {94}, {95}, {96}, {97}, {98}, {99}, {100}, {101}, {102}, {103}, {104}, {105}, {106}, {107}, {108}, {109}, {110}, {111}, {112}, {113}, {114}, {115}, {116}, {117}, {118}, {119}, {120}, {121}, {122}, {123}, {124}, {125}, {126}, {127}" };
}
#[rustfmt::skip]
macro_rules! with_scores {
    ($name:ident! $($rest:tt)*) => { $name! { [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63] $($rest)* } };
}

macro_rules! products {
    ([$($i:literal)*] $types:literal, $from_registers:ident, $from_shared:ident, $of_256:ident) => {
        #[inline(always)]
        pub(crate) unsafe fn $from_registers<const ADD: bool>(d: &mut [f32; 64], a: &[u32; 4], b: u64) {
            asm!(
                concat!(
                    "wgmma.mma_async.sync.aligned.m64n128k16.", $types, " {{", operands!(),
                    "}}, {{{64}, {65}, {66}, {67}}}, {68}, {69}, 1, 1, 0;"
                ),
                $(inout(reg32) d[$i],)*
                in(reg32) a[0], in(reg32) a[1], in(reg32) a[2], in(reg32) a[3], in(reg64) b, const ADD as u32,
                options(nostack)
            );
        }

        #[inline(always)]
        pub(crate) unsafe fn $from_shared(d: &mut [f32; 64], a: u64, b: u64, add: u32) {
            asm!(
                concat!(
                    "{{ .reg .pred p; setp.ne.b32 p, {66}, 0; wgmma.mma_async.sync.aligned.m64n128k16.", $types,
                    " {{", operands!(), "}}, {64}, {65}, p, 1, 1, 0, 0; }}"
                ),
                $(inout(reg32) d[$i],)*
                in(reg64) a, in(reg64) b, in(reg32) add,
                options(nostack)
            );
        }

        #[inline(always)]
        pub(crate) unsafe fn $of_256([d, e]: [&mut [f32; 64]; 2], a: u64, b: u64, add: u32) {
            asm!(
                concat!(
                    "{{ .reg .pred p; setp.ne.b32 p, {130}, 0; wgmma.mma_async.sync.aligned.m64n256k16.", $types,
                    " {{", operands!(), ", ", more_operands!(), "}}, {128}, {129}, p, 1, 1, 0, 0; }}"
                ),
                $(inout(reg32) d[$i],)* $(inout(reg32) e[$i],)*
                in(reg64) a, in(reg64) b, in(reg32) add,
                options(nostack)
            );
        }
    };
}
with_scores! { products! "f32.f16.f16", wgmma_m64n128k16_f16, wgmma_m64n128k16_f16_shared, wgmma_m64n256k16_f16_shared }
with_scores! { products! "f32.bf16.bf16", wgmma_m64n128k16_bf16, wgmma_m64n128k16_bf16_shared, wgmma_m64n256k16_bf16_shared }

macro_rules! wait {
    ([$($i:literal)*]) => {
        #[inline(always)]
        pub(crate) unsafe fn wgmma_wait<const PENDING: u32>(d: &mut [f32; 64]) {
            // The accumulators are operands so that no use of them moves above the wait.
            asm!(
                concat!("wgmma.wait_group.sync.aligned {64}; // ", operands!()),
                $(inout(reg32) d[$i],)*
                const PENDING,
                options(nostack)
            );
        }
    };
}
with_scores! { wait! }

#[inline(always)]
pub(crate) unsafe fn wgmma_wait_reads<const PENDING: u32>() {
    asm!("wgmma.wait_group.sync.aligned {0};", const PENDING, options(nostack));
}

#[inline(always)]
pub(crate) unsafe fn mbarrier_init(barrier: u32, arrivals: u32) {
    asm!("mbarrier.init.shared::cta.b64 [{0}], {1};", in(reg32) barrier, in(reg32) arrivals, options(nostack));
}
#[inline(always)]
pub(crate) unsafe fn mbarrier_arrive_expect_tx(barrier: u32, bytes: u32) {
    asm!("mbarrier.arrive.expect_tx.shared::cta.b64 _, [{0}], {1};", in(reg32) barrier, in(reg32) bytes, options(nostack));
}
#[inline(always)]
pub(crate) unsafe fn mbarrier_arrive(barrier: u32) {
    asm!("mbarrier.arrive.shared::cta.b64 _, [{0}];", in(reg32) barrier, options(nostack));
}
#[inline(always)]
pub(crate) unsafe fn mbarrier_arrive_at(barrier: u32, rank: u32) {
    asm!(
        "{{ .reg .b32 a; mapa.shared::cluster.u32 a, {0}, {1}; \
         mbarrier.arrive.shared::cluster.b64 _, [a]; }}",
        in(reg32) barrier, in(reg32) rank, options(nostack)
    );
}
#[inline(always)]
pub(crate) unsafe fn mbarrier_arrive_after_copies(barrier: u32) {
    asm!("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [{0}];", in(reg32) barrier, options(nostack));
}
#[inline(always)]
pub(crate) unsafe fn mbarrier_wait(barrier: u32, parity: u32) {
    loop {
        let done: u32;
        asm!(
            "{{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [{1}], {2}; selp.u32 {0}, 1, 0, p; }}",
            out(reg32) done, in(reg32) barrier, in(reg32) parity, options(nostack)
        );
        if done != 0 {
            return;
        }
    }
}

#[inline(always)]
pub(crate) unsafe fn fence_mbarrier_init() {
    asm!("fence.mbarrier_init.release.cluster;", options(nostack));
}
#[inline(always)]
pub(crate) unsafe fn fence_proxy_async() {
    asm!("fence.proxy.async.shared::cta;", options(nostack));
}

#[inline(always)]
pub(crate) unsafe fn bulk_copy(shared: u32, global: *const u8, bytes: u32, barrier: u32) {
    asm!("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [{0}], [{1}], {2}, [{3}];",
        in(reg32) shared, in(reg64) global, in(reg32) bytes, in(reg32) barrier, options(nostack));
}
#[inline(always)]
pub(crate) unsafe fn bulk_copy_multicast(
    shared: u32,
    global: *const u8,
    bytes: u32,
    barrier: u32,
    blocks: u16,
) {
    asm!("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [{0}], [{1}], {2}, [{3}], {4};",
        in(reg32) shared, in(reg64) global, in(reg32) bytes, in(reg32) barrier, in(reg16) blocks, options(nostack));
}

#[inline(always)]
pub(crate) fn cluster_rank() -> u32 {
    let rank: u32;
    // SAFETY: reads a register.
    unsafe { asm!("mov.u32 {0}, %cluster_ctarank;", out(reg32) rank, options(nostack, nomem, pure)) };
    rank
}
#[inline(always)]
pub(crate) unsafe fn store_to_block(to: u32, rank: u32, value: u64) {
    asm!(
        "{{ .reg .b32 a; mapa.shared::cluster.u32 a, {0}, {1}; st.shared::cluster.u64 [a], {2}; }}",
        in(reg32) to, in(reg32) rank, in(reg64) value, options(nostack)
    );
}
#[inline(always)]
pub(crate) unsafe fn cluster_arrive() {
    asm!("barrier.cluster.arrive.release;", options(nostack));
}
#[inline(always)]
pub(crate) unsafe fn cluster_wait() {
    asm!("barrier.cluster.wait.acquire;", options(nostack));
}
