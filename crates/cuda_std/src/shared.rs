//! Shared memory: typed slots laid out at compile time, and the accesses to them.
//!
//! ```text
//! const fn of a tile ──> Layout ──> Slot<T> { offset, len }   host: bytes to ask for at launch
//!                                        │
//!                                        └── slot.at(base) ─> Shared<T>   device: loads and stores
//! ```
//! One layout is compiled on both sides, so the bytes a launch asks for are the bytes a kernel uses.
use core::marker::PhantomData;

/// A compile-time bump allocator for one block's dynamic shared memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    bytes: u32,
}

impl Layout {
    /// An empty layout.
    #[inline]
    pub const fn new() -> Self {
        Layout { bytes: 0 }
    }

    /// Places `len` values of `T`, aligned to 16 bytes so that vector accesses are allowed.
    #[inline]
    pub const fn array<T>(&mut self, len: u32) -> Slot<T> {
        self.aligned_array(len, 16)
    }

    /// Places `len` values of `T` at a multiple of `align` bytes, a power of two up to 1024.
    #[inline]
    pub const fn aligned_array<T>(&mut self, len: u32, align: u32) -> Slot<T> {
        assert!(align.is_power_of_two() && align <= 1024);
        let offset = self.bytes.next_multiple_of(align);
        self.bytes = offset + len * size_of::<T>() as u32;
        Slot { offset, len, _type: PhantomData }
    }

    /// Bytes in use.
    #[inline]
    pub const fn bytes(&self) -> u32 {
        self.bytes
    }
}

/// A place in shared memory for `len` values of `T`.
#[derive(Clone, Copy, Debug)]
pub struct Slot<T> {
    /// Bytes from the start of the block's dynamic shared memory.
    pub offset: u32,
    /// Values of `T`.
    pub len: u32,
    _type: PhantomData<T>,
}

impl<T> Slot<T> {
    /// Bytes in the slot.
    #[inline]
    pub const fn bytes(&self) -> u32 {
        self.len * size_of::<T>() as u32
    }
}

#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
pub use device::{Shared, SharedValue};

#[cfg(any(target_arch = "nvptx64", feature = "simt"))]
mod device {
    use super::Slot;
    use crate::sys;
    use core::marker::PhantomData;

    /// A typed address in shared memory (32 bits: the shared window, not a generic pointer).
    #[derive(Clone, Copy)]
    pub struct Shared<T> {
        address: u32,
        _type: PhantomData<*mut T>,
    }

    impl<T> Slot<T> {
        /// The slot's place in this block's dynamic shared memory.
        #[inline(always)]
        pub fn here(&self) -> Shared<T> {
            Shared { address: sys::dynamic_shared_base() + self.offset, _type: PhantomData }
        }
    }

    /// A value that one shared access moves.
    pub trait SharedValue: Copy {
        /// # Safety
        /// `address` must be inside the block's shared memory and aligned to the value's size.
        unsafe fn load(address: u32) -> Self;
        /// # Safety
        /// As [`SharedValue::load`].
        unsafe fn store(address: u32, value: Self);
    }
    impl SharedValue for u32 {
        #[inline(always)]
        unsafe fn load(address: u32) -> Self {
            sys::shared_load_u32(address)
        }
        #[inline(always)]
        unsafe fn store(address: u32, value: Self) {
            sys::shared_store_u32(address, value)
        }
    }
    impl SharedValue for f32 {
        #[inline(always)]
        unsafe fn load(address: u32) -> Self {
            f32::from_bits(sys::shared_load_u32(address))
        }
        #[inline(always)]
        unsafe fn store(address: u32, value: Self) {
            sys::shared_store_u32(address, value.to_bits())
        }
    }
    impl SharedValue for u64 {
        #[inline(always)]
        unsafe fn load(address: u32) -> Self {
            sys::shared_load_u64(address)
        }
        #[inline(always)]
        unsafe fn store(address: u32, value: Self) {
            sys::shared_store_u64(address, value)
        }
    }
    impl SharedValue for f64 {
        #[inline(always)]
        unsafe fn load(address: u32) -> Self {
            f64::from_bits(sys::shared_load_u64(address))
        }
        #[inline(always)]
        unsafe fn store(address: u32, value: Self) {
            sys::shared_store_u64(address, value.to_bits())
        }
    }

    impl<T> Shared<T> {
        /// The value at an address in the shared window, in bytes.
        #[inline(always)]
        pub fn of(address: u32) -> Self {
            Shared { address, _type: PhantomData }
        }

        /// The address in the shared window, in bytes.
        #[inline(always)]
        pub fn address(self) -> u32 {
            self.address
        }

        /// The place `index` values further on.
        #[inline(always)]
        #[allow(clippy::should_implement_trait)]
        pub fn add(self, index: u32) -> Self {
            Shared { address: self.address + index * size_of::<T>() as u32, _type: PhantomData }
        }
    }

    impl<T: SharedValue> Shared<T> {
        /// Reads value `index`.
        ///
        /// # Safety
        /// `index` must be inside the slot, and no other thread may write it since the last barrier.
        #[inline(always)]
        pub unsafe fn get(self, index: u32) -> T {
            T::load(self.add(index).address)
        }

        /// Writes value `index`.
        ///
        /// # Safety
        /// `index` must be inside the slot, and no other thread may use it until the next barrier.
        #[inline(always)]
        pub unsafe fn set(self, index: u32, value: T) {
            T::store(self.add(index).address, value)
        }
    }

    impl Shared<f32> {
        /// Reads four neighbours at once; `index` is a multiple of 4.
        ///
        /// # Safety
        /// As [`Shared::get`].
        #[inline(always)]
        pub unsafe fn get4(self, index: u32) -> [f32; 4] {
            let [a, b, c, d] = sys::shared_load_v4(self.add(index).address);
            [f32::from_bits(a), f32::from_bits(b), f32::from_bits(c), f32::from_bits(d)]
        }

        /// Writes four neighbours at once; `index` is a multiple of 4.
        ///
        /// # Safety
        /// As [`Shared::set`].
        #[inline(always)]
        pub unsafe fn set4(self, index: u32, v: [f32; 4]) {
            let words = [v[0].to_bits(), v[1].to_bits(), v[2].to_bits(), v[3].to_bits()];
            sys::shared_store_v4(self.add(index).address, words)
        }
    }

    impl Shared<u32> {
        /// Adds to value `index` atomically and returns what it was.
        ///
        /// # Safety
        /// `index` must be inside the slot; until the next barrier other threads may only add to it too.
        #[inline(always)]
        pub unsafe fn fetch_add(self, index: u32, value: u32) -> u32 {
            sys::shared_fetch_add_u32(self.add(index).address, value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_aligned_and_do_not_overlap() {
        let mut layout = Layout::new();
        let a = layout.array::<u32>(3);
        let b = layout.array::<f64>(2);
        let c = layout.aligned_array::<f32>(8, 1024);
        assert_eq!((a.offset, a.bytes()), (0, 12));
        assert_eq!((b.offset, b.bytes()), (16, 16));
        assert_eq!((c.offset, layout.bytes()), (1024, 1056));
    }
}
