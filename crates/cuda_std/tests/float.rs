//! Conversions round as `cvt.rn` does.
#![cfg(feature = "simt")]
use cuda_std::float::{BF16, F16, Scalar, fma};

/// The value of a finite half, by its definition.
fn half_value(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(-24),
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

fn bfloat_value(bits: u16) -> f64 {
    f64::from(f32::from_bits(u32::from(bits) << 16))
}

/// Every value, every midpoint of neighbours and what lies next to it.
fn check(largest: u16, value: fn(u16) -> f64, convert: fn(f32) -> u16) {
    for bits in 0..=largest {
        assert_eq!(convert(value(bits) as f32), bits);
        assert_eq!(convert(-value(bits) as f32), bits | 0x8000);
        if bits == largest {
            break;
        }
        let middle = ((value(bits) + value(bits + 1)) / 2.0) as f32;
        assert_eq!(convert(middle), bits + bits % 2, "tie above {bits:#x}");
        assert_eq!(convert(middle.next_down()), bits);
        assert_eq!(convert(middle.next_up()), bits + 1);
        assert_eq!(convert(-middle), (bits + bits % 2) | 0x8000);
    }
}

#[test]
fn halves_round_to_nearest_even() {
    let convert = |v| F16::from_f32(v).0;
    check(0x7bff, half_value, convert);
    assert_eq!(convert(65519.996), 0x7bff);
    assert_eq!(convert(65520.0), 0x7c00);
    assert_eq!(convert(f32::NEG_INFINITY), 0xfc00);
    assert_eq!(convert(f32::MIN_POSITIVE), 0);
    assert_eq!(convert(f32::NAN), 0x7fff);
}

#[test]
fn halves_widen_exactly() {
    for bits in (0..0x7c00).chain(0x8000..0xfc00) {
        let wide = F16(bits).to_f32();
        assert_eq!(f64::from(wide), half_value(bits));
        assert_eq!(wide.is_sign_negative(), bits >> 15 == 1);
    }
    assert_eq!(F16(0xfc00).to_f32(), f32::NEG_INFINITY);
    assert!(F16(0x7c01).to_f32().is_nan());
}

#[test]
fn bfloats_round_to_nearest_even() {
    let convert = |v| BF16::from_f32(v).0;
    check(0x7f7f, bfloat_value, convert);
    assert_eq!(convert(f32::MAX), 0x7f80);
    assert_eq!(convert(f32::NEG_INFINITY), 0xff80);
    assert_eq!(convert(f32::from_bits(0x7f80_0001)), 0x7fff);
}

#[test]
fn vectors_hold_values_low_half_first() {
    let vector = [0x4000_3c00, 0x3f80_4040, 0, 0];
    assert_eq!((F16::of_vector(vector, 0), F16::of_vector(vector, 1)), (1.0, 2.0));
    assert_eq!((BF16::of_vector(vector, 2), BF16::of_vector(vector, 3)), (3.0, 1.0));
}

#[test]
fn fma_rounds_once() {
    let x = 1.0 + f32::EPSILON;
    assert_eq!(fma(x, x, -1.0 - 2.0 * f32::EPSILON), f32::EPSILON * f32::EPSILON);
}
