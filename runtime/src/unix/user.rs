//! Users and groups: looked up by name or number, and taken on by a process that was started as
//! root.

use std::ffi::{CString, OsString};
use std::io;

use nix::errno::Errno;
use nix::unistd::{
    Gid, Group, Uid, User, getegid, geteuid, getgrouplist, getgroups, getresgid, getresuid,
    setegid, seteuid, setgroups, setresgid, setresuid,
};

/// The number of a user, from a name or a number.
///
/// # Errors
/// To follow the text: it names no user of this machine, or that can't be found out.
pub fn user(text: &str) -> Result<u32, String> {
    Ok(find_user(text)?.0.as_raw())
}

/// The number of a group, from a name or a number.
///
/// # Errors
/// To follow the text: it names no group of this machine, or that can't be found out.
pub fn group(text: &str) -> Result<u32, String> {
    if let Some(number) = number(text) {
        return Ok(number);
    }
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err("is not a group of this machine".into()),
        Err(errno) => Err(format!("can't be looked up: {}", errno.desc())),
    }
}

/// A number that is a user or a group; the highest means "unchanged" in setresuid(2).
fn number(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok().filter(|number| *number < u32::MAX) } else { None }
}

/// A number may have no entry.
fn find_user(text: &str) -> Result<(Uid, Option<User>), String> {
    let numeric = number(text).map(Uid::from_raw);
    let found = match numeric {
        Some(uid) => User::from_uid(uid),
        None => User::from_name(text),
    };
    match (found, numeric) {
        (Ok(Some(user)), _) => Ok((user.uid, Some(user))),
        (Ok(None), Some(uid)) => Ok((uid, None)),
        (Ok(None), None) => Err("is not a user of this machine".into()),
        (Err(errno), _) => Err(format!("can't be looked up: {}", errno.desc())),
    }
}

/// The user and the groups that a process shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    variables: Vec<(OsString, OsString)>,
}

impl Identity {
    /// Looks up a user and a group, each by name or number. Without a group it is the user's own;
    /// without a user, the user stays as it is. Supplementary groups are the user's, or none.
    /// `None` if neither is given.
    ///
    /// # Errors
    /// One line that names the option.
    pub fn find(user: Option<&str>, group: Option<&str>) -> Result<Option<Identity>, String> {
        let by_option = group.map(|text| {
            self::group(text).map(Gid::from_raw).map_err(|why| format!("--group: {text:?} {why}"))
        });
        let by_option = by_option.transpose()?;
        let Some(text) = user else {
            let alone =
                |gid| Identity { uid: geteuid(), gid, groups: vec![gid], variables: Vec::new() };
            return Ok(by_option.map(alone));
        };
        let (uid, entry) = find_user(text).map_err(|why| format!("--user: {text:?} {why}"))?;
        let Some(entry) = entry else {
            let gid = by_option.ok_or_else(|| {
                format!("--user: {text:?} has no entry on this machine, so --group must be given")
            })?;
            return Ok(Some(Identity { uid, gid, groups: vec![gid], variables: Vec::new() }));
        };
        let gid = by_option.unwrap_or(entry.gid);
        let name = CString::new(entry.name.clone()).unwrap_or_default();
        let groups = getgrouplist(&name, gid)
            .map_err(|errno| format!("--user: the groups of {text:?}: {}", errno.desc()))?;
        let mut variables = vec![("HOME".into(), entry.dir.into_os_string())];
        variables.extend(["USER", "LOGNAME"].map(|key| (key.into(), entry.name.clone().into())));
        Ok(Some(Identity { uid, gid, groups, variables }))
    }

    /// The variables that tell a program whose it is: `HOME`, `USER` and `LOGNAME`, if the user has
    /// an entry.
    pub(crate) fn variables(&self) -> &[(OsString, OsString)] {
        &self.variables
    }

    /// The owner of what is made for this identity.
    pub(crate) fn owner(&self) -> (Uid, Gid) {
        (self.uid, self.gid)
    }

    /// Makes the effective identity of this process this one until the guard is dropped, so that
    /// files are opened with its rights and new ones belong to it. All threads change with it: the
    /// C library sees to that (nptl(7)).
    ///
    /// # Errors
    /// EPERM without the privilege to change it.
    pub(crate) fn assume(&self) -> io::Result<Assumed> {
        let before = Assumed { uid: geteuid(), gid: getegid(), groups: getgroups()? };
        setgroups(&self.groups)?;
        setegid(self.gid)?;
        seteuid(self.uid)?;
        Ok(before)
    }

    /// Makes this the identity of all threads of this process for good.
    ///
    /// # Errors
    /// As setgroups(2), setresgid(2) and setresuid(2); EPERM also if the old identity could be got
    /// back. The process may then be anything in between, and must end.
    pub(crate) fn take_on(&self) -> io::Result<()> {
        setgroups(&self.groups)?;
        setresgid(self.gid, self.gid, self.gid)?;
        setresuid(self.uid, self.uid, self.uid)?;
        self.check()
    }

    fn check(&self) -> io::Result<()> {
        let (uids, gids) = (getresuid()?, getresgid()?);
        let mut groups = getgroups()?;
        let mut wanted = self.groups.clone();
        for list in [&mut groups, &mut wanted] {
            list.sort_by_key(|gid| gid.as_raw());
            list.dedup();
        }
        let is_taken = [uids.real, uids.effective, uids.saved] == [self.uid; 3]
            && [gids.real, gids.effective, gids.saved] == [self.gid; 3]
            && groups == wanted;
        let root = Uid::from_raw(0);
        let can_return = self.uid != root && setresuid(root, root, root).is_ok();
        if is_taken && !can_return { Ok(()) } else { Err(Errno::EPERM.into()) }
    }
}

/// The identity that comes back when this is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Assumed {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl Drop for Assumed {
    /// If this fails, [`Identity::take_on`] fails as well.
    fn drop(&mut self) {
        let _ = seteuid(self.uid);
        let _ = setegid(self.gid);
        let _ = setgroups(&self.groups);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(user("root"), Ok(0));
        assert_eq!(user("0"), Ok(0));
        assert_eq!(group("root"), Ok(0));
        assert_eq!(user("4000000000"), Ok(4_000_000_000));
        assert_eq!(group("4000000000"), Ok(4_000_000_000));
        for text in ["no-such-name", "", "-1", "+1", "4294967295", "99999999999"] {
            assert!(user(text).unwrap_err().starts_with("is not a user"), "{text:?}");
            assert!(group(text).unwrap_err().starts_with("is not a group"), "{text:?}");
        }
    }

    #[test]
    fn an_identity_is_complete() {
        assert_eq!(Identity::find(None, None), Ok(None));
        let root = Identity::find(Some("root"), None).unwrap().unwrap();
        assert_eq!(root.owner(), (Uid::from_raw(0), Gid::from_raw(0)));
        assert!(root.groups.contains(&root.gid));
        let names: Vec<_> = root.variables().iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(names, ["HOME", "USER", "LOGNAME"]);
        let other = Identity::find(Some("root"), Some("12345")).unwrap().unwrap();
        assert_eq!(other.gid, Gid::from_raw(12_345));
        let group = Identity::find(None, Some("12345")).unwrap().unwrap();
        assert_eq!((group.uid, group.groups), (geteuid(), vec![Gid::from_raw(12_345)]));
        let bare = Identity::find(Some("4000000000"), Some("7")).unwrap().unwrap();
        assert_eq!((bare.uid.as_raw(), bare.variables()), (4_000_000_000, &[][..]));
        let why = Identity::find(Some("4000000000"), None).unwrap_err();
        assert!(why.contains("--group must be given"), "{why}");
        let why = Identity::find(Some("no-such-name"), None).unwrap_err();
        assert_eq!(why, "--user: \"no-such-name\" is not a user of this machine");
        let why = Identity::find(None, Some("no-such-name")).unwrap_err();
        assert_eq!(why, "--group: \"no-such-name\" is not a group of this machine");
    }
}
