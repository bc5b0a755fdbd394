//! Archives that executables lie in.

/// The regular files of a tar archive: name, begin and end. `None` if it is none.
pub(crate) fn tar_members(image: &[u8]) -> Option<Vec<(String, usize, usize)>> {
    if image.get(257..262)? != b"ustar" {
        return None;
    }
    let mut members = Vec::new();
    let mut archive = tar::Archive::new(image);
    for entry in archive.entries().ok()? {
        let Ok(entry) = entry else { break };
        let start = usize::try_from(entry.raw_file_position()).ok()?;
        let end = start.checked_add(usize::try_from(entry.size()).ok()?)?;
        if end > image.len() {
            break;
        }
        if entry.header().entry_type().is_file() && start < end {
            let name = entry.path().ok().map(|p| p.to_string_lossy().into_owned());
            members.push((name.unwrap_or_default(), start, end));
        }
    }
    Some(members)
}
