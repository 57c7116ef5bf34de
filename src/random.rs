//! Unpredictable bytes, drawn from the library's generator in blocks: a call costs the same for 18 bytes as for
//! hundreds, and a handshake needs bytes in five places.

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use std::cell::RefCell;

/// Serves a few handshakes.
const BLOCK: usize = 256;

struct Block {
    bytes: [u8; BLOCK],
    used: usize,
}

thread_local! {
    static DRAWN: RefCell<Block> = const { RefCell::new(Block { bytes: [0; BLOCK], used: BLOCK }) };
}

/// Fills `out`; no byte is given twice.
///
/// # Errors
/// Where the system has no randomness.
pub fn fill(out: &mut [u8]) -> Result<(), Unspecified> {
    if out.len() > BLOCK {
        return rand::fill(out);
    }
    DRAWN.with_borrow_mut(|block| {
        if block.used + out.len() > BLOCK {
            rand::fill(&mut block.bytes)?;
            block.used = 0;
        }
        let given = &mut block.bytes[block.used..block.used + out.len()];
        out.copy_from_slice(given);
        given.fill(0);
        block.used += out.len();
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_bytes_are_given_twice_whatever_the_sizes() {
        let mut seen = HashSet::new();
        for size in [16, 18, 24, 4 + 12, 200, 300, 16, 18].into_iter().cycle().take(4000) {
            let mut bytes = vec![0; size];
            fill(&mut bytes).unwrap();
            assert!(seen.insert(bytes[..16].to_vec()));
        }
    }
}
