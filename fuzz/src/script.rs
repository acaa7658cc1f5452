//! Bytes as a script: small choices, one after the other.

use roundel_core::{Address, ListenKey, Transport};

/// Reads choices from bytes. Past the end all choices are the first one.
pub(crate) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Script(bytes)
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    pub(crate) fn below(&mut self, count: u8) -> u8 {
        self.byte() % count.max(1)
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number that is small more often than not.
    pub(crate) fn number(&mut self) -> u64 {
        match self.byte() {
            255 => u64::MAX,
            254 => u64::from(u32::MAX),
            small => u64::from(small),
        }
    }

    /// As many bytes as a byte says, at most.
    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        let count = usize::from(self.byte() % 32).min(self.0.len());
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        bytes.to_vec()
    }

    /// Something to listen on; few, so that equal ones meet.
    pub(crate) fn key(&mut self) -> ListenKey {
        let port = 80 + u16::from(self.below(4));
        let address = match self.below(5) {
            0 => Address::Any { port },
            1 => Address::Ip(([127, 0, 0, 1], port).into()),
            2 => Address::Nth(self.below(3).into()),
            3 => Address::Fd(self.below(6).into()),
            _ => Address::Unix("/x".into()),
        };
        let transport = if self.byte() < 230 { Transport::Stream } else { Transport::Datagram };
        ListenKey { address, transport, v6_only: self.flag(), index: self.below(2).into() }
    }
}
