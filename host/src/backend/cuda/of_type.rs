//! What there is of one of the types that kernels take, behind one type.

/// One of three.
pub(super) enum OfType<A, B, C> {
    F32(A),
    F16(B),
    BF16(C),
}

/// Calls `$body` with what is inside, whose points' type is `$T` there.
macro_rules! with_type {
    ($of_type:expr, $inside:ident: $T:ident => $body:expr) => {
        match $of_type {
            $crate::backend::cuda::of_type::OfType::F32($inside) => {
                type $T = f32;
                $body
            }
            $crate::backend::cuda::of_type::OfType::F16($inside) => {
                type $T = half::f16;
                $body
            }
            $crate::backend::cuda::of_type::OfType::BF16($inside) => {
                type $T = half::bf16;
                $body
            }
        }
    };
}

pub(super) use with_type;
