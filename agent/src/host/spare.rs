//! Open files held in reserve: a release that uses them all up must not keep its device from leaving it.

use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Files in reserve: a check needs eight (pipes, its note), verifying and switching fewer.
#[cfg(unix)]
const FILES: usize = 12;

static SPARE: Mutex<Vec<File>> = Mutex::new(Vec::new());

fn spare() -> MutexGuard<'static, Vec<File>> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Fills the reserve up, as far as there are files to be had. Low numbers count: a limit that is lowered
/// later still admits them, so this comes first at the start.
pub(crate) fn keep() {
    #[cfg(unix)]
    {
        let mut spare = spare();
        while spare.len() < FILES
            && let Ok(file) = File::open("/dev/null")
        {
            spare.push(file);
        }
    }
}

/// Gives the reserve up for what comes next: a check, a switch, the journal. Returns whether there was one:
/// whoever finds none leaves it to those who gave it up to fill it again.
pub(crate) fn give_up() -> bool {
    let mut spare = spare();
    let held = !spare.is_empty();
    spare.clear();
    held
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_is_taken_back_and_no_more() {
        keep();
        keep();
        assert_eq!(spare().len(), FILES);
        assert!(give_up());
        assert!(spare().is_empty());
        assert!(!give_up());
    }
}
