//! Writer of a file that leaves out long runs of zeros.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write};

/// Bytes of zeros that are left out, at multiples of their number.
const HOLE: usize = 64 << 10;

/// Writer at the end of a file: what is not written there is zero, and takes no room.
pub(super) struct Sparse<'a> {
    file: &'a File,
    at: u64,
}

impl<'a> Sparse<'a> {
    /// Writes behind the present end.
    pub(super) fn new(file: &'a File) -> io::Result<Self> {
        let at = file.metadata()?.len();
        Ok(Self { file, at })
    }
}

impl Write for Sparse<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self.file;
        let take = HOLE - usize::try_from(self.at % HOLE as u64).unwrap_or(0);
        let block = &bytes[..bytes.len().min(take)];
        if block.len() < HOLE || block.iter().any(|byte| *byte != 0) {
            file.seek(SeekFrom::Start(self.at))?;
            file.write_all(block)?;
        }
        self.at += block.len() as u64;
        Ok(block.len())
    }

    /// Gives the file its length, which zeros at its end do not.
    fn flush(&mut self) -> io::Result<()> {
        if self.file.metadata()?.len() < self.at {
            self.file.set_len(self.at)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_as_it_was_written_and_long_runs_of_zeros_take_no_room() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"there").unwrap();
        let mut wanted = b"there".to_vec();
        let mut bytes = vec![0; 4 << 20];
        bytes[77_777] = 7;
        bytes[1 << 20] = 7;
        let mut out = Sparse::new(file.as_file()).unwrap();
        // What is left of a block at the end of a part is written.
        for part in bytes.chunks(1_000_000) {
            out.write_all(part).unwrap();
        }
        out.flush().unwrap();
        wanted.extend(&bytes);
        assert!(std::fs::read(file.path()).unwrap() == wanted);
        #[cfg(target_os = "linux")]
        {
            use std::os::unix::fs::MetadataExt as _;
            let hole = tempfile::tempfile().unwrap();
            hole.set_len(4 << 20).unwrap();
            let room = |file: &File| file.metadata().unwrap().blocks() * 512;
            assert!(room(&hole) > 1 << 20 || room(file.as_file()) < 1 << 20);
        }
    }
}
