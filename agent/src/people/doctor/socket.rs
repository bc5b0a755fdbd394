//! Kernel statistics of a TCP connection, queried over netlink (`sock_diag(7)`), which gives the
//! same `tcp_info` as `getsockopt(TCP_INFO)` without a line of unsafe code.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// Statistics of one connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TcpFacts {
    /// Smoothed round trip, in microseconds.
    pub(super) round_trip_us: u32,
    /// Its mean deviation, in microseconds.
    pub(super) deviation_us: u32,
    /// Segments retransmitted.
    pub(super) sent_again: u32,
    /// Segments sent.
    pub(super) sent: u32,
    /// Path MTU, in bytes.
    pub(super) mtu: u32,
}

/// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST` of linux/netlink.h.
const REQUEST: u16 = 1;
/// `INET_DIAG_INFO` of linux/inet_diag.h: the attribute with `tcp_info` in it.
const INFO: u16 = 2;
/// Length of `struct inet_diag_msg`.
const MESSAGE: usize = 72;
/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// Queries the statistics of one connection of this machine.
pub(super) fn facts(local: SocketAddr, peer: SocketAddr) -> io::Result<TcpFacts> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    send(&socket, &request(local, peer), SendFlags::empty())?;
    let mut buffer = [0; 4096];
    // The kernel answers at once; if it does not, do not block.
    let (length, _) = recv(&socket, &mut buffer, RecvFlags::DONTWAIT)?;
    let answer = buffer.get(..length).unwrap_or_default();
    parse(answer).ok_or_else(|| io::Error::other("the kernel has no data about the connection"))
}

/// Encodes `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn request(local: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    let family: u8 = if local.is_ipv4() { 2 } else { 10 };
    let length = u32::try_from(HEADER + 56).unwrap_or(0);
    let mut bytes = Vec::new();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST.to_ne_bytes());
    bytes.extend([0; 8]);
    // Family, TCP, the attribute wanted, padding, all states.
    bytes.extend([family, 6, 1 << (INFO - 1), 0]);
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(peer.port().to_be_bytes());
    for address in [local.ip(), peer.ip()] {
        let mut field = [0; 16];
        match address {
            IpAddr::V4(address) => field[..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => field = address.octets(),
        }
        bytes.extend(field);
    }
    // Any interface, no cookie.
    bytes.extend([0; 4]);
    bytes.extend([0xff; 8]);
    bytes
}

fn parse(answer: &[u8]) -> Option<TcpFacts> {
    let short = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    if short(4)? != BY_FAMILY {
        return None;
    }
    let mut at = HEADER + MESSAGE;
    loop {
        let (length, kind) = (usize::from(short(at)?), short(at + 2)?);
        if length < 4 {
            return None;
        }
        if kind == INFO {
            return info(answer.get(at + 4..at + length)?);
        }
        // Attributes begin at multiples of four.
        at += length.next_multiple_of(4);
    }
}

/// Decodes the fields of `struct tcp_info` (linux/tcp.h); old kernels lack the later ones.
fn info(bytes: &[u8]) -> Option<TcpFacts> {
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    Some(TcpFacts {
        round_trip_us: word(68)?,
        deviation_us: word(72)?,
        sent_again: word(100)?,
        sent: word(136).unwrap_or(0),
        mtu: word(60)?,
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_kernel_tells_of_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut other, _) = listener.accept().unwrap();
        stream.write_all(&[7; 1000]).unwrap();
        other.read_exact(&mut [0; 1000]).unwrap();
        let (local, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let facts = facts(local, peer).unwrap();
        assert!(facts.mtu >= 576, "{facts:?}");
        assert!(facts.sent > 0, "{facts:?}");
        assert!(facts.round_trip_us < 1_000_000, "{facts:?}");
    }

    #[test]
    fn a_cut_answer_is_none() {
        let mut answer = vec![0; HEADER + MESSAGE];
        answer[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        for length in 0..answer.len() {
            assert_eq!(parse(&answer[..length]), None);
        }
        // A zero-length attribute must not loop forever.
        answer.extend([0; 8]);
        assert_eq!(parse(&answer), None);
    }
}
