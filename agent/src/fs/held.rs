//! Files that another program holds open, as scanners, indexers and backups do on Windows for
//! seconds at a time.

use std::io;
use std::time::Duration;

/// Pauses between attempts: 8 s in all, as long as a scanner was seen to hold a fresh program.
const PAUSES: [Duration; 12] = [
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(120),
    Duration::from_millis(300),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(1),
    Duration::from_secs(1),
    Duration::from_secs(1),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// Returns whether an error means that another program holds the file. Always false where open files can be
/// renamed and removed.
pub(crate) fn is_held(error: &io::Error) -> bool {
    cfg!(windows) && says_held(error)
}

/// Windows' codes: ERROR_ACCESS_DENIED (of a mapped image, or one pending deletion),
/// ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION, ERROR_USER_MAPPED_FILE.
fn says_held(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(5 | 32 | 33 | 1224))
}

/// Retries for some seconds while the file is held: a scan is no reason to fail.
pub(super) fn patiently<T>(act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    try_again(act, is_held, std::thread::sleep)
}

fn try_again<T>(
    mut act: impl FnMut() -> io::Result<T>,
    held: impl Fn(&io::Error) -> bool,
    mut pause: impl FnMut(Duration),
) -> io::Result<T> {
    for wait in PAUSES {
        match act() {
            Err(error) if held(&error) => pause(wait),
            other => return other,
        }
    }
    act()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARING_VIOLATION: i32 = 32;

    #[test]
    fn what_is_held_for_a_while_is_no_error() {
        let (mut tries, mut waited) = (0, Duration::ZERO);
        let act = || {
            tries += 1;
            if tries < 9 {
                Err(io::Error::from_raw_os_error(SHARING_VIOLATION))
            } else {
                Ok(tries)
            }
        };
        let done = try_again(act, says_held, |wait| waited += wait);
        assert_eq!(done.unwrap(), 9);
        assert!(waited >= Duration::from_secs(2), "{waited:?}");
    }

    #[test]
    fn what_is_held_for_ever_ends_with_its_error_after_eight_seconds() {
        let mut waited = Duration::ZERO;
        let act = || Err::<(), _>(io::Error::from_raw_os_error(1224));
        let error = try_again(act, says_held, |wait| waited += wait).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(1224));
        assert_eq!(waited, Duration::from_secs(8));
    }

    #[test]
    fn other_errors_are_told_at_once() {
        let act = || Err::<(), _>(io::Error::from_raw_os_error(2));
        let error = try_again(act, says_held, |_| panic!("nothing to wait for")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(2));
    }
}
