//! The system calls that safe libraries do not cover. This is the only file with `unsafe`.
#![expect(
    unsafe_code,
    reason = "descriptors that arrive as numbers, and the time between fork and exec"
)]

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, Signal};

/// How many descriptors one message can carry: SCM_MAX_FD of the kernel, see unix(7).
pub(crate) const MAX_HANDLES: usize = 253;

/// Space for the control data of a full message: CMSG_SPACE(MAX_HANDLES * 4), in u64s for its
/// alignment.
const CONTROL_WORDS: usize = (16 + MAX_HANDLES * 4).div_ceil(8);

/// The number of the first listener that a program is passed: sd_listen_fds(3).
pub(crate) const FIRST_LISTENER: RawFd = 3;

/// The result of recvmsg(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// How many bytes; 0 is end of file.
    pub len: usize,
    /// The kernel could not install all descriptors (`MSG_CTRUNC`).
    pub truncated: bool,
}

/// recvmsg(2) with room for `room` descriptors, at most [`MAX_HANDLES`], which are appended to
/// `handles`, close-on-exec. The kernel drops those for which there is no room.
pub(crate) fn recv_handles(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
    room: usize,
    handles: &mut Vec<OwnedFd>,
) -> io::Result<Received> {
    let mut control = [0_u64; CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a msghdr of zeros is valid; the pointers set below outlive the call.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    let room = room.min(MAX_HANDLES) * size_of::<RawFd>();
    // Not CMSG_SPACE: the kernel would put a descriptor where that adds padding.
    // SAFETY: computes a length, which for MAX_HANDLES is at most that of the control space.
    message.msg_controllen = unsafe { libc::CMSG_LEN(room as libc::c_uint) } as _;
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
    // SAFETY: the message points to a buffer and control space of the lengths that it states.
    let len = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, flags) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel filled in the control data and its length.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return headers inside the control data.
        let (level, kind, bytes) =
            unsafe { ((*header).cmsg_level, (*header).cmsg_type, (*header).cmsg_len as usize) };
        if level == libc::SOL_SOCKET && kind == libc::SCM_RIGHTS {
            // SAFETY: the length of an empty header is a constant.
            let data = bytes.saturating_sub(unsafe { libc::CMSG_LEN(0) } as usize);
            for at in 0..data / size_of::<RawFd>() {
                // SAFETY: the data of this header has that many descriptors, which the kernel has
                // just installed for this process and nothing else owns.
                let handle = unsafe {
                    let raw = libc::CMSG_DATA(header).cast::<RawFd>().add(at).read_unaligned();
                    OwnedFd::from_raw_fd(raw)
                };
                handles.push(handle);
            }
        }
        // SAFETY: as above.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok(Received { len, truncated: message.msg_flags & libc::MSG_CTRUNC != 0 })
}

/// sendmsg(2) with descriptors on the first byte, at most [`MAX_HANDLES`], without allocating.
///
/// # Errors
/// As sendmsg(2); EINVAL for too many descriptors.
pub(crate) fn send_handles(
    fd: BorrowedFd<'_>,
    bytes: &[u8],
    handles: &[BorrowedFd<'_>],
) -> Result<usize, Errno> {
    if handles.len() > MAX_HANDLES {
        return Err(Errno::EINVAL);
    }
    let mut control = [0_u64; CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: a msghdr of zeros is valid; the pointers set below outlive the call.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if !handles.is_empty() {
        // At most 253 descriptors, so it fits.
        let size = size_of_val(handles) as libc::c_uint;
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: computes a length.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(size) } as _;
        // SAFETY: the control space, aligned as u64, holds a header and MAX_HANDLES descriptors.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size) as _;
            let data = libc::CMSG_DATA(header).cast::<RawFd>();
            for (at, handle) in handles.iter().enumerate() {
                data.add(at).write_unaligned(handle.as_raw_fd());
            }
        }
    }
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the message points to bytes and control data of the lengths that it states; the
    // kernel only reads them.
    let len = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, flags) };
    usize::try_from(len).map_err(|_| Errno::last())
}

/// accept4(2), non-blocking and close-on-exec.
pub(crate) fn accept(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no address is asked for; the descriptor is open.
    let raw =
        unsafe { libc::accept4(fd.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// The connections in the kernel's queue of a TCP listener, and the limit of that queue: for a
/// socket that listens, `tcpi_unacked` and `tcpi_sacked` (tcp_get_info of the kernel).
///
/// # Errors
/// As getsockopt(2); EOPNOTSUPP for other sockets.
pub(crate) fn accept_queue(fd: BorrowedFd<'_>) -> Result<(u32, u32), Errno> {
    // SAFETY: a tcp_info of zeros is valid.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most the length that it is told, and any bytes are valid there.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    Errno::result(result).map(|_| (info.tcpi_unacked, info.tcpi_sacked))
}

/// Takes over a descriptor that this process was started with. The caller guarantees that nothing
/// else in this process owns that number.
///
/// # Errors
/// EBADF if it is not open.
pub(crate) fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: asks about a number, touches no memory.
    if number < 0 || unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open; it was inherited under this number for this purpose.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes a descriptor close-on-exec.
pub(crate) fn close_on_exec(number: RawFd) {
    // SAFETY: changes a flag of a descriptor; touches no memory.
    unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
}

/// Makes executed programs inherit a descriptor.
pub(crate) fn keep_on_exec(number: RawFd) {
    // SAFETY: changes a flag of a descriptor; touches no memory.
    unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
}

/// A copy of a descriptor known only by number, close-on-exec.
pub(crate) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    duplicate_from(number, 3)
}

/// The same, with a number that is not lower than `least`.
pub(crate) fn duplicate_from(number: RawFd, least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: makes a new descriptor or fails; touches no memory.
    let raw = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, least) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// The set of the signals with these numbers, including realtime signals, for which nix has no
/// names. Numbers that are no signals, or that the C library keeps for itself, are skipped.
pub(crate) fn signal_set(numbers: impl IntoIterator<Item = i32>) -> SigSet {
    // SAFETY: a set on the stack, emptied before it is used; sigaddset refuses other numbers.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for number in numbers {
            libc::sigaddset(&raw mut set, number);
        }
        SigSet::from_sigset_t_unchecked(set)
    }
}

/// Restores the default action of SIGCHLD: it may have been inherited as ignored, and then children
/// can't be waited for (waitpid(2)).
pub(crate) fn default_child_signal() {
    // SAFETY: sets an action that has no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// This process was switched to SCHED_BATCH, which its children must not inherit.
static BATCHES: AtomicBool = AtomicBool::new(false);

/// Tells the kernel not to preempt others whenever this thread is woken (sched(7), SCHED_BATCH),
/// unless another policy was chosen for it. Needs no privilege.
pub(crate) fn schedule_in_batches() -> io::Result<()> {
    // SAFETY: asks about the calling thread.
    if unsafe { libc::sched_getscheduler(0) } != libc::SCHED_OTHER {
        return Ok(());
    }
    set_policy(libc::SCHED_BATCH)?;
    BATCHES.store(true, Ordering::Relaxed);
    Ok(())
}

fn set_policy(policy: libc::c_int) -> io::Result<()> {
    // SAFETY: a parameter of zeros is valid, and the only one for the policies used here.
    let parameter: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: reads the parameter; 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// True if the kernel signals whole groups by a descriptor of their leader (Linux 6.9). A kernel
/// that does not know this returns EINVAL; a sandbox returns ENOSYS or EPERM for the whole call.
pub(crate) fn can_signal_groups() -> bool {
    let own = open_process(nix::unistd::getpid().as_raw());
    // If this process leads no group, that group is empty.
    own.is_ok_and(|fd| matches!(signal_group(fd.as_fd(), None), Ok(()) | Err(Errno::ESRCH)))
}

/// pidfd_open(2): a descriptor for a process that is not reaped yet, close-on-exec.
pub(crate) fn open_process(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: makes a descriptor or fails; touches no memory.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let raw = RawFd::try_from(raw).unwrap_or(-1);
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// pidfd_send_signal(2) to the group that a process leads or led, with PIDFD_SIGNAL_PROCESS_GROUP.
/// Without a signal it only checks whether the group has a process.
///
/// # Errors
/// ESRCH if the group is empty.
pub(crate) fn signal_group(leader: BorrowedFd<'_>, signal: Option<Signal>) -> Result<(), Errno> {
    const PROCESS_GROUP: libc::c_uint = 1 << 2;
    let number = signal.map_or(0, |signal| signal as libc::c_int);
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open; without a siginfo_t no memory is read.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, leader.as_raw_fd(), number, info, PROCESS_GROUP)
    };
    Errno::result(result).map(drop)
}

/// What a child needs between fork and exec, prepared before: nothing may be allocated then.
#[derive(Debug)]
pub(crate) struct Child {
    /// Its end of the channel.
    pub(crate) channel: RawFd,
    /// Its soft limit on open files.
    pub(crate) soft_files: u64,
    /// Whether it leads a session of its own.
    pub(crate) own_session: bool,
    pub(crate) environ: Environ,
    /// The listeners that it gets as descriptors 3 and up. None of them has a number that another
    /// one gets.
    pub(crate) listeners: Vec<OwnedFd>,
}

/// The variables of a child, as environ(7) has them.
#[derive(Debug)]
pub(crate) struct Environ {
    /// `NAME=value`, each with its closing zero. What `pointers` points to.
    entries: Vec<Vec<u8>>,
    pointers: Vec<*const libc::c_char>,
    /// Where the digits of the child's process id go.
    pid: Option<*mut u8>,
}

// SAFETY: the pointers lead into `entries`, which belong to the same value and never move.
unsafe impl Send for Environ {}
// SAFETY: as above; only a child, which has one thread, writes through them, into its own memory.
unsafe impl Sync for Environ {}

impl Environ {
    /// How many digits a process id can have.
    const DIGITS: usize = 10;

    /// These variables, and one that holds the child's process id, which is known only later.
    ///
    /// # Errors
    /// EINVAL if one contains a zero byte.
    pub(crate) fn new(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        pid: Option<&str>,
    ) -> io::Result<Environ> {
        let mut entries = Vec::new();
        for (name, value) in variables {
            let entry = [name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat();
            if entry.iter().position(|byte| *byte == 0) != Some(entry.len() - 1) {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            entries.push(entry);
        }
        if let Some(name) = pid {
            entries.push([name.as_bytes(), b"=", &[0; Self::DIGITS + 1]].concat());
        }
        let of_pid = entries
            .last_mut()
            .zip(pid)
            .and_then(|(entry, name)| Some(entry.get_mut(name.len() + 1..)?.as_mut_ptr()));
        let pointers = entries.iter().map(|entry| entry.as_ptr().cast());
        let pointers = pointers.chain([std::ptr::null()]).collect();
        Ok(Environ { entries, pointers, pid: of_pid })
    }

    /// Makes this the environment of the calling process, a new child: what it executes gets it.
    fn enter(&self) {
        unsafe extern "C" {
            static mut environ: *const *const libc::c_char;
        }
        debug_assert_eq!(self.pointers.len(), self.entries.len() + 1);
        if let Some(place) = self.pid {
            // SAFETY: touches no memory.
            let mut rest = unsafe { libc::getpid() }.unsigned_abs();
            let mut digits = [0_u8; Self::DIGITS];
            let mut at = Self::DIGITS;
            while at > 0 && (rest > 0 || at == Self::DIGITS) {
                at -= 1;
                // Less than 10.
                digits[at] = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            // SAFETY: the entry has room for all digits and a zero behind them; nothing else in
            // this process, which has one thread, uses it.
            unsafe {
                std::ptr::copy_nonoverlapping(digits.as_ptr().add(at), place, Self::DIGITS - at);
            }
        }
        // SAFETY: the array ends with a null pointer and lives until the child executes a program.
        unsafe { environ = self.pointers.as_ptr() };
    }
}

/// Makes the child, between fork and exec, keep its channel and get its listeners, lead a session of
/// its own if asked to, restore the soft limit on open files and the scheduling policy, and start
/// with default signal actions, an empty signal mask and its environment. The command must not have
/// one.
///
/// A child that gets listeners may not notice the end of a channel, so it gets SIGTERM when the
/// thread that started it ends.
pub(crate) fn prepare_child(command: &mut Command, child: Child) {
    let batches = BATCHES.load(Ordering::Relaxed);
    // SAFETY: touches no memory.
    let parent = unsafe { libc::getpid() };
    let prepare = move || {
        // Only calls that signal-safety(7) allows, and no allocation; sched_setscheduler(2) and
        // prctl(2) are bare system calls.
        if batches {
            let _ = set_policy(libc::SCHED_OTHER);
        }
        // SAFETY: touches no memory. It fails for the leader of a group, which a new child is not.
        if child.own_session && unsafe { libc::setsid() } < 0 {
            return Err(io::Error::last_os_error());
        }
        for signal in 1..=64 {
            // It is refused for SIGKILL, SIGSTOP, and the two that the C library keeps for itself.
            // SAFETY: sets an action that has no handler.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        // SAFETY: a set on the stack, emptied before it is used; the limit as well.
        unsafe {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            let mut limit: libc::rlimit = std::mem::zeroed();
            if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
                limit.rlim_cur = child.soft_files.min(limit.rlim_max);
                libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
            }
            if libc::fcntl(child.channel, libc::F_SETFD, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        for (number, listener) in (FIRST_LISTENER..).zip(&child.listeners) {
            // SAFETY: changes descriptors of this child; touches no memory.
            if unsafe { libc::dup2(listener.as_raw_fd(), number) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        if !child.listeners.is_empty() {
            // SAFETY: sets a signal; touches no memory.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                // The primary may have ended before that.
                if libc::getppid() != parent {
                    libc::raise(libc::SIGTERM);
                }
            }
        }
        child.environ.enter();
        Ok(())
    };
    // SAFETY: the closure keeps to async-signal-safe calls.
    unsafe { command.pre_exec(prepare) };
}

/// Occupies the numbers of `count` listeners, as far as they are free: nothing that a child needs
/// before it executes its program may have one of them.
///
/// # Errors
/// As open(2), fcntl(2).
pub(crate) fn occupy(count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut occupied = Vec::new();
    let end = FIRST_LISTENER.saturating_add(i32::try_from(count).unwrap_or(i32::MAX));
    if count > 0 {
        let null = OwnedFd::from(std::fs::File::open("/dev/null")?);
        loop {
            let fd = duplicate_from(null.as_raw_fd(), FIRST_LISTENER)?;
            if fd.as_raw_fd() >= end {
                // The first one may have such a number itself.
                if null.as_raw_fd() < end {
                    occupied.push(null);
                }
                break;
            }
            occupied.push(fd);
        }
    }
    Ok(occupied)
}

/// Closes a descriptor whose number stays occupied: another one is put there, close-on-exec.
pub(crate) fn vacate(number: RawFd) -> io::Result<()> {
    let null = OwnedFd::from(std::fs::File::open("/dev/null")?);
    // SAFETY: the number is that of an open descriptor which the caller owns; touches no memory.
    match unsafe { libc::dup3(null.as_raw_fd(), number, libc::O_CLOEXEC) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
