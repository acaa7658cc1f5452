//! The operator's listeners: as `--bind` writes them, and which listener of the core each one is.

use std::os::fd::RawFd;

use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};
use roundel_core::{Address, ListenKey};

use crate::address;
use crate::unix::passed::{self, Passed};
use crate::unix::unix_path::FileOptions;
use crate::unix::user;

/// What to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    at: At,
    file: FileOptions,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    Address(Address),
    /// All sockets of this name that the service manager passes.
    Passed(String),
}

impl From<Address> for Bind {
    fn from(address: Address) -> Bind {
        Bind { at: At::Address(address), file: FileOptions::default() }
    }
}

/// The options behind a path.
const OPTIONS: &str = "mode, owner and group";

impl Bind {
    /// Reads an address of [`address::parse`], or `sd:NAME`, or
    /// `unix:PATH,mode=0660,owner=USER,group=GROUP` with any of these options.
    ///
    /// # Errors
    /// What is wrong, worded to follow the text: "has no port from 0 to 65535".
    pub fn parse(text: &str) -> Result<Bind, String> {
        if let Some(name) = text.strip_prefix("sd:") {
            return match passed::is_name(name) {
                true => Ok(Bind { at: At::Passed(name.into()), file: FileOptions::default() }),
                false => Err("has no name of a socket, as FileDescriptorName= gives it".into()),
            };
        }
        let (bare, options) = split(text);
        let mut file = FileOptions::default();
        for option in options {
            add(&mut file, option)?;
        }
        let address = address::parse(bare)?;
        if bare != text && !is_path(&address) {
            return Err(format!("has options ({OPTIONS}) that only the path of a socket has"));
        }
        Ok(Bind { at: At::Address(address), file })
    }

    /// The address, if it does not depend on what is passed to the process.
    pub fn address(&self) -> Option<&Address> {
        match &self.at {
            At::Address(address) => Some(address),
            At::Passed(_) => None,
        }
    }

    /// What the core calls it.
    ///
    /// # Errors
    /// What is wrong with the sockets that were passed: a whole line.
    pub(crate) fn keys(&self, passed: &Passed) -> Result<Vec<ListenKey>, String> {
        match &self.at {
            At::Address(address) => Ok(vec![ListenKey::stream(address.clone())]),
            At::Passed(name) => {
                let found = passed.named(name).map_err(|why| format!("--bind sd:{name}: {why}"))?;
                let key = |number: RawFd| ListenKey::stream(Address::Fd(number));
                Ok(found.into_iter().map(key).collect())
            }
        }
    }

    /// The path of a socket, with the options of its file.
    pub(crate) fn file(&self) -> Option<(&str, FileOptions)> {
        match &self.at {
            At::Address(Address::Unix(path)) => Some((path, self.file)),
            _ => None,
        }
    }
}

fn is_path(address: &Address) -> bool {
    matches!(address, Address::Unix(path) if !path.starts_with('\0'))
}

/// Cuts off what looks like options: `,word=value` at the end. Other commas are part of the path.
fn split(text: &str) -> (&str, Vec<&str>) {
    let (mut bare, mut options) = (text, Vec::new());
    while let Some((front, option)) = bare.rsplit_once(',') {
        let is_word = |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase());
        if !option.split_once('=').is_some_and(|(key, _)| is_word(key)) {
            break;
        }
        options.push(option);
        bare = front;
    }
    options.reverse();
    (bare, options)
}

fn add(file: &mut FileOptions, option: &str) -> Result<(), String> {
    let (key, value) = option.split_once('=').unwrap_or((option, ""));
    let twice = || Err(format!("has the option {key} twice"));
    let worded = |why: String| format!("has the option {option:?}, where {value:?} {why}");
    match key {
        "mode" if file.mode.is_some() => return twice(),
        "owner" if file.owner.is_some() => return twice(),
        "group" if file.group.is_some() => return twice(),
        "mode" => {
            let is_octal = value.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
            let bits = u32::from_str_radix(value, 8).ok().filter(|bits| is_octal && *bits <= 0o777);
            let bits = bits.ok_or_else(|| worded("is not from 0 to 0777, in octal".into()))?;
            file.mode = Mode::from_bits(bits);
        }
        "owner" => file.owner = Some(Uid::from_raw(user::user(value).map_err(worded)?)),
        "group" => file.group = Some(Gid::from_raw(user::group(value).map_err(worded)?)),
        _ => return Err(format!("has an unknown option {key:?}; there are {OPTIONS}")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_bound() {
        let ip = Address::Ip("127.0.0.1:80".parse().unwrap());
        assert_eq!(Bind::parse("127.0.0.1:80"), Ok(ip.into()));
        assert_eq!(Bind::parse("fd:3"), Ok(Address::Fd(3).into()));
        assert_eq!(Bind::parse("sd:web").unwrap().at, At::Passed("web".into()));
        for (text, cause) in [
            ("sd:", "has no name of a socket"),
            ("sd:a:b", "has no name of a socket"),
            ("127.0.0.1:80,mode=0660", "has options (mode, owner and group) that only"),
            ("sd:web\n", "has no name of a socket"),
            ("localhost", "is not host:port"),
            ("unix:/a,mode=0888", "has the option \"mode=0888\", where \"0888\" is not from 0"),
            ("unix:/a,mode=1777", "has the option \"mode=1777\", where"),
            ("unix:/a,mode=", "has the option \"mode=\", where"),
            ("unix:/a,mode=+7", "has the option \"mode=+7\", where"),
            ("unix:/a,mode=600,mode=600", "has the option mode twice"),
            ("unix:/a,owner=no-such-name", "has the option \"owner=no-such-name\", where \"no-su"),
            ("unix:/a,group=no-such-name", "has the option \"group=no-such-name\", where \"no-su"),
            ("unix:/a,policy=kernel", "has an unknown option \"policy\"; there are mode, owner"),
        ] {
            let why = Bind::parse(text).unwrap_err();
            assert!(why.starts_with(cause), "{text:?}: {why}");
        }
    }

    #[test]
    fn options_belong_to_the_file() {
        let bind = Bind::parse("unix:/a,b,mode=0660,owner=root,group=4000").unwrap();
        let file = FileOptions {
            mode: Mode::from_bits(0o660),
            owner: Some(Uid::from_raw(0)),
            group: Some(Gid::from_raw(4_000)),
        };
        assert_eq!(bind.file(), Some(("/a,b", file)));
        // Not options: no word before the sign, or no sign.
        for path in ["/a,b", "/a,=", "/a,B=c", "/a,b=c,d"] {
            let bind = Bind::parse(&format!("unix:{path}")).unwrap();
            assert_eq!(bind.file(), Some((path, FileOptions::default())));
        }
    }
}
