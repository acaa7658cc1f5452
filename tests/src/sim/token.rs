//! A connection in a test: it must be closed on purpose, once.

/// Stands for a connection. Dropping one that was not closed is a panic, so that nothing is lost
/// in silence; closing takes it, so that nothing is closed twice.
#[derive(Debug)]
pub struct Token {
    name: u64,
    closed: bool,
}

impl Token {
    /// A connection of this name.
    pub fn new(name: u64) -> Self {
        Token { name, closed: false }
    }

    /// Its name.
    pub fn name(&self) -> u64 {
        self.name
    }

    /// Ends it on purpose.
    pub fn close(mut self) {
        self.closed = true;
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        // A second panic while one unwinds would abort, and proptest could not shrink.
        if !self.closed && !std::thread::panicking() {
            panic!("connection {} was dropped without being closed", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "dropped without being closed")]
    fn a_dropped_token_is_noticed() {
        drop(Token::new(1));
    }

    #[test]
    fn a_closed_token_is_quiet() {
        Token::new(1).close();
    }
}
