//! What the Node codec needs to know about this machine.

use std::env;
use std::path::{Component, Path, PathBuf};

use nix::net::if_::{if_indextoname, if_nametoindex};
use roundel_core::node::Host;

/// This machine, as the primary sees it.
pub(crate) const HOST: Host = Host { interface_number, interface_name, relative_path };

fn interface_number(name: &str) -> u32 {
    if_nametoindex(name).unwrap_or(0)
}

fn interface_name(number: u32) -> Option<String> {
    // For an index beyond the kernel's range, nix returns an empty name.
    let name = if_indextoname(number).ok()?.into_string().ok()?;
    (!name.is_empty()).then_some(name)
}

fn relative_path(path: &str) -> Option<String> {
    let directory = env::current_dir().ok()?;
    relative_to(&directory, Path::new(path))?.to_str().map(str::to_owned)
}

/// The relative path from a directory to a path, both absolute and without `.` and `..`, as Node's
/// `path.relative` computes it: symbolic links are not resolved.
fn relative_to(directory: &Path, path: &Path) -> Option<PathBuf> {
    if !path.is_absolute() {
        return None;
    }
    let (mut from, mut to) = (directory.components().peekable(), path.components().peekable());
    while from.peek().is_some() && from.peek() == to.peek() {
        from.next();
        to.next();
    }
    let up = from.map(|_| Component::ParentDir);
    Some(up.chain(to).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways() {
        for (directory, path, way) in [
            ("/srv/app", "/srv/app/run/s", "run/s"),
            ("/srv/app", "/srv/other/s", "../other/s"),
            ("/srv/app", "/s", "../../s"),
            ("/", "/srv/s", "srv/s"),
            ("/srv/app", "/srv/application/s", "../application/s"),
        ] {
            let found = relative_to(Path::new(directory), Path::new(path));
            assert_eq!(found.as_deref(), Some(Path::new(way)), "{path} from {directory}");
        }
        assert_eq!(relative_to(Path::new("/srv"), Path::new("s")), None);
    }

    #[test]
    fn the_loopback_interface_is_found_both_ways() {
        let number = interface_number("lo");
        if number == 0 {
            println!("skipped: no loopback interface");
            return;
        }
        assert_eq!(interface_name(number).as_deref(), Some("lo"));
        assert_eq!(interface_number("no such thing"), 0);
        assert_eq!(interface_name(u32::MAX), None);
    }
}
