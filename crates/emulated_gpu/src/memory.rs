//! Device memory and page-locked memory, which both are the host's.
use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeMap;

use crate::{MEMORY_BYTES, Outcome, code};

/// Where a block of memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Device(usize),
    Pinned,
}

struct Block {
    layout: Layout,
    kind: Kind,
}

/// What was given out, by address.
pub(crate) struct Memory {
    blocks: BTreeMap<usize, Block>,
}

/// What nothing has written: NaN as a float, no label as an integer.
const POISON: u8 = 0xFF;

impl Memory {
    pub(crate) const fn new() -> Self {
        Memory { blocks: BTreeMap::new() }
    }

    pub(crate) fn used(&self, device: usize) -> u64 {
        let blocks = self.blocks.values().filter(|block| block.kind == Kind::Device(device));
        blocks.map(|block| block.layout.size() as u64).sum()
    }

    pub(crate) fn allocate(&mut self, bytes: usize, kind: Kind) -> Outcome<usize> {
        if bytes == 0 {
            return Err(code::INVALID_VALUE);
        }
        if let Kind::Device(device) = kind
            && bytes as u64 > MEMORY_BYTES - self.used(device)
        {
            return Err(code::OUT_OF_MEMORY);
        }
        let layout = Layout::from_size_align(bytes, 512).map_err(|_| code::OUT_OF_MEMORY)?;
        // SAFETY: the layout has a size.
        let address = unsafe { alloc(layout) };
        if address.is_null() {
            return Err(code::OUT_OF_MEMORY);
        }
        // SAFETY: the block has that many bytes.
        unsafe { address.write_bytes(POISON, bytes) };
        let address = address.expose_provenance();
        self.blocks.insert(address, Block { layout, kind });
        Ok(address)
    }

    /// Takes back a block that starts at `address`.
    pub(crate) fn free(&mut self, address: usize, is_kind: impl Fn(Kind) -> bool) -> Outcome {
        match self.blocks.get(&address) {
            Some(block) if is_kind(block.kind) => {}
            _ => return Err(code::INVALID_VALUE),
        }
        let block = self.blocks.remove(&address).ok_or(code::INVALID_VALUE)?;
        let start = std::ptr::with_exposed_provenance_mut::<u8>(address);
        // SAFETY: `allocate` gave the block with this layout, and nothing has it any more.
        unsafe {
            start.write_bytes(POISON, block.layout.size());
            dealloc(start, block.layout);
        }
        Ok(())
    }

    /// Where `address` is; `None` in the host's own memory.
    pub(crate) fn kind(&self, address: usize) -> Option<Kind> {
        let (start, block) = self.blocks.range(..=address).next_back()?;
        (address < start + block.layout.size()).then_some(block.kind)
    }

    /// Whether all of `bytes` from `address` on were given out as one.
    pub(crate) fn holds(&self, address: usize, bytes: usize) -> bool {
        let block = self.blocks.range(..=address).next_back();
        block.is_some_and(|(start, block)| address + bytes <= start + block.layout.size())
    }
}
