//! End of a certificate's validity, by a walk over its DER that trusts no length field.

/// Splits off one element: its tag, its contents, and the bytes after it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 3 {
            return None;
        }
        let (digits, rest) = rest.split_at_checked(count)?;
        let length = digits
            .iter()
            .fold(0, |length, digit| length << 8 | usize::from(*digit));
        (length, rest)
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

/// Returns `notAfter` of a certificate (X.509, RFC 5280), in seconds since the epoch; `None` if it
/// cannot be parsed.
pub(super) fn not_after(der: &[u8]) -> Option<i64> {
    let (_, certificate, _) = element(der)?;
    let (_, body, _) = element(certificate)?;
    let (tag, _, after_version) = element(body)?;
    // The version field exists from X.509 v2 on.
    let rest = if tag == 0xa0 { after_version } else { body };
    let (_, _, after_serial) = element(rest)?;
    let (_, _, after_algorithm) = element(after_serial)?;
    let (_, _, after_issuer) = element(after_algorithm)?;
    let (_, validity, _) = element(after_issuer)?;
    let (_, _, end) = element(validity)?;
    let (tag, text, _) = element(end)?;
    let text = std::str::from_utf8(text).ok()?;
    // UTCTime has a two-digit year: 50 to 99 are in the 20th century.
    let text = match tag {
        0x17 if text.get(..2)?.parse::<u8>().ok()? >= 50 => format!("19{text}"),
        0x17 => format!("20{text}"),
        0x18 => text.to_owned(),
        _ => return None,
    };
    let part = |from: usize, to: usize| text.get(from..to);
    let time = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(8, 10)?,
        part(10, 12)?,
        part(12, 14)?
    );
    time.parse().ok().map(jiff::Timestamp::as_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrap(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let contents = parts.concat();
        let mut bytes = vec![tag, 0x82];
        bytes.extend(u16::try_from(contents.len()).unwrap().to_be_bytes());
        bytes.extend(contents);
        bytes
    }

    /// A certificate that holds only what the walk passes.
    fn certificate(tag: u8, end: &str) -> Vec<u8> {
        let times = [wrap(tag, &[b"200101000000Z"]), wrap(tag, &[end.as_bytes()])];
        let validity = wrap(0x30, &[&times[0], &times[1]]);
        let version = wrap(0xa0, &[b"\x02\x01\x02"]);
        let (serial, empty) = (wrap(2, &[b"\x01"]), wrap(0x30, &[]));
        let body = wrap(0x30, &[&version, &serial, &empty, &empty, &validity]);
        wrap(0x30, &[&body])
    }

    #[test]
    fn both_ways_to_write_a_time_are_read() {
        assert_eq!(
            not_after(&certificate(0x17, "300102030405Z")),
            Some(1_893_553_445)
        );
        assert_eq!(
            not_after(&certificate(0x18, "20300102030405Z")),
            Some(1_893_553_445)
        );
        assert_eq!(
            not_after(&certificate(0x17, "990102030405Z")),
            Some(915_246_245)
        );
    }

    #[test]
    fn no_cut_and_no_changed_byte_brings_it_down() {
        let whole = certificate(0x17, "300102030405Z");
        for cut in 0..whole.len() {
            let _ = not_after(&whole[..cut]);
            for value in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut changed = whole.clone();
                changed[cut] = value;
                let _ = not_after(&changed);
            }
        }
    }
}
